"""Every page, in both themes: empty, with some data, with very much data, and behind a path prefix."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from benchmarks import pages as benchmark
from embedded import environment
from embedded.airflow_api import AirflowApi
from embedded.platform import Platform
from include.streams.definition import Stream
from include.warehouse.connection import connect, connected
from include.warehouse.migrations import migrate
from tests import api_servers
from tests.browser.conftest import DATASET, PROMOTE, ROLES, TRAIN, serious_findings
from tests.e2e.retraining import ask

if TYPE_CHECKING:
    from tests.browser.conftest import Open, Watched

pytestmark = pytest.mark.timeout(900)

THEMES = ("light", "dark")
MUCH = {"versions": 1_000, "models": 4, "rows": 50_000, "partitions": 200, "letters": 1_000}
CreateDatabase = Callable[[str], None]


@pytest.fixture(scope="module")
def last_run(airflow_api: AirflowApi, questions: list[str]) -> str:
    """Airflow's id of the newest training run."""
    return airflow_api.runs(TRAIN)[0].run_id


@pytest.fixture(scope="module")
def empty(airflow_platform: Platform, airflow_api: AirflowApi, create_database: CreateDatabase) -> Iterator[str]:
    """The address of an api-server whose warehouse is empty."""
    yield from with_warehouse(airflow_platform, "pages_empty", create_database, None)


@pytest.fixture(scope="module")
def full(airflow_platform: Platform, airflow_api: AirflowApi, create_database: CreateDatabase) -> Iterator[str]:
    """The address of an api-server whose warehouse has a thousand versions and two hundred partitions."""
    yield from with_warehouse(airflow_platform, "pages_full", create_database, MUCH)


def with_warehouse(
    platform: Platform, name: str, create_database: CreateDatabase, amounts: dict[str, int] | None
) -> Iterator[str]:
    create_database(name)
    address = environment.warehouse_connection(platform.home, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_MILLRACE_POSTGRES", address)
        migrate()
        if amounts:
            with closing(connect("test")) as connection:
                benchmark.fill(connection, amounts)
    with api_servers.serving(platform.home, AIRFLOW_CONN_MILLRACE_POSTGRES=address) as url:
        yield url


def examine(page: Page, heading: str) -> None:
    """Asserts that a page has its heading, that its charts are drawn, and that axe finds nothing serious."""
    expect(page.get_by_role("heading", level=1, name=heading)).to_be_visible()
    for chart in page.locator("[data-chart]").all():
        expect(chart.locator(".main-svg").first).to_be_attached()
    assert serious_findings(page) == []


@pytest.mark.parametrize("theme", THEMES)
def test_every_page_with_data(open_page: Open, theme: str, questions: list[str], last_run: str, landed: Stream) -> None:
    with connected("test") as connection:
        ((run,),) = ask(connection, "SELECT max(run_id) FROM millrace.training_run WHERE dataset = %s", DATASET)
    page = open_page("admin", "/millrace/models", theme=theme)
    examine(page, "Models")
    assert ("dark" in (page.locator("html").get_attribute("class") or "")) is (theme == "dark")
    for path, heading in (
        (f"models/{DATASET}", DATASET),
        (f"models/{DATASET}?run={quote(run)}", DATASET),
        (f"models/{DATASET}/train", f"Train models of {DATASET}"),
        ("streams", "Streams"),
        (f"streams/{landed.name}", landed.name),
        (f"streams/{landed.name}/retry", f"Retry the dead letters of {landed.name}"),
        (f"streams/{landed.name}/replay", f"Replay records of {landed.name}"),
        (f"dag?dag={TRAIN}", DATASET),
        (f"run?dag={TRAIN}&run={quote(last_run)}", f"Run of {DATASET}"),
        ("dag?dag=somebody_elses", "somebody_elses"),
        (f"again?dag={TRAIN}&run={quote(last_run)}", "Trigger"),
        (f"approve?dag={PROMOTE}&run={quote(questions[-1])}", f"Promote a model of {DATASET}"),
    ):
        page.goto(f"/millrace/{path}")
        examine(page, heading)


def test_an_empty_installation_explains_the_first_step(open_page: Open, empty: str) -> None:
    page = open_page("admin", "/millrace/models", of=empty)
    examine(page, "Models")
    expect(page.get_by_text("No dataset has a version yet")).to_be_visible()
    expect(page.get_by_text("./millrace publish")).to_be_visible()
    for path, heading in (
        (f"models/{DATASET}", DATASET),
        ("streams", "Streams"),
        ("streams/payments", "payments"),
        (f"dag?dag={TRAIN}", DATASET),
    ):
        page.goto(f"{empty}/millrace/{path}")
        examine(page, heading)


def test_a_large_installation(open_page: Open, full: str) -> None:
    page = open_page("admin", "/millrace/models", theme="dark", of=full)
    examine(page, "Models")
    for path, heading in (
        (f"models/{benchmark.DATASET}", benchmark.DATASET),
        ("streams", "Streams"),
        (f"streams/{benchmark.STREAM}", benchmark.STREAM),
    ):
        page.goto(f"{full}/millrace/{path}")
        examine(page, heading)


def test_the_navigation_leads_to_the_pages_behind_a_prefix(open_page: Open, full: str) -> None:
    page = open_page("viewer", of=full)
    page.get_by_role("link", name="Models").first.click()
    pages = page.frame_locator("iframe")
    pages.get_by_role("link", name=benchmark.DATASET, exact=True).click()
    expect(pages.get_by_role("heading", name=benchmark.DATASET, level=1)).to_be_visible()
    page.get_by_role("link", name="Streams").first.click()
    pages.get_by_role("link", name=benchmark.STREAM, exact=True).click()
    expect(pages.get_by_role("heading", name=benchmark.STREAM, level=1)).to_be_visible()
    assert page.url.startswith(f"{full}/plugin/")
    # The entry that is open leads back to its first page.
    page.get_by_role("link", name="Streams").first.click()
    expect(pages.get_by_role("heading", name="Streams", level=1)).to_be_visible()


@pytest.mark.parametrize("role", ROLES)
def test_each_role_finds_the_pages_and_the_actions_that_it_may_take(
    open_page: Open, role: str, questions: list[str], landed: Stream
) -> None:
    page = open_page(role)
    page.get_by_role("link", name="Models").first.click()
    pages = page.frame_locator("iframe")
    pages.get_by_role("link", name=DATASET, exact=True).click()
    expect(pages.get_by_role("heading", name=DATASET, level=1)).to_be_visible()
    expect(pages.get_by_role("link", name="Train…", exact=True)).to_have_count(0 if role == "viewer" else 1)
    page.get_by_role("link", name="Streams").first.click()
    pages.get_by_role("link", name=landed.name, exact=True).click()
    expect(pages.get_by_role("heading", name=landed.name, level=1)).to_be_visible()
    expect(pages.get_by_role("link", name="Replay…", exact=True)).to_have_count(0 if role == "viewer" else 1)


def test_who_is_signed_out_signs_in_and_sees_the_page(
    open_page: Open, watched: Watched, airflow_platform: Platform
) -> None:
    watched.expected.append("the server responded with a status of 401")
    page = open_page(None, "/millrace/models")
    page.get_by_role("link", name="Sign in to Airflow").click()
    page.get_by_label("Username").fill("vera")
    page.get_by_label("Password").fill(json.loads(airflow_platform.home.passwords.read_text())["vera"])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name="Models").first.click()
    expect(page.frame_locator("iframe").get_by_role("heading", name="Models", level=1)).to_be_visible()


