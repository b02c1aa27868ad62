"""Changes of Airflow's own behaviour, each with its reason and the issue that would make it unnecessary."""
