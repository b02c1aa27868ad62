"""Defines no DAG: a broken dataset definition shows in Airflow as this file's import error, beside the others' DAGs."""

from include.datasets import definitions
from include.errors import UserError

if broken := definitions.find().broken:
    raise UserError("\n".join(str(error) for error in broken.values()))
