"""The embedded platform: Kafka, PostgreSQL and Airflow as processes of this machine."""
