"""The number of a topic's incarnation: with it, (incarnation, partition, offset) names a record for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.kafka.topics import Topic
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def number(connection: Connection, topic: Topic) -> int:
    """The number of this incarnation, 1 for the first topic of the name; commits."""
    sql = queries.load("landing")
    sql.meet_incarnation(connection, topic=topic.name, topic_id=topic.id)
    found = sql.read_incarnation(connection, topic=topic.name, topic_id=topic.id)
    connection.commit()
    return found
