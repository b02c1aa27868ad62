"""The Kafka provider's ConsumeFromTopicOperator with a function for batches, as its documentation shows it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING

from benchmarks.peers import topic
from benchmarks.peers.position import COLUMNS, decode, line

if TYPE_CHECKING:
    from confluent_kafka import Message
    from psycopg2.extensions import connection as Connection

BATCH = 5_000
CONNECTION_ID = "bench_kafka"


def insert(connection: Connection, messages: Sequence[Message]) -> None:
    """Lands a batch with psycopg2's fastest form of INSERT."""
    from msgspec.structs import astuple
    from psycopg2.extras import execute_values

    rows = [(message.partition(), message.offset(), *astuple(decode(message.value()))) for message in messages]
    with connection.cursor() as cursor:
        execute_values(cursor, f"INSERT INTO bench.position ({COLUMNS}) VALUES %s", rows, page_size=1_000)
    connection.commit()


def copy(connection: Connection, messages: Sequence[Message]) -> None:
    """Lands a batch with COPY."""
    with connection.cursor() as cursor:
        cursor.copy_expert(
            f"COPY bench.position ({COLUMNS}) FROM STDIN", StringIO("".join(map(line, messages))), 1 << 20
        )
    connection.commit()


def land(name: str, group: str, events: int, batch: Callable[..., None]) -> None:
    """Executes the operator until it has consumed ``events`` events."""
    from airflow.providers.apache.kafka.operators.consume import ConsumeFromTopicOperator

    from include import connections
    from include.warehouse.connection import connected

    # The settings that the provider requires, and those of the bare loop.
    config = {"group.id": group, "enable.auto.commit": "false", "auto.offset.reset": "earliest"}
    extra = {**connections.kafka(), **topic.FETCH, **config}
    os.environ[f"AIRFLOW_CONN_{CONNECTION_ID.upper()}"] = json.dumps({"conn_type": "kafka", "extra": extra})
    with connected("bench operator") as connection:
        ConsumeFromTopicOperator(
            task_id="consume",
            kafka_config_id=CONNECTION_ID,
            topics=[name],
            apply_function_batch=batch,
            apply_function_args=(connection,),
            commit_cadence="end_of_batch",
            max_messages=events,
            max_batch_size=BATCH,
            poll_timeout=5,
        ).execute({})


if __name__ == "__main__":
    land(sys.argv[1], sys.argv[2], int(sys.argv[3]), {"insert": insert, "copy": copy}[sys.argv[4]])
