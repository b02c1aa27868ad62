"""Whether PostgreSQL's lock table has room for all partitions of a stream's table at the same time.

Landing, replay, verify and maintenance lock a limited number of partitions in a transaction. A new column, ``pg_dump``
and queries without constant bounds of the event time lock all of them, with their indexes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.landing import spans
from include.landing.maintenance import PARTITIONS_AHEAD
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.streams.definition import Stream


def shortage(connection: Connection, stream: Stream) -> str | None:
    """What is too small, and the setting that is needed; None if there is room for all partitions.

    It counts the partitions that exist, or those that the definition will keep if they are more.
    """
    (found,) = queries.load("landing").read_locks(connection, stream=stream.name)
    # The one that holds the present time is not among those that have ended.
    partitions = max(found.partitions, spans.kept(stream) + 1 + PARTITIONS_AHEAD)
    # The partition, its indexes (one if the table does not exist yet), and a reserve for other sessions.
    needed = partitions * (1 + max(found.indexes, 1) + 1)
    room = found.per_transaction * found.transactions
    if needed <= room:
        return None
    return (
        f"a new column locks all of up to {partitions:,} partitions, and PostgreSQL has room for {room:,} locks; set "
        f"max_locks_per_transaction = {-(-needed // found.transactions)} and restart it"
    )
