"""Expires versions that are no longer needed, the oldest first, and reports settings that delete them earlier."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from include.datasets import Dataset
from include.error_codes import Code
from include.errors import NonRetryableError
from include.kafka.position_errors import TopicMissing
from include.versions import catalog
from include.versions.manifest import Manifest, decode
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

PATIENCE = timedelta(days=1)
"""How long an unfinished run or verification keeps its version."""

MIN_REMAINING = timedelta(days=30)
"""Kafka must keep a version that is needed for at least this long."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """A version and the reason to keep it.

    Attributes:
        manifest: Its manifest.
        sealed_at: When it was sealed.
        expired_at: When it expired; None if it did not.
        needed: Why it is needed, as a clause; None if it is not.
    """

    manifest: Manifest
    sealed_at: datetime
    expired_at: datetime | None
    needed: str | None


@dataclass(frozen=True)
class Threat:
    """A setting of a topic that deletes a version that is needed, and the remedy."""

    what: str
    remedy: str
    code: Code = Code.RETENTION_TOO_SHORT


def maintain(dataset: Dataset) -> list[str]:
    """Expires the versions of a dataset that are no longer needed. Returns their ids.

    Raises:
        NonRetryableError: A setting of the topic deletes a version that is needed.
        UserError: Kafka or PostgreSQL does not answer.
    """
    with connected(f"millrace maintain {dataset.name}") as connection:
        expired = expire(connection, dataset)
        found = list(threats(connection, dataset))
    if found:
        raise NonRetryableError(" ".join(threat.what for threat in found), found[0].remedy, code=found[0].code)
    return expired


def expire(connection: Connection, dataset: Dataset) -> list[str]:
    """Deletes the oldest versions of a dataset that are not needed from Kafka, and commits. Returns their ids.

    Kafka can delete only the beginning of a partition, so the first version that is needed keeps all versions after it.
    A version is marked as expired before its messages are deleted: no run begins on it, and after a crash the next call
    deletes the rest.

    Raises:
        UserError: Kafka or PostgreSQL does not answer.
    """
    if dataset.kept is None:
        return []
    list(queries.load("retention").lock_versions(connection, topic=dataset.topic))
    versions = _versions(connection, dataset)
    expiring = list(takewhile(lambda kept: kept.expired_at or not kept.needed, versions))
    expired = [kept.manifest.version for kept in expiring if not kept.expired_at]
    queries.load("retention").mark_expired(connection, versions=expired)
    connection.commit()
    remaining = [kept.manifest for kept in versions[len(expiring) :]]
    _drop(dataset.topic, [kept.manifest for kept in expiring], [*remaining, *catalog.not_landed(connection)])
    for version in expired:
        log.info("Version %s of %s expired: keep is %r.", version[:12], dataset.name, dataset.keep)
    if remaining:
        log.info("The oldest version that stays is %s: %s.", remaining[0].short, versions[len(expiring)].needed)
    return expired


def threats(connection: Connection, dataset: Dataset) -> Iterator[Threat]:
    """Settings of a dataset's topic with which Kafka deletes a version that is needed, now or soon.

    Raises:
        UserError: Kafka or PostgreSQL does not answer.
    """
    from include.kafka import topics

    needed = [kept for kept in _versions(connection, dataset) if kept.needed and not kept.expired_at]
    connection.rollback()
    if not needed:
        return
    try:
        settings = topics.settings(dataset.topic)
    except TopicMissing:
        yield Threat(
            f"The topic {dataset.topic!r} was deleted, and version {needed[0].manifest.short} with it.",
            f"Publish again: ./millrace publish {dataset.name}.",
            Code.VERSION_TRIMMED,
        )
        return
    for name, why in _settings_that_delete(settings, needed[0], all_kept=dataset.kept is None):
        oldest = f"Version {needed[0].manifest.short}, which is needed ({needed[0].needed}),"
        yield Threat(
            f"The topic {dataset.topic!r} has {name}={settings[name]}. {oldest} {why}.",
            f"Set retention.ms=-1, retention.bytes=-1 and cleanup.policy=delete on the topic; keep={dataset.keep!r} in "
            "the definition already deletes versions that are not needed.",
        )


def _settings_that_delete(settings: dict[str, str], oldest: Kept, *, all_kept: bool) -> Iterator[tuple[str, str]]:
    if "compact" in settings["cleanup.policy"]:
        yield "cleanup.policy", "can lose messages, and no other version can be published"
    if (retention := int(settings["retention.ms"])) >= 0 and "delete" in settings["cleanup.policy"]:
        until = oldest.sealed_at + timedelta(milliseconds=retention)
        if all_kept or until < datetime.now(until.tzinfo) + MIN_REMAINING:
            yield "retention.ms", f"will be deleted after {until:%Y-%m-%d %H:%M} UTC"
    if int(settings["retention.bytes"]) >= 0 and "delete" in settings["cleanup.policy"]:
        yield "retention.bytes", "will be deleted when later versions exceed this size"


def _versions(connection: Connection, dataset: Dataset) -> list[Kept]:
    found = queries.load("retention").versions_on(
        connection, dataset=dataset.name, topic=dataset.topic, keep=dataset.kept, patience=PATIENCE
    )
    return [Kept(decode(bytes(row.manifest)), row.sealed_at, row.expired_at, row.needed) for row in found]


def _drop(topic: str, expiring: Sequence[Manifest], remaining: Iterable[Manifest]) -> None:
    """Deletes the messages of the expired versions, up to the first message of one that stays, in each partition."""
    from include.kafka import topics

    ends: dict[int, int] = {}
    for manifest in expiring:
        for message in manifest.messages:
            ends[message.partition] = max(ends.get(message.partition, 0), message.offset + 1)
    for manifest in remaining:
        for message in manifest.messages if manifest.topic == topic else ():
            if message.partition in ends:
                ends[message.partition] = min(ends[message.partition], message.offset)
    if ends:
        try:
            topics.drop_below(topic, ends)
        except TopicMissing:
            log.warning("The topic %s was already deleted.", topic)
