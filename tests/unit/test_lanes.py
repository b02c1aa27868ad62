"""How the tests are distributed over processes."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.project import ROOT
from tests import lanes


@pytest.mark.parametrize(
    ("arguments", "chosen", "several"),
    [
        (["tests"], "", True),
        (["."], "", True),
        (["tests/faults"], "", True),
        (["tests/unit", "tests/faults/"], "", True),
        (["tests"], "position", False),
        (["tests/unit"], "", False),
        (["tests/faults/test_audit.py"], "", False),
        (["tests/faults/test_audit.py::test_unread_records_are_found"], "", False),
    ],
)
def test_several_processes_run_all_of_the_faults(arguments: list[str], chosen: str, several: bool) -> None:
    config: Any = SimpleNamespace(
        rootpath=ROOT,
        invocation_params=SimpleNamespace(dir=ROOT),
        args=arguments,
        option=SimpleNamespace(keyword=chosen, markexpr=""),
    )
    assert lanes.processes(config) == (lanes.PROCESSES if several else 0)


@pytest.mark.parametrize(
    ("named", "options", "left_out"),
    [
        (False, {}, True),
        (False, {"all": True}, False),
        (False, {"keyword": "position"}, False),
        (False, {"markexpr": "any_executor"}, False),
        (True, {}, False),
    ],
)
def test_the_long_tests_are_left_out_unless_tests_are_chosen(
    named: bool, options: dict[str, Any], left_out: bool
) -> None:
    source = pytest.Config.ArgsSource.ARGS if named else pytest.Config.ArgsSource.TESTPATHS
    config: Any = SimpleNamespace(
        args_source=source,
        option=SimpleNamespace(**{"keyword": "", "markexpr": ""} | options),
        getoption=lambda name: options.get(name.lstrip("-"), False),
    )
    assert lanes.leaves_out_long(config) is left_out
    process: Any = SimpleNamespace(workerinput={lanes.LEAVES_OUT_LONG: left_out})
    assert lanes.leaves_out_long(process) is left_out


def test_every_long_test_and_every_lane_exists() -> None:
    for prefix in (*lanes.LONG, *(prefix for prefixes in lanes.LANES.values() for prefix in prefixes)):
        path = prefix.partition("::")[0]
        assert list(ROOT.glob(f"{path}*")), prefix


def test_a_test_that_is_alone_waits_for_running_ones_and_delays_new_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "_TURNS", str(tmp_path / "test"))
    order: list[str] = []

    def alone() -> None:
        with lanes.turn() as turn:
            with turn.alone():
                order.append("alone")
                time.sleep(0.3)
                order.append("alone still")
            # Others can start while this one continues.
            assert another_ran.wait(10)
            order.append("among others")

    def another() -> None:
        with lanes.turn():
            order.append("another")
            another_ran.set()

    another_ran = threading.Event()
    threads = [threading.Thread(target=alone), threading.Thread(target=another)]
    with lanes.turn():
        with lanes.turn():
            order.append("two at once")
        for thread in threads:
            thread.start()
            thread.join(0.3)
        order.append("over")
    for thread in threads:
        thread.join()
    assert order == ["two at once", "over", "alone", "alone still", "another", "among others"]
