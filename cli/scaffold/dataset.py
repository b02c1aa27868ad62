"""A new dataset: a definition that works for a user's own file, to be edited."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.datasets import definitions
from include.datasets.definition import usable
from include.datasets.profile import Answers, Profile, Taken, profile, quoted
from include.datasets.sources import File
from include.errors import NonRetryableError, UserError
from include.project import ROOT

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = ROOT / "include/datasets"
TEMPLATE = Path(__file__).parent / "dataset.txt"
# What the columns made of categories may take together.
CATEGORY_BYTES = 256 * 1024 * 1024
MAX_CATEGORIES = 50
_DEFAULTS = {"delimiter": ",", "quote": '"', "decimal": ".", "encoding": "utf-8", "skip": 0}


@dataclass(frozen=True)
class Data:
    """A user's file.

    Attributes:
        path: Where it is.
        options: Those of ``File`` with which it is read, as far as they are not the defaults.
        rows: All of its rows.
    """

    path: Path
    options: Mapping[str, Any]
    rows: pa.Table


@dataclass(frozen=True)
class Written:
    """A definition that was written.

    Attributes:
        file: Where it is.
        profile: What each column was taken for.
        split: The split, as it is written in the definition.
    """

    file: Path
    profile: Profile
    split: str
    numbered: str | None = None
    columns: list[Taken] = field(default_factory=list)


def free(name: str, folder: Path = FOLDER) -> Path:
    """The file of a dataset that is to have this name.

    Raises:
        UserError: The name cannot be a dataset's, or is taken.
    """
    if not usable(name):
        raise UserError(
            f"{name!r} cannot name a dataset.", "Use a lower-case letter, then letters, digits, underscores."
        )
    file = folder / f"{name}.py"
    if file.exists() or name in definitions.find(folder).valid:
        raise UserError(f"The name {name!r} is taken.", "Choose another.")
    return file


def read(source: Path, header: bool | None = None, types: Mapping[str, str] | None = None, **known: Any) -> Data:
    """The file's rows, with the dialect that it is found to have.

    Args:
        header: Whether the first row names the columns; None when that is to be found out.
        types: Types of columns, see ``File``.
        known: Options of ``File`` that are not to be found out.

    Raises:
        UserError: It is not there, cannot be read or is empty, or it is not clear whether it has a header.
    """
    from include.datasets.sources import file as files
    from include.datasets.sources import sniff

    path = str(source.absolute())
    # Neither Arrow nor a manifest takes a path that is no text.
    if any("\ud800" <= letter <= "\udfff" for letter in path):
        raise UserError(f"The path {path!r} is not in UTF-8.", "Rename the file or its directory.")
    options = {name: value for name, value in known.items() if value not in (None, ())}
    # Files that are not there or something else altogether are refused as File refuses them.
    with File(path)._legible():
        text = not files.is_parquet(source)
    if not text:
        options = {}
    else:
        with File(path)._legible():
            found = sniff.sniff(source, **options)
        if header is False:
            found.options.pop("names", None)
        names_lines = {"skip": found.options["skip"]} if "names" in found.options else {}
        options = {**found.options, **options, **names_lines}
        if "names" not in options:
            if header is None and found.header is None:
                raise UserError(
                    f"The first line of {source} may be a row already: {', '.join(found.first[:6])}.",
                    "Give --header if it names the columns, or --no-header if it does not.",
                )
            if header is False:
                options["names"] = [f"column_{number}" for number in range(1, len(found.first) + 1)]
        options = {name: value for name, value in options.items() if value != _DEFAULTS.get(name)}
    rows = File(path, types=types or {}, **options).rows(None, None)
    if rows.num_rows == 0:
        raise UserError(f"The file {source} has no rows.", "Give one with rows.")
    return Data(source, options, rows)


def write(name: str, source: Path | Data, answers: Answers | str, folder: Path = FOLDER) -> Written:
    """Writes the definition of a dataset.

    Args:
        source: The file, or what was read of it.
        answers: What the user has decided; the target alone is enough.

    Raises:
        UserError: The name cannot be a dataset's or is taken, the file cannot be used, or there is something that only
            the user can decide.
    """
    file = free(name, folder)
    answers = Answers(answers) if isinstance(answers, str) else answers
    data = source if isinstance(source, Data) else read(source, types=answers.types)
    found = profile(str(data.path), data.rows, answers)
    numbered = None if found.record_id else _free_name(data.rows)
    splits = ["HashSplit(test=0.25)"]
    if found.event_time and (by_time := _time_split(data.rows, found.event_time)):
        splits.insert(0, by_time)
    for split in splits:
        try:
            _require_rows(name, data, found, numbered, split)
            break
        except NonRetryableError as error:
            if split == splits[-1]:
                raise UserError(
                    error.what, error.remedy or "Give a file with more rows, or another --target."
                ) from error
    text = _filled(name, data, found, answers.target, numbered, split)
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise UserError(
            f"The definition made of {data.path} would be no Python: {error}.", "Rename the file and its columns."
        ) from error
    file.write_text(text, encoding="utf-8")
    shown = file.relative_to(ROOT) if file.is_relative_to(ROOT) else file
    return Written(shown, found, split, numbered)


def _require_rows(name: str, data: Data, found: Profile, numbered: str | None, split: str) -> None:
    """Refuses now what publishing would refuse: too few rows to train on or to test on."""
    from include.datasets import Dataset, HashSplit, TimeSplit
    from include.versions.manifest import Interval
    from include.versions.selection import select

    target = next(column.column for column in found.columns if column.role == "target")
    source = File(str(data.path.absolute()), number=numbered, types=found.types, **data.options)
    dataset = Dataset(
        name=name,
        source=source,
        record_id=found.record_id or numbered or "",
        event_time=found.event_time,
        target=target,
        kind=found.kind,
        features=found.features,
        split=eval(split, {"HashSplit": HashSplit, "TimeSplit": TimeSplit}),
        models=dict,
    )
    with source.scan(None, None) as scan:
        chosen = select(dataset, scan, Interval())
    if isinstance(dataset.split, TimeSplit) and min(chosen.rows.values()) * 20 < sum(chosen.rows.values()):
        raise NonRetryableError("Most rows lie at one end of the time.")


def _filled(name: str, data: Data, found: Profile, target: str, numbered: str | None, split: str) -> str:
    regression = found.kind == "regression"
    source = data.path.absolute()
    place = str(source.relative_to(ROOT) if source.is_relative_to(ROOT) else source)
    options = {"number": numbered, **data.options, "types": dict(found.types)}
    given = [quoted(place), *(f"{key}={_python(value)}" for key, value in options.items() if value)]
    fields = [
        f"    name={quoted(name)},",
        *(['    kind="regression",'] if regression else []),
        f"    source=File({', '.join(given)}),",
        f"    record_id={quoted(found.record_id or numbered)},",
        *([f"    event_time={quoted(found.event_time)},"] if found.event_time else []),
        f"    target={quoted(target)},",
        f"    features={quoted(list(found.features))},",
        f"    split={split},",
        "    models=models,",
    ]
    each = CATEGORY_BYTES // (8 * data.rows.num_rows * max(1, len(found.categories)))
    values = {
        "{name}": name,
        # It stands in a docstring, where quotes and backslashes mean the same as in any other text.
        "{file}": quoted(source.name)[1:-1],
        "{split}": split.partition("(")[0],
        "{kind}": "Regressor" if regression else "Classifier",
        "{linear}": "Ridge" if regression else "LogisticRegression",
        "{linear_call}": "Ridge()" if regression else "LogisticRegression(max_iter=1000)",
        "{categories}": str(max(2, min(MAX_CATEGORIES, each))),
        "{fields}": "\n".join(fields),
    }
    # All at once: what is put in may look like a mark itself.
    return re.sub("|".join(map(re.escape, values)), lambda mark: values[mark[0]], TEMPLATE.read_text(encoding="utf-8"))


def _python(value: Any) -> str:
    return quoted(list(value) if isinstance(value, tuple) else value) if not isinstance(value, int) else repr(value)


def _free_name(rows: pa.Table) -> str:
    """A name for the number of the row that no column has."""
    names = ("row", "row_number", *(f"row_number_{number}" for number in range(2, rows.num_columns + 2)))
    return next(name for name in names if name not in rows.column_names)


def _time_split(rows: pa.Table, event_time: str) -> str | None:
    """A quarter of the time that the data spans; None when that is no time at all."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Fractions of a microsecond do not matter here.
    span = pc.min_max(rows[event_time].cast(pa.timestamp("us"), safe=False).cast(pa.int64())).as_py()
    seconds = (span["max"] - span["min"]) // 4_000_000
    if seconds < 1:
        return None
    unit, length = next(((u, n) for u, n in (("day", 86_400), ("hour", 3_600)) if seconds >= n), ("second", 1))
    count = max(1, seconds // length)
    plural = "s" if count > 1 else ""
    return f'TimeSplit(test="{count} {unit}{plural}")'
