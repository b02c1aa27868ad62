"""The notifiers of definitions: Airflow's own classes, which send alerts."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

from include.definitions import InvalidDefinition
from include.notifiers import REMEDY, require_notifiers

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.datasets import Dataset
    from include.monitoring.alerts import Alert
    from include.streams.definition import Stream

# What a notifier's settings consist of. Other attributes, such as open connections, do not identify it.
_PLAIN = (str, int, float, bool, type(None), list, tuple, dict)


def of(definition: Stream | Dataset) -> list[BaseNotifier]:
    """The notifiers of a definition.

    Raises:
        InvalidDefinition: ``notify`` is not a list of Airflow's notifiers, or its function fails.
    """
    notify = definition.notify
    if callable(notify):
        try:
            notify = notify()
        except Exception as error:
            what = f"the function raised {type(error).__name__}: {str(error).rstrip('.')}."
            raise InvalidDefinition("notify", what, "Correct it; ./millrace check calls it.") from error
    found = require_notifiers(notify)
    for notifier in found:
        if not isinstance(notifier, BaseNotifier):
            raise InvalidDefinition("notify", f"{notifier!r} is not a notifier of Airflow.", REMEDY)
    return found


class NotifierRecipient:
    """Sends alerts by a notifier, whose templates see ``alert``.

    Args:
        context: The context of the task that sends.
    """

    def __init__(self, notifier: BaseNotifier, context: Context | Mapping[str, Any]) -> None:
        self._notifier, self._context = notifier, context
        settings = {
            name: value
            for name, value in vars(notifier).items()
            if isinstance(value, _PLAIN) and name != "context" and not name.startswith("_")
        }
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=repr).encode()).hexdigest()
        self.key = f"{type(notifier).__name__} {digest[:12]}"

    def send(self, alert: Alert) -> None:
        """Renders the notifier's templates and sends; raises what the notifier raises."""
        # Rendering replaces the templates for ever, and the notifier is used again.
        copy.copy(self._notifier)({**self._context, "alert": alert})
