"""The pages on datasets and on their training runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from include.pages.charts import Chart, Series
from include.pages.wording import NOTHING, until
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.warehouse.queries.signatures.pages import (
        ChampionsRow,
        DatasetRow,
        DatasetsRow,
        EvidenceRow,
        MetricsRow,
        RunClassesRow,
        RunConfusionRow,
        RunInputRow,
        RunLogRow,
        RunMetricsRow,
        RunOfRow,
        RunSlicesRow,
        RunsRow,
        RunVerdictsRow,
        ValueRow,
        ValuesRow,
    )

BASELINE = "baseline"
MAX_VERSIONS = 60
# A page with more would take longer than a second.
MOST_VERSIONS = 300
MAX_ROWS = 25
MAX_LOG_LINES = 200
MAX_SLICES = 400
# A matrix with more classes cannot be read on a page.
MAX_CLASSES = 30


def overview(connection: Connection) -> list[DatasetsRow]:
    """One row for each dataset that has a version."""
    return list(queries.load("pages").datasets(connection))


@dataclass(frozen=True)
class Model:
    """What a run knows about one of its models.

    Attributes:
        name: Its name.
        classes: Precision, recall and F1 of each class.
        confusion: The confusion matrix, row by row.
        labels: The classes of the matrix, in its order.
        slices: The metrics on parts of the test rows.
    """

    name: str
    classes: list[RunClassesRow]
    confusion: Mapping[tuple[str, str], RunConfusionRow]
    labels: list[str]
    slices: list[RunSlicesRow]


@dataclass(frozen=True)
class RunFacts:
    """One training run.

    Attributes:
        outcome: Its state and result.
        given: What it trained on.
        metrics: Every metric of every model.
        verdicts: The verdicts on its models.
        log: The last lines that its tasks logged.
        model: The model that is shown in detail; None if the run has none.
    """

    outcome: RunOfRow | RunsRow
    given: RunInputRow
    metrics: list[RunMetricsRow]
    verdicts: list[RunVerdictsRow]
    log: list[RunLogRow]
    model: Model | None

    @cached_property
    def models(self) -> list[str]:
        """The names of its models."""
        return list(dict.fromkeys(row.model for row in self.metrics))

    @cached_property
    def metric_names(self) -> list[str]:
        """The names of its metrics."""
        return list(dict.fromkeys(row.metric for row in self.metrics))

    @cached_property
    def table(self) -> Mapping[tuple[str, str], RunMetricsRow]:
        """The metrics by model and name."""
        return {(row.model, row.metric): row for row in self.metrics}


@dataclass(frozen=True)
class DatasetFacts:
    """One dataset.

    Attributes:
        name: Its name.
        now: What is live, and the last verdict.
        value: What retraining has gained; None before the gate has judged a run.
        values: Live, never retrained and newest, by version.
        metrics: Every metric by version, and the same as charts.
        champions: The newest changes of the champion.
        evidence: The evidence against the champion, by version; just after a change, against its predecessor.
        runs: The newest runs.
        run: The run that is shown in detail.
    """

    name: str
    now: DatasetRow
    value: ValueRow | None
    values: list[ValuesRow]
    metrics: list[MetricsRow]
    champions: list[ChampionsRow]
    evidence: list[EvidenceRow]
    runs: list[RunsRow]
    run: RunFacts | None

    @cached_property
    def charts(self) -> list[Chart]:
        """One chart for each metric."""
        return metric_charts(self.metrics, self.champions)

    @cached_property
    def value_chart(self) -> Chart | None:
        """What was live against the first champion and the newest model."""
        if not self.values:
            return None
        return Chart(
            "value",
            f"{self.values[-1].metric} of what was live, of never retraining, and of the newest model",
            _places((row.version, until(row.interval_end)) for row in self.values),
            [
                Series("live", [row.live for row in self.values]),
                Series("never retrained", [row.never for row in self.values], is_quiet=True),
                Series("newest", [row.newest for row in self.values]),
            ],
            x_title="version",
            y_title=self.values[-1].metric,
        )

    @cached_property
    def evidence_chart(self) -> Chart | None:
        """The e-values of the challengers, with the threshold."""
        return evidence_chart(self.evidence)


def dataset(
    connection: Connection, name: str, *, run_id: str | None, model: str | None, versions: int = MAX_VERSIONS
) -> DatasetFacts | None:
    """One dataset; None if it has no version.

    Args:
        connection: To the warehouse.
        name: The dataset.
        run_id: The run to show in detail, by its id in Airflow; None for the newest.
        model: The model to show in detail; None for the run's best.
        versions: How many of the newest versions to chart.
    """
    sql = queries.load("pages")
    now = sql.dataset(connection, dataset=name)
    if now is None:
        return None
    runs = list(sql.runs(connection, dataset=name, most=MAX_ROWS))
    outcome: RunOfRow | RunsRow | None
    if run_id is not None:
        outcome = sql.run_of(connection, dataset=name, run_id=run_id)
    else:
        outcome = next((row for row in runs if row.best_model), runs[0] if runs else None)
    return DatasetFacts(
        name,
        now,
        sql.value(connection, dataset=name),
        list(sql.values(connection, dataset=name, most=versions)),
        list(sql.metrics(connection, dataset=name, most=versions)),
        list(sql.champions(connection, dataset=name, most=MAX_ROWS)),
        _evidence(connection, name, now.champion_number or 0, versions),
        runs,
        None if outcome is None else _run_facts(connection, outcome, model),
    )


def _evidence(connection: Connection, name: str, champion_number: int, versions: int) -> list[EvidenceRow]:
    """The evidence against the champion; as long as there is none, that which made it champion."""
    sql = queries.load("pages")
    for number in (champion_number, champion_number - 1):
        if found := list(sql.evidence(connection, dataset=name, champion_number=number, most=versions)):
            return found
    return []


def run(connection: Connection, name: str, run_id: str, model: str | None) -> RunFacts | None:
    """A training run by its id in Airflow; None if it has not begun."""
    outcome = queries.load("pages").run_of(connection, dataset=name, run_id=run_id)
    return None if outcome is None else _run_facts(connection, outcome, model)


def run_to_approve(connection: Connection, number: int) -> tuple[str, str] | None:
    """The dataset and the id in Airflow of the training run with this number."""
    found = queries.load("pages").run_to_approve(connection, run=number)
    return None if found is None else (found.dataset, found.run_id)


def _run_facts(connection: Connection, outcome: RunOfRow | RunsRow, model: str | None) -> RunFacts:
    sql = queries.load("pages")
    given = sql.run_input(connection, run=outcome.run)
    assert given is not None
    metrics = list(sql.run_metrics(connection, run=outcome.run))
    names = {row.model for row in metrics}
    chosen = model if model in names else outcome.best_model
    return RunFacts(
        outcome,
        given,
        metrics,
        list(sql.run_verdicts(connection, run=outcome.run)),
        list(sql.run_log(connection, run=outcome.run, most=MAX_LOG_LINES)),
        None if chosen is None else _model(connection, outcome.run, chosen),
    )


def _model(connection: Connection, number: int, name: str) -> Model:
    sql = queries.load("pages")
    cells = list(sql.run_confusion(connection, run=number, model=name))
    labels = sorted({row.actual for row in cells} | {row.predicted for row in cells}, key=_natural)
    return Model(
        name,
        sorted(sql.run_classes(connection, run=number, model=name), key=lambda row: _natural(row.name)),
        {(row.actual, row.predicted): row for row in cells},
        labels,
        list(sql.run_slices(connection, run=number, model=name, most=MAX_SLICES)),
    )


def metric_charts(rows: Sequence[MetricsRow], champions: Sequence[ChampionsRow]) -> list[Chart]:
    """One chart for each metric, with a line for each model and a mark at each version that made a champion."""
    places = _places((row.version, until(row.interval_end)) for row in rows)
    by_version = dict(zip(dict.fromkeys(row.version for row in rows), places, strict=True))
    models = sorted({row.model for row in rows}, key=lambda name: (name == BASELINE, name))
    found = {(row.metric, row.model, row.version): row for row in rows}
    marks = {
        by_version[row.version]: f"{row.model} becomes champion"
        for row in reversed(champions)
        if row.version in by_version and row.cause != "retirement"
    }
    charts: list[Chart] = []
    for metric in sorted({row.metric for row in rows}, key=lambda name: (name not in ("accuracy", "rmse"), name)):
        series = []
        for model in models:
            line = [found.get((metric, model, version)) for version in by_version]
            if not any(line):
                continue
            series.append(
                Series(
                    model,
                    [row and row.value for row in line],
                    [row and row.low for row in line] if any(row and row.low is not None for row in line) else (),
                    [row and row.high for row in line] if any(row and row.high is not None for row in line) else (),
                    is_quiet=model == BASELINE,
                )
            )
        charts.append(
            Chart(f"metric-{len(charts)}", f"{metric} by version", places, series, "version", metric, marks=marks)
        )
    return charts


def evidence_chart(rows: Sequence[EvidenceRow]) -> Chart | None:
    """The e-value of each model line from version to version, with the threshold that it must reach."""
    if not rows:
        return None
    places = _places((row.version, until(row.interval_end)) for row in rows)
    versions = list(dict.fromkeys(row.version for row in rows))
    found = {(row.model, row.version): row for row in rows}
    threshold = {row.version: row.threshold for row in rows}
    series = [
        Series(model, [row and row.e_value for row in (found.get((model, version)) for version in versions)])
        for model in sorted({row.model for row in rows})
    ]
    against = f"champion {rows[-1].champion_number}" if rows[-1].champion_number else "the baseline"
    series.append(Series("threshold", [threshold[version] for version in versions], is_quiet=True))
    title = f"Evidence of each challenger against {against}"
    return Chart("evidence", title, places, series, "version", "e-value", is_logarithmic=True)


def _places(versions: Iterable[tuple[str, str]]) -> list[str]:
    """One label for each version: the end of its interval, with its digits where that is not unique."""
    labels = dict(versions)
    ends = list(labels.values())
    return [
        version[:8] if end == NOTHING else end if ends.count(end) == 1 else f"{end} {version[:8]}"
        for version, end in labels.items()
    ]


def _natural(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return float("inf"), label
