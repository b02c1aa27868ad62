"""What the columns of a file are taken for: which names the records, is predicted, is learned from, and why."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from include.datasets.sources import text
from include.datasets.sources.text import Numbers
from include.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

# Whole numbers with at most this many different values are classes.
MAX_CLASSES = 20
# The same for text; with more values it may be anything.
MAX_TEXT_CLASSES = 100
# Fewer rows say nothing about whether a column counts them.
_FEW_ROWS = 10
_NAMED = 3
_LIKELY_TARGETS = ("target", "label", "class", "y", "outcome", "result")
_LIKELY_IDS = ("id", "ids", "uuid", "guid", "key", "identifier", "index", "record", "number")
_INDEX = re.compile(r"unnamed: \d+(_level_\d+)?|level_\d+|index|__index_level_\d+__|rownames?|row\.names|\.\.\.1")
# Texts that mean in many files that a value is missing.
_MARKERS = frozenset((*text.MISSING, "?", "-", "--", ".", "None", "<NA>", "NaT"))
# Different texts of a column that are looked at to find out what they have in common.
_LOOKED_AT = 100_000
# Numbers in other forms than Python's, and what to do about them.
_FORMS = {
    "commas": re.compile(r"[+-]?[1-9]\d{0,2}(,\d{3})+(\.\d+)?"),
    "points": re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+"),
    "decimal comma": re.compile(r"[+-]?\d*,\d+"),
    "percent": re.compile(r"[+-]?\d[\d.,]* ?%"),
    "unit": re.compile(r"[-+(]*[$€£¥] ?\d[\d.,]*\)?|[+-]?\d[\d.,]* ?([$€£¥]|[a-zA-Z]{1,3})"),
}
_REMEDIES = {
    "commas": "--thousands ',' reads these",
    "points": "--decimal ',' --thousands . reads these",
    "decimal comma": "--decimal ',' reads these",
    "percent": "to make these numbers, write them without the percent sign in the file",
    "unit": "to make these numbers, write them without the unit in the file",
}

Kind = Literal["classification", "regression"]


@dataclass(frozen=True)
class Answers:
    """What the user has decided.

    Attributes:
        target: The column to predict.
        kind: What is predicted; None: what the values look like.
        record_id: The column that names a record; None: the one that looks like it.
        features: Columns to learn from that would be left out otherwise.
        types: Types of columns, names out of ``text.TYPES``.
    """

    target: str
    kind: Kind | None = None
    record_id: str | None = None
    features: Sequence[str] = ()
    types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Taken:
    """What a column is taken for.

    Attributes:
        column: Its name.
        role: ``record_id``, ``event_time``, ``target``, ``feature``, or ``left out``.
        why: What is in it, or why it is left out.
    """

    column: str
    role: str
    why: str


@dataclass(frozen=True)
class Profile:
    """What a dataset can be made of.

    Attributes:
        kind: What is predicted.
        record_id: The column that names a record; None when the number of the row has to.
        event_time: The column of the time, if there is one.
        features: The columns to learn from.
        categories: Those of them that are text.
        types: Types of columns that the source has to be given.
        columns: What every column is taken for, in their order.
    """

    kind: Kind
    record_id: str | None
    event_time: str | None
    features: Sequence[str]
    categories: Sequence[str]
    types: Mapping[str, str]
    columns: Sequence[Taken]


def likely_target(rows: pa.Table) -> str:
    """The column that is most likely to be predicted: one with a telling name, else the last."""
    names = {name.lower(): name for name in rows.column_names}
    return next((names[name] for name in _LIKELY_TARGETS if name in names), rows.column_names[-1])


def profile(source: str, rows: pa.Table, answers: Answers) -> Profile:
    """Decides what each column is taken for.

    Args:
        source: The file's name, for errors.
        rows: All of its rows.

    Raises:
        UserError: There is something only the user can decide; it names the option that decides it.
    """
    return _Profiler(source, rows, answers).profile()


@dataclass
class _Column:
    """A column and what is known about it, computed once."""

    name: str
    values: pa.ChunkedArray

    def __post_init__(self) -> None:
        import pyarrow.compute as pc

        self.type = self.values.type
        self.rows = len(self.values)
        self.nulls = self.values.null_count
        self._distinct: int | None = None
        self._compute = pc

    @property
    def distinct(self) -> int:
        """How many different values there are, nulls aside."""
        if self._distinct is None:
            self._distinct = int(self._compute.count_distinct(self.values).as_py())
        return self._distinct

    @property
    def is_unique(self) -> bool:
        """Whether it is different in every row."""
        return not self.nulls and self.distinct == self.rows

    @property
    def is_number(self) -> bool:
        import pyarrow.types as types

        return bool(types.is_integer(self.type) or types.is_floating(self.type) or types.is_decimal(self.type))

    @property
    def is_text(self) -> bool:
        import pyarrow.types as types

        return bool(types.is_string(self.type) or types.is_large_string(self.type))

    @property
    def is_moment(self) -> bool:
        import pyarrow.types as types

        return bool(types.is_timestamp(self.type) or types.is_date(self.type))

    @property
    def is_named_like_an_id(self) -> bool:
        return bool(
            re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower().strip("_"))[-1] in _LIKELY_IDS
            or self.is_named_like_an_index
        )

    @property
    def is_named_like_an_index(self) -> bool:
        return _INDEX.fullmatch(self.name.lower()) is not None

    def numbers(self) -> NDArray[np.float64]:
        """Its numbers without nulls."""
        import pyarrow as pa

        return self.values.drop_null().cast(pa.float64(), safe=False).to_numpy()

    def some(self) -> str:
        """A few of its values."""
        found = self._compute.unique(self.values.drop_null().slice(0, 1_000)).to_pylist()[:_NAMED]
        return _listed(found)


class _Profiler:
    def __init__(self, source: str, rows: pa.Table, answers: Answers) -> None:
        self._source, self._answers = source, answers
        self._types = dict(answers.types)
        self._columns = {name: _Column(name, _plain(rows[name])) for name in rows.column_names}
        self._rows = rows.num_rows
        for option, name in (("--target", answers.target), ("--id", answers.record_id)):
            self._require_column(option, name)
        for name in answers.features:
            self._require_column("--feature", name)

    def profile(self) -> Profile:
        target = self._columns[self._answers.target]
        kind, about = self._kind(target)
        record_id = self._record_id()
        event_time = next(
            (c.name for c in self._columns.values() if c.is_moment and not c.nulls and c is not target), None
        )
        taken, features, categories = [], [], []
        for name, column in self._columns.items():
            if column is target:
                taken.append(Taken(name, "target", about))
            elif name == record_id:
                same = ", and the time" if name == event_time else ""
                taken.append(Taken(name, "record_id", self._names_records(column) + same))
            elif name == event_time:
                taken.append(Taken(name, "event_time", str(column.type)))
            else:
                why = self._why_not(column)
                asked = name in self._answers.features
                if why and not asked:
                    taken.append(Taken(name, "left out", why))
                    continue
                if asked:
                    self._require_usable(column)
                features.append(name)
                if column.is_text or _is_boolean(column):
                    categories.append(name)
                taken.append(Taken(name, "feature", self._says(column)))
        if not features:
            raise self._without_features(target, taken)
        return Profile(kind, record_id, event_time, features, categories, self._types, taken)

    def _without_features(self, target: _Column, taken: Sequence[Taken]) -> UserError:
        why = {t.column: "the time" if t.role == "event_time" else t.why for t in taken if t.role != "target"}
        reasons = f" ({'; '.join(f'{name}: {reason}' for name, reason in why.items())})" if why else ""
        possible = [name for name in why if self._columns[name].is_number or self._columns[name].is_text]
        possible = [name for name in possible if self._columns[name].nulls < self._rows]
        options = " or ".join(f"--feature {_shell(name)}" for name in possible[:_NAMED])
        return UserError(
            f"{self._source} has no column to learn {target.name!r} from{reasons}.",
            f"Give the file numbers or categories{f'; {options} learns from it all the same' if options else ''}.",
        )

    def _require_column(self, option: str, name: str | None) -> None:
        if name is not None and name not in self._columns:
            has = ", ".join(self._columns)
            raise UserError(f"{self._source} has no column {name!r}; it has {has}.", f"Name one of them with {option}.")

    def _kind(self, target: _Column) -> tuple[Kind, str]:
        """What is predicted, and in words."""
        about = f"The column {target.name!r} of {self._source}"
        if target.is_moment:
            raise UserError(
                f"{about} is a date, and no model predicts dates.",
                "Name another, or add one with a number, such as the days until then.",
            )
        if target.nulls == target.rows:
            raise UserError(f"{about} is empty.", "Name one with values to predict.")
        if not (target.is_number or target.is_text or _is_boolean(target)):
            raise UserError(f"{about} is {target.type}, and no model predicts that.", "Name numbers or categories.")
        asked = self._answers.kind
        kind = asked or (self._likely_kind(about, target))
        self._require_kind(about, target, kind)
        rest = f"; {_rows(target.nulls)} without it, not used" if target.nulls else ""
        if kind == "regression":
            return kind, f"a number{rest}"
        says = f"{target.distinct} classes: {self._classes(target)}"
        return kind, says + rest

    def _likely_kind(self, about: str, target: _Column) -> Kind:
        if target.is_text:
            if target.name not in self._answers.types and (odd := _odd_numbers(target)):
                raise UserError(
                    f"{about} is text, and most of it is numbers: {odd.says}.",
                    f"If it is a number: {odd.remedy}. If these are {target.distinct} classes: --kind classification.",
                )
            if target.distinct > MAX_TEXT_CLASSES or target.distinct * 2 > target.rows - target.nulls:
                raise UserError(
                    f"{about} is text with {target.distinct} different values in {target.rows - target.nulls} rows, "
                    f"such as {target.some()}.",
                    "Name another with --target; or give --kind classification if these are classes.",
                )
            if markers := _markers(target):
                counted = ", ".join(f"{value!r} in {_rows(count)}" for value, count in markers.items())
                raise UserError(
                    f"{about} holds {counted}, which may mean that there is no value.",
                    f"If so: {_nulls(markers)} leaves these rows out. If it is a class: --kind classification.",
                )
            return "classification"
        if _is_boolean(target):
            return "classification"
        if target.is_named_like_an_index and _counts_rows(target):
            raise UserError(
                f"{about} counts the rows, which is nothing to predict.",
                "Name another with --target; or give --kind regression if it is a number to predict.",
            )
        few = target.distinct <= MAX_CLASSES and target.distinct * 2 <= target.rows - target.nulls
        return "classification" if few and _is_whole(target) else "regression"

    def _require_kind(self, about: str, target: _Column, kind: Kind) -> None:
        if kind == "regression" and not target.is_number:
            odd = _odd_numbers(target) if target.is_text else None
            raise UserError(
                f"{about} is {'text' if target.is_text else target.type}, and a regression predicts numbers.",
                f"To predict a number: {odd.remedy}."
                if odd
                else "Name another with --target, or --kind classification.",
            )
        if kind == "classification" and target.distinct < 2:
            raise UserError(f"{about} has the same value in every row: {target.some()}.", "Name another with --target.")
        if kind == "regression":
            self._as_number(target)
        elif target.is_number:
            if not _is_whole(target):
                raise UserError(
                    f"{about} has numbers with fractions, such as {target.some()}, which are not classes.",
                    f"Give --kind regression, or {_as_text(target)}.",
                )
            import pyarrow.types as types

            if not types.is_integer(target.type):
                # Such as 1.0 and 0.0, which pandas makes of 1 and 0 when some are missing.
                self._types.setdefault(target.name, "integer")
        elif target.is_text:
            self._remain_text(target)

    def _classes(self, target: _Column) -> str:
        import pyarrow.compute as pc

        values = pc.unique(target.values.drop_null()).to_pylist()
        if self._types.get(target.name) == "integer":
            values = [int(value) for value in values]
        return _listed(sorted(values), 10)

    def _record_id(self) -> str | None:
        if (asked := self._answers.record_id) is not None:
            column = self._columns[asked]
            if not column.is_unique or not _identifies(column):
                raise UserError(
                    f"The column {asked!r} of {self._source} does not name the records: {_not_unique(column)}.",
                    "Name another with --id, remove these rows, or leave --id out for the number of the row.",
                )
            self._remain_text(column)
            return asked
        unique = [
            c for c in self._columns.values() if c.name != self._answers.target and _identifies(c) and c.is_unique
        ]
        unique = [c for c in unique if c.name not in self._answers.features]
        telling = [c for c in unique if c.is_named_like_an_id and not c.is_named_like_an_index]
        others: Sequence[Callable[[_Column], bool]] = (
            lambda c: c.is_moment,
            lambda c: c.is_named_like_an_index,
            _counts_rows,
        )
        found = [*telling, *(c for likely in others for c in unique if likely(c))]
        if not found:
            return None
        self._remain_text(found[0])
        return found[0].name

    def _names_records(self, column: _Column) -> str:
        if column.is_named_like_an_index and column.is_number:
            return "the index of the rows, as pandas and R write it"
        if _counts_rows(column):
            return "counts the rows"
        return f"different in every row, such as {column.some()}"

    def _why_not(self, column: _Column) -> str | None:
        """Why nothing is learned from a column; None when something is."""
        if column.nulls == column.rows:
            return "empty"
        if column.is_number:
            return self._why_not_number(column)
        if _is_boolean(column):
            return None
        if column.is_moment:
            missing = f", and {_rows(column.nulls)} without one" if column.nulls else ""
            return f"{column.type}: a time{missing}; no model of the template learns from times"
        if not column.is_text:
            return f"{column.type}, which no model of the template takes"
        if column.name not in self._answers.types and (odd := _odd_numbers(column)):
            as_text = f"; {_as_text(column)} keeps it as text" if column.distinct <= self._most(column) else ""
            return f"text, and most of it is numbers: {odd.says}; {odd.remedy}{as_text}"
        if column.is_named_like_an_id and column.distinct * 2 >= column.rows:
            return f"names records, but {_not_unique(column)}"
        most_differ = column.distinct > 2 and column.distinct * 2 > column.rows - column.nulls
        if column.distinct > self._most(column) or most_differ:
            return f"text with {column.distinct} different values, such as {column.some()}{self._code(column)}"
        return None

    def _most(self, column: _Column) -> int:
        """The number of categories that can be learned from."""
        return max(MAX_CLASSES, column.rows // 20)

    def _why_not_number(self, column: _Column) -> str | None:
        if column.is_named_like_an_id and _is_whole(column) and column.distinct * 2 >= column.rows:
            if column.is_unique:
                return "another number of the row or the record"
            return f"names records, but {_not_unique(column)}"
        if _counts_rows(column):
            return f"counts the rows: {column.some()}, …; --feature {_shell(column.name)} learns from it all the same"
        return None

    def _says(self, column: _Column) -> str:
        missing = f", {column.nulls} missing" if column.nulls else ""
        if column.is_number:
            self._as_number(column)
            return f"numbers{missing}"
        if column.is_text:
            self._remain_text(column)
            markers = _markers(column)
            hint = f"; {_nulls(markers)} makes {'it' if len(markers) == 1 else 'them'} missing" if markers else ""
            count = "1 category" if column.distinct == 1 else f"{column.distinct} categories"
            return f"{count}{missing}, such as {column.some()}{self._code(column)}{hint}"
        return f"true or false{missing}"

    def _code(self, column: _Column) -> str:
        found = text.codes(column.values)
        return f" (text, since {found[0]} as a number would not be the same)" if found and _like_numbers(column) else ""

    def _as_number(self, column: _Column) -> None:
        """Decimals have to be handed to models as numbers."""
        import pyarrow.types as types

        if types.is_decimal(column.type) or types.is_float16(column.type):
            self._types.setdefault(column.name, "number")

    def _remain_text(self, column: _Column) -> None:
        """Text that looks like numbers is written down as text, so that it stays so in another version."""
        import pyarrow.types as types

        if types.is_string(column.type) and _like_numbers(column):
            self._types.setdefault(column.name, "text")

    def _require_usable(self, column: _Column) -> None:
        if column.nulls == column.rows or not (column.is_number or column.is_text or _is_boolean(column)):
            raise UserError(
                f"The column {column.name!r} of {self._source} is {column.type}, which no model of the template takes.",
                "Leave it out of --feature.",
            )


@dataclass(frozen=True)
class _Odd:
    says: str
    remedy: str


def _odd_numbers(column: _Column) -> _Odd | None:
    """What keeps text from being numbers, when most of it is numbers or can be read as such."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.values.drop_null().slice(0, _LOOKED_AT)
    counted = pc.value_counts(values.filter(pc.invert(text.missing(values))))
    counts = dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
    odd = text.misfits(pa.array(list(counts), pa.string()), pa.float64(), Numbers())
    forms = {form: [value for value in odd if pattern.fullmatch(value.strip())] for form, pattern in _FORMS.items()}
    # A few such as 4wd or 2nd are names.
    if len(forms["unit"]) <= MAX_CLASSES:
        forms["unit"] = []
    # A text is of the first form that it has.
    seen: set[str] = set()
    for form, values in forms.items():
        forms[form] = [value for value in values if value not in seen]
        seen |= set(values)
    others = sorted((value for value in odd if value not in seen), key=lambda value: -counts[value])
    if not odd or sum(counts[value] for value in others) * 2 >= sum(counts.values()):
        return None
    says, remedies = [], []
    if others:
        says.append(_listed([f"{value!r} in {_rows(counts[value])}" for value in others]))
        remedies.append(f"{_nulls(others[:_NAMED])} makes it a missing value")
    for form, values in forms.items():
        if values:
            says.append(f"written as {_listed(values)}")
            remedies.append(_REMEDIES[form])
    return _Odd(" and ".join(says), ", ".join(remedies))


