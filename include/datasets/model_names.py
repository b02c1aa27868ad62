"""The names of a definition's models, read from its source: forms list them without importing the models."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def names(models: Callable[[], Any]) -> list[str] | None:
    """The keys of the dictionary that the function returns.

    Returns:
        None if only a call can tell: the function does not end with the one dictionary, or not all keys are literals.
    """
    try:
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(models))).body
    except (OSError, TypeError, ValueError, SyntaxError):
        return None
    if not isinstance(function, ast.FunctionDef):
        return None
    returns = [each for each in ast.walk(function) if isinstance(each, ast.Return)]
    if len(returns) != 1 or not isinstance(returns[0].value, ast.Dict):
        return None
    keys = returns[0].value.keys
    found = [key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    return found if len(found) == len(keys) else None
