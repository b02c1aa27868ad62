"""champion and value."""

import getpass
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from embedded.platform import Platform

if TYPE_CHECKING:
    from include.promotion.value import VersionValue
    from include.registry.champion_history import Champion


@click.command()
@click.argument("dataset")
@click.option("--rollback", is_flag=True, help="Make the previous champion the champion again.")
@click.option(
    "--retire", is_flag=True, help="End the champion's time: the next model that beats the baseline becomes champion."
)
@click.option("--reason", default="", help="Why it is retired; kept with the change.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def champion(dataset: str, rollback: bool, retire: bool, reason: str, as_json: bool) -> None:
    """Which model is live, since when, on what evidence."""
    from include.datasets import definitions
    from include.registry import champion_history
    from include.versions import catalog
    from include.warehouse import queries
    from include.warehouse.connection import connected

    if rollback and retire:
        raise click.UsageError("--rollback and --retire exclude each other.")
    if reason and not retire:
        raise click.UsageError("--reason goes with --retire.")
    os.environ.update(Platform().environment())
    if rollback:
        champion_history.roll_back(dataset, getpass.getuser())
    if retire:
        ended = champion_history.retire(dataset, getpass.getuser(), reason or "Retired by hand.")
        click.echo(f"{dataset}: retired {ended}", err=as_json)
        click.echo(f"  The next run compares its models with the baseline: ./millrace train {dataset}", err=as_json)
        click.echo(f"  To take it back: ./millrace champion {dataset} --rollback", err=as_json)
        return
    with connected("millrace champion") as connection:
        present = champion_history.current(connection, dataset)
        last = queries.load("registry").last_change(connection, dataset=dataset)
        latest = queries.load("registry").latest_judgement(connection, dataset=dataset)
        state, says = catalog.training(connection, dataset)
    if present is None and latest is None:
        definitions.get(dataset)
    if as_json:
        found = {"champion": _plain(present), "latest": _latest(latest), "failure": says if state == "failed" else None}
        click.echo(json.dumps({"dataset": dataset, **found}, indent=2))
        return
    click.echo(f"{dataset}: {present}" if present else f"{dataset}: no champion yet; the baseline plays it")
    if present:
        click.echo(f"  {present.reason}")
    elif last:
        _, _, _, since, decider, why = last
        click.echo(f"  The last one was retired on {since:%Y-%m-%d %H:%M:%S} UTC by {decider}: {why}")
    if latest:
        judged = _latest(latest)
        assert judged is not None
        click.echo(f"Last before the gate: version {judged['version']}, {judged['state']}")
        for sentence in judged["sentences"]:
            click.echo(f"  {sentence}")
        click.echo(f"  Promoted: {judged['promoted']}." if judged["promoted"] else "  Nothing was promoted.")
    if state == "failed" or latest is None:
        click.echo(says)


@click.command()
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def value(dataset: str, as_json: bool) -> None:
    """What retraining has gained: what was live beside the first champion and the newest model, version by version."""
    from include.datasets import definitions
    from include.promotion import value as worth
    from include.versions import catalog
    from include.warehouse.connection import connected

    os.environ.update(Platform().environment())
    with connected("millrace value") as connection:
        versions = worth.by_version(connection, dataset)
        summary = worth.summary(connection, dataset)
        state, says = catalog.training(connection, dataset)
    if summary is None:
        definitions.get(dataset)
    if as_json:
        found = {
            "versions": [asdict(version) for version in versions],
            "summary": asdict(summary) if summary else None,
            "failure": says if state == "failed" else None,
        }
        click.echo(json.dumps({"dataset": dataset} | found, indent=2, default=str))
        return
    if summary is None:
        waits = "; no model has come before the gate yet" if state == "success" else ""
        click.echo(f"{dataset}: {says.rstrip('.') + waits + '.' if waits else says}")
        return
    header = ["version", "until", "rows", "metric", "was live", "", "never retrained", "", "newest", ""]
    _table(header, [_cells(version) for version in versions])
    for line in worth.summary_lines(summary, versions):
        click.echo(line)
    if state == "failed":
        click.echo(says)


def _plain(present: "Champion | None") -> dict[str, Any] | None:
    if present is None:
        return None
    return {
        name: found.isoformat() if isinstance(found, datetime) else found for name, found in asdict(present).items()
    }


def _latest(row: Sequence[Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    version, state, reason, sentences, promoted = row
    return {"version": version, "state": state, "sentences": [reason] if reason else sentences, "promoted": promoted}


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
