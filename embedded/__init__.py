"""The embedded Kafka, Postgres and Airflow, and the command line."""
