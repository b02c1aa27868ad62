"""The sentences about what retraining has gained."""

from __future__ import annotations

from typing import Any

from include.promotion.value import Summary, VersionValue, summary_lines


def worth(champion_number: int, **changes: Any) -> VersionValue:
    fields: dict[str, Any] = {
        "version": "0123456789ab",
        "until": None,
        "metric": "accuracy",
        "rows": 100,
        "champion_number": champion_number,
        "live_model": "forest",
        "live": 0.7,
        "never_model": "forest",
        "never": 0.7,
        "newest_model": "forest",
        "newest": 0.7,
    }
    return VersionValue(**fields | changes)


def summary(promotions: int, **changes: Any) -> Summary:
    fields: dict[str, Any] = {
        "trainings": 4,
        "promotions": promotions,
        "useless": 4 - promotions,
        "versions": 2,
        "metric": "accuracy",
        "live": 0.7,
        "never": 0.7,
        "newest": 0.7,
        "gained": 0.0,
    }
    return Summary(**fields | changes)


NOTHING: dict[str, Any] = dict.fromkeys(("versions", "metric", "live", "never", "newest", "gained"))


def test_without_a_champion_there_is_no_gain() -> None:
    assert summary_lines(summary(0, **NOTHING), [worth(0)]) == [
        "Retraining has gained nothing yet: no model has beaten the baseline or was approved.",
        "4 trainings: 0 made a champion, 4 changed nothing.",
    ]


def test_nothing_came_after_the_first_champion() -> None:
    lines = summary_lines(summary(1, trainings=1, useless=0, **NOTHING), [worth(0)])
    assert lines[0] == "The gain is not known yet: no version has followed that of the first champion."
    assert lines[-1] == "1 training: 1 made a champion, 0 changed nothing."


def test_the_first_champion_is_still_in_use() -> None:
    lines = summary_lines(summary(1), [worth(0), worth(1), worth(1)])
    assert lines[0] == (
        "Accuracy on the 200 test records of 2 versions since the first champion: "
        "live 0.700, never retrained 0.700, newest 0.700."
    )
    assert lines[1] == "Retraining has gained nothing: no later model was better than the first champion."


def test_a_champion_counts_from_the_next_version_on() -> None:
    lines = summary_lines(summary(2, newest=0.8), [worth(0), worth(1), worth(1, newest=0.9)])
    assert lines[1].startswith("Retraining has gained nothing yet: the first champion was replaced on the last version")
    assert lines[2] == (
        "The newest model of the same line was better than the live one by 10.0 points of accuracy (20 test records), "
        "but it did not exist yet when these records arrived."
    )


def test_a_gain_is_shown_in_points_and_records() -> None:
    lines = summary_lines(summary(2, live=0.75, gained=0.05), [worth(0), worth(1), worth(2, live=0.8)])
    assert lines[1] == "Retraining has gained 5.0 points of accuracy (10 test records)."
    assert "was worse than the live one by 5.0 points of accuracy (10 test records)" in lines[2]


def test_less_of_an_error_is_better() -> None:
    found = summary(2, metric="rmse", live=50.0, never=54.0, newest=51.0, gained=4.0)
    lines = summary_lines(found, [worth(0), worth(1, metric="rmse"), worth(2, metric="rmse")])
    assert lines[1] == "Retraining has gained 4 of rmse."
    assert "was worse than the live one by 1 of rmse," in lines[2]
    assert summary_lines(summary(2, metric="rmse", live=54.0, never=50.0, gained=-4.0), [worth(2)])[1] == (
        "Retraining has lost 4 of rmse."
    )


def test_the_newest_is_compared_only_where_there_was_one() -> None:
    lines = summary_lines(summary(1, newest=0.9), [worth(1), worth(1, newest=None, newest_model=None)])
    assert not any("Retrained" in line for line in lines)
