"""Grid: candidates that the training form adds to a run, one for each combination of hyper-parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    from include.datasets import Dataset

MAX_CANDIDATES = 100
"""The candidates of one run: each is a task, and each raises the gate's threshold for all."""

_MAX_NAME = 200

Grid = Mapping[str, Mapping[str, Sequence[Any]]]
"""Model, parameter, values: ``{"logistic": {"C": [0.1, 1]}}``."""

SCHEMA: Mapping[str, Any] = {
    "type": ["null", "object"],
    "additionalProperties": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {
            "type": "array",
            "minItems": 1,
            "uniqueItems": True,
            "items": {"type": ["number", "string", "boolean", "null"]},
        },
    },
}
"""JSON schema of a ``Grid``, or null."""


def estimators(dataset: Dataset, grid: Grid | None) -> dict[str, Any]:
    """The unfitted estimators of a run by name: those of the definition and the candidates of the grid.

    A candidate is named after its model and parameters, such as ``logistic C=0.1``. The same parameters always give
    the same name, so that the candidate is one model line in all runs.

    Raises:
        NonRetryableError: The grid names an unknown model or parameter, has a value that the estimator does not accept,
            or has too many candidates.
    """
    from include.datasets.definition import BASELINE

    _require_shape(grid)
    known = dataset.estimators()
    found = dict(known)
    count = sum(math.prod(map(len, parameters.values())) for parameters in (grid or {}).values())
    if count > MAX_CANDIDATES:
        raise _invalid(f"it has {count} candidates, more than the {MAX_CANDIDATES} allowed", "Remove some values.")
    for model, parameters in (grid or {}).items():
        if model not in known or model == BASELINE:
            names = ", ".join(name for name in known if name != BASELINE)
            raise _invalid(f"dataset {dataset.name!r} has no model {model!r} to vary", f"Use one of {names}.")
        found.update(_candidates(model, known[model], parameters))
    return found


def _require_shape(grid: Any) -> None:
    """Checks a grid that a command or a program passes. Airflow checks its form against ``SCHEMA``."""
    example = 'Write {"forest": {"max_depth": [3, 5]}}.'
    if not isinstance(grid or {}, Mapping):
        raise _invalid(f"{grid!r} does not map models to their parameters", example)
    for model, parameters in (grid or {}).items():
        if not isinstance(parameters, Mapping) or not parameters:
            raise _invalid(f"{model!r} has {parameters!r} instead of parameters with lists of values", example)
        for name, values in parameters.items():
            if not isinstance(values, Sequence) or isinstance(values, str) or not values:
                raise _invalid(f"{name!r} of {model!r} has {values!r} instead of a list of values", example)


def _candidates(model: str, estimator: Any, parameters: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, Any]]:
    from sklearn.base import clone

    names = {_full(model, estimator, name): None for name in parameters}
    if len(names) < len(parameters):
        raise _invalid(f"{model!r} has a parameter twice, under its long and its short name", "Write it once.")
    for values in itertools.product(*parameters.values()):
        chosen = dict(zip(names, values, strict=True))
        described = ", ".join(f"{_short(estimator, name)}={_text(chosen[name])}" for name in sorted(chosen))
        candidate = clone(estimator).set_params(**chosen)
        _require_valid(f"{model} {described}", candidate)
        yield f"{model} {described}", candidate


def _full(model: str, estimator: Any, name: str) -> str:
    """The parameter's name with the names of the steps before it."""
    known = estimator.get_params(deep=True)
    fitting = [name] if name in known else [full for full in known if full.rpartition("__")[2] == name]
    if len(fitting) == 1:
        return str(fitting[0])
    if fitting:
        raise _invalid(f"{name!r} of {model!r} is ambiguous", f"Write {' or '.join(sorted(fitting))}.")
    plain = sorted(full for full, value in known.items() if not hasattr(value, "get_params") and full != "steps")
    raise _invalid(f"{model!r} has no parameter {name!r}", f"Use one of {', '.join(plain)}.")


def _short(estimator: Any, name: str) -> str:
    """The last part of a parameter's name if no other parameter of the estimator ends with it, else the whole name."""
    last = name.rpartition("__")[2]
    alike = [other for other in estimator.get_params(deep=True) if other.rpartition("__")[2] == last]
    return last if len(alike) == 1 else name


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _require_valid(name: str, candidate: Any) -> None:
    if len(name) > _MAX_NAME:
        raise _invalid(
            f"the name {name[:50]!r}… has {len(name)} characters, more than the {_MAX_NAME} allowed",
            "Use fewer parameters.",
        )
    for part in (candidate, *candidate.get_params(deep=True).values()):
        if not hasattr(part, "_parameter_constraints"):
            # An estimator of another library checks its parameters only when it is fitted.
            continue
        try:
            part._validate_params()
        except (ValueError, TypeError) as error:
            raise _invalid(f"{name}: {str(error).rstrip('.')}", "Correct the value.") from error


def _invalid(what: str, remedy: str) -> NonRetryableError:
    return NonRetryableError(f"Invalid grid: {what}.", remedy, code=Code.INVALID_GRID)
