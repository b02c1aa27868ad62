"""Defines no DAG: a broken stream definition shows in Airflow as this file's import error, beside the others' DAGs."""

from include.errors import UserError
from include.streams import definitions

if broken := definitions.find().broken:
    raise UserError("\n".join(str(error) for error in broken.values()))
