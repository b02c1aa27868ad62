"""Defines no DAG. Airflow shows a broken stream definition as an import error of this file; other DAGs still work."""

from include.streams import definitions

if broken := definitions.find().broken:
    # Each line ends with its own code.
    raise ImportError("\n".join(str(error) for error in broken.values()))
