"""Retention: versions that are no longer needed expire, the oldest first; no other setting may remove them earlier."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING

from include.datasets import Dataset
from include.errors import NonRetryableError
from include.kafka.position_errors import TopicMissing
from include.versions import catalog
from include.versions.manifest import Manifest, decode
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

PATIENCE = timedelta(days=1)
"""How long a run or a proof that has not ended keeps its version."""

SOON = timedelta(days=30)
"""A version that is needed must not be about to go within so long."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """A version and what keeps it.

    Attributes:
        manifest: Its manifest.
        sealed_at: When it was sealed.
        expired_at: When it was given up, if it was.
        needed: What needs it, as a clause; None when nothing does.
    """

    manifest: Manifest
    sealed_at: datetime
    expired_at: datetime | None
    needed: str | None


@dataclass(frozen=True)
class Threat:
    """Somebody else's setting that will forget a version too early, and what to set instead."""

    what: str
    remedy: str


def maintain(dataset: Dataset) -> list[str]:
    """Forgets what nothing needs. Returns the ids.

    Raises:
        NonRetryableError: A setting of the topic removes a version too early.
        UserError: Kafka or Postgres does not answer.
    """
    with connected(f"millrace maintain {dataset.name}") as connection:
        expired = expire(connection, dataset)
        found = list(threats(connection, dataset))
    if found:
        raise NonRetryableError(" ".join(threat.what for threat in found), found[0].remedy)
    return expired


def expire(connection: Connection, dataset: Dataset) -> list[str]:
    """Removes the oldest versions of a dataset that nothing needs from Kafka; commits. Returns their ids.

    Kafka can only drop the beginning of a partition, so the first version that is needed keeps all behind it. A version
    is marked as expired before its records go: a run never begins on what is about to go, and what a crash leaves is
    dropped the next time.

    Raises:
        UserError: Kafka or Postgres does not answer.
    """
    if dataset.kept is None:
        return []
    list(queries.load("retention").lock_versions(connection, topic=dataset.topic))
    versions = _versions(connection, dataset)
    going = list(takewhile(lambda kept: kept.expired_at or not kept.needed, versions))
    expired = [kept.manifest.version for kept in going if not kept.expired_at]
    queries.load("retention").mark_expired(connection, versions=expired)
    connection.commit()
    staying = [kept.manifest for kept in versions[len(going) :]]
    _drop(dataset.topic, [kept.manifest for kept in going], [*staying, *catalog.not_landed(connection)])
    for version in expired:
        log.info("Version %s of %s is expired: %s are kept.", version[:12], dataset.name, dataset.keep)
    if staying:
        log.info("Version %s is the oldest that stays: %s.", staying[0].short, versions[len(going)].needed)
    return expired


def threats(connection: Connection, dataset: Dataset) -> Iterator[Threat]:
    """Settings of a dataset's topic by which Kafka removes a version that is needed, or will soon.

    Raises:
        UserError: Kafka or Postgres does not answer.
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
            f"The topic {dataset.topic!r} is gone, and with it version {needed[0].manifest.short}.",
            f"Publish again: ./millrace publish {dataset.name}.",
        )
        return
    for name, why in _early(settings, needed[0], all_kept=dataset.kept is None):
        oldest = f"version {needed[0].manifest.short}, which is needed ({needed[0].needed})"
        yield Threat(
            f"The topic {dataset.topic!r} has {name}={settings[name]}, by which {oldest}, {why}.",
            f"Set retention.ms=-1, retention.bytes=-1 and cleanup.policy=delete on it; keep={dataset.keep!r} of the "
            "definition removes what is not needed.",
        )


def _early(settings: dict[str, str], oldest: Kept, *, all_kept: bool) -> Iterator[tuple[str, str]]:
    if "compact" in settings["cleanup.policy"]:
        yield "cleanup.policy", "can lose messages, and no further version can be published"
    if (lasting := int(settings["retention.ms"])) >= 0 and "delete" in settings["cleanup.policy"]:
        until = oldest.sealed_at + timedelta(milliseconds=lasting)
        if all_kept or until < datetime.now(until.tzinfo) + SOON:
            yield "retention.ms", f"goes after {until:%Y-%m-%d %H:%M} UTC"
    if int(settings["retention.bytes"]) >= 0 and "delete" in settings["cleanup.policy"]:
        yield "retention.bytes", "goes when later versions need the room"


def _versions(connection: Connection, dataset: Dataset) -> list[Kept]:
    found = queries.load("retention").versions_on(
        connection, dataset=dataset.name, topic=dataset.topic, keep=dataset.kept, patience=PATIENCE
    )
    return [
        Kept(decode(bytes(manifest)), sealed_at, expired_at, needed)
        for _, sealed_at, manifest, expired_at, needed in found
    ]


def _drop(topic: str, going: Sequence[Manifest], staying: Iterable[Manifest]) -> None:
    """Drops the records of what goes, up to the first record of what stays, in each partition."""
    from include.kafka import topics

    ends: dict[int, int] = {}
    for manifest in going:
        for message in manifest.messages:
            ends[message.partition] = max(ends.get(message.partition, 0), message.offset + 1)
    for manifest in staying:
        for message in manifest.messages if manifest.topic == topic else ():
            if message.partition in ends:
                ends[message.partition] = min(ends[message.partition], message.offset)
    if ends:
        try:
            topics.drop_below(topic, ends)
        except TopicMissing:
            log.warning("The topic %s is gone already.", topic)
