"""The versions that exist: those landed in the warehouse, and those just sealed that no dispatch has landed yet."""

from __future__ import annotations

from datetime import datetime

from include.errors import LastingError, UserError
from include.versions.manifest import CONTROL_TOPIC, Manifest, decode
from include.warehouse import queries
from include.warehouse.connection import connected

DISPATCH = "dispatch"


class UnknownVersion(LastingError):
    """No such version was ever sealed."""


def with_content(dataset: str, content: str) -> str | None:
    """The id of the version that holds these very rows in this very split, if it was published before."""
    from include.kafka import position, topics
    from include.kafka.reader import read_range

    with connected("millrace publish") as connection:
        known = queries.load("training").version_with_content(connection, dataset=dataset, content=content)
        standings = position.standings(connection, DISPATCH, CONTROL_TOPIC)
    if known:
        return str(known)
    found = topics.describe(CONTROL_TOPIC)
    extents = topics.extents(CONTROL_TOPIC, found.partitions)
    ranges = {}
    for partition, extent in extents.items():
        landed = standings[partition].position.next_offset if partition in standings else 0
        ranges[partition] = (max(landed, extent.first), extent.stable_end)
    for messages in read_range(CONTROL_TOPIC, ranges):
        for message in messages:
            try:
                manifest = decode(message.value())
            except UserError:
                continue
            if (manifest.dataset, manifest.content) == (dataset, content):
                return manifest.version
    return None


def find(dataset: str, version: str | None = None, until: datetime | None = None) -> Manifest:
    """The manifest of a version that was landed.

    Args:
        version: Its id or the beginning of it; the newest when left out.
        until: Where its interval ends; anywhere when left out.

    Raises:
        UnknownVersion: There is none, or the beginning fits several.
    """
    with connected("millrace version") as connection:
        rows = list(
            queries.load("training").find_versions(connection, dataset=dataset, prefix=version or "", until=until)
        )
    if not rows:
        what = f"has no version {version!r}" if version else "has no version" if until else "has no version yet"
        what += f" whose interval ends on {until:%Y-%m-%d}" if until else ""
        raise UnknownVersion(f"Dataset {dataset!r} {what}.", f"Publish one: ./millrace publish {dataset}.")
    if version and len(rows) > 1:
        raise UnknownVersion(f"Several versions of {dataset!r} begin with {version!r}.", "Write more of its digits.")
    return decode(bytes(rows[0][0]))