def test_the_tab_of_a_dag_and_of_a_run_shows_its_results(open_page: Open, last_run: str) -> None:
    page = open_page("viewer", f"/dags/{TRAIN}")
    page.get_by_role("link", name="Millrace", exact=True).click()
    expect(page.frame_locator("iframe").get_by_role("heading", name=DATASET, level=1)).to_be_visible()
    page.goto(f"/dags/{TRAIN}/runs/{last_run}")
    page.get_by_role("link", name="Millrace", exact=True).click()
    expect(page.frame_locator("iframe").get_by_text("logistic").first).to_be_visible()


def test_the_numbers_refresh_and_rest_while_the_tab_is_hidden(open_page: Open, landed: Stream) -> None:
    """A headless Chromium never hides a tab, so the page is made to believe it."""
    page = open_page("viewer", f"/millrace/streams/{landed.name}")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    with page.expect_request("**/millrace/streams/**", timeout=20_000):
        pass
    hide = "Object.defineProperty(document, 'hidden', {{configurable: true, get: () => {}}});"
    changed = "document.dispatchEvent(new Event('visibilitychange'))"
    page.evaluate(hide.format("true") + changed)
    page.wait_for_timeout(500)
    asked.clear()
    # Two periods. Nothing can be polled: the test shows that nothing happens.
    page.wait_for_timeout(10_500)
    assert asked == []
    with page.expect_request("**/millrace/streams/**", timeout=2_000):
        page.evaluate(hide.format("false") + changed)


def test_everything_is_reached_with_the_keyboard(open_page: Open, questions: list[str]) -> None:
    """Each link, button and region that scrolls gets the focus in turn."""
    page = open_page("user", f"/millrace/models/{DATASET}")
    expect(page.get_by_role("heading", name=DATASET, level=1)).to_be_visible()
    wanted = page.evaluate(
        """() => [...document.querySelectorAll("a[href], button, summary, .scroll, input, select")]
            .filter((each) => each.checkVisibility()).length"""
    )
    reached = page.evaluate("() => { window.seen = new Set(); return 0; }")
    for _ in range(wanted + 5):
        page.keyboard.press("Tab")
        reached = page.evaluate(
            """() => {
                const active = document.activeElement;
                if (active && active !== document.body) window.seen.add(active);
                return window.seen.size;
            }"""
        )
    assert reached >= wanted
