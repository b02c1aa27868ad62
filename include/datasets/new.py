"""A new dataset: a definition that works for a user's own CSV or Parquet file, to be edited."""

from __future__ import annotations

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
    rows = File(str(source.absolute())).rows(None, None)
    if rows.num_rows == 0:
        raise UserError(f"The file {source} has no rows.", "Give one with rows.")
    if twice := sorted({name for name in rows.column_names if rows.column_names.count(name) > 1}):
        raise UserError(f"The file {source} has several columns {', '.join(twice)}.", "Rename all but one of each.")
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
        UserError: The name cannot be a dataset's or is taken, the file cannot be used, or has no such column.
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
    file.write_text(_filled(name, source, target, rows))
    return file.relative_to(PROJECT) if file.is_relative_to(PROJECT) else file


def _filled(name: str, source: Path, target: str, rows: pa.Table) -> str:
    record_id, event_time, regression = _record_id(rows, target), _event_time(rows), _is_number(rows, target)
    source = source.absolute()
    place = source.relative_to(PROJECT) if source.is_relative_to(PROJECT) else source
    number = "" if record_id else ', number="row"'
    named = {record_id, event_time, target}
    features = [column for column in rows.column_names if column not in named and _usable(rows, column)]
    if not features:
        raise UserError(f"{source} has no column to learn {target!r} from.", "Give it numbers or categories.")
    fields = [
        f"    name={name!r},",
        *(["    kind='regression',"] if regression else []),
        f"    source=File({str(place)!r}{number}),",
        f"    record_id={record_id or 'row'!r},",
        *([f"    event_time={event_time!r},"] if event_time else []),
        f"    target={target!r},",
        f"    features={features!r},",
        f"    split={_time_split(rows, event_time) if event_time else 'HashSplit(test=0.25)'},",
        "    models=models,",
    ]
    text = TEMPLATE.read_text()
    for mark, value in {
        "{name}": name,
        "{file}": source.name,
        "{split}": "TimeSplit" if event_time else "HashSplit",
        "{kind}": "Regressor" if regression else "Classifier",
        "{linear}": "Ridge" if regression else "LogisticRegression",
        "{linear_call}": "Ridge()" if regression else "LogisticRegression(max_iter=1000)",
        "{fields}": re.sub(r"'", '"', "\n".join(fields)),
    }.items():
        text = text.replace(mark, value)
    return text


def _record_id(rows: pa.Table, target: str) -> str | None:
    import pyarrow.compute as pc
    import pyarrow.types as types

    def identifies(column: str) -> bool:
        found = rows[column]
        return column != target and not found.null_count and pc.count_distinct(found).as_py() == len(found)

    unique = [
        column
        for column in rows.column_names
        if not types.is_floating(rows.schema.field(column).type) and identifies(column)
    ]
    telling = [
        c for c in unique if re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", c).lower())[-1] in _LIKELY_IDS
    ]
    return next(iter([*telling, *[c for c in unique if types.is_temporal(rows.schema.field(c).type)]]), None)


def _event_time(rows: pa.Table) -> str | None:
    import pyarrow.types as types

    return next(
        (
            field.name
            for field in rows.schema
            if (types.is_timestamp(field.type) or types.is_date(field.type)) and not rows[field.name].null_count
        ),
        None,
    )


def _is_number(rows: pa.Table, target: str) -> bool:
    import pyarrow.compute as pc
    import pyarrow.types as types

    kind = rows.schema.field(target).type
    if types.is_floating(kind):
        return True
    return bool(types.is_integer(kind) and pc.count_distinct(rows[target]).as_py() > MOST_CLASSES)


def _usable(rows: pa.Table, column: str) -> bool:
    """Whether a model of the template can learn from the column: a number, or one of a few categories."""
    import pyarrow.compute as pc
    import pyarrow.types as types

    kind = rows.schema.field(column).type
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return True
    few = pc.count_distinct(rows[column]).as_py() <= max(MOST_CLASSES, len(rows[column]) // 20)
    return bool((types.is_string(kind) or types.is_large_string(kind)) and few)


def _time_split(rows: pa.Table, event_time: str) -> str:
    """A quarter of the time that the data spans."""
    import pyarrow as pa
    import pyarrow.compute as pc

    span = pc.min_max(rows[event_time].cast(pa.timestamp("us"))).as_py()
    seconds = int((span["max"] - span["min"]).total_seconds() / 4)
    unit, length = next(((u, n) for u, n in (("day", 86_400), ("hour", 3_600)) if seconds >= n), ("second", 1))
    count = max(1, seconds // length)
    return f"TimeSplit(test='{count} {unit}{'s' if count > 1 else ''}')"
