"""Writes the definition of a new dataset for a user's file. It works, and is meant to be edited."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.datasets import Dataset, HashSplit, TimeSplit, definitions
from include.datasets.definition import NAME_RULE, usable
from include.datasets.profiling import Answers, Profile, Role, profile, quoted
from include.datasets.sources import File
from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.project import ROOT
from include.versions.selection import NothingToPublish

if TYPE_CHECKING:
    import pyarrow as pa

Split = HashSplit | TimeSplit

FOLDER = ROOT / "include/datasets"
TEMPLATE = Path(__file__).parent / "dataset.txt"
# The memory for all columns that encode categories.
CATEGORY_BYTES = 256 * 1024 * 1024
MAX_CATEGORIES = 50
_DEFAULTS = {"delimiter": ",", "quote": '"', "decimal": ".", "encoding": "utf-8", "skip": 0}


@dataclass(frozen=True)
class Data:
    """A user's file.

    Attributes:
        path: Its path.
        options: The options of ``File`` with which it was read that differ from the defaults.
        rows: All of its rows.
    """

    path: Path
    options: Mapping[str, Any]
    rows: pa.Table


@dataclass(frozen=True)
class Written:
    """A definition that was written.

    Attributes:
        file: Its path.
        profile: The role of each column.
        split: The split.
        numbered: The added column with the number of the row, if no column of the file identifies the records.
    """

    file: Path
    profile: Profile
    split: Split
    numbered: str | None = None


def free(name: str, folder: Path = FOLDER) -> Path:
    """The file for a new dataset with this name.

    Raises:
        UserError: The name is invalid or already taken.
    """
    if not usable(name):
        raise UserError(f"{name!r} is not a valid name for a dataset.", NAME_RULE, code=Code.INVALID_NAME)
    file = folder / f"{name}.py"
    if file.exists() or name in definitions.find(folder).valid:
        raise UserError(f"The name {name!r} is already taken.", "Choose another name.", code=Code.DEFINITION_EXISTS)
    return file


def read(source: Path, header: bool | None = None, types: Mapping[str, str] | None = None, **known: Any) -> Data:
    """Reads the file's rows with the dialect that it detects.

    Args:
        header: Whether the first row names the columns; None to detect it.
        types: The types of columns, see ``File``.
        known: Options of ``File`` that are not to be detected.

    Raises:
        UserError: The file does not exist, cannot be read or is empty, or it is unclear whether it has a header.
    """
    from include.datasets.sources import file as files

    path = str(source.absolute())
    # Neither Arrow nor a manifest accepts a path that is not UTF-8.
    if any("\ud800" <= letter <= "\udfff" for letter in path):
        raise UserError(f"The path {path!r} is not UTF-8.", "Rename the file or its directory.", code=Code.INVALID_PATH)
    with File(path).readable():
        is_text = not files.is_parquet(source)
    options = _detected(source, header, known) if is_text else {}
    rows = File(path, types=types or {}, **options).rows(None, None)
    if rows.num_rows == 0:
        raise UserError(f"The file {source} has no rows.", "Provide a file with rows.", code=Code.FILE_EMPTY)
    return Data(source, options, rows)


def _detected(source: Path, header: bool | None, known: Mapping[str, Any]) -> dict[str, Any]:
    """The options of ``File`` for a file of delimited text that differ from the defaults."""
    from include.datasets.sources import sniff

    given = {name: value for name, value in known.items() if value not in (None, ())}
    with File(str(source.absolute())).readable():
        found = sniff.sniff(source, **given)
    if header is False:
        found.options.pop("names", None)
    lines_of_names = {"skip": found.options["skip"]} if "names" in found.options else {}
    options = {**found.options, **given, **lines_of_names}
    if "names" not in options:
        if header is None and found.header is None:
            raise UserError(
                f"The first line of {source} may name the columns or be a row: {', '.join(found.first[:6])}.",
                "Give --header if it names the columns, or --no-header if it is a row.",
                code=Code.HEADER_UNCLEAR,
            )
        if header is False:
            options["names"] = [f"column_{number}" for number in range(1, len(found.first) + 1)]
    return {name: value for name, value in options.items() if value != _DEFAULTS.get(name)}


def write(name: str, source: Path | Data, answers: Answers | str, folder: Path = FOLDER) -> Written:
    """Writes the definition of a dataset.

    Args:
        source: The file, or the data that was read from it.
        answers: The user's decisions, or the target alone.

    Raises:
        UserError: The name is invalid or taken, the file cannot be used, or a decision of the user is missing.
    """
    file = free(name, folder)
    answers = Answers(answers) if isinstance(answers, str) else answers
    data = source if isinstance(source, Data) else read(source, types=answers.types)
    found = profile(str(data.path), data.rows, answers)
    numbered = None if found.record_id else _free_name(data.rows)
    splits: list[Split] = [HashSplit(test=0.25)]
    if found.event_time and (by_time := _time_split(data.rows, found.event_time)):
        splits.insert(0, by_time)
    for split in splits:
        try:
            _require_rows(name, data, found, numbered, split)
            break
        except NonRetryableError as error:
            if split is splits[-1]:
                few = isinstance(error, NothingToPublish)
                remedy = "Provide a file with more rows, or choose another --target." if few else error.remedy
                raise UserError(error.what, remedy, code=error.code) from error
    text = _filled(name, data, found, answers.target, numbered, split)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise UserError(
            f"The definition for {data.path} would not be valid Python: {error}.",
            "Rename the file and its columns.",
            code=Code.INVALID_NAME,
        ) from error
    file.write_text(text, encoding="utf-8")
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    return Written(shown, found, split, numbered)


def _require_rows(name: str, data: Data, found: Profile, numbered: str | None, split: Split) -> None:
    """Raises the errors that publishing would raise, for instance too few rows to train on or to test on."""
    from include.versions.manifest import Interval
    from include.versions.selection import select

    target = next(column.column for column in found.columns if column.role is Role.TARGET)
    source = File(str(data.path.absolute()), number=numbered, types=found.types, **data.options)
    dataset = Dataset(
        name=name,
        source=source,
        record_id=found.record_id or numbered or "",
        event_time=found.event_time,
        target=target,
        kind=found.kind,
        features=found.features,
        split=split,
        models=dict,
    )
    with source.scan(None, None) as scan:
        chosen = select(dataset, scan, Interval())
    if isinstance(split, TimeSplit) and min(chosen.rows.values()) * 20 < sum(chosen.rows.values()):
        raise NothingToPublish("Most rows are at one end of the time.")


def _filled(name: str, data: Data, found: Profile, target: str, numbered: str | None, split: Split) -> str:
    regression = found.kind == "regression"
    source = data.path.absolute()
    path = str(source.relative_to(ROOT) if source.is_relative_to(ROOT) else source)
    options = {"number": numbered, **data.options, "types": dict(found.types)}
    given = [quoted(path), *(f"{key}={_python(value)}" for key, value in options.items() if value)]
    fields = [
        f"    name={quoted(name)},",
        *(['    kind="regression",'] if regression else []),
        f"    source=File({', '.join(given)}),",
        f"    record_id={quoted(found.record_id or numbered)},",
        *([f"    event_time={quoted(found.event_time)},"] if found.event_time else []),
        f"    target={quoted(target)},",
        f"    features={quoted(list(found.features))},",
        f"    split={source_of(split)},",
        "    models=models,",
    ]
    each = CATEGORY_BYTES // (8 * data.rows.num_rows * max(1, len(found.categories)))
    values = {
        "{name}": name,
        # Inside a docstring, quotes and backslashes need the same escapes as in any other text.
        "{file}": quoted(source.name)[1:-1],
        "{split}": type(split).__name__,
        "{kind}": "Regressor" if regression else "Classifier",
        "{linear}": "Ridge" if regression else "LogisticRegression",
        "{linear_call}": "Ridge()" if regression else "LogisticRegression(max_iter=1000)",
        "{categories}": str(max(2, min(MAX_CATEGORIES, each))),
        "{fields}": "\n".join(fields),
    }
    # One substitution for all: a value may contain the name of another placeholder.
    placeholders = "|".join(map(re.escape, values))
    return re.sub(placeholders, lambda found: values[found[0]], TEMPLATE.read_text(encoding="utf-8"))


def source_of(split: Split) -> str:
    """The split as Python source."""
    return f"{type(split).__name__}(test={quoted(split.test)})"


def _python(value: Any) -> str:
    return quoted(list(value) if isinstance(value, tuple) else value) if not isinstance(value, int) else repr(value)


def _free_name(rows: pa.Table) -> str:
    """A name for the column of row numbers that no other column has."""
    names = ("row", "row_number", *(f"row_number_{number}" for number in range(2, rows.num_columns + 2)))
    return next(name for name in names if name not in rows.column_names)


def _time_split(rows: pa.Table, event_time: str) -> TimeSplit | None:
    """A split that tests on the last quarter of the time that the data spans; None if it spans less than 4 seconds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    span = pc.min_max(rows[event_time].cast(pa.timestamp("us"), safe=False).cast(pa.int64())).as_py()
    seconds = (span["max"] - span["min"]) // 4_000_000
    if seconds < 1:
        return None
    unit, length = next(((u, n) for u, n in (("day", 86_400), ("hour", 3_600)) if seconds >= n), ("second", 1))
    count = max(1, seconds // length)
    plural = "s" if count > 1 else ""
    return TimeSplit(test=f"{count} {unit}{plural}")
