"""For every stream: wait for records past its position, and drain them into its table for a window of time."""

from __future__ import annotations

from datetime import datetime, timedelta

from airflow.sdk import DAG, dag, task

from include.airflow import dag_runs
from include.airflow.stream_sensor import StreamSensor
from include.streams import definitions
from include.streams.definition import Stream

SENSOR_RUNS_AT_MOST = timedelta(hours=12)


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
        # A stream that cannot go on pauses itself rather than filling the history with failures.
        max_consecutive_failed_dag_runs=3,
        dagrun_timeout=SENSOR_RUNS_AT_MOST + timedelta(hours=1),
        default_args={"owner": "millrace", "retries": 20, "retry_delay": timedelta(seconds=2)},
    )
    def land() -> None:
        wait = StreamSensor(
            task_id="wait",
            stream_name=stream.name,
            reader=stream.reader,
            kafka_topic=stream.topic,
            at_most=SENSOR_RUNS_AT_MOST,
            execution_timeout=SENSOR_RUNS_AT_MOST + timedelta(minutes=5),
        )

        @task(
            map_index_template="{{ 'share ' ~ task.op_kwargs['share'] }}",
            execution_timeout=timedelta(seconds=stream.window_s) + timedelta(minutes=5),
        )
        def drain(share: int) -> None:
            from include.airflow.drain_task import drain_in_task

            drain_in_task(stream.name, share)

        wait >> drain.expand(share=list(range(stream.drains)))

    return land()


def doc(stream: Stream) -> str:
    """What the UI tells about the DAG."""
    return f"""
Waits, without a worker, until the Kafka topic `{stream.topic}` holds records past the stream's position, then drains
them into the partitioned table `landing.{stream.name}` for {stream.window} at most, or until nothing has come for
{stream.quiet}. The next run follows by itself; pausing the DAG ends that after the run at work.

Every record ends up in exactly one place: in the table, or with its reason in `millrace.dead_letter`. A task that fails
without a retry names what a person has to decide.
"""


for each in definitions.find().valid.values():
    if dag_runs.is_parsed_for(f"land__{each.name}"):
        landing(each)
