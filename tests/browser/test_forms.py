"""The forms that Millrace adds to Airflow's UI, completed with the mouse."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import Page, expect

from embedded.airflow_api import AirflowApi, ApiError, Run
from tests.browser.conftest import PROMOTE, TRAIN
from tests.polling import until

if TYPE_CHECKING:
    from tests.browser.conftest import Open

pytestmark = pytest.mark.timeout(900)


def trigger_form(page: Page) -> Any:
    """The form behind the button *Trigger* of a DAG's page."""
    page.get_by_role("button", name="Trigger").first.click()
    form = page.get_by_role("dialog")
    expect(form.get_by_text("Run Parameters")).to_be_visible()
    return form


def start(form: Any) -> None:
    form.get_by_role("button", name="Trigger", exact=True).last.click()


def answers(airflow: AirflowApi, question: str) -> dict[str, Any]:
    """What Airflow has stored of an answer."""
    path = f"dags/{PROMOTE}/dagRuns/{question}/taskInstances/ask/-1/hitlDetails"
    return dict(airflow.call("GET", path))


def open_question(open_page: Open, question: str, role: str = "admin") -> Page:
    page: Page = open_page(role, f"/dags/{PROMOTE}/runs/{question}/tasks/ask/required_actions")
    expect(page.get_by_role("button", name="Approve")).to_be_enabled()
    expect(page.get_by_role("button", name="Reject")).to_be_enabled()
    return page


def test_models_are_picked_from_a_list_and_all_other_fields_stay_empty(
    open_page: Open, airflow_api: AirflowApi
) -> None:
    airflow_api.pause(TRAIN)
    page = open_page("user", f"/dags/{TRAIN}")
    form = trigger_form(page)
    form.get_by_role("combobox").click()
    for name in ("logistic", "boosting", "forest"):
        expect(page.get_by_role("option", name=name, exact=True)).to_be_visible()
    page.get_by_role("option", name="forest", exact=True).click()
    start(form)
    page.wait_for_url(re.compile(f"/dags/{TRAIN}/runs/"))
    (run, *_) = airflow_api.runs(TRAIN)
    given = {name: value for name, value in run.conf.items() if value is not None}
    assert given == {"models": ["forest"], "seed": 0}
    page.close()
    until("the run is deleted", lambda: deleted(airflow_api, run), 60, every_s=1)
    airflow_api.unpause(TRAIN)


def deleted(airflow: AirflowApi, run: Run) -> bool:
    """Ends and deletes a run. Airflow answers with an error while its scheduler changes the same rows."""
    path = f"dags/{run.dag_id}/dagRuns/{run.run_id}"
    try:
        airflow.call("PATCH", path, json={"state": "failed"})
        airflow.call("DELETE", path)
    except ApiError:
        return False
    return True


@pytest.mark.parametrize("dag", ["publish__digits", "replay__payments", "verify"])
def test_a_form_can_be_sent_as_it_opens(open_page: Open, airflow_api: AirflowApi, dag: str) -> None:
    airflow_api.wait_for_dags([dag])
    page = open_page("admin", f"/dags/{dag}")
    form = trigger_form(page)
    expect(form.get_by_role("button", name="Trigger", exact=True).last).to_be_enabled()
    expect(form.get_by_text("This field is required")).to_have_count(0)


def test_an_approval_without_a_model_is_one_click(
    open_page: Open, airflow_api: AirflowApi, questions: list[str]
) -> None:
    page = open_question(open_page, questions[0])
    page.get_by_role("button", name="Reject").click()
    stored = until(
        "the answer is stored", lambda: (found := answers(airflow_api, questions[0]))["response_received"] and found
    )
    assert stored["chosen_options"] == ["Reject"] and stored["params_input"] == {"model": None}
    assert airflow_api.wait(PROMOTE, questions[0], timeout=180).state == "success"


def test_a_model_of_the_run_is_picked_from_a_list(
    open_page: Open, airflow_api: AirflowApi, questions: list[str]
) -> None:
    page = open_question(open_page, questions[1])
    page.get_by_role("combobox").click()
    for name in ("logistic", "boosting", "forest"):
        expect(page.get_by_role("option", name=name, exact=True)).to_be_visible()
    expect(page.get_by_role("option", name="baseline")).to_have_count(0)
    page.get_by_role("option", name="logistic", exact=True).click()
    page.get_by_role("button", name="Approve").click()
    stored = until(
        "the answer is stored", lambda: (found := answers(airflow_api, questions[1]))["response_received"] and found
    )
    assert stored["chosen_options"] == ["Approve"] and stored["params_input"] == {"model": "logistic"}
    assert airflow_api.wait(PROMOTE, questions[1], timeout=180).state in ("success", "failed")
