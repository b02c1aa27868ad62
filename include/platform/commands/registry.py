"""champion and value."""

import getpass
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from include.platform.platform import Platform

if TYPE_CHECKING:
    from include.training.registry.reign import Reign

VALUE = ("version", "until", "metric", "rows", "live_model", "live", "never_model", "never", "newest_model", "newest")
SUMMARY = ("trainings", "promotions", "useless", "versions", "metric", "live", "never", "newest", "gained")


@click.command()
@click.argument("dataset")
@click.option("--rollback", is_flag=True, help="Make the former champion the champion again.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def champion(dataset: str, rollback: bool, as_json: bool) -> None:
    """Which model is live, since when, on what evidence."""
    from include.datasets import definitions
    from include.training.registry import reign
    from include.warehouse import queries
    from include.warehouse.connection import connected

    os.environ.update(Platform().environment())
    if rollback:
        reign.roll_back(dataset, getpass.getuser())
    with connected("millrace champion") as connection:
        present = reign.current(connection, dataset)
        latest = queries.load("registry").latest_judgement(connection, dataset=dataset)
    if present is None and latest is None:
        definitions.get(dataset)
    if as_json:
        click.echo(json.dumps({"dataset": dataset, "champion": _plain(present), "latest": _latest(latest)}, indent=2))
        return
    click.echo(f"{dataset}: {present}" if present else f"{dataset}: no champion yet; the baseline plays it")
    if present:
        click.echo(f"  {present.reason}")
    if latest:
        state = _latest(latest)
        assert state is not None
        click.echo(f"Last before the gate: version {state['version']}, {state['state']}")
        for sentence in state["sentences"]:
            click.echo(f"  {sentence}")


@click.command()
@click.argument("dataset")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def value(dataset: str, as_json: bool) -> None:
    """What retraining has gained: what was live beside the first champion and the newest model, version by version."""
    from include.datasets import definitions
    from include.warehouse import queries
    from include.warehouse.connection import connected

    os.environ.update(Platform().environment())
    sql = queries.load("registry")
    with connected("millrace value") as connection:
        versions = [dict(zip(VALUE, row, strict=True)) for row in sql.value_by_version(connection, dataset=dataset)]
        row = sql.value_of_retraining(connection, dataset=dataset)
    summary = dict(zip(SUMMARY, row, strict=True)) if row else None
    if summary is None:
        definitions.get(dataset)
    if as_json:
        found = {"dataset": dataset, "versions": versions, "summary": summary}
        click.echo(json.dumps(found, indent=2, default=str))
        return
    if summary is None:
        click.echo(f"{dataset}: nothing was trained yet. Begin with ./millrace publish {dataset}.")
        return
    _table(["version", "until", "rows", "metric", "live", "", "never", "", "newest", ""], [_cells(v) for v in versions])
    click.echo(_told(summary))


def _plain(present: "Reign | None") -> dict[str, Any] | None:
    if present is None:
        return None
    return {
        name: found.isoformat() if isinstance(found, datetime) else found for name, found in asdict(present).items()
    }


def _latest(row: Sequence[Any] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    version, state, reason, sentences = row
    return {"version": version, "state": state, "sentences": [reason] if reason else sentences}


def _cells(version: dict[str, Any]) -> list[str]:
    until = version["until"]
    cells = [version["version"], f"{until:%Y-%m-%d}" if until else "", f"{version['rows']:,}", version["metric"]]
    for role in ("live", "never", "newest"):
        number = version[role]
        cells += [version[f"{role}_model"] or "", "" if number is None else f"{number:.3f}"]
    return cells


def _table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _told(summary: dict[str, Any]) -> str:
    trainings = (
        f"{summary['trainings']} trainings: {summary['promotions']} made a champion, "
        f"{summary['useless']} changed nothing."
    )
    if summary["live"] is None:
        return f"{trainings} No version came after the first champion yet, so there is no gain to tell."
    numbers = [f"{role} {summary[name]:.3f}" for role, name in (("live", "live"), ("never retrained", "never"))]
    if summary["newest"] is not None:
        numbers.append(f"always the newest {summary['newest']:.3f}")
    return (
        f"Since the first champion, {summary['metric']} on the test splits of {summary['versions']} versions: "
        f"{', '.join(numbers)}.\nRetraining has gained {summary['gained']:+.3f}. {trainings}"
    )
