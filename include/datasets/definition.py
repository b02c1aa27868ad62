"""The definition of a dataset: the source of its rows, their split, and the models that learn from them."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from include.datasets.sizes import size
from include.datasets.splits import Split, TimeSplit
from include.definitions import InvalidDefinition
from include.durations import duration_field
from include.gate.metric import Metric
from include.gate.policy import Policy, evidence
from include.notifiers import Notifiers, check_notify

if TYPE_CHECKING:
    from include.datasets.sources import Source

BASELINE = "baseline"
TOPIC_PREFIX = "millrace.dataset."
ERRORS = frozenset({"log_loss", "mae", "rmse"})
"""Metrics of which a smaller value is better."""
RECORD_BY_RECORD = {"classification": "accuracy", "regression": "smaller error"}
"""What models are compared by, unless the definition sets a metric."""
OF_CLASSES = frozenset({"precision", "recall", "f1"})
"""Metrics of one class, named like ``recall of snow``."""
OF_ALL_ROWS = {
    "classification": frozenset({"accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc"}),
    "regression": frozenset({"mae", "r2", "rmse"}),
}
"""Metrics of all test rows, or of the part of a slice, by the kind of dataset."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
NAME_RULE = "Begin with a lower-case letter; after it, use only lower-case letters, digits and underscores."
_KEEP = re.compile(r"all|[1-9]\d* versions?")
_PRESETS = {"@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly"}


