"""Publishing in one Kafka transaction: all of it becomes readable at once, or none ever does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from include.errors import UserError
from include.kafka import client
from include.kafka.reader import place

if TYPE_CHECKING:
    import pyarrow as pa
    from confluent_kafka import KafkaError, Message, Producer

# What brokers allow by default at most; a publish that takes longer is aborted by them.
TRANSACTION_TIMEOUT_S = 900
ANSWER_TIMEOUT_S = 60.0

Headers = Sequence[tuple[str, bytes]]


class Transaction:
    """An open transaction. Messages are numbered in the order of ``send``."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._sent = 0
        self._delivered: dict[int, tuple[int, int]] = {}
        self._somewhere = 0
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
            UserError: An earlier message could not be delivered.
        """
        number, self._sent = self._sent, self._sent + 1

        def report(error: KafkaError | None, message: Message) -> None:
            if error is not None:
                self._failed = error
            elif message.offset() is None:
                # The brokers had it already, they say, when it was sent again.
                self._somewhere += 1
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
        """Waits until every message is acknowledged; gives the partition and offset of each, in the order of sending.

        Raises:
            UserError: One could not be delivered.
        """
        self._producer.flush(TRANSACTION_TIMEOUT_S)
        self._raise_failure()
        if self._somewhere:
            raise UserError(
                f"Kafka does not say where it has stored {self._somewhere} of {self._sent} messages.",
                "Nothing was published; try again.",
            )
        if len(self._delivered) < self._sent:
            raise UserError(f"Kafka has acknowledged only {len(self._delivered)} of {self._sent} messages.")
        return [self._delivered[number] for number in range(self._sent)]

    def _raise_failure(self) -> None:
        if self._failed is not None:
            raise UserError(f"Kafka did not take a message: {self._failed.str()}.", "Nothing was published.")


@contextmanager
def transaction(transactional_id: str, **overrides: Any) -> Iterator[Transaction]:
    """A transaction that is committed at the end of the ``with`` block, or aborted when the block raises.

    Args:
        transactional_id: Opening one with the same id ends an older one that is still open, so that the same
            thing is not published twice at a time.
        **overrides: librdkafka settings, as for ``client.producer``.

    Raises:
        UserError: The brokers do not answer, or another publisher has taken over the id. Nothing was published.
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
        producer.init_transactions(ANSWER_TIMEOUT_S)
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
            f"Kafka did not finish the transaction {transactional_id!r}: {error.args[0].str()}.",
            "Nothing was published; look at ./millrace status and try again.",
        ) from error


def _connect(producer: Producer) -> None:
    """Waits until the producer is connected to a broker of the cluster, and not only to a bootstrap address.

    librdkafka gives the first connection up as soon as it knows the brokers; a transaction that is asked for just then
    finds none, and waits 500 ms for its second try. The second answer comes from a broker.
    """
    for _ in range(2):
        producer.list_topics(timeout=ANSWER_TIMEOUT_S)


def _commit(producer: Producer) -> None:
    from confluent_kafka import KafkaException

    while True:
        try:
            producer.commit_transaction(ANSWER_TIMEOUT_S)
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

    # What cannot be aborted (the brokers are away, somebody took over) the brokers abort by themselves.
    with suppress(KafkaException):
        producer.purge()
        producer.abort_transaction(ANSWER_TIMEOUT_S)
