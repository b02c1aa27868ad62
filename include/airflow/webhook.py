"""A notifier that needs no provider: posts an alert as JSON to a URL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseNotifier

if TYPE_CHECKING:
    from airflow.sdk import Context

TIMEOUT_S = 10.0


class Webhook(BaseNotifier):
    """Posts an alert to a URL. ``text`` in the JSON is the message, which Slack, Mattermost and Google Chat show.

    Args:
        url: The address. A template such as ``{{ var.value.alerts_url }}`` keeps it out of the definition.
        headers: Headers of the request; their values may be templates, too.
    """

    template_fields: Sequence[str] = ("url", "headers")

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.url, self.headers = url, dict(headers or {})

    def notify(self, context: Context) -> None:
        """Posts the alert of the context; raises ``httpx.HTTPError`` unless the answer says success."""
        import httpx

        alert: Any = context["alert"]  # type: ignore[typeddict-item]
        body = {
            "text": alert.message,
            "title": alert.title,
            "subject": alert.subject,
            "expectation": alert.expectation,
            "state": alert.state,
            "detail": alert.detail,
            "since": alert.since.isoformat(),
            "until": alert.until.isoformat() if alert.until else None,
        }
        httpx.post(self.url, json=body, headers=self.headers, timeout=TIMEOUT_S).raise_for_status()
