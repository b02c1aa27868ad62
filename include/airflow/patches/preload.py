"""Import what tasks need once, in the process from which LocalExecutor forks its workers.

On two cores, five tasks that import pandas and scikit-learn at the same time take 13 s; in forks of a process that has
imported them, no time. Only import here: a thread pool that was started before the fork deadlocks after it.
"""

import importlib
import warnings

from include.airflow import patches

# The import of skops reads every attribute of every loaded module. It comes before Airflow, because after it this takes
# ten times as long, and each deprecated attribute of Airflow prints a warning.
LIBRARIES = (
    "numpy",
    "pandas",
    "pyarrow",
    "pyarrow.parquet",
    "sklearn.compose",
    "sklearn.datasets",
    "sklearn.dummy",
    "sklearn.ensemble",
    "sklearn.linear_model",
    "sklearn.metrics",
    "sklearn.model_selection",
    "sklearn.naive_bayes",
    "sklearn.neighbors",
    "sklearn.neural_network",
    "sklearn.pipeline",
    "sklearn.preprocessing",
    "sklearn.svm",
    "sklearn.tree",
    "skops.io",
)
TASKS = (
    "aiosql",
    "airflow.dag_processing.bundles.local",
    "airflow.dag_processing.dagbag",
    "airflow.executors.local_executor",
    "airflow.providers.apache.kafka.hooks.base",
    "airflow.providers.standard.decorators.python",
    "airflow.providers.standard.operators.empty",
    "airflow.providers.standard.operators.python",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.sdk.api.client",
    "airflow.sdk.bases.sensor",
    "airflow.sdk.definitions.asset.metadata",
    "airflow.sdk.definitions.connection",
    "airflow.sdk.definitions.decorators.condition",
    "airflow.sdk.definitions.decorators.setup_teardown",
    "airflow.sdk.definitions.decorators.task_group",
    "airflow.sdk.execution_time.cache",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.execution_time.timeout",
    "confluent_kafka.admin",
    "jinja2.ext",
    "msgspec",
    "psutil",
    "psycopg2.extras",
    "threadpoolctl",
    "include.airflow.patches.task_end",
)
# The modules of Millrace that tasks use. A change of them takes effect after a restart; see
# embedded.platform.code_fingerprint.
OWN = (
    "include.datasets.definitions",
    "include.landing.maintenance",
    "include.airflow.expectation_check",
    "include.airflow.stream_sensor",
    "include.airflow.drain_task",
    "include.promotion.approval",
    "include.promotion.evaluation_queue",
    "include.airflow.dag_runs",
    "include.streams.definitions",
    "include.training.dispatch",
    "include.training.fitting",
    "include.training.run",
    "include.training.verification",
    "include.versions.retention",
)


def libraries() -> None:
    """Import the libraries of training and landing. Call this before Airflow is imported."""
    _import(LIBRARIES)
    warm_up()


def airflow() -> None:
    """Import the modules of Airflow and of Millrace that a task needs and the scheduler does not."""
    _import(OWN)
    if patches.are_supported():
        _import(TASKS)
        _warm_up_airflow()


def _import(names: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            importlib.import_module(name)


def warm_up() -> None:
    """Call functions that are slow at their first call. None of them starts a thread.

    scikit-learn's check of a frame reads the plugins of every installed package, which takes a quarter of the time of a
    task that fits a small model.
    """
    import pandas
    import pyarrow
    from sklearn.dummy import DummyClassifier

    from include.provenance import library_versions
    from include.warehouse import queries

    frame = pyarrow.table({"column": [1.0, 2.0]}).to_pandas(use_threads=False)
    target = pandas.Series(["no", "yes"]).to_numpy()
    DummyClassifier().fit(frame, target).predict(frame)
    # This reads the metadata of packages, which do not change while a process runs.
    library_versions()
    queries.load_all()


def _warm_up_airflow() -> None:
    """Create a client of the API, as each worker does: the first one reads all certificates of this machine."""
    from airflow.sdk.api.client import Client

    Client(base_url="http://127.0.0.1", token="").close()
