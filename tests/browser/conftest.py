"""Real pages in a real Chromium: for each role a page whose errors, and requests to other machines, fail the test."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect, sync_playwright

from embedded.airflow_api import AirflowApi
from embedded.environment import api_url
from embedded.platform import Platform
from embedded.ports import HOST
from include.datasets import definitions
from include.kafka import client
from include.landing.drain import drain
from include.streams import definitions as streams
from include.streams.definition import Stream
from include.streams.produce import make_topic, produce
from include.versions.manifest import Interval
from include.versions.publication import publish
from tests.polling import until

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Frame

DATASET = "breast_cancer"
TRAIN, PROMOTE = f"train__{DATASET}", f"promote__{DATASET}"
# Chromium without its windows: it takes half the time. The whole browser serves as well.
PROGRAMS = ("chromium-headless-shell", "chromium")
INSTALL = f"sudo apt-get install --no-install-recommends {PROGRAMS[0]}"
ROLES = {"admin": "admin", "op": "opal", "user": "uma", "viewer": "vera"}
"""A user for each role of SimpleAuthManager; ``tests/conftest.py`` gives them to the platform."""
# A page of Airflow's UI takes a second, and much longer while six processes share two cores.
TIMEOUT_MS = 90_000
# What Airflow's own UI writes to the console although nothing is wrong.
AIRFLOWS_OWN = (
    # Before the login, and when a session has ended, it asks who is signed in.
    "the server responded with a status of 401",
)


# First, so that nothing expensive is prepared for tests that are skipped.
@pytest.fixture(scope="session", autouse=True)
def chromium() -> str:
    """The path of Chromium."""
    path = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if path is None:
        pytest.skip(f"Chromium is missing. Install it: {INSTALL}")
    return path


@pytest.fixture(scope="session")
def base(airflow_platform: Platform, airflow_api: AirflowApi) -> str:
    """The address of Airflow's UI, without a slash at its end."""
    airflow_api.wait_for_dags(["dispatch"])
    return api_url(airflow_platform.home)


# Not for the session: Playwright's event loop would keep other tests of the process from running theirs.
@pytest.fixture(scope="module")
def browser(airflow_platform: Platform, chromium: str) -> Iterator[Browser]:
    """A headless Chromium that resolves no name, so that it cannot reach another machine."""
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    # Chromium's sandbox does not work as root.
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=chromium, args=arguments)
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

    def watch(self, page: Page) -> None:
        """Collects the errors and the requests of a page and its frames."""
        page.on("console", self._on_message)
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("request", self._on_request)

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


@pytest.fixture(scope="session")
def questions(airflow_api: AirflowApi, base: str) -> list[str]:
    """The runs of three approvals that wait for an answer, the oldest first: each of a version and its training."""
    airflow_api.wait_for_dags([TRAIN, PROMOTE])
    before = open_questions(airflow_api)
    for seed in (301, 302, 303):
        publish(definitions.get(DATASET), Interval(), max_rows=300, seed=seed, asked_by="test")

    def asked() -> list[str] | None:
        found = open_questions(airflow_api) - before
        return sorted(found) if len(found) == 3 else None

    return until("three questions", asked, 400, every_s=1)


@pytest.fixture(scope="session")
def landed(base: str) -> Stream:
    """A stream with landed rows and dead letters."""
    stream = streams.get("vehicle_positions")
    make_topic(stream)
    produce(stream, 500, seed=1)
    producer = client.producer()
    for _ in range(5):
        producer.produce(stream.topic, b"{}", partition=0)
    assert producer.flush(20) == 0
    drain(replace(stream, quiet="1 second"), "test")
    return stream


@pytest.fixture
def watched() -> Watched:
    """What went wrong on the pages of this test."""
    return Watched()


@pytest.fixture(scope="module")
def context(browser: Browser, base: str, tokens: dict[str, str]) -> Iterator[Callable[..., BrowserContext]]:
    """The browser of a role at an api-server, in a theme. The tests of a file share it, and so its cache."""
    found: dict[tuple[str | None, str, str], BrowserContext] = {}

    def make(role: str | None, theme: str, of: str) -> BrowserContext:
        scheme: Literal["dark", "light"] = "dark" if theme == "dark" else "light"
        made = browser.new_context(base_url=of, color_scheme=scheme, viewport={"width": 1300, "height": 1000})
        made.set_default_timeout(TIMEOUT_MS)
        # Airflow's UI keeps the choice of the user there.
        made.add_init_script(f"try {{ localStorage.setItem('theme', '{theme}') }} catch {{}}")
        if role is not None:
            made.add_cookies([{"name": "_token", "value": tokens[role], "url": of}])
        return made

    def get(role: str | None, theme: str, of: str) -> BrowserContext:
        key = (role, theme, of)
        if key not in found:
            found[key] = make(*key)
        return found[key]

    yield get
    for each in found.values():
        each.close()


@pytest.fixture
def open_page(context: Callable[..., BrowserContext], base: str, watched: Watched) -> Iterator[Open]:
    """Opens a page: ``open_page("viewer", "/millrace/models", theme="dark")``; the role None is signed out.

    ``of`` is the address of another api-server of the platform. The test fails when a page writes an error to the
    console, throws, or sends a request to another machine.
    """
    pages: list[Page] = []

    def open_(role: str | None = "admin", path: str = "/", *, theme: str = "light", of: str = base) -> Page:
        page = context(role, theme, of).new_page()
        pages.append(page)
        watched.watch(page)
        page.goto(of + path, wait_until="domcontentloaded")
        return page

    yield open_
    for page in pages:
        page.close()
    assert not watched.problems


def open_questions(airflow: AirflowApi) -> set[str]:
    """The runs of promotion that wait for an answer."""
    found = airflow.call("GET", f"dags/{PROMOTE}/dagRuns/~/hitlDetails", params={"response_received": False})
    return {each["task_instance"]["dag_run_id"] for each in found["hitl_details"]}


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
