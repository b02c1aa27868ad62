"""Who may see and do what on the pages: every route, every role, every verb, and requests of other sites."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from fastapi.routing import APIRoute

from embedded import environment
from embedded.airflow_api import AirflowApi
from embedded.platform import Platform
from include.airflow.pages import app
from tests import api_servers
from tests.api_servers import PREFIX
from tests.e2e.auth_manager import Guest, GuestManager

ROUTES = [route for route in app.create().routes if isinstance(route, APIRoute)]
NAMES = [f"{'/'.join(sorted(route.methods))} {route.path}" for route in ROUTES]
# A form has the address of its action.
METHODS = {
    route.path: {method for other in ROUTES if other.path == route.path for method in other.methods} for route in ROUTES
}
PAGES = [route for route in ROUTES if METHODS[route.path] == {"GET"}]
FORMS = [route for route in ROUTES if "GET" in route.methods and route not in PAGES]
VERBS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ROLES = ("viewer", "user", "op", "admin")
CLOSED = ("/openapi.json", "/docs", "/redoc", "/docs/oauth2-redirect", "/nothing", "/")
PARAMETERS = {"dataset": "digits", "stream": "payments", "name": "pages.css", "choice": "lost"}
# The parameters of the tabs; other routes ignore them.
QUERY = {"dag": "train__digits", "run": "train__none"}


def address(route: APIRoute) -> str:
    return "/millrace" + re.sub(r"\{(\w+)[^}]*\}", lambda found: PARAMETERS.get(found[1], "1"), route.path)


@pytest.fixture(scope="module")
def client(airflow_platform: Platform, airflow_api: AirflowApi) -> Iterator[httpx.Client]:
    """A client that is not signed in."""
    airflow_api.wait_for_dags(["train__digits", "land__payments"])
    with httpx.Client(base_url=environment.api_url(airflow_platform.home), timeout=60, trust_env=False) as found:
        yield found


@pytest.fixture(scope="module")
def token(airflow_platform: Platform) -> Callable[[str], str]:
    """A token of a user with a role, as the login of the api-server signs it."""

    def sign(role: str) -> str:
        return SimpleAuthManager().generate_jwt(SimpleAuthManagerUser(username=f"test {role}", role=role.upper()))

    return sign


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_every_route_names_a_permission() -> None:
    def checks(dependant: Any) -> bool:
        own = getattr(dependant.call, "checks_access", False)
        return own or any(checks(each) for each in dependant.dependencies)

    assert ROUTES
    assert [route.path for route in ROUTES if not checks(route.dependant)] == []


def test_the_app_has_no_other_routes() -> None:
    assert [route for route in app.create().routes if not isinstance(route, APIRoute)] == []


class TestSignedOut:
    @pytest.mark.parametrize("route", ROUTES, ids=NAMES)
    def test_every_verb_is_refused(self, client: httpx.Client, route: APIRoute) -> None:
        for verb, cookie in itertools.product(VERBS, ({}, {"cookie": "_token=nonsense"})):
            answer = client.request(
                verb, address(route), params=QUERY, headers={**cookie, "sec-fetch-site": "same-origin"}
            )
            assert answer.status_code == 401, verb
            if verb != "HEAD":
                assert "signed in" in answer.json()["detail"]

    @pytest.mark.parametrize("path", CLOSED)
    def test_other_addresses_reveal_nothing(self, client: httpx.Client, path: str) -> None:
        assert client.get(f"/millrace{path}").status_code == 401

    def test_a_browser_gets_a_link_to_sign_in(self, client: httpx.Client) -> None:
        answer = client.get("/millrace/models/digits", headers={"accept": "text/html"})
        assert answer.status_code == 401
        assert '<a href="../../api/v2/auth/login"' in answer.text
        assert client.get("/api/v2/auth/login", follow_redirects=False).is_redirect


class TestRoles:
    @pytest.mark.parametrize("role", ROLES)
    @pytest.mark.parametrize("route", PAGES, ids=lambda route: route.path)
    def test_each_role_sees_every_page(
        self, client: httpx.Client, token: Callable[[str], str], route: APIRoute, role: str
    ) -> None:
        headers = {**bearer(token(role)), "accept": "text/html"}
        answer = client.get(address(route), params=QUERY, headers=headers)
        assert answer.status_code in (200, 404), answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]

    def test_a_form_is_for_those_who_may_send_it(self, client: httpx.Client, token: Callable[[str], str]) -> None:
        assert FORMS
        for route, role in itertools.product(FORMS, ROLES):
            headers = {**bearer(token(role)), "accept": "text/html"}
            answer = client.get(address(route), params=QUERY, headers=headers)
            assert (answer.status_code == 403) is (role == "viewer"), (role, route.path)
            assert answer.status_code < 500, (role, route.path)

    @pytest.mark.parametrize("route", ROUTES, ids=NAMES)
    def test_a_viewer_changes_nothing(self, client: httpx.Client, token: Callable[[str], str], route: APIRoute) -> None:
        for verb in sorted({"POST", "PUT", "PATCH", "DELETE"}):
            answer = client.request(verb, address(route), params=QUERY, headers=bearer(token("viewer")))
            assert answer.status_code == (403 if verb in METHODS[route.path] else 405), verb

    @pytest.mark.parametrize("role", ROLES)
    @pytest.mark.parametrize("path", CLOSED)
    def test_there_is_no_schema_and_no_documentation_of_routes(
        self, client: httpx.Client, token: Callable[[str], str], path: str, role: str
    ) -> None:
        assert client.get(f"/millrace{path}", headers=bearer(token(role))).status_code == 404


class TestOtherSites:
    @pytest.mark.parametrize("route", ROUTES, ids=NAMES)
    @pytest.mark.parametrize(
        "sent",
        [
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "none"},
            {"origin": "http://127.0.0.1:1"},
            {"origin": "null"},
            {},
        ],
        ids=str,
    )
    def test_a_request_of_another_site_changes_nothing(
        self, client: httpx.Client, token: Callable[[str], str], route: APIRoute, sent: dict[str, str]
    ) -> None:
        headers = {"cookie": f"_token={token('admin')}", **sent}
        for verb in ("POST", "PUT", "PATCH", "DELETE"):
            answer = client.request(verb, address(route), params=QUERY, headers=headers)
            assert (answer.status_code, "another site" in answer.text) == (403, True), verb

    def test_a_request_of_our_own_page_passes(self, client: httpx.Client, token: Callable[[str], str]) -> None:
        headers = {"cookie": f"_token={token('admin')}", "sec-fetch-site": "same-origin"}
        assert client.post("/millrace/models", headers=headers).status_code == 405


class TestAnotherAuthManager:
    """A second api-server, behind a path prefix, with an auth manager that decides about each DAG by itself."""

    @pytest.fixture(scope="class")
    def other(self, airflow_platform: Platform, airflow_api: AirflowApi) -> Iterator[httpx.Client]:
        manager = {"AIRFLOW__CORE__AUTH_MANAGER": "tests.e2e.auth_manager.GuestManager"}
        with (
            api_servers.serving(airflow_platform.home, **manager) as url,
            httpx.Client(base_url=url, timeout=60, trust_env=False) as found,
        ):
            yield found

    @pytest.fixture(scope="class")
    def sign(self, other: httpx.Client) -> Callable[..., dict[str, str]]:
        manager: Any = GuestManager
        return lambda *dags, **more: bearer(manager().generate_jwt(Guest("guest", dags, **more)))

    def test_a_page_needs_the_permission_on_its_dag(
        self, other: httpx.Client, sign: Callable[..., dict[str, str]]
    ) -> None:
        own = sign("GET train__digits", "GET land__payments")
        assert other.get("/millrace/models/digits", headers=own).status_code == 200
        assert other.get("/millrace/streams/payments", headers=own).status_code == 200
        refused = other.get("/millrace/models/diabetes", headers=own)
        assert refused.status_code == 403 and "train__diabetes" in refused.json()["detail"]
        assert other.get("/millrace/dag", params={"dag": "train__diabetes"}, headers=own).status_code == 403
        assert other.get("/millrace/run", params={"dag": "land__x", "run": "r"}, headers=own).status_code == 403

    def test_a_list_shows_only_what_the_user_may_see(
        self, other: httpx.Client, sign: Callable[..., dict[str, str]]
    ) -> None:
        text = other.get("/millrace/models", headers=sign("GET train__digits")).text
        assert "digits" in text and "diabetes" not in text
        text = other.get("/millrace/streams", headers=sign("GET land__payments")).text
        assert "payments" in text and "vehicle_positions" not in text

    @pytest.mark.parametrize("route", ROUTES, ids=NAMES)
    def test_without_the_permission_on_plugins_everything_is_closed(
        self, other: httpx.Client, sign: Callable[..., dict[str, str]], route: APIRoute
    ) -> None:
        headers = sign("GET train__digits", "POST train__digits", sees_plugins=False)
        for verb in VERBS:
            assert other.request(verb, address(route), params=QUERY, headers=headers).status_code == 403, verb

    def test_who_may_only_read_changes_nothing(self, other: httpx.Client, sign: Callable[..., dict[str, str]]) -> None:
        headers = sign("GET train__digits", "GET land__payments", "GET promote__digits")
        for route, verb in itertools.product(ROUTES, ("POST", "PUT", "PATCH", "DELETE")):
            answer = other.request(verb, address(route), params=QUERY, headers=headers)
            assert answer.status_code == (403 if verb in METHODS[route.path] else 405), (verb, route.path)

    def test_every_address_works_behind_the_prefix(
        self, other: httpx.Client, sign: Callable[..., dict[str, str]]
    ) -> None:
        headers = sign("GET train__digits")
        page = f"{PREFIX}/millrace/models/digits"
        text = other.get("/millrace/models/digits", headers=headers).text
        found = [link for link in re.findall(r'(?:href|src)="([^"]+)"', text) if link != "data:,"]
        assert found
        for link in found:
            assert httpx.URL(f"http://x{page}").join(link).path.startswith(f"{PREFIX}/"), link
        for link in found:
            if "/static/" in link:
                path = httpx.URL(f"http://x{page}").join(link).raw_path.decode().removeprefix(PREFIX)
                assert other.get(path, headers=headers).status_code == 200, link
