"""Grid: candidates that the training form adds to a run, one for each combination of hyper-parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.errors import NonRetryableError

if TYPE_CHECKING:
    from include.datasets import Dataset

MAX_CANDIDATES = 100
"""Candidates of a run: each is a task, and each raises what the gate asks of all."""

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
    """The unfitted estimators of a run by name: the definition's, and the grid's candidates.

    A candidate is named after its model and parameters, such as ``logistic C=0.1``, always alike, so that it is the
    same model line in every run.

    Raises:
        NonRetryableError: The grid names what there is not, a value that its estimator does not take, or too many.
    """
    from include.datasets.definition import BASELINE

    _require_shape(grid)
    known = dataset.estimators()
    found = dict(known)
    count = sum(math.prod(map(len, parameters.values())) for parameters in (grid or {}).values())
    if count > MAX_CANDIDATES:
        raise _wrong(f"it makes {count} candidates, and at most {MAX_CANDIDATES} are tried", "Leave some out.")
    for model, parameters in (grid or {}).items():
        if model not in known or model == BASELINE:
            names = ", ".join(name for name in known if name != BASELINE)
            raise _wrong(f"{dataset.name!r} has no model {model!r} to vary; it has {names}", "Name one of these.")
        found.update(_candidates(model, known[model], parameters))
    return found


def _require_shape(grid: Any) -> None:
    """Airflow's form is held to ``SCHEMA`` by Airflow; what a command or a program gives is looked at here."""
    example = 'Write {"forest": {"max_depth": [3, 5]}}.'
    if not isinstance(grid or {}, Mapping):
        raise _wrong(f"it is {grid!r}, and not models with their parameters", example)
    for model, parameters in (grid or {}).items():
        if not isinstance(parameters, Mapping) or not parameters:
            raise _wrong(f"{model!r} is given {parameters!r}, and not its parameters", example)
        for name, values in parameters.items():
            if not isinstance(values, Sequence) or isinstance(values, str) or not values:
                raise _wrong(f"{name!r} of {model!r} is given {values!r}, and not a list of values", example)


def _candidates(model: str, estimator: Any, parameters: Mapping[str, Sequence[Any]]) -> Iterator[tuple[str, Any]]:
    from sklearn.base import clone

    names = {_full(model, estimator, asked): None for asked in parameters}
    if len(names) < len(parameters):
        raise _wrong(f"{model} has a parameter twice, by its long and its short name", "Write it once.")
    for values in itertools.product(*parameters.values()):
        chosen = dict(zip(names, values, strict=True))
        described = ", ".join(f"{_short(estimator, name)}={_text(chosen[name])}" for name in sorted(chosen))
        candidate = clone(estimator).set_params(**chosen)
        _require_valid(f"{model} {described}", candidate)
        yield f"{model} {described}", candidate


def _full(model: str, estimator: Any, asked: str) -> str:
    """The parameter's name with the names of the steps before it."""
    known = estimator.get_params(deep=True)
    fitting = [asked] if asked in known else [name for name in known if name.rpartition("__")[2] == asked]
    if len(fitting) == 1:
        return str(fitting[0])
    if fitting:
        raise _wrong(f"{asked!r} of {model} can be {' or '.join(sorted(fitting))}", "Write which.")
    plain = sorted(name for name, value in known.items() if not hasattr(value, "get_params") and name != "steps")
    raise _wrong(f"{model} has no parameter {asked!r}; it has {', '.join(plain)}", "Name one of these.")


def _short(estimator: Any, name: str) -> str:
    """The parameter's own name where no other of the estimator has it, whatever the grid holds."""
    last = name.rpartition("__")[2]
    alike = [other for other in estimator.get_params(deep=True) if other.rpartition("__")[2] == last]
    return last if len(alike) == 1 else name


def _text(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _require_valid(name: str, candidate: Any) -> None:
    if len(name) > _MAX_NAME:
        raise _wrong(f"the name {name[:50]!r}… has {len(name)} characters, and at most {_MAX_NAME} fit", "Shorten it.")
    for part in (candidate, *candidate.get_params(deep=True).values()):
        if not hasattr(part, "_parameter_constraints"):
            # Not of scikit-learn's own; it says at the fit what it does not take.
            continue
        try:
            part._validate_params()
        except (ValueError, TypeError) as error:
            raise _wrong(f"{name}: {str(error).rstrip('.')}", "Correct the value.") from error


def _wrong(what: str, remedy: str) -> NonRetryableError:
    return NonRetryableError(f"The grid cannot be: {what}.", remedy)
