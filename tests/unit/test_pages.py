"""The pages' templates with values that try to break out, and the words and numbers that they show."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from itertools import count
from typing import Any, get_type_hints

import pytest
from starlette.requests import Request

from include.airflow import links
from include.airflow.pages import access, actions, app, rendering, static_files
from include.pages import charts, datasets, streams, wording
from include.user_actions import Action, Outcome, Result
from include.warehouse.queries.signatures import pages as rows

EVIL = "</script><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"
MOMENT = datetime(2026, 11, 28, 12, tzinfo=UTC)
ADDRESS = "/millrace/models/some"


class Tags(HTMLParser):
    """The elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def request(path: str = ADDRESS, root_path: str = "/millrace", **headers: str) -> Request:
    encoded = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request(
        {
            "type": "http",
            "method": headers.get("method", "GET"),
            "path": path,
            "root_path": root_path,
            "query_string": b"",
            "headers": encoded,
            "server": ("127.0.0.1", 80),
            "scheme": "http",
        }
    )


def hostile(kind: Any, **known: Any) -> Any:
    """A row whose every text is hostile."""
    values = {}
    numbers = count(1)
    for name, declared in get_type_hints(kind, vars(rows) | {"Any": Any}).items():
        text = str(declared)
        if name in known:
            values[name] = known[name]
        elif "list" in text:
            values[name] = [0.5, 0.75] if "float" in text else [EVIL]
        elif "str" in text:
            values[name] = EVIL
        elif "datetime" in text:
            values[name] = MOMENT
        elif "bool" in text:
            values[name] = True
        elif "memoryview" in text:
            values[name] = memoryview(EVIL.encode())
        elif "Any" in text:
            values[name] = {EVIL: EVIL}
        else:
            values[name] = float(next(numbers)) if "float" in text else next(numbers)
    return kind(**values)


def shown(template: str, **values: Any) -> str:
    given = {"may": lambda *_: True, "questions": [EVIL], "asked": EVIL, "is_open": True, **values}
    return bytes(rendering.page(request(), template, **given).body).decode()


def question() -> actions.Question:
    kinds = ("choice", "choices", "number", "moment", "text")
    fields = [actions.Field(kind, EVIL, kind, EVIL, [(EVIL, EVIL)], EVIL) for kind in kinds]
    return actions.Question(Action.RETRY, EVIL, EVIL, [EVIL], [(Action.RETRY, EVIL)], "streams/some", fields)


def run_facts() -> datasets.RunFacts:
    model = datasets.Model(
        EVIL,
        [hostile(rows.RunClassesRow)],
        {(EVIL, EVIL): hostile(rows.RunConfusionRow)},
        [EVIL],
        [hostile(rows.RunSlicesRow)],
    )
    return datasets.RunFacts(
        hostile(rows.RunOfRow),
        hostile(rows.RunInputRow),
        [hostile(rows.RunMetricsRow)],
        [hostile(rows.RunVerdictsRow)],
        [hostile(rows.RunLogRow)],
        model,
    )


def dataset_facts() -> datasets.DatasetFacts:
    return datasets.DatasetFacts(
        EVIL,
        hostile(rows.DatasetRow),
        hostile(rows.ValueRow),
        [hostile(rows.ValuesRow)],
        [hostile(rows.MetricsRow)],
        [hostile(rows.ChampionsRow)],
        [hostile(rows.EvidenceRow)],
        [hostile(rows.RunsRow)],
        run_facts(),
    )


def stream_facts() -> streams.StreamFacts:
    return streams.StreamFacts(
        streams.StreamLine(hostile(rows.StreamsRow), streams.Waiting(None, None, EVIL, is_stopped=True)),
        [hostile(rows.FailuresRow)],
        [hostile(rows.HistoryRow)],
        [hostile(rows.PartitionsRow)],
        2000,
        [hostile(rows.ReasonsRow)],
        [hostile(rows.LettersRow)],
        [hostile(rows.GapsRow)],
        [hostile(rows.ReplaysRow)],
        [hostile(rows.ReconciliationRow)],
    )


