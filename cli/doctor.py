"""doctor: find problems of the platform, and show how to fix each."""

import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import psutil

from embedded import ports, postgres, report
from embedded.home import NEEDED_BYTES
from embedded.platform import Health, Platform
from include.errors import UserError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.datasets import Dataset
    from include.warehouse.queries.signatures.metadata import StuckDeferralsRow, StuckQueueRow

_NEEDED_MEMORY = 1.5e9
_IDLE_S, _OPEN_S, _SILENT_S, _QUEUED_S = 60.0, 900.0, 60.0, 120.0


@dataclass(frozen=True)
class Finding:
    """A problem and its remedy.

    Attributes:
        paused_dag: The DAG, when the problem is that it has paused itself.
    """

    what: str
    remedy: str
    paused_dag: str = ""


@click.command()
def doctor() -> None:
    """Find problems, and show how to fix each. Exits with 1 when there is one."""
    platform = Platform()
    healths = platform.status()
    findings = [*_machine(platform), *_components(platform, healths)]
    healthy = {health.name for health in healths if health.healthy}
    if "postgres" in healthy:
        _add(findings, _databases(platform))
    if {"postgres", "api-server"} <= healthy:
        _add(findings, _paused(platform))
    if {"kafka", "postgres"} <= healthy:
        _add(findings, _datasets(platform))
        _add(findings, _streams(platform, healthy, findings, _paused_dags(platform)))
    for finding in findings:
        click.echo(f"- {finding.what}\n  {finding.remedy}")
    if findings:
        sys.exit(1)
    click.echo("no problems found" + ("" if healths else "; the platform is down (./millrace up starts it)"))


def _add(findings: list[Finding], found: Iterator[Finding]) -> None:
    """Add the findings of one check. When the check itself fails, the error is a finding too."""
    try:
        for finding in found:
            findings.append(finding)
    except UserError as error:
        findings.append(_of_error(error))


def _of_error(error: UserError) -> Finding:
    return Finding(error.what, f"{error.remedy} [{error.code}]".strip())


def _machine(platform: Platform) -> Iterator[Finding]:
    home = platform.home.path
    if home.exists() and (free := shutil.disk_usage(home).free) < NEEDED_BYTES:
        yield Finding(f"The disk that holds {home} has {free / 1e6:.0f} MB free.", "Free some space.")
    if (available := psutil.virtual_memory().available) < _NEEDED_MEMORY:
        yield Finding(
            f"{available / 1e9:.1f} GB of memory is available; the platform needs about {_NEEDED_MEMORY / 1e9:.1f} GB.",
            "End other programs, or lower MILLRACE_AIRFLOW__CORE__PARALLELISM.",
        )


def _components(platform: Platform, healths: list[Health]) -> Iterator[Finding]:
    if not healths:
        try:
            ports.choose(platform.home.state().get("ports", {}))
        except UserError as error:
            yield _of_error(error)
    for health in healths:
        remedy = f"Read ./millrace logs {health.name}."
        if not health.healthy:
            detail = health.detail.rstrip(".")
            yield Finding(f"The component {health.name} is {health.state.lower()} and not healthy: {detail}.", remedy)
        elif health.restarts:
            times = f"{health.restarts} times since the last ./millrace up"
            yield Finding(f"The component {health.name} was restarted {times}.", remedy)


def _streams(
    platform: Platform, healthy: set[str], known: list[Finding], paused_dags: Collection[str] = ()
) -> Iterator[Finding]:
    """Problems of the streams, except failures of streams whose DAG has paused itself, which are already known."""
    paused = {finding.paused_dag for finding in known if finding.paused_dag}
    by_hand = set(paused_dags) - paused
    for entry in report.lag(platform, healthy):
        for problem in entry.get("problems", ()):
            if problem["what"].partition(",")[0] not in paused:
                yield Finding(**problem)
        dag = f"land__{entry['reader'].removeprefix('landing:')}"
        if dag in by_hand and entry.get("lag"):
            yield Finding(
                f"The DAG {dag} is paused, and {report.waiting(entry['lag'])}.",
                f"Resume it: ./millrace airflow dags unpause {dag}",
            )
        if "error" in entry:
            yield Finding(
                f"The reader {entry['reader']} of topic {entry['topic']} has a problem: {entry['error']}",
                "Run ./millrace status.",
            )


def _paused_dags(platform: Platform) -> set[str]:
    from include.warehouse.queries import load

    with closing(postgres.connect(platform.home, platform.home.state()["ports"]["postgres"], "airflow")) as metadata:
        return {dag for (dag,) in load("metadata").paused_dags(metadata)}


