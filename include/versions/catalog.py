"""The catalog of versions: those in the warehouse, and those just sealed that no dispatch has landed yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.versions.manifest import CONTROL_TOPIC, Manifest, Role, decode
from include.versions.training_state import TrainingState
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient
    from psycopg2.extensions import connection as Connection

DISPATCH = "dispatch"


class UnknownVersion(NonRetryableError):
    """The dataset has no such version, or several match."""


class VersionExpired(NonRetryableError):
    """A version's messages were deleted from Kafka, as the definition's ``keep`` allows."""

    def __init__(self, manifest: Manifest, at: datetime) -> None:
        super().__init__(
            f"Version {manifest.short} of {manifest.dataset!r} expired on {at:%Y-%m-%d %H:%M} UTC, as the definition's "
            "keep allows.",
            "Use a later version, or publish its interval again.",
            code=Code.VERSION_EXPIRED,
        )


def alike(
    connection: Connection, brokers: AdminClient, dataset: str, rows: Mapping[Role, int], split: Mapping[str, Any]
) -> dict[str, str]:
    """The versions of a dataset with these numbers of rows and this rule: their ids by the digest of their content.

    Args:
        connection: A connection to the warehouse.
        brokers: A client of Kafka.
        dataset: The dataset's name.
        rows: The number of rows by split.
        split: The rule, as in the manifest.
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
        connection: A connection to the warehouse.
        brokers: A client of Kafka; a new one by default.
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
    """The manifest of a version in the warehouse.

    Args:
        version: Its id or the beginning of its id; by default the newest.
        until: The end of its interval; by default any.

    Raises:
        UnknownVersion: No version matches, or several match the beginning of an id.
        VersionExpired: Its messages were deleted from Kafka.
    """
    with connected("millrace version") as connection:
        rows = list(
            queries.load("training").find_versions(connection, dataset=dataset, prefix=version or "", until=until)
        )
    if not rows:
        what = f"has no version {version!r}" if version else "has no version" if until else "has no version yet"
        what += f" whose interval ends on {until:%Y-%m-%d}" if until else ""
        query = f"select version from millrace.dataset_version where dataset = '{dataset}'"
        remedy = f"Publish one with ./millrace publish {dataset}."
        if version or until:
            remedy = f'List the versions with ./millrace psql -c "{query}".'
        raise UnknownVersion(f"Dataset {dataset!r} {what}.", remedy, code=Code.UNKNOWN_VERSION)
    if version and len(rows) > 1:
        raise UnknownVersion(
            f"Several versions of {dataset!r} begin with {version!r}.",
            "Write more digits of the version.",
            code=Code.AMBIGUOUS_VERSION,
        )
    manifest, expired_at = rows[0]
    found = decode(bytes(manifest))
    if expired_at is not None:
        raise VersionExpired(found, expired_at)
    return found


def training(connection: Connection, dataset: str, version: str | None = None) -> tuple[str | None, str]:
    """The state of the training on a version.

    Args:
        version: Its whole id; by default the newest of the dataset.

    Returns:
        The state of its best run (``success``, ``running``, ``failed``), or None without a run, and a sentence with the
        next command.
    """
    found = queries.load("training").last_training(connection, dataset=dataset, version=version)
    if found is None:
        if version:
            return None, "Its training starts automatically within seconds."
        return None, f"No version was published yet. Begin with ./millrace publish {dataset}."
    again = f"./millrace train {dataset} --version {found.id[:12]}"
    about = f"version {found.id[:12]}"
    if found.state == TrainingState.SUCCESS:
        summary = f"Run {found.run} has trained on {about}."
    elif found.state == TrainingState.RUNNING:
        summary = f"Run {found.run} is training on {about}. If it was killed, train on it again: {again}."
    elif found.state is None:
        start = "A run was started and has not planned its models yet" if found.is_started else "No run was started yet"
        summary = (
            f"No run has trained on {about}. {start}; if this does not change, see train__{dataset} in the UI or train "
            f"on it: {again}."
        )
    else:
        reason = f", {found.model}: {found.message}" if found.model else f": {found.message}" if found.message else "."
        summary = f"Run {found.run} on {about} failed{reason} Train on it again: {again}."
    return found.state, summary