def usable(name: object) -> bool:
    """Whether a dataset, a model or a slice may have this name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _names(expression: str) -> set[str]:
    """The names in an expression of pandas, including those in backticks; none if its syntax is wrong."""
    quoted = re.findall(r"`([^`]+)`", expression)
    try:
        tree = ast.parse(re.sub(r"`[^`]+`", "_", expression), mode="eval")
    except SyntaxError:
        return set()
    return {*quoted, *(node.id for node in ast.walk(tree) if isinstance(node, ast.Name))}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One dataset. Its versions are published to the topic ``topic`` and train every model of ``models``.

    Attributes:
        name: Lower-case letters, digits and underscores; part of the names of its topic and its DAGs.
        source: Where its rows come from.
        record_id: The column that names a record; no two rows of a version share its value.
        target: The column to predict.
        split: Which rows test the models instead of training them.
        models: A function that returns the unfitted scikit-learn estimators by name. It is called by tasks only, so
            that its imports do not slow down the parsing of DAG files. A baseline is always trained, too.
        kind: Whether the target is a class or a number.
        event_time: The column with the time of a record: a timestamp or a date, in UTC.
        features: The columns to learn from; by default all but those that other fields name.
        schedule: A cron expression or preset; one version for each of its intervals. None: published on demand only.
        start: The start of the schedule's first interval.
        end: The end of its last interval.
        history: Which rows a version holds: ``all`` up to its interval's end, those of the ``interval`` alone, or of a
            duration before the interval's end, such as ``730 days``.
        keep: How many versions stay in Kafka at least: ``all``, or ``5 versions``. Older ones that the champion, a
            rollback or a verification needs stay, too.
        promotion: When a challenger becomes the champion: ``evidence()``, ``not_worse_and_fresher(…)`` or
            ``manual()``.
        metric: What to compare instead of accuracy, or instead of the error of a regression.
        guards: Limits that a challenger must keep whatever the evidence, such as
            ``{"recall of snow": 0.2, "log_loss": 1.5}``: the least value of a score, the greatest of an error. The
            names are those of the metrics that training writes; ``accuracy of quarter=1`` is the accuracy on a slice.
        slices: Parts of the test rows whose metrics are shown separately: name to a column, or to an expression of
            pandas on the published columns, such as ``{"quarter": "date.dt.quarter", "frost": "temp_min < 0"}``.
        trusted: Full names of the types that its models may contain besides scikit-learn's: its own transformers.
        memory_limit: How much memory the task of each model may use, such as ``4 GB`` or ``500 MiB``. A task that uses
            more is killed.
        time_limit: How long the task of each model may take, such as ``2 hours``.
        out_of_core: Whether a model learns batch by batch, with ``partial_fit``, so that its rows are never in memory
            together: ``always``, ``never``, or ``auto``: if they would take more than a quarter of ``memory_limit``.
        passes: How often a model that learns batch by batch goes through all rows.
        retrain_within: The last successful training may be at most this old, such as ``8 days``; None expects nothing.
        min_accuracy: The champion must be at least this accurate on the newest version's test rows; None expects
            nothing.
        notify: Notifiers of Airflow, or a function that returns them. They are notified when an expectation fails, and
            when it holds again.

    Raises:
        InvalidDefinition: A field has an invalid value.
    """

    name: str
    source: Source
    record_id: str
    target: str
    split: Split
    models: Callable[[], Mapping[str, Any]]
    kind: Literal["classification", "regression"] = "classification"
    event_time: str | None = None
    features: Sequence[str] | None = None
    schedule: str | None = None
    start: date | None = None
    end: date | None = None
    history: str = "all"
    keep: str = "all"
    promotion: Policy = dataclasses.field(default_factory=evidence)
    metric: Metric | None = None
    guards: Mapping[str, float] = dataclasses.field(default_factory=dict)
    slices: Mapping[str, str] = dataclasses.field(default_factory=dict)
    trusted: Sequence[str] = ()
    memory_limit: str = "4 GB"
    time_limit: str = "2 hours"
    out_of_core: Literal["auto", "always", "never"] = "auto"
    passes: int = 1
    retrain_within: str | None = None
    min_accuracy: float | None = None
    notify: Notifiers = ()

    def __post_init__(self) -> None:
        self._check_names()
        self._check_columns()
        self._check_slices()
        self._check_schedule()
        self._check_durations()
        self._check_promotion()
        self._check_limits()
        self._check_expectations()

    @property
    def topic(self) -> str:
        """The Kafka topic of its versions."""
        return f"{TOPIC_PREFIX}{self.name}"

    @property
    def kept(self) -> int | None:
        """How many versions stay in Kafka at least; None for all."""
        return None if self.keep == "all" else int(self.keep.split()[0])

    @property
    def retraining_limit(self) -> timedelta | None:
        """``retrain_within`` as a duration."""
        return None if self.retrain_within is None else duration_field("retrain_within", self.retrain_within)

    @property
    def doc(self) -> str:
        """The docstring of the definition's file, which Airflow shows."""
        return inspect.cleandoc(sys.modules[self.models.__module__].__doc__ or "")

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the definition's file."""
        return hashlib.sha256(Path(inspect.getfile(self.models)).read_bytes()).hexdigest()

    def feature_names(self, columns: Sequence[str]) -> list[str]:
        """The columns to learn from, given the columns of the source."""
        if self.features is not None:
            return list(self.features)
        others = {self.record_id, self.event_time, self.target, self.split.column}
        return [name for name in columns if name not in others]

    def slice_columns(self, columns: Sequence[str]) -> list[str]:
        """The columns of the source that the slices use."""
        used: set[str] = set()
        for expression in self.slices.values():
            used |= {expression} if expression in columns else _names(expression)
        return [name for name in columns if name in used]

    def estimators(self) -> dict[str, Any]:
        """The unfitted estimators by name, the baseline last.

        Raises:
            InvalidDefinition: ``models`` does not return estimators by name.
        """
        from sklearn.base import BaseEstimator
        from sklearn.dummy import DummyClassifier, DummyRegressor

        try:
            models = self.models()
        except Exception as error:
            what = f"the function raised {type(error).__name__}: {str(error).rstrip('.')}."
            raise InvalidDefinition("models", what, "Correct it; ./millrace check calls it.") from error
        if not isinstance(models, Mapping) or not models:
            raise InvalidDefinition(
                "models", f"the function returned {models!r}.", 'Return {"name": estimator, …} with at least one model.'
            )
        for name, estimator in models.items():
            if not usable(name) or name == BASELINE:
                what = f"{name!r} is reserved." if name == BASELINE else f"{name!r} is not a valid model name."
                raise InvalidDefinition("models", what, NAME_RULE)
            if not isinstance(estimator, BaseEstimator):
                raise InvalidDefinition(
                    "models", f"{name!r} is {estimator!r}, not an estimator.", "Return scikit-learn estimators."
                )
        baseline = DummyRegressor() if self.kind == "regression" else DummyClassifier(strategy="prior")
        return {**models, BASELINE: baseline}

    def _check_names(self) -> None:
        if not usable(self.name):
            raise InvalidDefinition("name", f"{self.name!r} is not a valid name.", NAME_RULE)
        if not callable(getattr(self.source, "rows", None)):
            raise InvalidDefinition("source", f"{self.source!r} is not a source.", "Use Packaged, File or Query.")
        if not isinstance(self.split, Split):
            raise InvalidDefinition(
                "split", f"{self.split!r} is not a split.", "Use TimeSplit, GroupSplit or HashSplit."
            )
        if not callable(self.models):
            raise InvalidDefinition(
                "models", f"{self.models!r} is not a function.", "Write a function that returns the estimators by name."
            )
        if self.kind not in ("classification", "regression"):
            raise InvalidDefinition(
                "kind", f"{self.kind!r} is not a kind of dataset.", "Use 'classification' or 'regression'."
            )

    def _check_columns(self) -> None:
        for field in ("record_id", "target"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field):
                raise InvalidDefinition(field, f"{getattr(self, field)!r} is not a column name.", "Name one column.")
        if self.target == self.record_id:
            raise InvalidDefinition("target", f"{self.target!r} is also the record_id.", "Name the column to predict.")
        if self.target == self.event_time:
            raise InvalidDefinition("target", f"{self.target!r} is also the event_time.", "Name the column to predict.")
        if isinstance(self.features, str) or (self.features is not None and not self.features):
            raise InvalidDefinition(
                "features", f"{self.features!r} is not a list of columns.", "Name one or more, or omit the field."
            )
        if self.features is not None and self.target in self.features:
            raise InvalidDefinition(
                "features", f"the target {self.target!r} is among them.", "Remove it: a model must not see the target."
            )
        if self.event_time is None and isinstance(self.split, TimeSplit):
            raise InvalidDefinition(
                "event_time", "it is missing, and a TimeSplit needs it.", "Name the column with the time of a record."
            )
        if self.event_time is None and self.history != "all":
            raise InvalidDefinition(
                "event_time", "it is missing, and history needs it.", "Name the column with the time of a record."
            )

    def _check_slices(self) -> None:
        if not isinstance(self.slices, Mapping):
            raise InvalidDefinition(
                "slices", f"{self.slices!r} is not a mapping.", 'Write {"quarter": "date.dt.quarter"}.'
            )
        for name, expression in self.slices.items():
            if not usable(name):
                raise InvalidDefinition("slices", f"{name!r} is not a valid name.", NAME_RULE)
            if not isinstance(expression, str) or not expression:
                raise InvalidDefinition(
                    "slices",
                    f"the slice {name!r} is {expression!r}, not a text.",
                    "Write the name of a column, or an expression.",
                )

    def _check_schedule(self) -> None:
        for field in ("start", "end"):
            if getattr(self, field) is not None and not isinstance(getattr(self, field), date):
                raise InvalidDefinition(field, f"{getattr(self, field)!r} is not a date.", "Use date(2025, 1, 1).")
        if self.start and self.end and self.start >= self.end:
            raise InvalidDefinition(
                "end", f"{self.end} is not after start, {self.start}.", "Correct one of the two dates."
            )
        if self.schedule is None:
            return
        if not isinstance(self.schedule, str) or not (
            self.schedule in _PRESETS or len(self.schedule.split()) in (5, 6)
        ):
            raise InvalidDefinition(
                "schedule", f"{self.schedule!r} is not a schedule.", "Use a preset such as '@daily', or '30 6 * * MON'."
            )
        if self.start is None:
            raise InvalidDefinition(
                "start", "it is missing, and a schedule needs it.", "Give the day when the first interval begins."
            )

    def _check_durations(self) -> None:
        if not _KEEP.fullmatch(str(self.keep)):
            raise InvalidDefinition("keep", f"{self.keep!r} is not a number of versions.", "Use 'all' or '5 versions'.")
        if self.history not in ("all", "interval"):
            duration_field("history", self.history, "Use 'all', 'interval' or '730 days'.")

    def _check_promotion(self) -> None:
        if not isinstance(self.promotion, Policy):
            remedy = "Use evidence(), not_worse_and_fresher(…) or manual()."
            raise InvalidDefinition("promotion", f"{self.promotion!r} is not a policy.", remedy)
        if self.metric is not None and not isinstance(self.metric, Metric):
            raise InvalidDefinition(
                "metric", f"{self.metric!r} is not a Metric.", "Use Metric('f1', score, worth=0.01)."
            )
        if self.metric is not None and self.metric.name in RECORD_BY_RECORD.values():
            raise InvalidDefinition(
                "metric",
                f"{self.metric.name!r} is the name of the comparison record by record.",
                "Give the metric another name, such as 'weighted_accuracy', or omit it.",
            )
        if isinstance(self.trusted, str) or not all(isinstance(name, str) and "." in name for name in self.trusted):
            raise InvalidDefinition(
                "trusted", f"{self.trusted!r} is not a list of types.", 'Write ["my_package.Transformer"].'
            )
        for name, limit in self.guards.items():
            self._check_guard(name, limit)

    def _check_guard(self, name: str, limit: object) -> None:
        metric, _, part = name.partition(" of ")
        of_classes = OF_CLASSES if self.kind == "classification" else frozenset()
        if metric not in OF_ALL_ROWS[self.kind] | of_classes:
            known = ", ".join(sorted(OF_ALL_ROWS[self.kind] | of_classes))
            remedy = f"The metrics of a {self.kind} are {known}."
            raise InvalidDefinition("guards", f"{name!r}: {metric!r} is not one of its metrics.", remedy)
        if isinstance(limit, bool) or not isinstance(limit, int | float) or math.isnan(limit):
            raise InvalidDefinition("guards", f"{name!r}: {limit!r} is not a number.", f'Write {{"{name}": 0.5}}.')
        if metric in of_classes and not part:
            remedy = f'Write the class: {{"{metric} of snow": {limit}}}.'
            raise InvalidDefinition("guards", f"{name!r}: each class has its own {metric}.", remedy)
        if metric in OF_ALL_ROWS[self.kind] and part and part.partition("=")[::2] == (part, ""):
            remedy = f'Write "{metric} of SLICE=PART", or "recall of {part}" for a class.'
            raise InvalidDefinition("guards", f"{name!r}: {part!r} is not a part of a slice.", remedy)
        if metric in OF_ALL_ROWS[self.kind] and part and part.partition("=")[0] not in self.slices:
            raise InvalidDefinition(
                "guards", f"{name!r}: slices does not define this slice.", "Define it in slices, or correct the name."
            )

    def _check_limits(self) -> None:
        try:
            size(self.memory_limit)
        except ValueError as error:
            raise InvalidDefinition("memory_limit", f"{error}.", "Write '4 GB' or '500 MiB'.") from error
        duration_field("time_limit", self.time_limit)
        if self.out_of_core not in ("auto", "always", "never"):
            raise InvalidDefinition(
                "out_of_core", f"{self.out_of_core!r} is not a choice.", "Use 'auto', 'always' or 'never'."
            )
        if not isinstance(self.passes, int) or isinstance(self.passes, bool) or self.passes < 1:
            raise InvalidDefinition("passes", f"{self.passes!r} is not a number of passes.", "Use 1 or more.")

    def _check_expectations(self) -> None:
        if self.retrain_within is not None:
            duration_field("retrain_within", self.retrain_within)
        least = self.min_accuracy
        if least is not None:
            if self.kind != "classification":
                raise InvalidDefinition(
                    "min_accuracy", "a regression has no accuracy.", "Omit the field, or set a guard for rmse."
                )
            if not isinstance(least, int | float) or isinstance(least, bool) or not 0 < least <= 1:
                raise InvalidDefinition("min_accuracy", f"{least!r} is not an accuracy.", "Write 0.9 for 90 %.")
        check_notify(self.notify)
