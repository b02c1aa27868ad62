"""The names of models, read from the source of a definition."""

from __future__ import annotations

from typing import Any

import pytest

from include.datasets import definitions, model_names


def literal() -> dict[str, Any]:
    tree = object()
    return {"tree": tree, "forest": None}


def computed() -> dict[str, Any]:
    return {name: None for name in ("tree", "forest")}


def partly() -> dict[str, Any]:
    return {"tree": None, **computed()}


def branched(large: bool = False) -> dict[str, Any]:
    if large:
        return {"forest": None}
    return {"tree": None}


def test_a_dictionary_with_literal_keys_is_read() -> None:
    assert model_names.names(literal) == ["tree", "forest"]


@pytest.mark.parametrize("models", [computed, partly, branched, lambda: {"tree": None}, dict])
def test_names_that_only_a_call_can_tell_are_unknown(models: Any) -> None:
    assert model_names.names(models) is None


def test_the_names_are_those_that_the_function_returns() -> None:
    for dataset in definitions.find().valid.values():
        assert model_names.names(dataset.models) == list(dataset.models())
