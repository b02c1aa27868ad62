"""Real pages in a real Chromium: for each role a page whose errors, and requests to other machines, fail the test."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from embedded.airflow_api import AirflowApi
from embedded.environment import api_url
from embedded.platform import Platform
from embedded.ports import HOST

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Frame

INSTALL = "sudo apt-get install --no-install-recommends chromium"
ROLES = {"admin": "admin", "op": "opal", "user": "uma", "viewer": "vera"}
"""A user for each role of SimpleAuthManager; ``tests/conftest.py`` gives them to the platform."""
# A page of Airflow's UI takes a second, and much longer while six processes share two cores.
TIMEOUT_MS = 120_000
# What Airflow's own UI writes to the console although nothing is wrong.
AIRFLOWS_OWN = (
    # Before the login, and when a session has ended, it asks who is signed in.
    "the server responded with a status of 401",
)


@pytest.fixture(scope="session")
def base(airflow_platform: Platform, airflow_api: AirflowApi) -> str:
    """The address of Airflow's UI, without a slash at its end."""
    airflow_api.wait_for_dags(["dispatch"])
    return api_url(airflow_platform.home)


# Not for the session: Playwright's event loop would keep other tests of the process from running theirs.
@pytest.fixture(scope="module")
def browser(airflow_platform: Platform) -> Iterator[Browser]:
    """A headless Chromium that resolves no name, so that it cannot reach another machine."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip(f"Chromium is missing. Install it: {INSTALL}")
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    # Chromium's sandbox does not work as root.
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=arguments)
        yield found
        found.close()


@dataclass
class Watched:
    """What went wrong on a page.

    Attributes:
        expected: Parts of errors in the console that this test causes on purpose.
    """

    problems: list[str] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)

    def watch(self, context: BrowserContext) -> None:
        """Collects the errors and the requests of every page of a context."""
        context.on("console", self._on_message)
        context.on("weberror", lambda error: self.problems.append(f"exception: {error.error}"))
        context.on("request", self._on_request)

    def _on_message(self, message: ConsoleMessage) -> None:
        if message.type != "error":
            return
        where = message.location.get("url", "")
        known = (*self.expected, *(() if "/millrace/" in where else AIRFLOWS_OWN))
        if any(text in message.text for text in known):
            return
        self.problems.append(f"console: {message.text} ({where})")

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname != HOST:
            self.problems.append(f"request to another machine: {request.url}")


Open = Callable[..., Page]


@pytest.fixture(scope="session")
def tokens(airflow_platform: Platform, base: str) -> dict[str, str]:
    """The session of each role, as Airflow's login gives it to a browser."""
    passwords = json.loads(airflow_platform.home.passwords.read_text())
    found = {}
    for role, name in ROLES.items():
        login = {"username": name, "password": passwords[name]}
        answer = httpx.post(f"{base}/auth/token", json=login, trust_env=False, timeout=60)
        found[role] = answer.raise_for_status().json()["access_token"]
    return found


@pytest.fixture
def watched() -> Watched:
    """What went wrong on the pages of this test."""
    return Watched()


@pytest.fixture
def open_page(browser: Browser, base: str, tokens: dict[str, str], watched: Watched) -> Iterator[Open]:
    """Opens a page: ``open_page("viewer", "/millrace/models", theme="dark")``; the role None is signed out.

    The test fails when a page writes an error to the console, throws, or sends a request to another machine.
    """
    contexts: list[BrowserContext] = []

    def open_(role: str | None = "admin", path: str = "/", *, theme: str = "light", **options: Any) -> Page:
        context = browser.new_context(
            base_url=base,
            color_scheme="dark" if theme == "dark" else "light",
            viewport={"width": 1300, "height": 1000},
            **options,
        )
        contexts.append(context)
        context.set_default_timeout(TIMEOUT_MS)
        # Airflow's UI keeps the choice of the user there.
        context.add_init_script(f"try {{ localStorage.setItem('theme', '{theme}') }} catch {{}}")
        watched.watch(context)
        if role is not None:
            context.add_cookies([{"name": "_token", "value": tokens[role], "url": base}])
        page = context.new_page()
        page.goto(path, wait_until="domcontentloaded")
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not watched.problems


def serious_findings(page: Page | Frame) -> list[str]:
    """What axe-core finds on a page or in a frame that is serious or critical, one line each."""
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run({resultTypes: ['violations']}).then(results => results.violations)")
    return [
        f"{finding['id']}: {finding['help']}: {node['html'][:200]}"
        for finding in found
        if finding["impact"] in ("serious", "critical")
        for node in finding["nodes"]
    ]
