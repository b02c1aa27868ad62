"""The drain as an Airflow task: its owner's name, its log, and failures without a retry."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from include.forked import Killed
from include.landing import failures, handover

if TYPE_CHECKING:
    from include.landing.drain import Drained
    from include.landing.handover import Detach
    from include.streams.definition import Stream

log = logging.getLogger(__name__)


def drain_in_task(stream_name: str, shard: int) -> None:
    """Drains one window of a stream inside an Airflow task. The drain may continue until the next window's has begun.

    Raises:
        AirflowFailException: A user must decide, or another drain has taken over.
    """
    from airflow.sdk import Variable, get_current_context

    from include.airflow import assets, run_notes
    from include.airflow.dag_runs import airflow_errors
    from include.streams import definitions

    instance = get_current_context()["ti"]
    owner = f"{instance.dag_id} {instance.run_id} {instance.task_id}[{instance.map_index}] try {instance.try_number}"
    stream = definitions.get(stream_name)
    # A run of @continuous has no parameters, so a variable can shorten its windows.
    window = Variable.get(f"window__{stream_name}", default=None)
    if window is not None:
        stream = replace(stream, window=window)
    with airflow_errors():
        try:
            drained: Drained = handover.run(
                f"The drain of {stream_name!r}", lambda detach: _drain(stream, owner, shard, detach)
            )
        except Killed as killed:
            # A drain records all other failures itself.
            failures.note(stream_name, failures.drain_of(shard), killed)
            raise
    counts = {
        "landed": drained.landed,
        "dead letters": drained.dead_letters,
        "quarantined": drained.quarantined,
        "filtered": drained.filtered,
    }
    run_notes.leave(counts)
    if drained.landed:
        facts = {name.replace(" ", "_"): count for name, count in counts.items()}
        assets.emit(
            assets.landed_table(stream_name), {"stream": stream_name, "table": f"landing.{stream_name}", **facts}
        )


def _drain(stream: Stream, owner: str, shard: int, detach: Detach) -> Drained:
    import_pyarrow_without_pandas()
    from include.landing.drain import drain

    def log_and_detach(drained: Drained) -> None:
        _log_result(drained)
        detach(drained)

    drained = drain(stream, owner, shard, log_and_detach)
    _log_result(drained)
    return drained


def _log_result(drained: Drained) -> None:
    log.info(
        "%s landed, %s dead letters, %s quarantined, %s filtered, in %s transactions. The drain ended because %s.",
        drained.landed,
        drained.dead_letters,
        drained.quarantined,
        drained.filtered,
        drained.batches,
        drained.reason,
    )


class _NoPandas:
    """An import hook that reports pandas as not installed."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def import_pyarrow_without_pandas() -> None:
    """Keeps pyarrow from importing pandas, which it does with its first array, for conversions that no drain uses.

    Only for processes that never need pandas: pyarrow tries the import once. Gain: a window starts 0.3 s earlier and
    uses 40 MB less. To see it: ``./millrace python -X importtime -c "import pyarrow; pyarrow.scalar(0)"``.
    """
    hook = _NoPandas()
    sys.meta_path.insert(0, cast(Any, hook))
    try:
        import pyarrow

        pyarrow.scalar(0)
    finally:
        sys.meta_path.remove(cast(Any, hook))
