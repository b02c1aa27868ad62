"""The versions that exist: those landed in the warehouse, and those just sealed that no dispatch has landed yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from include.errors import NonRetryableError, UserError
from include.versions.manifest import CONTROL_TOPIC, Manifest, Role, decode
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

DISPATCH = "dispatch"


class UnknownVersion(NonRetryableError):
    """No such version was ever sealed."""


class VersionExpired(NonRetryableError):
    """A version's records are no longer kept in Kafka."""

    def __init__(self, manifest: Manifest, at: datetime) -> None:
        super().__init__(
            f"Version {manifest.short} of {manifest.dataset!r} was expired on {at:%Y-%m-%d %H:%M} UTC, as the "
            "definition's keep says.",
            "Take a later version, or publish its interval again.",
        )


def alike(
    connection: Connection, brokers: AdminClient, dataset: str, rows: Mapping[Role, int], split: Mapping[str, Any]
) -> dict[str, str]:
    """The versions of a dataset with as many rows, divided by the same rule: their ids by the digest of their content.

    Args:
        connection: To the warehouse.
        brokers: Of Kafka.
        dataset: Its name.
        rows: The numbers of rows by split.
        split: The rule as the manifest states it.
    """
    found = dict(
        queries.load("training").versions_alike(
            connection,
            dataset=dataset,
            train_rows=rows["train"],
            test_rows=rows["test"],
            split=msgspec.json.encode(split).decode(),
        )
    )
    for manifest in not_landed(connection, brokers):
        if (manifest.dataset, manifest.rows, manifest.split) == (dataset, rows, split) and manifest.content:
            found.setdefault(manifest.content, manifest.version)
    return found


def not_landed(connection: Connection, brokers: AdminClient | None = None) -> Iterator[Manifest]:
    """The manifests on the control topic that no dispatch has landed yet.

    Args:
        connection: To the warehouse.
        brokers: Whom to ask, as for ``topics.create``.
    """
    from include.kafka import client, position, topics
    from include.kafka.reader import read_range

    stored_positions = position.read_positions(connection, DISPATCH, CONTROL_TOPIC)
    brokers = client.admin() if brokers is None else brokers
    extents = topics.extents(CONTROL_TOPIC, topics.describe(CONTROL_TOPIC, brokers).partitions, brokers)
    ranges = {}
    for partition, extent in extents.items():
        landed = stored_positions[partition].position.next_offset if partition in stored_positions else 0
        ranges[partition] = (max(landed, extent.first), extent.stable_end)
    for messages in read_range(CONTROL_TOPIC, ranges):
        for message in messages:
            with suppress(UserError):
                yield decode(message.value())


def find(dataset: str, version: str | None = None, until: datetime | None = None) -> Manifest:
    """The manifest of a version that was landed.

    Args:
        version: Its id or the beginning of it; the newest when left out.
        until: Where its interval ends; anywhere when left out.

    Raises:
        UnknownVersion: There is none, or the beginning fits several.
        VersionExpired: Its records are no longer kept.
    """
    with connected("millrace version") as connection:
        rows = list(
            queries.load("training").find_versions(connection, dataset=dataset, prefix=version or "", until=until)
        )
    if not rows:
        what = f"has no version {version!r}" if version else "has no version" if until else "has no version yet"
        what += f" whose interval ends on {until:%Y-%m-%d}" if until else ""
        query = f"select version from millrace.dataset_version where dataset = '{dataset}'"
        remedy = f"Publish one: ./millrace publish {dataset}."
        if version or until:
            remedy = f'See which there are: ./millrace psql -c "{query}".'
        raise UnknownVersion(f"Dataset {dataset!r} {what}.", remedy)
    if version and len(rows) > 1:
        raise UnknownVersion(f"Several versions of {dataset!r} begin with {version!r}.", "Write more of its digits.")
    manifest, expired_at = rows[0]
    found = decode(bytes(manifest))
    if expired_at is not None:
        raise VersionExpired(found, expired_at)
    return found


def training(connection: Connection, dataset: str, version: str | None = None) -> tuple[str | None, str]:
    """How far the training on a version has come.

    Args:
        version: Its whole id; the newest of the dataset when left out.

    Returns:
        The state of its best run (``success``, ``running``, ``failed``), or None without one, and a sentence with the
        command that goes on.
    """
    found = queries.load("training").last_training(connection, dataset=dataset, version=version)
    if found is None:
        if version:
            return None, "Its training starts by itself as soon as the dispatch has seen it."
        return None, f"Nothing was published yet. Begin with ./millrace publish {dataset}."
    found_version, started, run, state, model, message = found
    again = f"Train on it again: ./millrace train {dataset} --version {found_version[:12]}."
    about = f"version {found_version[:12]}"
    if state == "success":
        return state, f"Run {run} has trained on {about}."
    if state == "running":
        return state, f"Run {run} trains on {about}. If it was ended: {again[0].lower()}{again[1:]}"
    if state is None:
        begun = "The run that was started for it has not planned its models" if started else "It has no run yet"
        return state, f"No run has trained on {about}. {begun}. If this lasts, see train__{dataset} in the UI. {again}"
    reason = f", {model}: {message}" if model else f": {message}" if message else "."
    return state, f"Run {run} on {about} failed{reason} {again}"
