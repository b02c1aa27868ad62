"""Millrace inside Airflow: sensors, operators, errors of tasks. Nothing else in ``include`` imports Airflow.

Importing this package takes the connections from Airflow.
"""

from include import connections
from include.airflow.airflow_connections import AirflowConnections

connections.use(AirflowConnections())
