"""The number of a topic's incarnation: (incarnation, partition, offset) identifies a record permanently."""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.kafka.topics import Topic
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def number(connection: Connection, topic: Topic) -> int:
    """The number of this topic among those that had its name, from 1; commits."""
    sql = queries.load("landing")
    sql.meet_incarnation(connection, topic=topic.name, topic_id=topic.id)
    found = sql.read_incarnation(connection, topic=topic.name, topic_id=topic.id)
    connection.commit()
    return found
