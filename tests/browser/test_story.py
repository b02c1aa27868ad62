"""One person's whole story in the browser, every step by visible labels; and two people who act at the same moment."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import FrameLocator, Page, expect

from embedded.airflow_api import AirflowApi
from include.kafka import client
from include.landing.recovery import MIN_REJECTED
from include.project import ROOT
from include.registry import champion_history
from include.streams import definitions as streams
from include.streams.produce import make_topic
from include.warehouse.connection import connected
from tests.browser.conftest import DATASET, PROMOTE, TRAIN, open_questions
from tests.e2e.retraining import ask
from tests.polling import until

if TYPE_CHECKING:
    from tests.browser.conftest import Open, Watched

pytestmark = pytest.mark.timeout(900)

STREAM = "sensor_readings"
LAND = f"land__{STREAM}"
# A run of Airflow on a busy machine.
PATIENCE_MS = 300_000
DEFINITION = """
import os
from typing import Annotated
import msgspec
from include.definitions import Gone
from include.streams.definition import Instant, Stream

# Other platforms that parse the same files see no such definition.
if os.environ.get("MILLRACE_HOME") != {home!r}:
    raise Gone

class Level(msgspec.Struct):
    ts: Instant
    level: Annotated[float, msgspec.Meta(le={at_most})]

stream = Stream(name="levels", event=Level, event_time="ts", kafka_partitions=1, quiet="1 second")
"""


def champion() -> champion_history.Champion | None:
    with connected("test") as connection:
        return champion_history.current(connection, DATASET)


def actions(username: str) -> list[tuple[str, str]]:
    """What is recorded of a user's actions, the newest last."""
    with connected("test") as connection:
        rows = ask(
            connection, "SELECT action, outcome FROM millrace.user_action WHERE username = %s ORDER BY number", username
        )
    return [tuple(row) for row in rows]


def dead_letters(stream: str = STREAM) -> int:
    with connected("test") as connection:
        return len(ask(connection, "SELECT FROM millrace.dead_letter WHERE stream = %s", stream))


def landed_rows(stream: str) -> int:
    with connected("test") as connection:
        ((found,),) = ask(connection, "SELECT to_regclass(%s) IS NOT NULL", f"landing.{stream}")
        return ask(connection, f"SELECT count(*) FROM landing.{stream}")[0][0] if found else 0


def open_models(page: Page) -> FrameLocator:
    """The page of the dataset, through Airflow's navigation."""
    page.get_by_role("link", name="Models").first.click()
    pages = page.frame_locator("iframe")
    pages.get_by_role("link", name=DATASET).first.click()
    expect(pages.get_by_role("heading", name=DATASET, level=1)).to_be_visible()
    return pages


def open_stream(page: Page, name: str) -> FrameLocator:
    page.get_by_role("link", name="Streams").first.click()
    pages = page.frame_locator("iframe")
    pages.get_by_role("link", name=name, exact=True).click()
    expect(pages.get_by_role("heading", name=name, level=1)).to_be_visible()
    return pages


def choose(pages: FrameLocator | Page, link: str, title: str) -> None:
    """Follows the last link of this name, to the page with this title."""
    pages.get_by_role("link", name=link, exact=True).last.click()
    expect(pages.get_by_role("heading", name=title, level=1)).to_be_visible()


def approve(page: Page, pages: FrameLocator, model: str) -> None:
    """Approves a model in the newest open question."""
    before = champion()
    choose(pages, "Approve or decline…", "Promote a model of")
    pages.get_by_label("Model", exact=True).select_option(model)
    pages.get_by_role("button", name="Approve").click()
    expect(pages.get_by_role("heading", name="Done")).to_be_visible()
    until("another champion", lambda: champion() != before, PATIENCE_MS / 1000, every_s=1)
    assert (found := champion()) and found.model == model


@pytest.fixture
def levels(airflow_api: AirflowApi, base: str) -> Iterator[Callable[[int], None]]:
    """Writes the definition of a stream with an upper limit of its values. The file exists during the test."""
    home = os.environ["MILLRACE_HOME"]
    file = ROOT / "include/streams/levels.py"
    try:
        yield lambda at_most: atomically(file, DEFINITION.format(home=home, at_most=at_most))
    finally:
        airflow_api.pause("land__levels")
        file.unlink(missing_ok=True)


def atomically(file: Path, text: str) -> None:
    """Writes a file that other processes may be reading."""
    partial = file.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(file)


