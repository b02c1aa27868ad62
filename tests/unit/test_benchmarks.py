from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.figures import Spread
from benchmarks.freshness import ages_of
from benchmarks.landing import Landed
from benchmarks.peers import debezium
from benchmarks.peers.position import escaped
from include.errors import UserError
from include.streams import vehicle_positions


def test_a_rate_leaves_out_what_was_there_when_first_seen() -> None:
    landed = Landed([(10.0, 20_000), (10.5, 60_000), (11.0, 100_000)], peak_rss=0, cpu_s=0.4)
    assert (landed.rows_per_s, landed.cpu_us) == (80_000, 5.0)


def test_a_rate_needs_more_than_one_sight() -> None:
    with pytest.raises(UserError, match="Too few events"):
        _ = Landed([(10.0, 20_000)], 0, 0.0).rows_per_s


def test_a_spread_is_median_least_and_greatest() -> None:
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)


def test_an_event_is_as_old_as_when_its_offset_was_first_passed() -> None:
    samples = [(1.0, {0: 1}), (2.0, {0: 1, 1: 2}), (5.0, {0: 3, 1: 2})]
    offsets, times, partitions = np.array([0, 1, 2, 0, 1.0]), np.full(5, 0.5), np.array([0, 0, 0, 1, 1.0])
    assert ages_of(samples, offsets, times, partitions).tolist() == [0.5, 4.5, 4.5, 1.5, 1.5]


@pytest.mark.parametrize("version", debezium.VERSIONS)
def test_every_jar_of_a_lock_has_its_sum_and_no_lock_names_a_host(version: str) -> None:
    lock = debezium.lock_of(version).read_text()
    assert lock.count("[[dependencies]]") == len(re.findall(r'^sha256 = "[0-9a-f]{64}"$', lock, re.MULTILINE)) > 50
    assert "://" not in lock


def test_connect_is_given_the_schema_of_the_events() -> None:
    fields = {field["field"]: field for field in debezium.schema_of(vehicle_positions.stream.fields)["fields"]}
    assert fields["bearing"] == {"field": "bearing", "optional": True, "type": "double"}
    assert fields["ts"]["name"] == "io.debezium.time.ZonedTimestamp"
    assert fields["status"]["type"] == "string"


def test_a_text_for_copy_is_escaped() -> None:
    assert escaped("a\tb\nc\rd\\e") == r"a\tb\nc\rd\\e"