def hostile_pages() -> dict[str, str]:
    facts = dataset_facts()
    detail = {"name": EVIL, "run": facts.run, "can_read_log": True}
    lines = {EVIL: stream_facts().line}
    return {
        "models": shown("models.html", names=[EVIL], rows={EVIL: hostile(rows.DatasetsRow)}, paused={EVIL: True}),
        "dataset": shown("dataset.html", facts=facts, versions=1, most_versions=300, **detail),
        "dataset tab": shown("dataset.html", facts=facts, versions=60, is_tab=True, **detail),
        "run": shown("run.html", run_id=EVIL, dag=EVIL, **detail),
        "streams": shown("streams.html", names=[EVIL], lines=lines, paused={EVIL: False}),
        "stream": shown("stream.html", name=EVIL, facts=stream_facts(), is_paused=False),
        "other run": shown("other_run.html", dag=EVIL, dataset=EVIL, stream=None),
        "foreign": shown("foreign.html", dag=EVIL),
        "confirm": shown("confirm.html", question=question(), error=EVIL, hidden={"token": EVIL}),
        "acted": shown(
            "acted.html", question=question(), result=Result(Outcome.DONE, EVIL), is_done=True, run=[EVIL, EVIL]
        ),
        "error": bytes(app.refuse(request(accept="text/html"), 403, EVIL).body).decode(),
    }


@pytest.mark.parametrize("text", hostile_pages().values(), ids=list(hostile_pages()))
def test_hostile_values_stay_text(text: str) -> None:
    found = Tags(text).found
    assert not any(tag in ("img", "iframe", "object") for tag, _ in found)
    assert all(attributes.get("src") for tag, attributes in found if tag == "script")
    assert not any(attribute.startswith("on") for _, attributes in found for attribute in attributes)
    assert "alert(1)" in text and "{{ 7 * 7 }}" in text


@pytest.mark.parametrize("text", hostile_pages().values(), ids=list(hostile_pages()))
def test_addresses_are_relative(text: str) -> None:
    for _, attributes in Tags(text).found:
        for attribute in ("href", "src", "action"):
            value = attributes.get(attribute)
            assert value is None or value == "data:," or value.startswith(("../", "./", "?")), value


@pytest.mark.parametrize("text", hostile_pages().values(), ids=list(hostile_pages()))
def test_tables_have_captions_and_headers(text: str) -> None:
    tags = [tag for tag, _ in Tags(text).found]
    assert tags.count("table") == tags.count("caption")
    assert all(attributes.get("scope") in ("col", "row") for tag, attributes in Tags(text).found if tag == "th")


@pytest.mark.parametrize("text", hostile_pages().values(), ids=list(hostile_pages()))
def test_ids_are_unique(text: str) -> None:
    ids = [attributes["id"] for _, attributes in Tags(text).found if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_the_data_of_charts_survives_its_attribute() -> None:
    text = shown("dataset.html", name="d", facts=dataset_facts(), run=None, versions=60, can_read_log=False)
    found = [attributes["data-chart"] for _, attributes in Tags(text).found if "data-chart" in attributes]
    # A chart for the metric, for the value of retraining, and for the evidence.
    assert len(found) == 3
    assert json.loads(str(found[0]))["series"][0]["name"] == EVIL


def test_an_empty_installation_names_the_first_step() -> None:
    assert "./millrace new dataset" in shown("models.html", names=[], rows={}, paused={})
    assert "./millrace publish churn" in shown("models.html", names=["churn"], rows={}, paused={"churn": True})
    assert "./millrace new stream" in shown("streams.html", names=[], lines={}, paused={})
    assert "./millrace produce clicks" in shown("streams.html", names=["clicks"], lines={}, paused={"clicks": True})
    nothing = {"facts": None, "run": None, "versions": 60, "can_read_log": False}
    assert "./millrace publish churn" in shown("dataset.html", name="churn", **nothing)
    assert "./millrace produce clicks" in shown("stream.html", name="clicks", facts=None, is_paused=True)


@pytest.mark.parametrize(
    ("path", "root_path", "root", "airflow"),
    [
        ("/millrace/models", "/millrace", "./", "../"),
        ("/millrace/models/digits", "/millrace", "../", "../../"),
        ("/a/b/millrace/streams/x", "/a/b/millrace", "../", "../../"),
    ],
)
def test_relative_addresses(path: str, root_path: str, root: str, airflow: str) -> None:
    assert rendering.addresses(request(path, root_path)) == (root, airflow)


def test_a_framed_address_contains_the_prefix_as_airflow_appends_it() -> None:
    found = rendering.framed(request("/a/millrace/run", "/a/millrace"), "models/digits")
    assert found == "../plugin/millrace-models/a/millrace/models/digits"


@pytest.mark.parametrize(
    ("headers", "accepted"),
    [
        ({"sec_fetch_site": "same-origin"}, True),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "none"}, False),
        ({"sec_fetch_site": "cross-site", "authorization": "Bearer x"}, False),
        ({"origin": "http://airflow.example", "host": "airflow.example"}, True),
        ({"origin": "http://airflow.example:81", "host": "airflow.example"}, False),
        ({"origin": "null", "host": "airflow.example"}, False),
        ({"authorization": "Bearer x"}, True),
        ({}, False),
    ],
)
def test_requests_of_other_sites_are_recognized(headers: dict[str, str], accepted: bool) -> None:
    assert access.is_same_origin(request(**headers)) is accepted


