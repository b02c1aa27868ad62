# The image of Airflow's components in docker-compose.yml. It contains only the packages of requirements.txt:
# dags/, include/ and plugins/ are mounted.
FROM python:3.12.12-slim-bookworm

RUN useradd --create-home --uid 50000 millrace && mkdir -p /opt/millrace/logs && chown -R millrace /opt/millrace
WORKDIR /opt/millrace
COPY requirements.txt .
RUN python -m pip install --no-cache-dir --require-hashes --no-deps -r requirements.txt
USER millrace
ENV PYTHONPATH=/opt/millrace:/opt/millrace/include/airflow/local_settings AIRFLOW_HOME=/opt/millrace/airflow PYTHONUNBUFFERED=1
