"""The bare loop: consume, decode, COPY, commit; the fastest short program, without any guarantee."""

from __future__ import annotations

import sys
from io import StringIO

from benchmarks.peers import topic
from benchmarks.peers.position import COLUMNS, line
from include.kafka import client
from include.warehouse.connection import connected

BATCH = 20_000


def land(name: str, partitions: list[int], events: int) -> None:
    """Lands ``events`` events of some partitions of a topic."""
    from confluent_kafka import TopicPartition

    consumer = client.consumer(enable_partition_eof=False, check_crcs=False, **topic.FETCH)
    consumer.assign([TopicPartition(name, partition, 0) for partition in partitions])
    with connected("bench bare") as connection, connection.cursor() as cursor:
        while events > 0:
            messages = consumer.consume(BATCH, 0.1)
            lines = []
            for message in messages:
                if error := message.error():
                    raise RuntimeError(error)
                lines.append(line(message))
            cursor.copy_expert(f"COPY bench.position ({COLUMNS}) FROM STDIN", StringIO("".join(lines)), 1 << 20)
            connection.commit()
            events -= len(messages)
    consumer.close()


if __name__ == "__main__":
    land(sys.argv[1], [int(partition) for partition in sys.argv[2].split(",")], int(sys.argv[3]))
