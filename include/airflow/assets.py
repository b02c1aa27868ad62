"""What Millrace makes, as Airflow assets, so that any DAG can be scheduled on it."""

from __future__ import annotations

from collections.abc import Sequence

from airflow.sdk import Asset, AssetAlias

from include.datasets.definition import TOPIC_PREFIX


def landed_table(stream: str) -> Asset:
    """The table of a stream. An event for each drain that has landed rows, once its window is over.

    The event's ``extra``: ``stream``, ``table``, and the numbers ``landed``, ``dead_letters``, ``quarantined`` and
    ``filtered``.
    """
    return Asset(name=f"landing.{stream}", uri=f"postgres://millrace/millrace/landing/{stream}")


def dataset_version(dataset: str) -> Asset:
    """The versions of a dataset. An event for each publication.

    The event's ``extra``: ``dataset``, ``version``, ``rows``, ``interval_start`` and ``interval_end`` (ISO, or None),
    and ``new``: false if the same rows had been published before.
    """
    topic = f"{TOPIC_PREFIX}{dataset}"
    return Asset(name=topic, uri=f"kafka://millrace/{topic}")


def champion(dataset: str) -> Asset:
    """The champion of a dataset. An event for each promotion, by the gate or by a person on the form.

    The event's ``extra``: ``dataset``, ``number`` (of the change), ``model``, ``version``, ``run``, ``sha256`` (of the
    model), ``cause`` and ``decider``.
    """
    return Asset(name=f"millrace.champion.{dataset}", uri=f"millrace://champion/{dataset}")


def if_any(asset: Asset) -> AssetAlias:
    """What a task names as its outlet to emit an event only if something has happened; see ``emit``."""
    return AssetAlias(name=f"{asset.name} if any")


def emit(asset: Asset, facts: dict[str, str | int | float | bool | None]) -> None:
    """Adds an event to the task that runs, which has ``if_any(asset)`` as an outlet. It is stored if the task succeeds.

    Args:
        facts: The event's ``extra``: identifiers and numbers.
    """
    from airflow.sdk import get_current_context

    get_current_context()["outlet_events"][if_any(asset)].add(asset, extra=dict(facts))


def emit_promotions(runs: Sequence[int]) -> None:
    """Adds an event for each change of champion that promoted a model of these training runs."""
    from include.promotion import summary

    for change in summary.promotions(runs):
        emit(champion(change.dataset), change._asdict())
