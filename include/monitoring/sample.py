"""Samples of the streams, once a minute, so that their lag over the last day can be shown."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from include.errors import UserError
from include.kafka.position_errors import PositionError
from include.landing import recovery
from include.monitoring import lag
from include.monitoring.lag import Lag
from include.streams import definitions
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

    from include.streams.definition import Stream

KEPT = timedelta(days=8)


def sample(connection: Connection) -> int:
    """Stores the settings and a sample of each defined stream, and deletes samples older than ``KEPT``; commits.

    While Kafka does not answer, the lag is null. Returns the number of streams.
    """
    sql = queries.load("monitoring")
    streams = definitions.find().valid
    names = list(streams)
    sql.keep_settings(
        connection,
        streams=names,
        topics=[streams[name].topic for name in names],
        widths=[streams[name].period.interval for name in names],
        kept=[None if (kept := streams[name].kept) is None else kept.interval for name in names],
    )
    sql.drop_settings(connection, streams=names)
    connection.commit()
    try:
        measured = lag.measure(connection, {name: stream.topic for name, stream in streams.items()})
    except UserError:
        measured = {}
    lags = {name: found for name, found in measured.items() if isinstance(found, Lag)}
    sql.add_samples(
        connection,
        streams=names,
        lags=[lags[name].records if name in lags else None for name in names],
        behind=[lags[name].seconds if name in lags else None for name in names],
        stopped=[_stopped(stream, measured.get(name)) for name, stream in streams.items()],
    )
    sql.drop_samples(connection, age=KEPT)
    connection.commit()
    return len(names)


def _stopped(stream: Stream, measured: Lag | UserError | None) -> str | None:
    """The error with which the stream's next drain will stop."""
    return str(recovery.with_remedy(measured, stream)) if isinstance(measured, PositionError) else None