def send_levels(*values: int) -> None:
    producer = client.producer()
    for value in values:
        event = {"ts": datetime.now(UTC).isoformat(), "level": value}
        producer.produce("levels", json.dumps(event).encode())
    assert producer.flush(20) == 0


@pytest.fixture(scope="module")
def first_champion(airflow_api: AirflowApi, questions: list[str]) -> champion_history.Champion:
    """The champion before the story; a user approves one over the API if there is none."""
    if champion() is None:
        path = f"dags/{PROMOTE}/dagRuns/{questions[0]}/taskInstances/ask/-1/hitlDetails"
        answer = {"chosen_options": ["Approve"], "params_input": {"model": "logistic"}}
        airflow_api.call("PATCH", path, json=answer)
    return until("a champion", champion, PATIENCE_MS / 1000, every_s=1)


def test_a_model_is_trained_approved_and_rolled_back(
    open_page: Open, airflow_api: AirflowApi, questions: list[str], first_champion: champion_history.Champion
) -> None:
    page = open_page("user")
    decline_an_outdated_question(page, airflow_api, questions[-1])

    page.goto("/")
    pages = open_models(page)
    choose(pages, "Train…", f"Train models of {DATASET}")
    pages.get_by_label("Version", exact=True).select_option(index=1)
    pages.get_by_label("forest", exact=True).check()
    before = open_questions(airflow_api)
    pages.get_by_role("button", name="Train", exact=True).click()
    expect(pages.get_by_role("heading", name="Done")).to_be_visible()
    pages.get_by_role("link", name="Follow the run in Airflow").click()
    page.wait_for_url(f"**/dags/{TRAIN}/runs/**")
    expect(page.get_by_text("Success").first).to_be_visible(timeout=PATIENCE_MS)
    run = page.url.partition("/runs/")[2].partition("/")[0]
    assert airflow_api.run(TRAIN, run).conf["models"] == ["forest"]

    until("its question", lambda: open_questions(airflow_api) - before, PATIENCE_MS / 1000, every_s=1)
    pages = open_models(page)
    approve(page, pages, "forest")

    pages = open_models(page)
    choose(pages, "Roll back…", f"Roll back the champion of {DATASET}")
    expect(pages.get_by_text("The champion of breast_cancer is forest")).to_be_visible()
    pages.get_by_role("button", name="Roll back").click()
    expect(pages.get_by_text(f"The champion is now {first_champion.model}")).to_be_visible()
    back = champion()
    assert back is not None and (back.model, back.cause, back.decider) == (first_champion.model, "rollback", "uma")
    assert actions("uma")[-4:] == [
        ("decline", "done"),
        ("trigger", "done"),
        ("approve", "done"),
        ("rollback", "done"),
    ]


def decline_an_outdated_question(page: Page, airflow: AirflowApi, question: str) -> None:
    """Declines a question that compares with the champion of its time, and finds the answer with the user's name."""
    before = champion()
    page.goto(f"/millrace/approve?dag={PROMOTE}&run={question}")
    expect(page.get_by_text("an approval is refused. Decline")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    page.get_by_role("button", name="Decline").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    expect(page.get_by_text("Declined: the champion stays")).to_be_visible()
    assert airflow.wait(PROMOTE, question, timeout=PATIENCE_MS / 1000).state == "success"
    with connected("test") as connection:
        run = int(airflow.run(PROMOTE, question).conf["run"])
        answers = ask(connection, "SELECT answer, model, decider FROM millrace.approval WHERE run = %s", run)
    assert answers == [("declined", None, "uma")]
    assert champion() == before


def test_the_second_of_two_people_who_act_on_a_champion_learns_who_was_faster(
    open_page: Open, watched: Watched
) -> None:
    watched.expected.append("the server responded with a status of 409")
    slow, fast = (open_page(role, f"/millrace/models/{DATASET}/retire") for role in ("op", "user"))
    for page in (fast, slow):
        page.get_by_label("Reason").fill("It is wrong.")
    fast.get_by_role("button", name="Retire").click()
    expect(fast.get_by_role("heading", name="Done")).to_be_visible()
    with slow.expect_response("**/retire") as answered:
        slow.get_by_role("button", name="Retire").click()
    assert answered.value.status == 409
    expect(slow.get_by_role("alert")).to_contain_text("uma was faster: retire")
    assert champion() is None
    assert (actions("uma")[-1], actions("opal")[-1]) == (("retire", "done"), ("retire", "refused"))


def test_a_second_click_changes_nothing(open_page: Open) -> None:
    page = open_page("user", f"/millrace/models/{DATASET}/rollback")
    before = len(actions("uma"))
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="Done")).to_be_visible()
    assert actions("uma")[before:] == [("rollback", "done")]


