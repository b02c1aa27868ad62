"""A new dataset: a definition that works for a user's own CSV or Parquet file, to be edited."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from include.datasets import definitions
from include.datasets.definition import usable
from include.datasets.sources import PROJECT, File
from include.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = Path(__file__).parent
TEMPLATE = FOLDER / "template.txt"
# A numeric target with more values than this is a number to predict, not a class.
MOST_CLASSES = 20

_LIKELY_TARGETS = ("target", "label", "class", "y", "outcome", "result")
_LIKELY_IDS = ("id", "uuid", "key", "index", "record", "number")


def read(source: Path) -> pa.Table:
    """The file's rows.

    Raises:
        UserError: It is not there, cannot be read, or is empty.
    """
    path = str(source.absolute())
    # Neither Arrow nor a manifest takes a path that is no text.
    if any("\ud800" <= letter <= "\udfff" for letter in path):
        raise UserError(f"The path {path!r} is not in UTF-8.", "Rename the file or its directory.")
    rows = File(path).rows(None, None)
    if rows.num_rows == 0:
        raise UserError(f"The file {source} has no rows.", "Give one with rows.")
    return rows


def likely_target(rows: pa.Table) -> str:
    """The column that is most likely to be predicted: one with a telling name, else the last."""
    names = {name.lower(): name for name in rows.column_names}
    return next((names[name] for name in _LIKELY_TARGETS if name in names), rows.column_names[-1])


def write(name: str, source: Path, target: str, folder: Path = FOLDER) -> Path:
    """Writes the definition of a dataset, and returns its file.

    Args:
        source: A CSV or Parquet file.
        target: The column to predict.

    Raises:
        UserError: The name cannot be a dataset's or is taken, the file cannot be used, has no such column, or one that
            no model predicts.
    """
    if not usable(name):
        raise UserError(
            f"{name!r} cannot name a dataset.", "Use a lower-case letter, then letters, digits, underscores."
        )
    file = folder / f"{name}.py"
    if file.exists() or name in definitions.find(folder).valid:
        raise UserError(f"The name {name!r} is taken.", "Choose another.")
    rows = read(source)
    if target not in rows.column_names:
        raise UserError(
            f"{source} has no column {target!r}; it has {', '.join(rows.column_names)}.", "Name one of them."
        )
    text = _filled(name, source, target, rows)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise UserError(
            f"The definition made of {source} would be no Python: {error}.", "Rename the file and its columns."
        ) from error
    file.write_text(text, encoding="utf-8")
    return file.relative_to(PROJECT) if file.is_relative_to(PROJECT) else file


def _filled(name: str, source: Path, target: str, rows: pa.Table) -> str:
    _require_predictable(source, target, rows)
    record_id, event_time, regression = _record_id(rows, target), _event_time(rows, target), _is_number(rows, target)
    source = source.absolute()
    place = str(source.relative_to(PROJECT) if source.is_relative_to(PROJECT) else source)
    numbered = None if record_id else _free_name(rows)
    number = f", number={_quoted(numbered)}" if numbered else ""
    named = {record_id, event_time, target}
    features = [column for column in rows.column_names if column not in named and _usable(rows, column)]
    if not features:
        raise UserError(f"{source} has no column to learn {target!r} from.", "Give it numbers or categories.")
    fields = [
        f"    name={_quoted(name)},",
        *(['    kind="regression",'] if regression else []),
        f"    source=File({_quoted(place)}{number}),",
        f"    record_id={_quoted(record_id or numbered)},",
        *([f"    event_time={_quoted(event_time)},"] if event_time else []),
        f"    target={_quoted(target)},",
        f"    features={_quoted(features)},",
        f"    split={_time_split(rows, event_time) if event_time else 'HashSplit(test=0.25)'},",
        "    models=models,",
    ]
    values = {
        "{name}": name,
        # It stands in a docstring, where quotes and backslashes mean the same as in any other text.
        "{file}": _quoted(source.name)[1:-1],
        "{split}": "TimeSplit" if event_time else "HashSplit",
        "{kind}": "Regressor" if regression else "Classifier",
        "{linear}": "Ridge" if regression else "LogisticRegression",
        "{linear_call}": "Ridge()" if regression else "LogisticRegression(max_iter=1000)",
        "{fields}": "\n".join(fields),
    }
    # All at once: what is put in may look like a mark itself.
    return re.sub("|".join(map(re.escape, values)), lambda mark: values[mark[0]], TEMPLATE.read_text(encoding="utf-8"))


def _quoted(value: str | list[str] | None) -> str:
    """Texts as Python writes them, in double quotes: every escape of JSON means the same in Python."""
    return json.dumps(value, ensure_ascii=False)


def _free_name(rows: pa.Table) -> str:
    """A name for the number of the row that no column has."""
    names = ("row", "row_number", *(f"row_number_{number}" for number in range(2, rows.num_columns + 2)))
    return next(name for name in names if name not in rows.column_names)


def _require_predictable(source: Path, target: str, rows: pa.Table) -> None:
    """Refuses now what would fail only when it is published or trained."""
    import pyarrow.types as types

    kind = rows.schema.field(target).type
    if types.is_date(kind) or types.is_timestamp(kind):
        raise UserError(
            f"The column {target!r} of {source} is a date, and no model predicts dates.",
            "Name another, or add one with a number, such as the days until then.",
        )
    if rows[target].null_count == len(rows[target]):
        raise UserError(f"The column {target!r} of {source} is empty.", "Name one with values to predict.")
    if types.is_dictionary(kind):
        kind = kind.value_type
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    if not (number or types.is_boolean(kind) or _is_text(kind)):
        raise UserError(
            f"The column {target!r} of {source} is {kind}, and no model predicts that.",
            "Name one of numbers or categories.",
        )


def _record_id(rows: pa.Table, target: str) -> str | None:
    import pyarrow.compute as pc
    import pyarrow.types as types

    def identifies(column: str) -> bool:
        found = rows[column]
        kind = found.type
        # Publishing can neither compare nor hash values of other types; floating ones may be equal and differ.
        known = types.is_integer(kind) or types.is_decimal(kind) or _is_text(kind) or _is_time(kind)
        return bool(
            known and column != target and not found.null_count and pc.count_distinct(found).as_py() == len(found)
        )

    unique = [column for column in rows.column_names if identifies(column)]
    telling = [
        c for c in unique if re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", c).lower())[-1] in _LIKELY_IDS
    ]
    return next(iter([*telling, *[c for c in unique if _is_time(rows.schema.field(c).type)]]), None)


def _event_time(rows: pa.Table, target: str) -> str | None:
    import pyarrow.types as types

    return next(
        (
            field.name
            for field in rows.schema
            if (types.is_timestamp(field.type) or types.is_date(field.type))
            and field.name != target
            and not rows[field.name].null_count
        ),
        None,
    )


def _is_number(rows: pa.Table, target: str) -> bool:
    import pyarrow.compute as pc
    import pyarrow.types as types

    kind = rows.schema.field(target).type
    # A manifest has no decimals, so that they cannot be its classes.
    if types.is_floating(kind) or types.is_decimal(kind):
        return True
    return bool(types.is_integer(kind) and pc.count_distinct(rows[target]).as_py() > MOST_CLASSES)


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_string(kind) or types.is_large_string(kind))


def _is_time(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return bool(types.is_temporal(kind) and not types.is_interval(kind))


def _usable(rows: pa.Table, column: str) -> bool:
    """Whether a model of the template can learn from the column: a number, or one of a few categories."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    found, kind = rows[column], rows.schema.field(column).type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return True
    if types.is_dictionary(kind) and _is_text(kind.value_type):
        # Distinct values cannot be counted in a dictionary, whose chunks may differ.
        found, kind = found.cast(kind.value_type), kind.value_type
    # Of many other types, such as lists, they cannot be counted either.
    return _is_text(kind) and pc.count_distinct(found).as_py() <= max(MOST_CLASSES, len(found) // 20)


def _time_split(rows: pa.Table, event_time: str) -> str:
    """A quarter of the time that the data spans."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Fractions of a microsecond do not matter here.
    span = pc.min_max(rows[event_time].cast(pa.timestamp("us"), safe=False).cast(pa.int64())).as_py()
    seconds = (span["max"] - span["min"]) // 4_000_000
    unit, length = next(((u, n) for u, n in (("day", 86_400), ("hour", 3_600)) if seconds >= n), ("second", 1))
    count = max(1, seconds // length)
    plural = "s" if count > 1 else ""
    return f'TimeSplit(test="{count} {unit}{plural}")'