def _markers(column: _Column) -> dict[str, int]:
    """The categories that may mean that there is no value, and the number of rows of each."""
    import pyarrow.compute as pc

    counted = pc.value_counts(column.values.drop_null()).to_pylist()
    found = {pair["values"]: pair["counts"] for pair in counted if pair["values"].strip() in _MARKERS}
    # Signs, such as + and -, are what they are.
    others = [pair["values"] for pair in counted if pair["values"] not in found]
    return found if any(letter.isalnum() for value in others for letter in value) else {}


def _nulls(values: Iterable[str]) -> str:
    """The options that make these texts missing values."""
    return " ".join(f"--null {_shell(value)}" for value in dict.fromkeys(value.strip() for value in values))


def _as_text(column: _Column) -> str:
    """The option that keeps a column as text."""
    return f"--types {_shell(f'{column.name}=text')}"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _like_numbers(column: _Column) -> bool:
    import pyarrow as pa

    try:
        text.convert(column.values.drop_null().combine_chunks(), pa.float64(), Numbers())
    except pa.ArrowInvalid:
        return False
    return True


def _counts_rows(column: _Column) -> bool:
    """Whether a column of numbers only says which row it is: in steps, or as numbers that are used up."""
    import numpy as np

    if not column.is_number or column.rows < _FEW_ROWS or column.distinct < 0.9 * column.rows:
        return False
    values = column.numbers()
    if not np.isfinite(values).all():
        return False
    steps = np.diff(values)
    step = np.median(steps)
    if step and np.count_nonzero(np.isclose(steps, step, rtol=1e-6, atol=0)) >= 0.9 * len(steps):
        return True
    whole = bool((values == np.floor(values)).all())
    return whole and values.max() - values.min() + 1 <= 1.1 * column.rows


