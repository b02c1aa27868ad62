"""Imports everything that a drain needs, once, in the server that drains are forked from."""

import aiosql  # noqa: F401
import confluent_kafka.admin  # noqa: F401
import psycopg2.errors  # noqa: F401
from airflow.providers.apache.kafka.hooks.base import KafkaBaseHook  # noqa: F401
from airflow.sdk import Connection  # noqa: F401

import include.landing.batch
import include.landing.drain  # noqa: F401
import tests.faults.toolbox.events  # noqa: F401
