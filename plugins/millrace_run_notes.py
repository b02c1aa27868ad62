"""Writes the notes of DAG runs; see include/airflow/run_notes.py."""

from airflow.plugins_manager import AirflowPlugin

from include.airflow import run_notes


class MillraceRunNotes(AirflowPlugin):
    """Tells Airflow to call the listener when a run ends."""

    name = "millrace_run_notes"
    listeners = [run_notes]  # noqa: RUF012  Airflow declares the attribute like this.