def _is_whole(column: _Column) -> bool:
    import numpy as np
    import pyarrow.types as types

    if not column.is_number:
        return False
    if types.is_integer(column.type):
        return True
    values = column.numbers()
    return bool(np.isfinite(values).all() and (values == np.floor(values)).all())


def _identifies(column: _Column) -> bool:
    import pyarrow.types as types

    kind = column.type
    # Floating numbers may be equal and differ.
    whole = types.is_integer(kind) or types.is_decimal(kind)
    moment = types.is_temporal(kind) and not (types.is_duration(kind) or types.is_interval(kind))
    return bool(whole or column.is_text or moment or types.is_binary(kind) or types.is_fixed_size_binary(kind))


def _not_unique(column: _Column) -> str:
    """Why a column does not name the records."""
    import pyarrow.compute as pc

    says = []
    if column.nulls:
        says.append(f"{_rows(column.nulls)} {'has' if column.nulls == 1 else 'have'} none")
    if (repeated := column.rows - column.nulls - column.distinct) > 0:
        counts = pc.value_counts(column.values.drop_null())
        twice = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
        repeat = "repeats" if repeated == 1 else "repeat"
        says.append(f"{_rows(repeated)} {repeat} a value, such as {twice['values']} in {twice['counts']} rows")
    return ", and ".join(says) or f"it is {column.type}"


def _is_boolean(column: _Column) -> bool:
    import pyarrow.types as types

    return bool(types.is_boolean(column.type))


def _plain(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values without what only says how they are stored."""
    from include.datasets.sources.plain import plain

    return plain(values)


def _listed(values: Sequence[Any], most: int = _NAMED) -> str:
    shown = [_short(str(value)) for value in values[:most]]
    return ", ".join(shown) + (f" and {len(values) - most} more" if len(values) > most else "")


def _short(value: str) -> str:
    value = "".join(letter if letter.isprintable() else "?" for letter in value)
    return value if len(value) <= 40 else f"{value[:39]}…"


def _shell(value: str) -> str:
    """As it is written on a command line."""
    import shlex

    return shlex.quote(value)


def quoted(value: object) -> str:
    """Texts as Python writes them, in double quotes: every escape of JSON means the same in Python."""
    return json.dumps(value, ensure_ascii=False)
