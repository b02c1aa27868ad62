"""A record keeps its identity and its split when the type of its id changes from one version to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pytest

from include.datasets import HashSplit
from include.promotion import evaluation_queue
from tests.integration.registry import Given, ask, given, seal, signal, train

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection


def as_text(rows: pa.Table) -> pa.Table:
    """The same records but one, whose id is not a number, so that all ids are text."""
    ids = pa.array([*(str(value) for value in rows["id"].to_pylist()[:-1]), "A-2001"])
    return rows.set_column(0, "id", ids)


def as_floats(rows: pa.Table) -> pa.Table:
    return rows.set_column(0, "id", rows["id"].cast(pa.float64()))


def as_padded_text(rows: pa.Table) -> pa.Table:
    return rows.set_column(0, "id", pa.array([f"{value:05}" for value in rows["id"].to_pylist()]))


@pytest.mark.parametrize("changed", [as_text, as_floats, as_padded_text])
@pytest.mark.parametrize("salt", ["", "other"])
def test_the_champions_training_records_are_recognized_by_ids_of_any_type(
    topic: Callable[..., str], warehouse: Connection, changed: Callable[[pa.Table], pa.Table], salt: str
) -> None:
    rows = signal(1000)
    dataset = given(topic, rows)
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    later = replace(dataset, source=Given(changed(signal(1000, seed=1))), split=HashSplit(test=0.5, salt=salt))
    run = train(later, seal(later))
    evaluation_queue.evaluate_pending_runs(later)
    # "A-2001" replaces the last record.
    known = rows.slice(0, 999) if changed is as_text else rows
    expected = int(np.count_nonzero(~dataset.split.tests(known, dataset, None) & later.split.tests(known, later, None)))
    assert (expected > 0) == (salt == "other"), "with the same salt every record keeps its split"
    (gate,) = ask(warehouse, "SELECT trained, state FROM millrace.gate WHERE run = %s", run)
    assert (gate.state, gate.trained) == ("judged", expected)


def test_the_training_records_of_an_older_champion_are_recognized(
    topic: Callable[..., str], warehouse: Connection
) -> None:
    """They were stored by the first hash rule, under which the type of an id matters."""
    from include.datasets.hashing import FIRST_RULE, hash64

    rows = as_text(signal(1000))
    dataset = given(topic, rows)
    train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    everything = np.sort(hash64(rows["id"], rule=FIRST_RULE)).astype("<u8").tobytes()
    with warehouse.cursor() as cursor:
        cursor.execute("UPDATE millrace.artifact SET trained_on = %s", (everything,))
    warehouse.commit()
    dataset.source.table = as_text(signal(1000, seed=1))  # type: ignore[attr-defined]
    run = train(dataset, seal(dataset))
    evaluation_queue.evaluate_pending_runs(dataset)
    (gate,) = ask(warehouse, "SELECT trained, test_rows FROM millrace.gate WHERE run = %s", run)
    assert gate.trained == gate.test_rows