def test_a_viewer_sees_no_action_and_may_do_none(open_page: Open) -> None:
    page = open_page("viewer", f"/millrace/models/{DATASET}")
    expect(page.get_by_role("heading", name=DATASET, level=1)).to_be_visible()
    for label in ("Train…", "Roll back…", "Retire…", "Approve or decline…"):
        expect(page.get_by_role("link", name=label, exact=True)).to_have_count(0)
    for path in (
        f"models/{DATASET}/rollback",
        f"models/{DATASET}/retire",
        f"models/{DATASET}/train",
        f"streams/{STREAM}/retry",
        f"streams/{STREAM}/replay",
        f"streams/{STREAM}/accept/lost",
        f"again?dag={TRAIN}&run=x",
        f"approve?dag={PROMOTE}&run=x",
        f"again?dag=replay__{STREAM}&run=x",
    ):
        for method in ("GET", "POST"):
            headers = {"sec-fetch-site": "same-origin"}
            answer = page.request.fetch(f"/millrace/{path}", method=method, headers=headers)
            assert answer.status == 403, (method, path)


def test_dead_letters_land_once_the_definition_is_fixed(
    open_page: Open, airflow_api: AirflowApi, levels: Callable[[int], None]
) -> None:
    levels(100)
    airflow_api.wait_for_dags(["land__levels", "retry__levels"])
    make_topic(streams.get("levels"))
    send_levels(*range(1, 11), *range(101, 104))
    airflow_api.unpause("land__levels")
    until("dead letters", lambda: dead_letters("levels") == 3, PATIENCE_MS / 1000, every_s=1)
    until("rows", lambda: landed_rows("levels") == 10, PATIENCE_MS / 1000, every_s=1)

    page = open_page("user")
    pages = open_stream(page, "levels")
    expect(pages.get_by_text("Expected `float` <=").first).to_be_visible()
    levels(1_000)
    choose(pages, "Retry dead letters…", "Retry the dead letters of levels")
    expect(pages.get_by_text("The stream has 3 dead letters.")).to_be_visible()
    pages.get_by_role("button", name="Retry").click()
    expect(pages.get_by_role("heading", name="Done")).to_be_visible()
    pages.get_by_role("link", name="Follow the run in Airflow").click()
    page.wait_for_url("**/dags/retry__levels/runs/**")
    until("all have landed", lambda: landed_rows("levels") == 13, PATIENCE_MS / 1000, every_s=1)
    assert dead_letters("levels") == 0
    assert actions("uma")[-1] == ("retry", "done")


def test_a_range_is_replayed_and_replayed_again_with_the_same_parameters(
    open_page: Open, airflow_api: AirflowApi, levels: Callable[[int], None]
) -> None:
    """The definition is wrong in the first replay, and corrected before the second."""
    levels(1_000)
    airflow_api.wait_for_dags(["land__levels", "replay__levels"])
    make_topic(streams.get("levels"))
    before = landed_rows("levels")
    send_levels(*range(1, 11))
    airflow_api.unpause("land__levels")
    until("rows", lambda: landed_rows("levels") == before + 10, PATIENCE_MS / 1000, every_s=1)
    first, last = offsets_of("levels")[-10], offsets_of("levels")[-3]

    page = open_page("user")
    levels(5)
    pages = open_stream(page, "levels")
    choose(pages, "Replay…", "Replay records of levels")
    pages.get_by_label("Partition", exact=True).select_option("0")
    pages.get_by_label("First offset").fill(f"{first}")
    pages.get_by_label("Last offset").fill(f"{last}")
    pages.get_by_role("button", name="Replay").click()
    expect(pages.get_by_role("heading", name="Done")).to_be_visible()
    pages.get_by_role("link", name="Follow the run in Airflow").click()
    page.wait_for_url("**/dags/replay__levels/runs/**")
    expect(page.get_by_text("Success").first).to_be_visible(timeout=PATIENCE_MS)
    # Of the eight records, those above 5 are rejected; the last two are not in the range.
    assert (landed_rows("levels"), dead_letters("levels")) == (before + 7, 3)
    assert replays("levels")[-1] == (first, last + 1, 5, 3, "uma")

    levels(1_000)
    run = page.url.partition("/runs/")[2].partition("/")[0]
    refuse_a_viewer(open_page, "replay__levels", run)
    page.get_by_role("link", name="Millrace", exact=True).click()
    pages = page.frame_locator("iframe")
    choose(pages, "Trigger again with the same parameters…", "Trigger again")
    expect(pages.get_by_text(f"first: {first}", exact=True)).to_be_visible()
    pages.get_by_role("button", name="Trigger again").click()
    expect(pages.get_by_role("heading", name="Done")).to_be_visible()
    pages.get_by_role("link", name="Follow the run in Airflow").click()
    page.wait_for_url("**/dags/replay__levels/runs/trigger__**")
    expect(page.get_by_text("Success").first).to_be_visible(timeout=PATIENCE_MS)
    again = page.url.partition("/runs/")[2].partition("/")[0]
    assert airflow_api.run("replay__levels", again).conf == airflow_api.run("replay__levels", run).conf
    assert (landed_rows("levels"), dead_letters("levels")) == (before + 10, 0)
    assert replays("levels")[-1] == (first, last + 1, 8, 0, "uma")
    assert actions("uma")[-2:] == [("replay", "done"), ("trigger", "done")]

    pages = open_stream(page, "levels")
    shown = pages.get_by_role("region", name="Table of replays").get_by_role("row").filter(has_text="uma")
    expect(shown.filter(has_text="+3")).to_have_count(2)


