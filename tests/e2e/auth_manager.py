"""An auth manager that is not SimpleAuthManager: each user may do what his token lists, DAG by DAG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from airflow.api_fastapi.auth.managers.base_auth_manager import BaseAuthManager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import AccessView, DagDetails


@dataclass(frozen=True)
class Guest(BaseUser):
    """A user.

    Attributes:
        name: The user's name.
        dags: What the user may do, such as ``GET train__digits``.
        sees_plugins: Whether the user may see plugins.
    """

    name: str
    dags: Sequence[str] = ()
    sees_plugins: bool = True

    def get_id(self) -> str:
        """See ``BaseUser``."""
        return self.name

    def get_name(self) -> str:
        """See ``BaseUser``."""
        return self.name


class GuestManager(BaseAuthManager[Guest]):
    """Lets a user do what the token lists, and nothing else."""

    def deserialize_user(self, token: dict[str, Any]) -> Guest:
        """See ``BaseAuthManager``."""
        return Guest(token["sub"], token["dags"], token["sees_plugins"])

    def serialize_user(self, user: Guest) -> dict[str, Any]:
        """See ``BaseAuthManager``."""
        return {"sub": user.name, "dags": list(user.dags), "sees_plugins": user.sees_plugins}

    def get_url_login(self, **_: Any) -> str:
        """See ``BaseAuthManager``."""
        return "/"

    def is_authorized_dag(self, *, method: str, user: Guest, details: DagDetails | None = None, **_: Any) -> bool:
        """See ``BaseAuthManager``."""
        return details is not None and f"{method} {details.id}" in user.dags

    def is_authorized_view(self, *, access_view: AccessView, user: Guest) -> bool:
        """See ``BaseAuthManager``."""
        return access_view is AccessView.PLUGINS and user.sees_plugins

    def filter_authorized_menu_items(self, menu_items: list[Any], *, user: Guest) -> list[Any]:
        """See ``BaseAuthManager``."""
        return []

    def _nothing(self, **_: Any) -> bool:
        return False

    is_authorized_configuration = is_authorized_connection = is_authorized_asset = _nothing
    is_authorized_asset_alias = is_authorized_pool = is_authorized_variable = is_authorized_custom_view = _nothing
