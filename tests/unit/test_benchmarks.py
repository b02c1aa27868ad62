from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.figures import Spread
from benchmarks.freshness import Change, Sample, ages_of, changes_of, stretches_of
from benchmarks.landing import Landed
from benchmarks.peers import debezium
from benchmarks.peers.position import escaped
from benchmarks.year import growing
from include.error_codes import Code
from include.streams import vehicle_positions
from tests.errors import raises


def test_a_rate_does_not_count_the_rows_of_the_first_sample() -> None:
    landed = Landed([(10.0, 20_000), (10.5, 60_000), (11.0, 100_000)], peak_rss=0, cpu_s=0.4)
    assert (landed.rows_per_s, landed.cpu_us) == (80_000, 5.0)


def test_a_rate_needs_more_than_one_sample() -> None:
    with raises(Code.BENCHMARK_FAILED, "20000 events"):
        _ = Landed([(10.0, 20_000)], 0, 0.0).rows_per_s


def test_a_spread_is_median_minimum_and_maximum() -> None:
    assert Spread.of([3.0, 1.0, 8.0]) == Spread(3.0, 1.0, 8.0)


def test_the_age_of_an_event_ends_when_its_offset_is_first_visible() -> None:
    samples = [Sample(1.0, {0: 1}, 1), Sample(2.0, {0: 1, 1: 2}, 1), Sample(5.0, {0: 3, 1: 2}, 1)]
    offsets, times, partitions = np.array([0, 1, 2, 0, 1.0]), np.full(5, 0.5), np.array([0, 0, 0, 1, 1.0])
    assert ages_of(samples, offsets, times, partitions).tolist() == [0.5, 4.5, 4.5, 1.5, 1.5]


def test_a_window_change_ends_with_the_first_rows_of_the_next_claim() -> None:
    samples = [
        Sample(1.0, {0: 1}, 4),
        Sample(2.0, {0: 5}, 4),
        Sample(2.9, {0: 5}, 5),
        Sample(3.0, {0: 6}, 5),
        Sample(4.0, {0: 7}, 5),
        Sample(4.2, {0: 9}, 7),
    ]
    assert changes_of(samples) == [Change(2.0, 3.0), Change(4.0, 4.2)]
    assert Change(2.0, 3.0).gap_s == 1.0


def test_slow_periods_are_separate_and_sorted_by_the_worst() -> None:
    times = np.array([10.0, 10.2, 10.4, 11.0, 13.0, 13.2, 16.0])
    ages = np.array([0.1, 0.9, 0.7, 0.1, 2.0, 1.8, 0.1])
    worst, other = stretches_of(ages, times, [Change(10.2, 11.1)])
    assert (worst.oldest_s, worst.at_change, other.oldest_s, other.at_change) == (2.0, False, 0.9, True)
    assert (worst.at_s, worst.lasted_s, other.at_s) == pytest.approx((3.0, 0.2, 0.2))
    assert stretches_of(ages[:1], times[:1], []) == []


@pytest.mark.parametrize("version", debezium.VERSIONS)
def test_every_jar_of_a_lock_has_its_sum_and_no_lock_names_a_host(version: str) -> None:
    lock = debezium.lock_of(version).read_text()
    assert lock.count("[[dependencies]]") == len(re.findall(r'^sha256 = "[0-9a-f]{64}"$', lock, re.MULTILINE)) > 50
    assert "://" not in lock


def test_connect_gets_the_schema_of_the_events() -> None:
    fields = {field["field"]: field for field in debezium.schema_of(vehicle_positions.stream.fields)["fields"]}
    assert fields["bearing"] == {"field": "bearing", "optional": True, "type": "double"}
    assert fields["ts"]["name"] == "io.debezium.time.ZonedTimestamp"
    assert fields["status"]["type"] == "string"


def test_a_text_for_copy_is_escaped() -> None:
    assert escaped("a\tb\nc\rd\\e") == r"a\tb\nc\rd\\e"


@pytest.mark.parametrize(
    ("name", "sizes", "found"),
    [
        ("rows", [50, 900, 800, 950], []),
        ("rows", [300, 600, 900, 1200], ["rows grew from 600 to 1,200 since the second quarter"]),
        ("millrace.metric", [300, 600, 900, 1200], []),
        ("millrace.metric", [300, 600, 900, 1400], ["millrace.metric grew by 500 in the last quarter, by 300 in the"]),
    ],
)
def test_sizes_that_keep_growing_are_named(name: str, sizes: list[int], found: list[str]) -> None:
    """Permanent data may grow, but not faster in the last quarter than in the second."""
    lines = growing([{name: size} for size in sizes])
    assert [each.startswith(one) for each, one in zip(lines, found, strict=True)] == [True] * len(found)
