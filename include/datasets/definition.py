"""A dataset as its user defines it: where its rows come from, how they are split, and which models learn from them."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from include.datasets.sizes import size
from include.datasets.splits import Split, TimeSplit
from include.definitions import InvalidDefinition
from include.durations import of_field
from include.gate.metric import Metric
from include.gate.policy import Policy, evidence

if TYPE_CHECKING:
    from include.datasets.sources import Source

BASELINE = "baseline"
TOPIC_PREFIX = "millrace.dataset."
ERRORS = frozenset({"log_loss", "mae", "rmse"})
OF_CLASSES = frozenset({"precision", "recall", "f1"})
GUARDED = ERRORS | OF_CLASSES | {"accuracy", "balanced_accuracy", "f1_macro", "r2", "roc_auc"}

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_KEEP = re.compile(r"all|[1-9]\d* versions?")
_PRESETS = {"@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly"}


def usable(name: object) -> bool:
    """Whether a dataset or a model may have this name."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def _names(expression: str) -> set[str]:
    """The names that an expression of pandas uses, those in backticks included; none where it is wrong."""
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
            that its imports cost the reading of DAG files nothing. A baseline is trained beside them by itself.
        kind: What is predicted: classes or a number.
        event_time: The column that says when a record happened: a timestamp or a date, taken as UTC.
        features: The columns to learn from; by default all but those named in other fields.
        schedule: A cron expression or preset; one version for each of its intervals. None: published on demand only.
        start: Where the schedule's first interval begins.
        end: Where its last interval ends.
        history: Which rows a version holds: ``all`` up to its interval's end, those of the ``interval`` alone, or of a
            duration before the interval's end, such as ``730 days``.
        keep: How many versions stay in Kafka at least: ``all``, or ``5 versions``. Older ones that the champion, a
            rollback or a verification needs stay, too.
        promotion: What a challenger needs to become the champion: ``evidence()``, ``not_worse_and_fresher(…)`` or
            ``manual()``.
        metric: What is compared instead of accuracy, or of the smaller error of a regression.
        guards: Limits that no evidence buys off, such as ``{"recall of snow": 0.2, "log_loss": 1.5}``: at least so
            much, of an error at most so much. The names are those of the metrics that training writes;
            ``accuracy of quarter=1`` is that on a slice.
        slices: Parts of the test rows on which the metrics are shown apart: name to a column, or to an expression of
            pandas on the published columns, such as ``{"quarter": "date.dt.quarter", "frost": "temp_min < 0"}``.
        trusted: Full names of the types that its models may hold beside scikit-learn's: its own transformers.
        memory_limit: What the task of each model may hold at most, such as ``4 GB`` or ``500 MiB``; one that holds more
            is ended.
        time_limit: How long the task of each model may take, such as ``2 hours``.
        out_of_core: Whether a model learns batch by batch, by ``partial_fit``, so that its rows never are in memory
            together: ``always``, ``never``, or ``auto``: when they would take more than a quarter of ``memory_limit``.
        passes: How often a model that learns batch by batch sees every row.

    Raises:
        InvalidDefinition: A field is wrong.
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

    def __post_init__(self) -> None:
        self._check_names()
        self._check_columns()
        self._check_slices()
        self._check_schedule()
        self._check_durations()
        self._check_promotion()
        self._check_limits()

    @property
    def topic(self) -> str:
        """The Kafka topic of its versions."""
        return f"{TOPIC_PREFIX}{self.name}"

    @property
    def kept(self) -> int | None:
        """How many versions stay in Kafka; None for all."""
        return None if self.keep == "all" else int(self.keep.split()[0])

    @property
    def doc(self) -> str:
        """What the data is: the docstring of the definition's file, shown in Airflow."""
        return inspect.cleandoc(sys.modules[self.models.__module__].__doc__ or "")

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the definition's file."""
        return hashlib.sha256(Path(inspect.getfile(self.models)).read_bytes()).hexdigest()

    def feature_names(self, columns: Sequence[str]) -> list[str]:
        """The columns to learn from, out of those that the source has."""
        if self.features is not None:
            return list(self.features)
        others = {self.record_id, self.event_time, self.target, self.split.column}
        return [name for name in columns if name not in others]

    def slice_columns(self, columns: Sequence[str]) -> list[str]:
        """Those of the columns that slices look at."""
        seen = set()
        for expression in self.slices.values():
            seen |= {expression} if expression in columns else _names(expression)
        return [name for name in columns if name in seen]

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
            what = f"raises {type(error).__name__}: {str(error).rstrip('.')}."
            raise InvalidDefinition("models", what, "Correct the function; ./millrace check calls it.") from error
        if not isinstance(models, Mapping) or not models:
            raise InvalidDefinition(
                "models", f"returns {models!r}.", 'Return {"name": estimator, …} with a model or more.'
            )
        for name, estimator in models.items():
            if not usable(name) or name == BASELINE:
                raise InvalidDefinition("models", f"{name!r} cannot name a model.", "Use letters, digits, underscores.")
            if not isinstance(estimator, BaseEstimator):
                raise InvalidDefinition("models", f"{name!r} is {estimator!r}.", "Return scikit-learn estimators.")
        baseline = DummyRegressor() if self.kind == "regression" else DummyClassifier(strategy="prior")
        return {**models, BASELINE: baseline}

    def _check_names(self) -> None:
        if not usable(self.name):
            raise InvalidDefinition(
                "name", f"{self.name!r} is not a name.", "Use a lower-case letter, then letters, digits, underscores."
            )
        if not callable(getattr(self.source, "rows", None)):
            raise InvalidDefinition("source", f"{self.source!r} is not a source.", "Use Packaged, File or Query.")
        if not isinstance(self.split, Split):
            raise InvalidDefinition(
                "split", f"{self.split!r} is not a split.", "Use TimeSplit, GroupSplit or HashSplit."
            )
        if not callable(self.models):
            raise InvalidDefinition(
                "models", "is not a function.", "Give a function that returns the estimators, so that they load lazily."
            )
        if self.kind not in ("classification", "regression"):
            raise InvalidDefinition("kind", f"{self.kind!r} is unknown.", "Use 'classification' or 'regression'.")

    def _check_columns(self) -> None:
        for field in ("record_id", "target"):
            if not isinstance(getattr(self, field), str) or not getattr(self, field):
                raise InvalidDefinition(field, f"{getattr(self, field)!r} is not a column.", "Name one column.")
        if self.target == self.record_id:
            raise InvalidDefinition("target", f"{self.target!r} is the record_id too.", "Name the column to predict.")
        if self.target == self.event_time:
            raise InvalidDefinition("target", f"{self.target!r} is the event_time too.", "Name the column to predict.")
        if isinstance(self.features, str) or (self.features is not None and not self.features):
            raise InvalidDefinition(
                "features", f"{self.features!r} is no list of columns.", "Name one or more, or leave it."
            )
        if self.features is not None and self.target in self.features:
            raise InvalidDefinition("features", f"contains the target {self.target!r}.", "A model must not see it.")
        if self.event_time is None and isinstance(self.split, TimeSplit):
            raise InvalidDefinition(
                "event_time", "is missing, and a TimeSplit needs it.", "Name the column of the time."
            )
        if self.event_time is None and self.history != "all":
            raise InvalidDefinition("event_time", "is missing, and history needs it.", "Name the column of the time.")

    def _check_slices(self) -> None:
        if not isinstance(self.slices, Mapping):
            raise InvalidDefinition(
                "slices", f"{self.slices!r} is no mapping.", 'Write {"quarter": "date.dt.quarter"}.'
            )
        for name, expression in self.slices.items():
            if not usable(name):
                raise InvalidDefinition("slices", f"{name!r} is no name.", "Use letters, digits, underscores.")
            if not isinstance(expression, str) or not expression:
                raise InvalidDefinition(
                    "slices", f"{name!r}: {expression!r} is no text.", "Name a column, or an expression."
                )

    def _check_schedule(self) -> None:
        for field in ("start", "end"):
            if getattr(self, field) is not None and not isinstance(getattr(self, field), date):
                raise InvalidDefinition(field, f"{getattr(self, field)!r} is no date.", "Use date(2025, 1, 1).")
        if self.start and self.end and self.start >= self.end:
            raise InvalidDefinition("end", f"{self.end} does not lie after start, {self.start}.", "Swap them.")
        if self.schedule is None:
            return
        if not isinstance(self.schedule, str) or not (
            self.schedule in _PRESETS or len(self.schedule.split()) in (5, 6)
        ):
            raise InvalidDefinition(
                "schedule", f"{self.schedule!r} is no schedule.", "Use a preset such as '@daily', or '30 6 * * MON'."
            )
        if self.start is None:
            raise InvalidDefinition(
                "start", "is missing, and a schedule needs it.", "Say where the first interval begins."
            )

    def _check_durations(self) -> None:
        if not _KEEP.fullmatch(str(self.keep)):
            raise InvalidDefinition("keep", f"{self.keep!r} is not understood.", "Use 'all' or '5 versions'.")
        if self.history not in ("all", "interval"):
            of_field("history", self.history, "Use 'all', 'interval' or '730 days'.")

    def _check_promotion(self) -> None:
        if not isinstance(self.promotion, Policy):
            remedy = "Use evidence(), not_worse_and_fresher(…) or manual()."
            raise InvalidDefinition("promotion", f"{self.promotion!r} is no policy.", remedy)
        if self.metric is not None and not isinstance(self.metric, Metric):
            raise InvalidDefinition("metric", f"{self.metric!r} is no metric.", "Use Metric('f1', score, worth=0.01).")
        if isinstance(self.trusted, str) or not all(isinstance(name, str) and "." in name for name in self.trusted):
            raise InvalidDefinition(
                "trusted", f"{self.trusted!r} is no list of types.", 'Write ["my_package.Transformer"].'
            )
        for name, limit in self.guards.items():
            if name.partition(" of ")[0] not in GUARDED or not isinstance(limit, int | float):
                known = ", ".join(sorted(GUARDED))
                raise InvalidDefinition(
                    "guards", f"{name!r}: {limit!r} is no limit.", f"Name one of {known} and a number."
                )
            metric, _, part = name.partition(" of ")
            if metric not in OF_CLASSES and "=" in part and part.partition("=")[0] not in self.slices:
                raise InvalidDefinition("guards", f"{name!r}: there is no such slice.", "Name it in slices.")

    def _check_limits(self) -> None:
        try:
            size(self.memory_limit)
        except ValueError as error:
            raise InvalidDefinition("memory_limit", f"{error}.", "Write '4 GB' or '500 MiB'.") from error
        of_field("time_limit", self.time_limit)
        if self.out_of_core not in ("auto", "always", "never"):
            raise InvalidDefinition(
                "out_of_core", f"{self.out_of_core!r} is unknown.", "Use 'auto', 'always' or 'never'."
            )
        if not isinstance(self.passes, int) or isinstance(self.passes, bool) or self.passes < 1:
            raise InvalidDefinition("passes", f"{self.passes!r} is no number of passes.", "Use 1 or more.")
