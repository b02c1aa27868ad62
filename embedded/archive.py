"""Kafka's classes, read and verified once: an archive with which a broker starts sooner.

The JVM calls it a dynamic archive of class data sharing (JEP 350). It is made when the environment is installed, by
`python -m embedded.archive ENVIRONMENT`, from a broker that does once what brokers do. A broker without the
archive starts all the same.
"""

import shutil
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from embedded import kafka
from embedded.home import Home
from embedded.ports import HOST
from include.errors import UserError

_START_S = 120.0
_STOP_S = 60.0
_TOPIC = "classes"


def make(environment: Path) -> None:
    """Make the archive of an environment that has Python's packages and Kafka's jars; nothing when there is one.

    Raises UserError, with what the JVM said last, when the broker does not start, or no archive comes of it.
    """
    target = kafka.archive(environment)
    if target.exists():
        return
    # Those of another release of Java.
    for stale in target.parent.glob("*.jsa"):
        stale.unlink()
    home = Home(environment / "archive")
    shutil.rmtree(home.path, ignore_errors=True)
    for part in (home.kafka, home.run):
        part.mkdir(parents=True)
    try:
        made = _made(home, environment, target)
        made.replace(target)
    finally:
        shutil.rmtree(home.path, ignore_errors=True)


def _made(home: Home, environment: Path, target: Path) -> Path:
    # That of Java's own classes, which the archive of Kafka's names and needs.
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
        raise UserError(f"The JVM made no archive of Kafka's classes. It said last: {log.read_text()[-1000:]}")
    return made


def _prepare(home: Home) -> int:
    """Writes the broker's settings, with ports that are free; gives the one for clients."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(2)]
        for probe in probes:
            probe.bind((HOST, 0))
        port, controller = (probe.getsockname()[1] for probe in probes)
    kafka.prepare(home, {"kafka": port, "kafka_controller": controller})
    return int(port)


def _answers(broker: "subprocess.Popen[bytes]", port: int) -> bool:
    end = time.monotonic() + _START_S
    while broker.poll() is None and time.monotonic() < end:
        try:
            kafka.check(port)
        except UserError:
            time.sleep(0.05)
        else:
            return True
    return False


def _work(port: int) -> None:
    """What a publish and its readers have a broker do: a topic, a transaction, a group."""
    from confluent_kafka import Consumer, Producer
    from confluent_kafka.admin import AdminClient, NewTopic

    servers: dict[str, str | int | float | bool] = {"bootstrap.servers": f"{HOST}:{port}", "log_level": 0}
    # Kept until the end: without it nobody would answer.
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
        sys.exit(str(error))
