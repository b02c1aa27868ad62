"""The roles of a file's columns."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner

from cli.new import new as command
from cli.scaffold import dataset as new
from include.datasets.profiling import Answers, Profile, Role, profile
from include.error_codes import Code
from tests.errors import raises

N = 400
RNG = np.random.default_rng(0)
X = RNG.normal(size=N).tolist()
Y = ["yes" if value > 0 else "no" for value in RNG.normal(size=N)]
LABELS = sorted(Y)


def profiled(columns: dict[str, Any], target: str = "y", **answers: Any) -> Profile:
    return profile("rows.csv", pa.table(columns), Answers(target, **answers))


def role_of(found: Profile, column: str) -> tuple[Role, str]:
    return next((each.role, each.why) for each in found.columns if each.column == column)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("Unnamed: 0", range(N)),
        ("index", range(N)),
        ("level_0", range(1, N + 1)),
        ("__index_level_0__", range(N)),
        ("__index_level_0__", RNG.permutation(10 * N)[:N].tolist()),
        ("Unnamed: 0", sorted(RNG.permutation(10 * N)[:N].tolist())),
        ("n", range(N)),
        ("n", range(1, N + 1)),
        ("n", range(N, 0, -1)),
        ("n", range(1_000, 1_000 + 10 * N, 10)),
        ("n", [float(number) for number in range(N)]),
        ("n", [number / 10 for number in range(N)]),
        ("n", [None, *range(1, N)]),
        ("n", [None, *map(float, range(1, N))]),
        ("n", [0, *range(N - 1)]),
        ("n", RNG.permutation(N).tolist()),
        ("n", [*range(N // 2), *range(N // 2 + 5, N + 5)]),
    ],
)
def test_a_column_that_numbers_the_rows_is_not_a_feature(name: str, values: Any) -> None:
    found = profiled({name: list(values), "x": X, "y": LABELS})
    assert found.features == ["x"]
    role, why = role_of(found, name)
    assert role in (Role.RECORD_ID, Role.LEFT_OUT)
    assert "numbers the rows" in why or "index of the rows" in why or "looks like an id, but" in why


def test_other_numbers_are_features() -> None:
    columns = {
        "hour": [number % 24 for number in range(N)],
        "unique": RNG.permutation(100 * N)[:N].tolist(),
        "sorted": sorted(X),
        "constant": [1] * N,
        "few": [number // 100 for number in range(N)],
    }
    assert profiled({**columns, "y": Y}).features == list(columns)


def test_in_a_few_rows_ascending_numbers_are_features() -> None:
    assert profiled({"dose": [1, 2, 3, 4, 5, 6], "y": ["a", "b", "a", "b", "a", "b"]}).features == ["dose"]


def test_an_option_makes_a_column_that_numbers_the_rows_a_feature() -> None:
    found = profiled({"year": range(1_700, 1_700 + N), "y": X}, features=["year"])
    assert (found.features, found.kind, found.record_id) == (["year"], "regression", None)
    with raises(Code.FEATURES_MISSING, "'y'", "'x' (empty)"):
        profiled({"x": [None] * N, "y": X})


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, *range(1, N)], "1 row repeats a value, such as 1 in 2 rows"),
        ([None, *range(1, N)], "1 row has no value"),
        ([None, 7, *range(2, N)], "1 row has no value, and 1 row repeats a value, such as 7 in 2 rows"),
        ([*(f"A-{number}" for number in range(N - 1)), "A-0"], "1 row repeats a value, such as A-0 in 2 rows"),
        ([None, *(f"A-{number}" for number in range(N - 1))], "1 row has no value"),
        ([float("nan"), *map(float, range(1, N))], "looks like an id, but"),
        ([number // 2 for number in range(N)], "200 rows repeat a value"),
    ],
)
@pytest.mark.parametrize("name", ["customer_id", "orderId", "ID"])
def test_a_column_that_is_almost_an_id_is_left_out(name: str, values: Any, reason: str) -> None:
    found = profiled({name: pa.array(values, from_pandas=True), "x": X, "y": Y})
    assert (found.record_id, found.features) == (None, ["x"])
    role, why = role_of(found, name)
    assert role is Role.LEFT_OUT
    assert reason in why or "looks like an id, but 1 row has no value" in why


def test_a_chosen_id_must_identify_the_records() -> None:
    columns = {"code": [f"{number:05d}" for number in range(N)], "x": X, "y": Y, "z": [*range(N - 1), 3]}
    found = profiled(columns, record_id="code")
    assert (found.record_id, found.types) == ("code", {"code": "text"})
    with raises(Code.RECORD_ID_NOT_UNIQUE, "'z' of rows.csv", "1 row repeats a value, such as 3"):
        profiled(columns, record_id="z")
    with raises(Code.COLUMN_MISSING, "'w'", "code, x, y, z", "--id"):
        profiled(columns, record_id="w")


@pytest.mark.parametrize(
    ("values", "reason", "remedy"),
    [
        (["?" if n % 9 == 0 else f"{n / 7:.2f}" for n in range(N)], "'?' in 45 rows", "--null '?'"),
        (["-" if n % 9 == 0 else str(n) for n in range(N)], "'-' in 45 rows", "--null -"),
        (["unknown" if n == 5 else str(n) for n in range(N)], "'unknown' in 1 row", "--null unknown"),
        ([f"{n * 7 + 900:,}" for n in range(N)], "written as 1,005", "--thousands ','"),
        ([f"{n * 7 + 0.5:.2f}".replace(".", ",") for n in range(N)], "written as 0,50, 7,50", "--decimal ','"),
        ([f"{n}%" for n in range(N)], "written as 0%, 1%, 2% and 397 more", "without the percent sign"),
        ([f"${n}.99" for n in range(N)], "written as $0.99", "without the unit"),
        ([f"{n} kg" for n in range(N)], "written as 0 kg", "without the unit"),
    ],
)
def test_numbers_in_another_notation_are_left_out_with_a_remedy(values: list[str], reason: str, remedy: str) -> None:
    found = profiled({"price": values, "x": X, "y": Y})
    assert found.features == ["x"]
    role, why = role_of(found, "price")
    assert role is Role.LEFT_OUT
    assert reason in why
    assert remedy in why
    with raises(Code.TARGET_UNCLEAR, "'price' of rows.csv", reason, remedy):
        profiled({"price": values, "x": X}, "price")
    with raises(Code.TARGET_UNUSABLE, "'price' of rows.csv", remedy):
        profiled({"price": values, "x": X}, "price", kind="regression")


def test_texts_with_many_missing_values_are_not_numbers() -> None:
    values = ["NA" if n % 5 else f"note {n}" for n in range(N)]
    role, why = role_of(profiled({"note": values, "x": X, "y": Y}), "note")
    assert (role, why[:30]) == (Role.LEFT_OUT, "text with 81 different values,")


def test_words_with_a_few_numbers_are_categories() -> None:
    values = ["4wd" if n % 3 else "fwd" if n % 2 else "2" for n in range(N)]
    assert profiled({"drive": values, "y": Y}).categories == ["drive"]


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ([n % 2 for n in range(N)], "classification", {}),
        ([float(n % 2) if n else None for n in range(N)], "classification", {"y": "integer"}),
        ([float(n % 5) if n else None for n in range(N)], "classification", {"y": "integer"}),
        ([n % 21 for n in range(N)], "regression", {}),
        ([n / 2 % 3 for n in range(N)], "regression", {}),
        ([n % 2 == 0 for n in range(N)], "classification", {}),
        ([Decimal(n % 2) for n in range(N)], "classification", {"y": "integer"}),
        ([Decimal(n % 7) / 2 for n in range(N)], "regression", {"y": "number"}),
        (["0" + str(n % 3) for n in range(N)], "classification", {"y": "text"}),
    ],
)
def test_a_target_is_classes_or_a_number(values: list[Any], kind: str, classes: dict[str, str]) -> None:
    found = profiled({"x": X, "y": values})
    assert (found.kind, found.types) == (kind, classes)


def test_a_few_rows_of_different_numbers_are_not_classes() -> None:
    assert profiled({"x": [1.5, 2.5, 1, 7], "y": [1_947, 1_960, 1_970, 1_999]}).kind == "regression"


@pytest.mark.parametrize(
    ("columns", "answers", "code", "values"),
    [
        ({"y": [f"text {n}" for n in range(N)]}, {}, Code.TARGET_UNCLEAR, ["400 different values in 400 rows"]),
        ({"y": [f"text {n % 150}" for n in range(N)]}, {}, Code.TARGET_UNCLEAR, ["150 different values", "--kind"]),
        ({"index": range(N)}, {"target": "index"}, Code.TARGET_UNCLEAR, ["numbers the rows"]),
        ({"y": ["a"] * N}, {}, Code.TARGET_UNUSABLE, ["the same value in every row: a"]),
        ({"y": [0.5, 1.5] * (N // 2)}, {"kind": "classification"}, Code.TARGET_UNUSABLE, ["0.5, 1.5"]),
        ({"y": ["a", "b"] * (N // 2)}, {"kind": "regression"}, Code.TARGET_UNUSABLE, ["is text"]),
        ({"y": [True, False] * (N // 2)}, {"kind": "regression"}, Code.TARGET_UNUSABLE, ["is bool"]),
        ({"y": [None] * N}, {}, Code.TARGET_UNUSABLE, ["is empty"]),
        (
            {"y": ["a", "b", "NA", "a"] * (N // 4)},
            {},
            Code.TARGET_UNCLEAR,
            ["'NA' in 100 rows", "--null NA", "--kind classification"],
        ),
        (
            {"y": ["a", "b", "?", "n/a"] * (N // 4)},
            {},
            Code.TARGET_UNCLEAR,
            ["'?' in 100 rows, 'n/a' in 100 rows", "--null '?' --null n/a"],
        ),
        (
            {"y": [n / 8 for n in range(N)], "x": range(N)},
            {},
            Code.FEATURES_MISSING,
            ["'x' (numbers the rows)", "--feature x"],
        ),
        (
            {"y": [n / 8 for n in range(N)], "x": [date(2024, 1, 1) + timedelta(n) for n in range(N)]},
            {},
            Code.FEATURES_MISSING,
            ["'y'", "'x' (different in every row", "and the time"],
        ),
        (
            {"flow [l/s]": X},
            {"target": "flow [l/s]", "kind": "classification"},
            Code.TARGET_UNUSABLE,
            ["--types 'flow [l/s]=text'"],
        ),
        ({"y": [timedelta(n) for n in range(N)]}, {}, Code.TARGET_UNUSABLE, ["is duration[us]"]),
    ],
)
def test_a_target_that_is_unusable_or_unclear_is_an_error(
    columns: dict[str, Any], answers: dict[str, Any], code: Code, values: list[str]
) -> None:
    with raises(code, *values):
        profiled({"x": X, **{name: list(values) for name, values in columns.items()}}, **answers)


@pytest.mark.parametrize("classes", [["-", "+"], ["yes", "no", "none"], ["a", "b", "Na"]])
def test_classes_that_look_like_missing_values_among_others_are_classes(classes: list[str]) -> None:
    assert profiled({"x": X, "y": [classes[n % len(classes)] for n in range(N)]}).kind == "classification"


def test_a_category_that_may_mean_missing_is_reported() -> None:
    found = profiled({"sex": [["male", "female", "NA"][n % 3] for n in range(N)], "y": LABELS})
    assert role_of(found, "sex") == (Role.FEATURE, "3 categories, such as male, female, NA; --null NA makes it missing")


def test_options_decide() -> None:
    assert profiled({"x": X, "y": ["a", "NA"] * (N // 2)}, kind="classification").kind == "classification"
    many = {"x": X, "y": [f"text {n % 150}" for n in range(N)]}
    assert profiled(many, kind="classification").kind == "classification"
    assert profiled({"x": X, "y": [n % 5 for n in range(N)]}, kind="regression").kind == "regression"
    assert profiled({"x": X, "y": [n % 50 for n in range(N)]}, kind="classification").kind == "classification"


def test_every_column_left_out_has_its_reason() -> None:
    columns = {
        "x": X,
        "empty": pa.nulls(N),
        "note": [f"note {n}" for n in range(N)],
        "tags": [[n] for n in range(N)],
        "took": [timedelta(seconds=n) for n in range(N)],
        "day": [None, *(date(2024, 1, 1) + timedelta(n) for n in range(1, N))],
        "raw": [b"%d" % n for n in range(N)],
        "zip": [f"{n:05d}" for n in range(N)],
        "y": Y,
    }
    found = profiled(columns)
    assert {t.column: t.why for t in found.columns if t.role is Role.LEFT_OUT} == {
        "empty": "empty",
        "note": "text with 400 different values, such as note 0, note 1, note 2",
        "tags": "list<item: int64>, which the models of the template cannot use",
        "took": "duration[us], which the models of the template cannot use",
        "day": "date32[day]: a time, missing in 1 row; the models of the template do not learn from times",
        "raw": "binary, which the models of the template cannot use",
        "zip": "text with 400 different values, such as 00000, 00001, 00002"
        " (text, since 00000 as a number would not be the same)",
    }


def test_decimals_are_numbers_and_codes_are_text() -> None:
    columns = {"price": [Decimal(n) / 4 for n in X], "zip": [f"{n % 9:05d}" for n in range(N)], "y": Y}
    found = profiled(columns)
    assert (found.features, found.types) == (["price", "zip"], {"price": "number", "zip": "text"})


def test_the_command_prints_the_role_of_each_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"amount": X, "price": [f"{n}%" for n in range(N)], "label": LABELS})
    frame.to_csv(tmp_path / "rows.csv", sep=";", decimal=",")
    monkeypatch.setattr(new.write, "__defaults__", (tmp_path,))
    asked = ["dataset", "noise", "--from", str(tmp_path / "rows.csv"), "--target", "label"]
    done = CliRunner().invoke(command, asked, catch_exceptions=False)
    assert done.output.splitlines() == [
        f"{tmp_path}/rows.csv: 400 rows, 4 columns; delimiter ';', decimal ','",
        "record_id  Unnamed: 0: the index of the rows, as pandas and R write it",
        "target     label: 2 classes: no, yes",
        "feature    amount: numbers",
        "left out   price: mostly numbers, but has values written as 0%, 1%, 2% and 397 more; to make these numbers, "
        "write them without the percent sign in the file",
        "kind       classification (--kind); split HashSplit(test=0.25)",
        f"Wrote {tmp_path}/noise.py. Edit it, then run ./millrace check and ./millrace publish noise.",
    ]
    assert 'delimiter=";", decimal=","' in (tmp_path / "noise.py").read_text()
    (tmp_path / "r.csv").write_text('"x","y"\n' + "".join(f'"{n}",{n % 7},"{"abN"[n % 3]}"\n' for n in range(90)))
    asked = ["dataset", "r", "--from", str(tmp_path / "r.csv"), "--target", "y", "--null", "N"]
    done = CliRunner().invoke(command, asked, catch_exceptions=False)
    assert (
        done.output.splitlines()[0]
        == f"{tmp_path}/r.csv: 90 rows, 3 columns; the header names 2 of them; missing values 'N'"
    )
    refused = CliRunner().invoke(command, [*asked, "--types", "zip=float"])
    assert refused.exit_code == 2
    assert "'zip=float' is not COLUMN=TYPE with one of the types text, integer" in refused.output