def refuse_a_viewer(open_page: Open, dag: str, run: str) -> None:
    """A viewer sees the run's page without the action, and the action refuses the viewer."""
    page = open_page("viewer", f"/millrace/run?dag={dag}&run={run}")
    expect(page.get_by_text("What this run landed is counted with its stream.")).to_be_visible()
    expect(page.get_by_role("link", name="Trigger again with the same parameters…")).to_have_count(0)
    answer = page.request.post(f"/millrace/again?dag={dag}&run={run}", headers={"sec-fetch-site": "same-origin"})
    assert answer.status == 403


def offsets_of(stream: str) -> list[int]:
    with connected("test") as connection:
        found = ask(connection, f"SELECT kafka_offset FROM landing.{stream} ORDER BY kafka_offset")
    return [offset for (offset,) in found]


def replays(stream: str) -> list[tuple[int, int, int, int, str]]:
    """What the warehouse has of each replay of a stream, the newest last."""
    statement = (
        "SELECT first_offset, next_offset, landed, dead_letters, replayed_by"
        " FROM millrace.landing_replay WHERE stream = %s ORDER BY replay"
    )
    with connected("test") as connection:
        return [tuple(row) for row in ask(connection, statement, stream)]


def test_a_stopped_stream_continues_once_a_user_accepts_it(open_page: Open, airflow_api: AirflowApi) -> None:
    stream, before = streams.get(STREAM), dead_letters()
    make_topic(stream)
    producer = client.producer()
    for _ in range(MIN_REJECTED):
        producer.produce(stream.topic, b"no reading", partition=0)
    producer.flush()
    airflow_api.unpause(LAND)
    until("it has stopped", lambda: airflow_api.is_paused(LAND), PATIENCE_MS / 1000, every_s=1)
    page = open_page("user")
    pages = open_stream(page, STREAM)
    choose(pages, "Accept and continue…", "Accept 'bad'")
    expect(pages.get_by_text("may become a dead letter")).to_be_visible()
    pages.get_by_role("button", name="Accept and continue").click()
    expect(pages.get_by_role("heading", name="Done")).to_be_visible()
    until("they are dead letters", lambda: dead_letters() == before + MIN_REJECTED, PATIENCE_MS / 1000, every_s=1)
    assert actions("uma")[-1] == ("accept", "done")
    airflow_api.pause(LAND)


def test_bad_input_of_a_replay_loses_nothing_that_was_typed(open_page: Open, watched: Watched) -> None:
    page = open_page("user", f"/millrace/streams/{STREAM}/replay")
    watched.expected.append("the server responded with a status of 422")
    page.get_by_label("First offset").fill("12x")
    page.get_by_label("Last offset").fill("20")
    page.get_by_role("button", name="Replay").click()
    expect(page.get_by_role("alert")).to_contain_text("First offset is '12x'")
    expect(page.get_by_label("First offset")).to_have_value("12x")
    expect(page.get_by_label("Last offset")).to_have_value("20")
