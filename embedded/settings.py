"""Every setting of Kafka, PostgreSQL and Airflow, for both the embedded platform and docker-compose.yml.

The caller adds addresses, paths and secrets. The comments give the reasons.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from include.airflow import patches
from include.airflow.patches import preload

KAFKA_VERSION = "4.3.1"
POSTGRES_VERSION = "18.6"
AIRFLOW_VERSION = "3.3.2"

KAFKA: Mapping[str, str] = {
    "auto.create.topics.enable": "false",
    "group.initial.rebalance.delay.ms": "0",
    # There is one broker.
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Fewer internal partitions than in a cluster: each costs a log, a start and a fetch.
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.num.partitions": "1",
    # These halve what an idle broker computes: the controller writes fewer no-op records (by default two per second),
    # and there are threads for a few clients only, each of which wakes up three times a second.
    "metadata.max.idle.interval.ms": "5000",
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "group.coordinator.threads": "1",
    "share.coordinator.threads": "1",
    # A publication is one transaction; this is the longest timeout that its producer can set.
    "transaction.max.timeout.ms": "3600000",
    "message.max.bytes": "2097152",
    "log.retention.hours": "168",
    "log.segment.bytes": "268435456",
}
KAFKA_HEAP = "512m"

SCHEMA_REGISTRY: Mapping[str, str] = {
    # Schemas must outlive the process: records refer to them by id.
    "apicurio.storage.kind": "sql",
    "apicurio.storage.sql.kind": "h2",
    "quarkus.http.access-log.enabled": "false",
}
SCHEMA_REGISTRY_HEAP = "256m"

POSTGRES: Mapping[str, str] = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "2GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    # Landing writes in bulk, so checkpoints are few and spread.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "max_parallel_workers": "2",
    "max_parallel_workers_per_gather": "1",
    "autovacuum_naptime": "20s",
    # A change of a table, or a query without a time range, locks all partitions: a year has 8,760 hours.
    "max_locks_per_transaction": "256",
    # A client that was killed in a transaction must not keep its locks for long.
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "client_connection_check_interval": "5s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_duration_statement": "2s",
    "log_lock_waits": "on",
}

AIRFLOW: Mapping[str, str] = {
    **patches.executor_settings(),
    # LocalExecutor forks this many workers at its start, 38 MB each.
    "CORE__PARALLELISM": "12",
    "CORE__LOAD_EXAMPLES": "False",
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
    "CORE__DEFAULT_TIMEZONE": "utc",
    "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
    "CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
    "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
    # From Python 3.14 on, LocalExecutor's workers are forked from a server that imports these.
    "CORE__MP_FORKSERVER_PRELOAD": ",".join((*preload.LIBRARIES, *preload.TASKS)),
    # How soon Airflow notices the tasks of a killed scheduler and of a killed worker.
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "5",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "3",
    "TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "8",
    # A new definition appears within half a minute. Parsing without a pause would take a fifth of a core.
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "2",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "30",
    "DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "DAG_PROCESSOR__PRINT_STATS_INTERVAL": "0",
    "API__WORKERS": "1",
    "API__INSTANCE_NAME": "Millrace",
    "LOGGING__UVICORN_LOGGING_LEVEL": "WARNING",
    "USAGE_DATA_COLLECTION__ENABLED": "False",
}

LIBRARIES: Mapping[str, str] = {
    # Each model is fitted with one thread. BLAS would start more, which spin without work and take as much time from
    # other tasks as one fit.
    "OPENBLAS_NUM_THREADS": "1",
    # Each model is fitted in a forked process, and a process that has started OpenMP's threads must not be forked.
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Airflow:
    """The settings of Airflow that depend on where it runs.

    Attributes:
        metadata: SQLAlchemy URL of the metadata database.
        warehouse: URL parts of the warehouse (host, port, login, password, schema).
        brokers: Kafka's bootstrap servers.
        api: Base URL of the api-server for the user's browser.
        execution: Base URL of the api-server for Airflow's components.
        root: Directory of dags/, plugins/ and include/.
        logs: Directory of the tasks' logs.
        passwords: File of the UI's users.
        secrets: fernet_key, api_secret, jwt_secret.
        registry: The URL of the schema registry's API; empty without one.
    """

    metadata: str
    warehouse: Mapping[str, str | int]
    brokers: str
    api: str
    execution: str
    root: str
    logs: str
    passwords: str
    secrets: Mapping[str, str]
    registry: str = ""

    def environment(self) -> dict[str, str]:
        """The environment variables of every Airflow process of the platform."""
        own = {
            **AIRFLOW,
            "CORE__DAGS_FOLDER": f"{self.root}/dags",
            "CORE__PLUGINS_FOLDER": f"{self.root}/plugins",
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": self.passwords,
            "CORE__FERNET_KEY": self.secrets["fernet_key"],
            "CORE__EXECUTION_API_SERVER_URL": f"{self.execution}/execution/",
            "API__BASE_URL": self.api,
            "API__SECRET_KEY": self.secrets["api_secret"],
            "API_AUTH__JWT_SECRET": self.secrets["jwt_secret"],
            "DATABASE__SQL_ALCHEMY_CONN": self.metadata,
            "LOGGING__BASE_LOG_FOLDER": self.logs,
            "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": f"{self.logs}/dag_processor",
            "CONN_MILLRACE_KAFKA": json.dumps({"conn_type": "kafka", "extra": {"bootstrap.servers": self.brokers}}),
            "CONN_MILLRACE_POSTGRES": json.dumps({"conn_type": "postgres", **self.warehouse}),
        }
        if self.registry:
            own["CONN_MILLRACE_REGISTRY"] = json.dumps({"conn_type": "http", "host": self.registry})
        connections = {f"AIRFLOW_{name}": value for name, value in own.items() if name.startswith("CONN_")}
        others = {f"AIRFLOW__{name}": value for name, value in own.items() if not name.startswith("CONN_")}
        # Airflow hides its database from tasks, and the task of maintain__history that cleans it needs the address.
        return {**LIBRARIES, **connections, **others, "MILLRACE_METADATA": self.metadata}


def kafka_properties(broker: str, controller: str, directory: str) -> str:
    """The server.properties of a single node, broker and controller in one. Addresses are host:port."""
    own = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@{controller}",
        "listeners": f"PLAINTEXT://{broker},CONTROLLER://{controller}",
        "advertised.listeners": f"PLAINTEXT://{broker}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
        "log.dirs": directory,
        **KAFKA,
    }
    return "".join(f"{name}={_escaped(value)}\n" for name, value in own.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\")
