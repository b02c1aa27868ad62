"""The number of a topic's incarnation: (incarnation, partition, offset) identifies a record of a stream permanently.

Each stream numbers the topics that it reads: one that is recreated, one whose log was truncated, each of several.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from include.kafka.topics import Topic
from include.warehouse import queries

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def number(connection: Connection, stream: str, topic: Topic) -> int:
    """The number of this topic among those that a stream has read, from 1; commits."""
    found = meet(connection, stream, topic.name, topic.id)
    connection.commit()
    return found


def meet(connection: Connection, stream: str, topic: str, topic_id: str) -> int:
    """``number`` in the caller's transaction."""
    sql = queries.load("landing")
    # Without the lock, two drains could give the same number to two topics.
    sql.lock_incarnations(connection, stream=stream)
    sql.meet_incarnation(connection, stream=stream, topic=topic, topic_id=topic_id)
    return sql.read_incarnation(connection, stream=stream, topic=topic, topic_id=topic_id)


def topics_of(connection: Connection, stream: str) -> dict[int, str]:
    """The name of the topic with each number."""
    return {row.number: row.topic for row in queries.load("landing").read_incarnations(connection, stream=stream)}
