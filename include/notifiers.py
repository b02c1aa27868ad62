"""The field ``notify`` of definitions: notifiers of Airflow, which nothing here imports."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from include.definitions import InvalidDefinition

Notifiers = Sequence[Any] | Callable[[], Sequence[Any]]
"""Notifiers, or a function that returns them, so that only what sends messages imports them."""

REMEDY = 'Write a list such as [SlackWebhookNotifier(text="{{ alert.message }}")], or a function that returns it.'


def check_notify(notify: object) -> None:
    """Checks the field as far as that is possible without Airflow and without calling a function.

    Raises:
        InvalidDefinition: The value is neither a function nor a list of notifiers.
    """
    if not inspect.isfunction(notify):
        require_notifiers(notify)


def require_notifiers(notify: object) -> list[Any]:
    """The notifiers of a list.

    Raises:
        InvalidDefinition: The value is not a list of objects with the methods of Airflow's ``BaseNotifier``.
    """
    if isinstance(notify, str) or not isinstance(notify, Sequence):
        raise InvalidDefinition("notify", f"{notify!r} is not a list of notifiers.", REMEDY)
    for notifier in notify:
        methods = (getattr(notifier, name, None) for name in ("notify", "render_template_fields", "__call__"))
        if isinstance(notifier, type) or not all(map(callable, methods)):
            raise InvalidDefinition("notify", f"{notifier!r} is not a notifier of Airflow.", REMEDY)
    return list(notify)
