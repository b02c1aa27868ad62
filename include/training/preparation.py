"""Preparation: makes an estimator reproducible before it is fitted, and checks that the model can be stored."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from include.errors import NonRetryableError
from include.registry import artifact
from include.registry.distribution import Distribution, is_frozen

if TYPE_CHECKING:
    from include.datasets import Dataset

_MAX_DEPTH = 50


def require_storable(dataset: Dataset, models: Collection[str] | None = None) -> None:
    """Checks, before anything is fitted, that the models of a definition can be stored and loaded.

    Args:
        models: The names to check; None for all.

    Raises:
        NonRetryableError: A model cannot; the error names the model and the type.
    """
    for name, estimator in dataset.estimators().items():
        if models is None or name in models:
            try:
                artifact.require_storable(prepared(estimator, 0), dataset.trusted)
            except artifact.UntrustedArtifact as error:
                about = f"Dataset {dataset.name!r}, model {name!r}"
                raise NonRetryableError(f"{about}: {error.what}", error.remedy, code=error.code) from error


def prepared(estimator: Any, seed: int) -> Any:
    """A copy of the estimator in which every unset ``random_state`` is the seed.

    This includes estimators inside estimators, splitters and other objects that they take as parameters, and the
    elements of lists and dictionaries, such as the grid of a search. Distributions of ``scipy.stats`` are replaced by
    ``Distribution``, which draws the same values.

    Args:
        seed: From 0 to 2^32 - 1.
    """
    return _visited(copy.deepcopy(estimator), seed, {}, 0)


def _visited(value: Any, seed: int, seen: dict[int, Any], depth: int) -> Any:
    """The value, changed in place where that is possible, or its replacement."""
    if is_frozen(value):
        return Distribution.of(value)
    if depth > _MAX_DEPTH or isinstance(value, str | bytes | int | float | type | None) or id(value) in seen:
        return seen.get(id(value), value)
    seen[id(value)] = value

    def visit(inner: Any) -> Any:
        return _visited(inner, seed, seen, depth + 1)

    if isinstance(value, Mapping):
        new = {name: visit(inner) for name, inner in value.items()}
        return value if all(new[name] is inner for name, inner in value.items()) else new
    if isinstance(value, list | tuple | set | frozenset):
        return _replaced(value, [visit(inner) for inner in value])
    for name, inner in _parameters(value).items():
        is_unset = name == "random_state" and inner is None and getattr(value, "shuffle", True)
        changed = seed if is_unset else visit(inner)
        if changed is not inner:
            setattr(value, name, changed)
    return value


def _parameters(value: Any) -> dict[str, Any]:
    """The parameters of an estimator, or the attributes of a splitter or a similar object of scikit-learn."""
    if hasattr(value, "get_params") and not isinstance(value, type):
        return {name: getattr(value, name, None) for name in value.get_params(deep=False)}
    if hasattr(value, "split") or type(value).__module__.partition(".")[0] == "sklearn":
        return dict(getattr(value, "__dict__", {}))
    return {}


def _replaced(old: Any, new: list[Any]) -> Any:
    if all(before is after for before, after in zip(old, new, strict=True)):
        return old
    return type(old)(*new) if hasattr(old, "_fields") else type(old)(new)
