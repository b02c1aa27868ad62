"""doctor: what is wrong with the platform, and what to do about it."""

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

_NEEDED_MEMORY = 1.5e9
_IDLE_S, _OPEN_S, _SILENT_S, _QUEUED_S = 60.0, 900.0, 60.0, 120.0


@dataclass(frozen=True)
class Finding:
    """Something that is wrong, and the remedy."""

    what: str
    remedy: str


@click.command()
def doctor() -> None:
    """Look for what is wrong, and say what to do about it. Exits with 1 when something is."""
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
    click.echo("nothing is wrong" + ("" if healths else "; the platform is down (./millrace up starts it)"))


def _add(findings: list[Finding], found: Iterator[Finding]) -> None:
    """Adds what is found; what cannot be looked at is a finding as well, and hides no other."""
    try:
        for finding in found:
            findings.append(finding)
    except UserError as error:
        findings.append(Finding(error.what, error.remedy))


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
            yield Finding(error.what, error.remedy)
    for health in healths:
        see = f"See ./millrace logs {health.name}."
        if not health.healthy:
            detail = health.detail.removesuffix(see).strip().rstrip(".")
            yield Finding(f"{health.name} is {health.state.lower()}: {detail}.", see)
        elif health.restarts:
            yield Finding(f"{health.name} was restarted {health.restarts} times since the last up.", see)


def _streams(
    platform: Platform, healthy: set[str], known: list[Finding], paused_dags: Collection[str] = ()
) -> Iterator[Finding]:
    """What is wrong with the streams, but for failures of those that have paused themselves, which are known."""
    paused = {finding.what.partition(" ")[0] for finding in known if " has paused itself " in finding.what}
    by_hand = set(paused_dags) - paused
    for entry in report.lag(platform, healthy):
        for problem in entry.get("problems", ()):
            if problem["what"].partition(",")[0] not in paused:
                yield Finding(**problem)
        dag = f"land__{entry['reader'].removeprefix('landing:')}"
        if dag in by_hand and entry.get("lag"):
            yield Finding(
                f"{dag} is paused, and {entry['lag']:,} records wait.", f"./millrace airflow dags unpause {dag}"
            )
        if "error" in entry:
            yield Finding(
                f"What {entry['reader']} reads of {entry['topic']}: {entry['error']}", "See ./millrace status."
            )


def _paused_dags(platform: Platform) -> set[str]:
    from include.warehouse.queries import load

    with closing(postgres.connect(platform.home, platform.home.state()["ports"]["postgres"], "airflow")) as metadata:
        return {dag for (dag,) in load("metadata").paused_dags(metadata)}


def _databases(platform: Platform) -> Iterator[Finding]:
    from include.warehouse.queries import load

    queries, port = load("platform"), platform.home.state()["ports"]["postgres"]
    with closing(postgres.connect(platform.home, port)) as server:
        for pid, database, application, state, seconds, query in queries.open_transactions(
            server, idle_s=_IDLE_S, open_s=_OPEN_S
        ):
            yield Finding(
                f"A transaction of {application or 'a client'} in {database} is {state} for {seconds} s: {query}",
                f"End the client, or: ./millrace psql -c 'SELECT pg_terminate_backend({pid})'",
            )
        taken, limit = queries.connections(server)
        if taken > 0.9 * limit:
            most = ", ".join(
                f"{count} by {application or 'a client without a name'} ({state})"
                for application, state, count in queries.connection_holders(server, most=3)
            )
            yield Finding(
                f"{taken} of PostgreSQL's {limit} connections are taken: {most}.", "End clients that never close."
            )
    with closing(postgres.connect(platform.home, port, "airflow")) as metadata:
        airflow = load("metadata")
        for dag, run, task, _, seconds in airflow.stuck_deferrals(metadata, silent_s=_SILENT_S):
            yield Finding(
                f"{task} of {dag} (run {run}) is deferred for {seconds} s, and no live triggerer watches it.",
                "Look at ./millrace logs triggerer; clear the task in the UI if it does not go on.",
            )
        for dag, run, task, _, seconds in airflow.stuck_queue(metadata, queued_s=_QUEUED_S):
            yield Finding(
                f"{task} of {dag} (run {run}) waits for a worker for {seconds} s.",
                "Raise MILLRACE_AIRFLOW__CORE__PARALLELISM, or look at ./millrace logs scheduler.",
            )
        for filename, stack in airflow.import_errors(metadata):
            yield Finding(
                f"{filename} cannot be loaded: {(stack or '').strip().splitlines()[-1]}", "See ./millrace check."
            )


def _paused(platform: Platform) -> Iterator[Finding]:
    """DAGs that have paused themselves, with what the last of their runs failed of."""
    from embedded.airflow_api import AirflowApi
    from include.warehouse.queries import load

    with closing(postgres.connect(platform.home, platform.home.state()["ports"]["postgres"], "airflow")) as metadata:
        found = list(load("metadata").paused_by_failures(metadata))
    api = AirflowApi.of(platform)
    for dag, run_id, runs in found:
        run = api.run(dag, run_id)
        failed = [task for task in api.task_instances(dag, run_id) if task.state == "failed"]
        *_, reason = "Their logs are in the UI.", *(line for task in failed for line in api.task_messages(run, task))
        yield Finding(
            f"{dag} has paused itself after {runs} runs that failed. {reason}",
            f"Once it is fixed: ./millrace airflow dags unpause {dag}",
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
    """A newest version that no run has trained on, because its run failed."""
    from include.versions import catalog

    state, says = catalog.training(connection, dataset.name)
    if state == "failed":
        # The sentence ends with the command that continues.
        yield Finding(f"The newest version of {dataset.name!r} was not trained on.", says)


def _champion(connection: "Connection", dataset: "Dataset") -> Iterator[Finding]:
    """A champion that cannot be loaded, or that the newest version could not be compared with."""
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
        again = f"To start again: {retire}, then ./millrace train {dataset.name}."
        yield Finding(
            f"The champion of {dataset.name!r} cannot be loaded. {error.what}", f"{error.remedy} {again}".strip()
        )
    if latest is not None and latest.state == "incomparable":
        about = f"Version {latest.version} of {dataset.name!r}"
        yield Finding(f"{about} was not compared with the champion.", latest.reason or "")