def _databases(platform: Platform) -> Iterator[Finding]:
    from include.warehouse.queries import load

    queries, port = load("platform"), platform.home.state()["ports"]["postgres"]
    with closing(postgres.connect(platform.home, port)) as server:
        for open_one in queries.open_transactions(server, idle_s=_IDLE_S, open_s=_OPEN_S):
            yield Finding(
                f"A transaction of {open_one.application_name or 'a client'} in the database {open_one.datname} has "
                f"been {open_one.state} for {open_one.seconds} s: {open_one.query}",
                f"End the client, or run: ./millrace psql -c 'SELECT pg_terminate_backend({open_one.pid})'",
            )
        taken, limit = queries.connections(server)
        if taken > 0.9 * limit:
            holders = ", ".join(
                f"{count} by {application or 'a client without a name'} ({state})"
                for application, state, count in queries.connection_holders(server, most=3)
            )
            yield Finding(
                f"{taken} of PostgreSQL's {limit} connections are in use: {holders}.",
                "End the clients that do not close their connections.",
            )
    with closing(postgres.connect(platform.home, port, "airflow")) as metadata:
        airflow = load("metadata")
        for stuck in airflow.stuck_deferrals(metadata, silent_s=_SILENT_S):
            yield Finding(
                f"{_task(stuck)} has been deferred for {stuck.seconds} s, and no running triggerer watches it.",
                "Read ./millrace logs triggerer. Clear the task in Airflow's UI if it does not continue.",
            )
        for queued in airflow.stuck_queue(metadata, queued_s=_QUEUED_S):
            yield Finding(
                f"{_task(queued)} has waited {queued.seconds} s for a worker.",
                "Raise MILLRACE_AIRFLOW__CORE__PARALLELISM, or read ./millrace logs scheduler.",
            )
        for filename, stack in airflow.import_errors(metadata):
            last = (stack or "").strip().splitlines()[-1]
            yield Finding(f"The DAG file {filename} cannot be imported: {last}", "Run ./millrace check.")


def _task(found: "StuckDeferralsRow | StuckQueueRow") -> str:
    return f"The task {found.task_id} of {found.dag_id} (run {found.run_id})"


def _paused(platform: Platform) -> Iterator[Finding]:
    """DAGs that have paused themselves, with the error of their last run."""
    from embedded.airflow_api import AirflowApi
    from include.warehouse.queries import load

    with closing(postgres.connect(platform.home, platform.home.state()["ports"]["postgres"], "airflow")) as metadata:
        found = list(load("metadata").paused_by_failures(metadata))
    api = AirflowApi.of(platform)
    for dag, run_id, runs in found:
        run = api.run(dag, run_id)
        failed = [task for task in api.task_instances(dag, run_id) if task.state == "failed"]
        *_, reason = "Airflow's UI has their logs.", *(line for task in failed for line in api.task_messages(run, task))
        yield Finding(
            f"{dag} was paused after {runs} failed runs. Last error: {reason}",
            f"Once it is fixed, resume the DAG: ./millrace airflow dags unpause {dag}",
            paused_dag=dag,
        )


def _datasets(platform: Platform) -> Iterator[Finding]:
    from include.datasets import definitions
    from include.versions import retention
    from include.warehouse.connection import connected

    os.environ.update(platform.environment())
    with connected("millrace doctor") as connection:
        for dataset in definitions.find().valid.values():
            for threat in retention.threats(connection, dataset):
                yield Finding(threat.what, threat.remedy)
            yield from _training(connection, dataset)
            yield from _champion(connection, dataset)


def _training(connection: "Connection", dataset: "Dataset") -> Iterator[Finding]:
    """The newest version, when its training run failed."""
    from include.versions import catalog

    state, sentence = catalog.training(connection, dataset.name)
    if state == "failed":
        # The sentence ends with the command that continues.
        yield Finding(f"No run has trained on the newest version of {dataset.name!r}.", sentence)


def _champion(connection: "Connection", dataset: "Dataset") -> Iterator[Finding]:
    """The champion, when it cannot be loaded or could not be compared on the newest version."""
    from include.registry import model
    from include.warehouse.queries import load

    sql, retire = load("registry"), f"./millrace champion {dataset.name} --retire"
    present = sql.champion_of(connection, dataset=dataset.name)
    latest = sql.latest_judgement(connection, dataset=dataset.name)
    if present is None:
        return
    try:
        model.load(connection, present.artifact, dataset.trusted)
    except UserError as error:
        replace = f"To replace it: {retire}, then ./millrace train {dataset.name}."
        yield Finding(
            f"The champion of {dataset.name!r} cannot be loaded. {error.what}",
            f"{error.remedy} {replace} [{error.code}]".strip(),
        )
    if latest is not None and latest.state == "incomparable":
        about = f"Version {latest.version} of {dataset.name!r}"
        yield Finding(f"{about} was not compared with the champion.", latest.reason or "")
