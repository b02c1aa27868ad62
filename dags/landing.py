"""One Airflow DAG per stream: wait for records after the position, then drain them into the stream's table."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, dag, task

from include.airflow import assets, dag_runs
from include.airflow.stream_sensor import StreamSensor
from include.streams import definitions
from include.streams.definition import Stream

MAX_WAIT = timedelta(hours=12)


def landing(stream: Stream) -> DAG:
    """The DAG that lands one stream."""

    @dag(
        dag_id=f"land__{stream.name}",
        description=f"Lands the topic {stream.topic} in the table landing.{stream.name}",
        doc_md=doc(stream),
        tags=["landing", "stream"],
        schedule="@continuous",
        start_date=datetime(2026, 1, 1),
        catchup=False,
        max_active_runs=1,
        # The DAG of a stream that cannot continue pauses itself, instead of filling the history with failed runs.
        max_consecutive_failed_dag_runs=3,
        dagrun_timeout=MAX_WAIT + timedelta(hours=1),
        default_args={"owner": "millrace", "retries": 20, "retry_delay": timedelta(seconds=2)},
    )
    def land() -> None:
        wait = StreamSensor(
            task_id="wait",
            stream_name=stream.name,
            reader=stream.reader,
            kafka_topic=stream.topic,
            at_most=MAX_WAIT,
            execution_timeout=MAX_WAIT + timedelta(minutes=5),
        )

        @task(
            map_index_template="{{ 'shard ' ~ task.op_kwargs['shard'] }}",
            execution_timeout=timedelta(seconds=stream.window_s) + timedelta(minutes=5),
            outlets=[assets.if_any(assets.landed_table(stream.name))],
        )
        def drain(shard: int) -> None:
            from include.airflow.drain_task import drain_in_task

            drain_in_task(stream.name, shard)

        wait >> drain.expand(shard=list(range(stream.drains)))

    return land()


def doc(stream: Stream) -> str:
    """The documentation of the DAG in Airflow's UI."""
    return f"""
Lands the Kafka topic `{stream.topic}` in the partitioned table `landing.{stream.name}`.

The task `wait` waits in the triggerer, without a worker, until the topic has records after the stream's position. The
task `drain` then lands records for at most {stream.window}, or until no record has arrived for {stream.quiet}. The next
run starts when this one ends. When you pause the DAG, the current run still finishes.

Each record becomes a row of the table, or a row with the reason in `millrace.dead_letter`. A task that fails without a
retry needs your decision: its log names the command.
"""


for each in definitions.find().valid.values():
    if dag_runs.is_parsed_for(f"land__{each.name}"):
        landing(each)
