"""One Airflow DAG per stream: land a range of its records again."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Param, dag, get_current_context, task

from include.airflow import dag_runs, run_notes
from include.streams import definitions
from include.streams.definition import Stream

if TYPE_CHECKING:
    from include.landing.replay import Replayed


def _number(title: str, description: str) -> Param:
    return Param(
        None,
        type=["null", "integer"],
        minimum=0,
        maximum=dag_runs.MAX_PARAMETER,
        title=title,
        description=description,
    )


def _moment(title: str, description: str) -> Param:
    return Param(
        None,
        type=["null", "string"],
        format="date-time",
        pattern=dag_runs.DAY,
        title=title,
        description=description,
    )


TOPIC = {
    "topic": Param(
        None,
        type=["null", "string"],
        title="Topic",
        description="Only this topic. Offsets need one. Empty: all topics of the stream.",
    )
}
FORM = {
    "partition": _number("Partition", "Only this partition. Empty: all."),
    "first": _number("First offset", "The first offset to replay. Needs a partition. Empty: the earliest one."),
    "last": _number("Last offset", "The last offset to replay. Needs a partition. Empty: the latest one that landed."),
    "since": _moment("Since", "Only records with this timestamp in Kafka or a later one. Empty: from the beginning."),
    "until": _moment("Until", "Only records with an earlier timestamp in Kafka. Empty: to the end."),
}


def build(stream: Stream) -> DAG:
    """The DAG of one stream."""

    @dag(
        dag_id=f"replay__{stream.name}",
        description=f"Lands records of {stream.name} again, with its present definition",
        doc_md=f"""
Lands records again that landed before and that Kafka still has, as the stream is defined now: the column of a new field
is filled, and new limits for late events apply. Each transaction replaces up to 20,000 records, and the DAG
`land__{stream.name}` can keep running. With an empty form everything is replayed. `./millrace replay {stream.name}`
does the same.
""",
        tags=["landing", "replay"],
        schedule=None,
        start_date=datetime(2026, 1, 1),
        max_active_runs=1,
        is_paused_upon_creation=False,
        dagrun_timeout=timedelta(hours=25),
        params=FORM if stream.topics is None else TOPIC | FORM,
        default_args={"owner": "millrace", "retries": 3, "retry_delay": timedelta(seconds=5)},
    )
    def replay_records() -> None:
        @task(execution_timeout=timedelta(hours=24))
        def replay() -> int:
            from include.landing import replay as replays
            from include.landing import replay_selection
            from include.streams import definitions
            from include.warehouse.connection import connected

            def report(so_far: Replayed) -> None:
                print(f"{so_far.span.topic}, partition {so_far.span.partition}: {so_far.records:,} records …")

            context = get_current_context()
            with dag_runs.airflow_errors():
                dag_runs.require_known(context)
                form: dict[str, Any] = dict(context["params"])
                wanted = replay_selection.choose(
                    [] if form["partition"] is None else [form["partition"]],
                    form["first"],
                    form["last"],
                    dag_runs.moment(form, "since"),
                    dag_runs.moment(form, "until"),
                    form.get("topic"),
                )
                with connected(f"millrace replay {stream.name}") as connection:
                    who = dag_runs.person(context)
                    replayed = replays.replay(connection, definitions.get(stream.name), wanted, who, report)
            for done in replayed:
                print(done)
            records = sum(done.records for done in replayed)
            run_notes.leave(f"{records:,} records replayed")
            return records

        replay()

    return replay_records()


for each in definitions.find().valid.values():
    if dag_runs.is_parsed_for(f"replay__{each.name}"):
        build(each)
