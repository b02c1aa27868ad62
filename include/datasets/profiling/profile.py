"""The profile of a file: the role of each column, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from include.datasets.profiling.column import Column
from include.datasets.profiling.number_notation import odd_numbers
from include.datasets.profiling.target import MAX_CLASSES, Kind, kind_of_target
from include.datasets.profiling.types import StatedTypes
from include.datasets.profiling.wording import MAX_LISTED, null_options, rows, shell, text_option
from include.datasets.sources import text
from include.error_codes import Code
from include.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

_LIKELY_TARGETS = ("target", "label", "class", "y", "outcome", "result")


class Role(StrEnum):
    """The role of a column in a definition."""

    RECORD_ID = "record_id"
    EVENT_TIME = "event_time"
    TARGET = "target"
    FEATURE = "feature"
    LEFT_OUT = "left out"


@dataclass(frozen=True)
class Answers:
    """The user's decisions.

    Attributes:
        target: The column to predict.
        kind: Whether it is a class or a number; None to decide by its values.
        record_id: The column that identifies a record; None to find one.
        features: Columns to learn from that would otherwise be left out.
        types: Types of columns, names of ``text.TYPES``.
    """

    target: str
    kind: Kind | None = None
    record_id: str | None = None
    features: Sequence[str] = ()
    types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ColumnRole:
    """The role of a column.

    Attributes:
        column: Its name.
        role: Its role.
        why: A description of its values, or the reason why it is left out.
    """

    column: str
    role: Role
    why: str


@dataclass(frozen=True)
class Profile:
    """What the definition of a dataset needs to know about a file.

    Attributes:
        kind: Whether the target is a class or a number.
        record_id: The column that identifies a record; None if the number of the row has to.
        event_time: The column with the time of a record, if there is one.
        features: The columns to learn from.
        categories: The features that are categories.
        types: Types of columns that the source has to state.
        columns: The role of every column, in the file's order.
    """

    kind: Kind
    record_id: str | None
    event_time: str | None
    features: Sequence[str]
    categories: Sequence[str]
    types: Mapping[str, str]
    columns: Sequence[ColumnRole]


def likely_target(rows: pa.Table) -> str:
    """The column that is most likely the target: one with a name such as ``label``, otherwise the last."""
    names: list[str] = rows.column_names
    found = {name.lower(): name for name in names}
    return next((found[name] for name in _LIKELY_TARGETS if name in found), names[-1])


def profile(source: str, rows: pa.Table, answers: Answers) -> Profile:
    """Decides the role of each column.

    Args:
        source: The file's name, for errors.
        rows: All of its rows.

    Raises:
        UserError: A column cannot have its role, or the user has to decide; the message names the option.
    """
    return _Profiler(source, rows, answers).profile()


class _Profiler:
    def __init__(self, source: str, rows: pa.Table, answers: Answers) -> None:
        self._source, self._answers = source, answers
        self._types = StatedTypes(answers.types)
        self._columns = {name: Column(name, rows[name]) for name in rows.column_names}
        self._require_column("--target", answers.target)
        if answers.record_id is not None:
            self._require_column("--id", answers.record_id)
        for name in answers.features:
            self._require_column("--feature", name)

    def profile(self) -> Profile:
        target = self._columns[self._answers.target]
        kind, about_target = kind_of_target(self._source, target, self._answers.kind, self._types)
        record_id = self._record_id()
        times = (c.name for c in self._columns.values() if c.is_time and not c.nulls and c is not target)
        event_time = next(times, None)
        roles, features, categories = [], [], []
        for name, column in self._columns.items():
            if column is target:
                roles.append(ColumnRole(name, Role.TARGET, about_target))
            elif name == record_id:
                also = ", and the time" if name == event_time else ""
                roles.append(ColumnRole(name, Role.RECORD_ID, _about_record_id(column) + also))
            elif name == event_time:
                roles.append(ColumnRole(name, Role.EVENT_TIME, str(column.type)))
            elif name not in self._answers.features and (why := self._why_left_out(column)):
                roles.append(ColumnRole(name, Role.LEFT_OUT, why))
            else:
                self._require_usable(column)
                features.append(name)
                if column.is_text or column.is_boolean:
                    categories.append(name)
                roles.append(ColumnRole(name, Role.FEATURE, self._about_feature(column)))
        if not features:
            raise self._no_features(target, roles)
        return Profile(kind, record_id, event_time, features, categories, self._types, roles)

    def _require_column(self, option: str, name: str) -> None:
        if name not in self._columns:
            raise UserError(
                f"{self._source} has no column {name!r}; it has {', '.join(self._columns)}.",
                f"Name one of them with {option}.",
                code=Code.COLUMN_MISSING,
            )

    def _require_usable(self, column: Column) -> None:
        if column.is_empty or not (column.is_number or column.is_text or column.is_boolean):
            kind = "empty" if column.is_empty else str(column.type)
            raise UserError(
                f"The column {column.name!r} of {self._source} is {kind}; the models of the template cannot use it.",
                "Remove it from --feature.",
                code=Code.COLUMN_UNUSABLE,
            )

    def _no_features(self, target: Column, roles: Sequence[ColumnRole]) -> UserError:
        reasons = {
            r.column: "the time" if r.role is Role.EVENT_TIME else r.why for r in roles if r.role is not Role.TARGET
        }
        listed = f": {'; '.join(f'{name!r} ({reason})' for name, reason in reasons.items())}" if reasons else ""
        columns = [self._columns[name] for name in reasons]
        usable = [column.name for column in columns if (column.is_number or column.is_text) and not column.is_empty]
        options = " or ".join(f"--feature {shell(name)}" for name in usable[:MAX_LISTED])
        return UserError(
            f"{self._source} has no column from which to predict {target.name!r}{listed}.",
            f"Add a column with numbers or categories{f', or learn from one of these: {options}' if options else ''}.",
            code=Code.FEATURES_MISSING,
        )

    def _record_id(self) -> str | None:
        if (chosen := self._answers.record_id) is not None:
            column = self._columns[chosen]
            if not column.is_unique or not column.may_identify:
                raise UserError(
                    f"The column {chosen!r} of {self._source} does not identify records: {column.why_not_unique()}.",
                    "Name another column with --id, remove these rows, or omit --id to use the number of the row.",
                    code=Code.RECORD_ID_NOT_UNIQUE,
                )
            self._types.add_text(column)
            return chosen
        others = [c for c in self._columns.values() if c.name not in (self._answers.target, *self._answers.features)]
        unique = [c for c in others if c.may_identify and c.is_unique]
        named = [c for c in unique if c.is_named_like_an_id and not c.is_named_like_an_index]
        conditions: Sequence[Callable[[Column], bool]] = (
            lambda c: c.is_time,
            lambda c: c.is_named_like_an_index,
            lambda c: c.counts_rows,
        )
        found = [*named, *(c for condition in conditions for c in unique if condition(c))]
        if not found:
            return None
        self._types.add_text(found[0])
        return found[0].name

    def _why_left_out(self, column: Column) -> str | None:
        """Why the column is not a feature; None if it is."""
        if column.is_empty:
            return "empty"
        if column.is_number:
            return _why_number_left_out(column)
        if column.is_boolean:
            return None
        if column.is_time:
            missing = f", missing in {rows(column.nulls)}" if column.nulls else ""
            return f"{column.type}: a time{missing}; the models of the template do not learn from times"
        if not column.is_text:
            return f"{column.type}, which the models of the template cannot use"
        max_categories = max(MAX_CLASSES, column.rows // 20)
        if column.name not in self._answers.types and (odd := odd_numbers(column)):
            as_text = f"; {text_option(column.name)} keeps it as text" if column.distinct <= max_categories else ""
            return f"mostly numbers, but has {odd.description}; {odd.remedy}{as_text}"
        if column.is_named_like_an_id and column.distinct * 2 >= column.rows:
            return f"looks like an id, but {column.why_not_unique()}"
        most_differ = column.distinct > 2 and column.distinct * 2 > column.rows - column.nulls
        if column.distinct > max_categories or most_differ:
            return f"text with {column.distinct} different values, such as {column.examples()}{_about_codes(column)}"
        return None

    def _about_feature(self, column: Column) -> str:
        missing = f", {column.nulls} missing" if column.nulls else ""
        if column.is_number:
            self._types.add_number(column)
            return f"numbers{missing}"
        if column.is_text:
            self._types.add_text(column)
            markers = column.markers()
            hint = f"; {null_options(markers)} makes {'it' if len(markers) == 1 else 'them'} missing" if markers else ""
            count = "1 category" if column.distinct == 1 else f"{column.distinct} categories"
            return f"{count}{missing}, such as {column.examples()}{_about_codes(column)}{hint}"
        return f"true or false{missing}"


def _why_number_left_out(column: Column) -> str | None:
    if column.is_named_like_an_id and column.is_whole and column.distinct * 2 >= column.rows:
        if column.is_unique:
            return "another number of the row or the record"
        return f"looks like an id, but {column.why_not_unique()}"
    if column.counts_rows:
        return f"numbers the rows: {column.examples()}, …; --feature {shell(column.name)} learns from it nevertheless"
    return None


def _about_record_id(column: Column) -> str:
    if column.is_named_like_an_index and column.is_number:
        return "the index of the rows, as pandas and R write it"
    if column.counts_rows:
        return "numbers the rows"
    return f"different in every row, such as {column.examples()}"


def _about_codes(column: Column) -> str:
    found = text.codes(column.values)
    return f" (text, since {found[0]} as a number would not be the same)" if found and column.reads_as_numbers else ""
