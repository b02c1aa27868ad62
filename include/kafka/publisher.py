"""Publishing in one Kafka transaction: readers see all of its messages or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import UserError
from include.kafka import client
from include.kafka.reader import place

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import KafkaError, Message, Producer

# The brokers' default maximum. They abort a transaction that takes longer.
TRANSACTION_TIMEOUT_S = 900
REQUEST_TIMEOUT_S = 60.0

Headers = Sequence[tuple[str, bytes]]


class Transaction:
    """An open transaction."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._sent = 0
        self._delivered: dict[int, tuple[int, int]] = {}
        self._unlocated = 0
        self._failed: KafkaError | None = None

    def send(
        self,
        topic: str,
        value: bytes | pa.Buffer,
        *,
        partition: int = 0,
        key: bytes | None = None,
        headers: Headers = (),
    ) -> None:
        """Hands a message to the producer; waits while its buffer is full.

        Raises:
            UserError: Kafka rejected an earlier message.
        """
        number, self._sent = self._sent, self._sent + 1

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failed = error
            elif message.offset() is None:
                # A retry: the brokers report that they already have the message, and do not return its offset.
                self._unlocated += 1
            else:
                self._delivered[number] = place(message)

        while True:
            self._raise_failure()
            try:
                self._producer.produce(topic, value, key, partition, on_delivery=report, headers=list(headers))
            except BufferError:
                self._producer.poll(0.05)
            else:
                self._producer.poll(0)
                return

    def delivered(self) -> list[tuple[int, int]]:
        """Waits until the brokers have acknowledged every message. Returns each partition and offset, in sending order.

        Raises:
            UserError: The brokers did not acknowledge one of them.
        """
        self._producer.flush(TRANSACTION_TIMEOUT_S)
        self._raise_failure()
        if self._unlocated:
            raise UserError(
                f"Kafka acknowledged {self._unlocated} of {self._sent} messages without their offsets, so the manifest "
                "cannot list them. Nothing was published.",
                "Publish again.",
                code=Code.SEND_FAILED,
            )
        if len(self._delivered) < self._sent:
            raise UserError(
                f"Kafka acknowledged only {len(self._delivered)} of {self._sent} messages within "
                f"{TRANSACTION_TIMEOUT_S} s. Nothing was published.",
                "Check the brokers with ./millrace status, then publish again.",
                code=Code.SEND_FAILED,
            )
        return [self._delivered[number] for number in range(self._sent)]

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise UserError(
                f"Kafka rejected a message: {self._failed.str()}. Nothing was published.",
                "Check the brokers with ./millrace status, then publish again.",
                code=Code.SEND_FAILED,
            )


@contextmanager
def transaction(transactional_id: str, **overrides: Any) -> Iterator[Transaction]:
    """A transaction that is committed at the end of the ``with`` block, or aborted when the block raises.

    Args:
        transactional_id: Opening a transaction aborts an older one with the same id that is still open, so that two
            processes cannot publish the same thing at once.
        **overrides: librdkafka settings, as for ``client.producer``.

    Raises:
        UserError: The brokers do not answer, or another publisher uses the id. Nothing was published.
    """
    from confluent_kafka import KafkaException

    producer = client.producer(
        transactional_id=transactional_id,
        transaction_timeout_ms=TRANSACTION_TIMEOUT_S * 1000,
        queue_buffering_max_kbytes=65_536,
        message_max_bytes=8_000_000,
        **overrides,
    )
    try:
        _connect(producer)
        producer.init_transactions(REQUEST_TIMEOUT_S)
        producer.begin_transaction()
        try:
            opened = Transaction(producer)
            yield opened
            opened.delivered()
        except BaseException:
            _abort(producer)
            raise
        _commit(producer)
    except KafkaException as error:
        raise UserError(
            f"The Kafka transaction {transactional_id!r} failed: {error.args[0].str()}. Nothing was published.",
            "Check the brokers with ./millrace status, then publish again.",
            code=Code.SEND_FAILED,
        ) from error


def _connect(producer: Producer) -> None:
    """Waits until the producer is connected to a broker of the cluster, and not only to a bootstrap address.

    librdkafka drops its first connection once it has the list of brokers. A transaction that begins at that moment
    finds no connection and waits 500 ms before it tries again. The second request below is answered by a broker.
    """
    for _ in range(2):
        producer.list_topics(timeout=REQUEST_TIMEOUT_S)


def _commit(producer: Producer) -> None:
    from confluent_kafka import KafkaException

    while True:
        try:
            producer.commit_transaction(REQUEST_TIMEOUT_S)
            return
        except KafkaException as error:
            if error.args[0].retriable():
                continue
            if error.args[0].txn_requires_abort():
                _abort(producer)
            raise


def _abort(producer: Producer) -> None:
    from contextlib import suppress

    from confluent_kafka import KafkaException

    # If this fails (the brokers are down, another publisher took over), the brokers abort the transaction later.
    with suppress(KafkaException):
        producer.purge()
        producer.abort_transaction(REQUEST_TIMEOUT_S)