def test_every_static_file_has_an_address_that_changes_with_it() -> None:
    for name in static_files.files():
        assert re.fullmatch(rf"static/{re.escape(name)}\?v=[0-9a-f]{{12}}", static_files.address(name))


def test_numbers() -> None:
    assert [wording.figure(value) for value in (None, 0.94736, 52.314, 12345.0)] == [
        wording.NOTHING,
        "0.9474",
        "52.31",
        "12,345",
    ]
    assert [wording.size(value) for value in (0, 999, 1_400_000)] == ["0 B", "999 B", "1.4 MB"]
    assert [wording.span(value) for value in (0.0, 4.24, 59.0, 7200.0)] == ["0.0 s", "4.2 s", "59 s", "2 h"]
    assert [wording.change(now, before) for now, before in ((0.5, None), (0.5, 0.5), (0.4, 0.5))] == [
        "",
        "±0",
        "\N{MINUS SIGN}0.1000",
    ]
    assert [wording.evidence(value) for value in (26.13, 8242.0, 3e12, float("inf"))] == [
        "26.1",
        "8,242",
        "10^12",
        "more than 10^308",
    ]


def test_bytes_of_a_record_are_text_or_hexadecimal() -> None:
    assert wording.text_of(None) == "null"
    assert wording.text_of("a\x00é\n".encode()) == "a\\x00é\n"
    assert wording.text_of(memoryview(b"\xff\xfe")) == "ff fe"


def test_a_moment_is_relative() -> None:
    assert wording.ago(MOMENT, MOMENT + timedelta(minutes=3)) == "3 min ago"
    assert wording.ago(MOMENT, MOMENT - timedelta(hours=2)) == "in 2 h"


def test_a_chart_has_no_number_that_json_lacks() -> None:
    chart = charts.Chart("c", "t", ["a", "b"], [charts.Series("s", [float("inf"), float("nan")])])
    assert json.loads(chart.json)["series"][0]["values"] == [None, None]


def test_a_sparkline_spans_its_box() -> None:
    assert charts.sparkline([0.0, 1.0]) == "0.0,18.0 96.0,2.0"
    assert charts.sparkline([0.5, 0.5]) == "0.0,10.0 96.0,10.0"
    assert charts.sparkline([]) == ""


def test_a_lag_that_is_unknown_is_not_shown_as_a_number() -> None:
    line = streams.StreamLine(hostile(rows.StreamsRow, stopped_error=None, is_final=False), streams.UNKNOWN)
    text = shown("streams.html", names=["s"], lines={"s": line}, paused={})
    assert text.count("unknown</span>") == 3
    known = streams.StreamLine(line.row, streams.Waiting(12345, 7.0))
    text = shown("streams.html", names=["s"], lines={"s": known}, paused={})
    assert "12,345" in text and "7.0 s" in text and "landing</span>" in text


def test_a_stream_whose_position_does_not_fit_its_topic_is_stopped() -> None:
    row = hostile(rows.StreamsRow, stopped_error=None, is_final=False)
    assert streams.StreamLine(row, streams.Waiting(None, None, "removed", is_stopped=True)).is_stopped
    assert not streams.StreamLine(row, streams.UNKNOWN).is_stopped
    assert streams.StreamLine(row._replace(is_final=True), streams.Waiting(0, 0.0)).is_stopped
    assert not streams.StreamLine(row._replace(stopped_error="it is retried"), streams.Waiting(0, 0.0)).is_stopped


@pytest.mark.parametrize(
    ("dag_id", "ends"),
    [
        ("train__digits", "/plugin/millrace-models/millrace/models/digits?run=a%2Bb"),
        ("publish__digits", "/plugin/millrace-models/millrace/models/digits"),
        ("land__payments", "/plugin/millrace-streams/millrace/streams/payments"),
        ("somebody_else", ""),
    ],
)
def test_tasks_link_to_their_page(dag_id: str, ends: str) -> None:
    assert links.address(dag_id, "a+b") == ends
