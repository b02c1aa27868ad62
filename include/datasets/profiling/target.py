"""The target: whether it is a class or a number, and whether it can be predicted at all."""

from __future__ import annotations

from typing import Literal

from include.datasets.profiling.column import Column
from include.datasets.profiling.number_notation import odd_numbers
from include.datasets.profiling.types import StatedTypes
from include.datasets.profiling.wording import listed, null_options, rows, text_option
from include.error_codes import Code
from include.errors import UserError

Kind = Literal["classification", "regression"]

# Whole numbers with at most this many different values are classes.
MAX_CLASSES = 20
# The same for text; with more values it may be anything.
MAX_TEXT_CLASSES = 100
MAX_LISTED_CLASSES = 10


def kind_of_target(source: str, target: Column, chosen: Kind | None, types: StatedTypes) -> tuple[Kind, str]:
    """Whether the target is a class or a number, and a description of its values.

    Args:
        source: The file's name, for errors.
        chosen: The kind that the user chose, if any.
        types: The function adds the type that the target needs.

    Raises:
        UserError: The target cannot be predicted, or the user has to decide what its values are.
    """
    about = f"The column {target.name!r} of {source}"
    if target.is_time:
        raise _unusable(
            f"{about} is a date, and models cannot predict dates.",
            "Name another column, or add one with a number, such as the days until then.",
        )
    if target.is_empty:
        raise _unusable(f"{about} is empty.", "Name a column with values.")
    if not (target.is_number or target.is_text or target.is_boolean):
        raise _unusable(f"{about} is {target.type}, which models cannot predict.", "Name numbers or categories.")
    kind = chosen or _likely_kind(about, target, target.name in types)
    if kind == "regression":
        _require_numbers(about, target)
        types.add_number(target)
        description = "a number"
    else:
        _require_classes(about, target)
        if target.is_number:
            types.add_integer(target)
        elif target.is_text:
            types.add_text(target)
        description = f"{target.distinct} classes: {_classes(target, types)}"
    missing = f"; {rows(target.nulls)} without it, not used" if target.nulls else ""
    return kind, description + missing


def _likely_kind(about: str, target: Column, has_type: bool) -> Kind:
    if target.is_text:
        _require_clear_classes(about, target, has_type)
        return "classification"
    if target.is_boolean:
        return "classification"
    if target.is_named_like_an_index and target.counts_rows:
        raise UserError(
            f"{about} numbers the rows, which is nothing to predict.",
            "Name another column with --target, or give --kind regression if it is a number to predict.",
            code=Code.TARGET_UNCLEAR,
        )
    few = target.distinct <= MAX_CLASSES and target.distinct * 2 <= target.rows - target.nulls
    return "classification" if few and target.is_whole else "regression"


def _require_clear_classes(about: str, target: Column, has_type: bool) -> None:
    if not has_type and (odd := odd_numbers(target)):
        raise UserError(
            f"{about} is mostly numbers, but has {odd.description}.",
            f"To predict a number: {odd.remedy}. To predict its {target.distinct} different values as classes: --kind "
            "classification.",
            code=Code.TARGET_UNCLEAR,
        )
    if target.distinct > MAX_TEXT_CLASSES or target.distinct * 2 > target.rows - target.nulls:
        raise UserError(
            f"{about} is text with {target.distinct} different values in {rows(target.rows - target.nulls)}, such as "
            f"{target.examples()}.",
            "Name another column with --target, or give --kind classification if these are classes.",
            code=Code.TARGET_UNCLEAR,
        )
    if markers := target.markers():
        counted = ", ".join(f"{value!r} in {rows(count)}" for value, count in markers.items())
        raise UserError(
            f"{about} has {counted}, which may mean a missing value.",
            f"If so: {null_options(markers)} leaves these rows out. If it is a class: --kind classification.",
            code=Code.TARGET_UNCLEAR,
        )


def _require_numbers(about: str, target: Column) -> None:
    if target.is_number:
        return
    odd = odd_numbers(target) if target.is_text else None
    raise _unusable(
        f"{about} is {'text' if target.is_text else target.type}, and a regression predicts numbers.",
        f"To predict a number: {odd.remedy}."
        if odd
        else "Name another column with --target, or give --kind classification.",
    )


def _require_classes(about: str, target: Column) -> None:
    if target.distinct < 2:
        raise _unusable(
            f"{about} has the same value in every row: {target.examples()}.", "Name another column with --target."
        )
    if target.is_number and not target.is_whole:
        raise _unusable(
            f"{about} has numbers with fractions, such as {target.examples()}, which cannot be classes.",
            f"Give --kind regression, or {text_option(target.name)}.",
        )


def _classes(target: Column, types: StatedTypes) -> str:
    import pyarrow.compute as pc

    values = pc.unique(target.values.drop_null()).to_pylist()
    if types.get(target.name) == "integer":
        values = [int(value) for value in values]
    return listed(sorted(values), MAX_LISTED_CLASSES)


def _unusable(what: str, remedy: str) -> UserError:
    return UserError(what, remedy, code=Code.TARGET_UNUSABLE)
