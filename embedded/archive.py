"""An archive of Kafka's loaded classes, with which a broker starts faster.

The JVM calls it a dynamic archive of class data sharing (JEP 350). The installation of the environment makes it with
`python -m embedded.archive ENVIRONMENT`: it starts a broker, uses it once and stops it. A broker also starts without
the archive.
"""

import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from embedded import kafka
from embedded.home import Home
from embedded.polling import wait_until
from embedded.ports import HOST
from include.error_codes import Code
from include.errors import UserError

_START_S = 120.0
_STOP_S = 60.0
_TOPIC = "classes"


def make(environment: Path) -> None:
    """Make the archive of an environment that has the Python packages and Kafka's jars, unless it exists.

    Raises UserError with the last output of the JVM when the broker does not start or the JVM writes no archive.
    """
    target = kafka.archive(environment)
    if target.exists():
        return
    # Archives of another release of Java.
    for stale in target.parent.glob("*.jsa"):
        stale.unlink()
    home = Home(environment / "archive")
    shutil.rmtree(home.path, ignore_errors=True)
    for part in (home.kafka, home.run):
        part.mkdir(parents=True)
    try:
        made = _make_archive(home, environment, target)
        made.replace(target)
    finally:
        shutil.rmtree(home.path, ignore_errors=True)


def _make_archive(home: Home, environment: Path, target: Path) -> Path:
    # The archive of Java's own classes, which the archive of Kafka's classes refers to.
    base = target.with_name(f"java-{target.name}")
    made, log = home.run / target.name, home.path / "log"
    port = _prepare(home)
    with open(log, "wb") as output:
        dump = [*kafka.java(), "-Xshare:dump", f"-XX:SharedArchiveFile={base}"]
        subprocess.run(dump, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False)
        options = [f"-XX:SharedArchiveFile={base}", f"-XX:ArchiveClassesAtExit={made}"]
        command = [*kafka.java(), *options, *kafka.program(environment, home.run / "kafka.properties")]
        broker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            if _answers(broker, port):
                _work(port)
                broker.terminate()
                broker.wait(_STOP_S)
        finally:
            broker.kill()
            broker.wait()
    if not made.exists():
        raise UserError(
            f"The JVM did not write an archive of Kafka's classes. The end of its output: {log.read_text()[-1000:]}",
            code=Code.INSTALLATION_FAILED,
        )
    return made


def _prepare(home: Home) -> int:
    """Write the broker's settings with free ports, and return the port for clients."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(2)]
        for probe in probes:
            probe.bind((HOST, 0))
        port, controller = (probe.getsockname()[1] for probe in probes)
    kafka.prepare(home, {"kafka": port, "kafka_controller": controller})
    return int(port)


def _answers(broker: "subprocess.Popen[bytes]", port: int) -> bool:
    """Whether the broker answers before it exits or the time to start is over."""

    def answers_or_has_exited() -> bool:
        with suppress(UserError):
            kafka.check(port)
            return True
        return broker.poll() is not None

    with suppress(TimeoutError):
        wait_until(answers_or_has_exited, _START_S, pause=0.05)
        return broker.poll() is None
    return False


def _work(port: int) -> None:
    """Use the broker as a publication and its readers do: a topic, a transaction, a consumer group."""
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined, unused-ignore]

    servers: dict[str, str | int | float | bool] = {"bootstrap.servers": f"{HOST}:{port}", "log_level": 0}
    # The variable keeps the client alive until the topic exists.
    admin = AdminClient(servers)
    admin.create_topics([NewTopic(_TOPIC, 1)])[_TOPIC].result()
    producer = Producer(servers | {"transactional.id": _TOPIC})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(_TOPIC, b"value", b"key")
    producer.commit_transaction()
    consumer = Consumer(servers | {"group.id": _TOPIC, "auto.offset.reset": "earliest"})
    consumer.subscribe([_TOPIC])
    consumer.poll(10)
    consumer.close()


if __name__ == "__main__":
    try:
        make(Path(sys.argv[1]))
    except UserError as error:
        sys.exit(f"millrace: {error}")
