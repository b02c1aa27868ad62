"""champion and value: the model in use, and what retraining has gained."""

import getpass
import json
import os
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from embedded.platform import Platform

if TYPE_CHECKING:
    from include.promotion.value import VersionValue
    from include.registry.champion_history import Champion
    from include.warehouse.queries.signatures.registry import LatestJudgementRow


@click.command()
@click.argument("dataset")
@click.option("--rollback", is_flag=True, help="Make the previous champion the champion again.")
@click.option(
    "--retire", is_flag=True, help="End the champion's tenure; the next model that beats the baseline becomes champion."
)
@click.option("--reason", default="", help="The reason of a retirement, stored with it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def champion(dataset: str, rollback: bool, retire: bool, reason: str, as_json: bool) -> None:
    """Show the model in use, since when, and the evidence for it."""
    from include.datasets import definitions
    from include.registry import champion_history
    from include.versions import catalog
    from include.versions.training_state import TrainingState
    from include.warehouse import queries
    from include.warehouse.connection import connected

    if rollback and retire:
        raise click.UsageError("Use either --rollback or --retire, not both.")
    if reason and not retire:
        raise click.UsageError("--reason needs --retire.")
    os.environ.update(Platform().environment())
    if rollback:
        champion_history.roll_back(dataset, getpass.getuser())
    if retire:
        ended = champion_history.retire(dataset, getpass.getuser(), reason or "No reason was given.")
        click.echo(f"{dataset}: retired {ended}", err=as_json)
        click.echo(f"  The next run is compared with the baseline: ./millrace train {dataset}", err=as_json)
        click.echo(f"  To undo: ./millrace champion {dataset} --rollback", err=as_json)
        return
    with connected("millrace champion") as connection:
        present = champion_history.current(connection, dataset)
        last = queries.load("registry").last_change(connection, dataset=dataset)
        latest = queries.load("registry").latest_judgement(connection, dataset=dataset)
        state, status = catalog.training(connection, dataset)
    if present is None and latest is None:
        definitions.get(dataset)
    if as_json:
        found = {
            "champion": _plain(present),
            "latest": _latest(latest),
            "failure": status if state == TrainingState.FAILED else None,
        }
        click.echo(json.dumps({"dataset": dataset, **found}, indent=2))
        return
    click.echo(f"{dataset}: {present}" if present else f"{dataset}: no champion; the baseline takes its place")
    if present:
        click.echo(f"  {present.reason}")
    elif last:
        click.echo(
            f"  The last champion was retired on {last.since:%Y-%m-%d %H:%M:%S} UTC by {last.decider}: {last.reason}"
        )
    if latest:
        judged = _latest(latest)
        assert judged is not None
        click.echo(f"Last judged: version {judged['version']}, {judged['state']}")
        for sentence in judged["sentences"]:
            click.echo(f"  {sentence}")
        click.echo(f"  Promoted: {judged['promoted']}." if judged["promoted"] else "  Nothing was promoted.")
    if state == TrainingState.FAILED or latest is None:
        click.echo(status)


@click.command()
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def value(dataset: str, as_json: bool) -> None:
    """Show what retraining has gained: the live model compared with the first champion and the newest, by version."""
    from include.datasets import definitions
    from include.promotion import value as worth
    from include.versions import catalog
    from include.versions.training_state import TrainingState
    from include.warehouse.connection import connected

    os.environ.update(Platform().environment())
    with connected("millrace value") as connection:
        versions = worth.by_version(connection, dataset)
        summary = worth.summary(connection, dataset)
        state, status = catalog.training(connection, dataset)
    if summary is None:
        definitions.get(dataset)
    if as_json:
        found = {
            "versions": [asdict(version) for version in versions],
            "summary": asdict(summary) if summary else None,
            "failure": status if state == TrainingState.FAILED else None,
        }
        click.echo(json.dumps({"dataset": dataset} | found, indent=2, default=str))
        return
    if summary is None:
        waits = "; the gate has judged no model yet" if state == TrainingState.SUCCESS else ""
        click.echo(f"{dataset}: {status.rstrip('.') + waits + '.' if waits else status}")
        return
    header = ["version", "until", "rows", "metric", "live", "", "never retrained", "", "newest", ""]
    _table(header, [_cells(version) for version in versions])
    for line in worth.summary_lines(summary, versions):
        click.echo(line)
    if state == TrainingState.FAILED:
        click.echo(status)


def _plain(present: "Champion | None") -> dict[str, Any] | None:
    if present is None:
        return None
    return {
        name: found.isoformat() if isinstance(found, datetime) else found for name, found in asdict(present).items()
    }


def _latest(row: "LatestJudgementRow | None") -> dict[str, Any] | None:
    if row is None:
        return None
    sentences = [row.reason] if row.reason else row.sentences
    return {"version": row.version, "state": row.state, "sentences": sentences, "promoted": row.promoted}


def _cells(version: "VersionValue") -> list[str]:
    until = f"{version.until:%Y-%m-%d}" if version.until else ""
    cells = [version.version, until, f"{version.rows:,}", version.metric]
    for model, number in (
        (version.live_model, version.live),
        (version.never_model, version.never),
        (version.newest_model, version.newest),
    ):
        cells += [model or "", "" if number is None else f"{number:.3f}"]
    return cells


def _table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
