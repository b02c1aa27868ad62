"""Import what tasks need, once, in the process that LocalExecutor's workers are forked from.

Five tasks that import pandas and scikit-learn at once on two cores take 13 s to do so; forked from a process that has
imported them, no time. Import only: a thread pool started before the fork would be a deadlock after it.
"""

import importlib
import warnings

from include.airflow import patches

# skops looks at every attribute of every module that is loaded when it is imported. Before Airflow that is quick and
# quiet; after it, Airflow's deprecated attributes each print a warning.
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
# Of Millrace: what tasks do. A change of it takes effect by a restart, see platform.generation.
OWN = (
    "include.datasets.definitions",
    "include.landing.maintenance",
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
    """Import the libraries of training and landing; to be called before Airflow is imported."""
    _import(LIBRARIES)
    warm()


def airflow() -> None:
    """Import the parts of Airflow and of Millrace that a task needs and the scheduler does not."""
    _import(OWN)
    if patches.apply_here():
        _import(TASKS)
        _warm_airflow()


def _import(names: tuple[str, ...]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names:
            importlib.import_module(name)


def warm() -> None:
    """Use what looks around when it is first used: scikit-learn's check of a frame reads every installed package's list
    of plugins, a quarter of what a task that fits a small model takes. Nothing here starts a thread.
    """
    import pandas
    import pyarrow
    from sklearn.dummy import DummyClassifier

    from include.provenance import library_versions
    from include.warehouse import queries

    frame = pyarrow.table({"column": [1.0, 2.0]}).to_pandas(use_threads=False)
    target = pandas.Series(["no", "yes"]).to_numpy()
    DummyClassifier().fit(frame, target).predict(frame)
    # It reads the packages' metadata; a process has the libraries that it was started with.
    library_versions()
    queries.load_all()


def _warm_airflow() -> None:
    """Make what each worker makes once: a client of the API reads all certificates that this machine trusts."""
    from airflow.sdk.api.client import Client

    Client(base_url="http://127.0.0.1", token="").close()
