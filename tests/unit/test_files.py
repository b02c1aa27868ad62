"""Files as users have them: dialects, encodings, compression, and the types of columns."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from cli.scaffold import dataset as new
from include.datasets import File
from include.datasets.sources import delimited, sniff, text
from include.datasets.sources import file as files
from include.definitions import InvalidDefinition
from include.error_codes import Code
from tests.errors import raises

PLAIN = "city,price,label\nKöln,1.5,yes\nBonn,22.25,no\nKöln,3.0,yes\nBonn,4.5,no\n"
PLAIN_ROWS = {
    "city": ["Köln", "Bonn", "Köln", "Bonn"],
    "price": [1.5, 22.25, 3.0, 4.5],
    "label": ["yes", "no", "yes", "no"],
}


def put(folder: Path, content: str | bytes, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(path: Path, **options: Any) -> pa.Table:
    return File(str(path), **options).rows(None, None)


def types(path: Path, **options: Any) -> dict[str, str]:
    found = rows(path, **options)
    return {name: str(kind) for name, kind in zip(found.column_names, found.schema.types, strict=True)}


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        (["00501", "10001"], "string", ["00501", "10001"]),
        (["1", "01", "001"], "string", ["1", "01", "001"]),
        (["12345678901234567890", "22345678901234567891"], "string", None),
        (["9223372036854775808", "1"], "string", None),
        (["9007199254740993", "0.5"], "string", None),
        (["9223372036854775807", "-9223372036854775808"], "int64", [2**63 - 1, -(2**63)]),
        (["0x1F", "0x20"], "string", None),
        (["12E5", "3E10"], "string", None),
        (["12E5", "310"], "string", None),
        # R and others write 1000 like this.
        (["1012.3", "1e3", "NA", "1012"], "double", [1012.3, 1000, None, 1012]),
        (["1e3", "1012.3", "012"], "string", None),
        (["+4915112345678", "+4915112345679"], "string", None),
        (["007.5", "1.5"], "string", None),
        (["0", "0.5", "-0.25"], "double", [0, 0.5, -0.25]),
        (["1e-05", "1.5E+10"], "double", [1e-05, 1.5e10]),
        (["+1", "-1"], "double", [1, -1]),
        ([" 1", "2 "], "int64", [1, 2]),
        (["1", "NA", "", "3"], "int64", [1, None, None, 3]),
        (["NA", "DE", ""], "string", ["NA", "DE", None]),
        (["NA", ""], "null", [None, None]),
        (["true", "FALSE", ""], "bool", [True, False, None]),
        (["2024-01-05", "2024-02-29"], "date32[day]", None),
        (["2024-01-05 10:00", "2024-02-29"], "timestamp[s]", None),
        (["2024-01-05T10:00:00.5"], "timestamp[ns]", None),
        (["2024-01-05T10:00:00+02:00", "2024-01-05T10:00:00Z"], "timestamp[s, tz=UTC]", None),
    ],
)
def test_a_column_has_the_type_that_preserves_every_text(
    text: list[str], kind: str, values: list[Any] | None, tmp_path: Path
) -> None:
    path = put(tmp_path, "a,b\n" + "".join(f"{value},x\n" for value in text))
    assert types(path)["a"] == kind
    assert rows(path)["a"].to_pylist() == values if values else True
    if kind == "string":
        assert rows(path)["a"].to_pylist() == [value or None for value in text]


@pytest.mark.parametrize(
    ("text", "asked", "values"),
    [
        (["00501", "2"], "integer", [501, 2]),
        (["1.0", "", "0.0"], "integer", [1, None, 0]),
        (["1", "2"], "text", ["1", "2"]),
        (["1", "2"], "number", [1.0, 2.0]),
        (["12E5", "1"], "number", [12e5, 1.0]),
        (["1", "0"], "boolean", [True, False]),
        (["2024-01-05T10:00:00+02:00"], "timestamp", [pd.Timestamp("2024-01-05 08:00").to_pydatetime()]),
    ],
)
def test_types_decide(text: list[str], asked: str, values: list[Any], tmp_path: Path) -> None:
    path = put(tmp_path, "a,b\n" + "".join(f"{value},x\n" for value in text))
    assert rows(path, types={"a": asked})["a"].to_pylist() == values


def test_types_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    path = put(tmp_path, "a\n1\n2\n12%\n")
    with raises(Code.TYPE_MISMATCH, path, "'a'", "double", "'12%'", "row 3."):
        rows(path, types={"a": "number"})
    with raises(Code.COLUMN_MISSING, path, "'z'", "it has a."):
        rows(path, types={"z": "number"})
    with raises(Code.INVALID_DEFINITION, "source", "'float'", "'a'"):
        File("rows.csv", types={"a": "float"})


def test_types_decide_for_parquet_files_too(tmp_path: Path) -> None:
    table = pa.table(
        {
            "price": [Decimal("1.10"), Decimal("2.20"), None],
            "label": [1.0, None, 0.0],
            "code": [7, 8, 9],
            "shop": pa.array(["1", "2", "3"]).dictionary_encode(),
        }
    )
    parquet.write_table(table, tmp_path / "rows.parquet")
    asked = {"price": "number", "label": "integer", "code": "text", "shop": "integer"}
    found = rows(tmp_path / "rows.parquet", types=asked)
    assert found.to_pydict() == {
        "price": [1.1, 2.2, None],
        "label": [1, None, 0],
        "code": ["7", "8", "9"],
        "shop": [1, 2, 3],
    }
    parquet.write_table(pa.table({"label": [0.5]}), tmp_path / "rows.parquet")
    with raises(Code.TYPE_MISMATCH, "'label' is double", "int64", "Float value 0"):
        rows(tmp_path / "rows.parquet", types={"label": "integer"})


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (PLAIN, {}),
        (PLAIN.replace(",", ";").replace(".", ","), {"delimiter": ";", "decimal": ","}),
        (PLAIN.replace(",", "\t"), {"delimiter": "\t"}),
        (PLAIN.replace(",", "|"), {"delimiter": "|"}),
        (PLAIN.replace(",", " "), {"delimiter": " "}),
        (PLAIN.replace("\n", "\r\n"), {}),
        (b"\xef\xbb\xbf" + PLAIN.encode(), {}),
        (PLAIN.encode("utf-16"), {"encoding": "utf-16"}),
        (PLAIN.encode("utf-16-le"), {"encoding": "utf-16-le"}),
        (PLAIN.encode("latin-1"), {"encoding": "cp1252"}),
        ("# made by a machine\n# on a day\n" + PLAIN, {"comment": "#"}),
        ("Report of sales\n\n" + PLAIN, {"skip": 2}),
        ("\n\n" + PLAIN, {}),
        ("'city','price','label'" + PLAIN[PLAIN.index("\n") :].replace("Köln", "'Köln'"), {"quote": "'"}),
        (PLAIN.replace("Köln", '"Köln"').replace(",yes", ',"yes"'), {}),
    ],
)
def test_dialects_are_detected(content: str | bytes, options: dict[str, Any], tmp_path: Path) -> None:
    path = put(tmp_path, content, "rows.txt")
    found = sniff.sniff(path)
    assert (found.options, found.header) == (options, True)
    assert rows(path, **found.options).to_pydict() == PLAIN_ROWS


@pytest.mark.parametrize("suffix", ["csv.gz", "csv.bz2", "csv.xz", "zip", "csv.zst", "data"])
def test_compressed_files_are_read(suffix: str, tmp_path: Path) -> None:
    content, path = PLAIN.encode(), tmp_path / f"rows.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("rows.csv", content)
    elif suffix == "csv.zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(content)
    else:
        path.write_bytes({"csv.gz": gzip, "csv.bz2": bz2, "csv.xz": lzma, "data": gzip}[suffix].compress(content))
    assert new.read(path).rows.to_pydict() == PLAIN_ROWS
    with File(str(path)).scan(None, None) as scan:
        assert pa.Table.from_batches(scan.batches(["price"])).to_pydict() == {"price": PLAIN_ROWS["price"]}


def test_quoted_fields_may_contain_delimiters_quotes_and_line_breaks(tmp_path: Path) -> None:
    path = put(tmp_path, 'id;text;y\n1;"a;b";0\n2;"say ""hi""";1\n3;"two\nlines\r\nthree";0\n')
    data = new.read(path)
    assert data.options == {"delimiter": ";"}
    assert data.rows["text"].to_pylist() == ["a;b", 'say "hi"', "two\nlines\r\nthree"]


def test_line_breaks_in_quoted_text_are_read_wherever_a_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["line\n" * (number % 40) + f'"{number}",' for number in range(3_000)]
    frame = pd.DataFrame({"id": range(3_000), "text": texts})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 10_000)
    for limit in (0, 1 << 30):
        monkeypatch.setattr(files, "TEXT_IN_MEMORY_BYTES", limit)
        with File(str(tmp_path / "rows.csv")).scan(None, None) as scan:
            assert pa.Table.from_batches(scan.batches(["text"]))["text"].to_pylist() == texts


def test_an_unclosed_quotation_mark_is_an_error(tmp_path: Path) -> None:
    path = put(tmp_path, 'a,b\n1,x\n2,"y\n3,z\n')
    with raises(Code.FILE_UNREADABLE, path, "'y'", "never closed"):
        rows(path)
    assert rows(path, quote="")["b"].to_pylist() == ["x", '"y', "z"]
    assert rows(put(tmp_path, 'a,b\n5" pipe,x\n2,"y\n"\n'))["a"].to_pylist() == ['5" pipe', "2"]


def test_a_value_may_be_longer_than_a_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1_000)
    monkeypatch.setattr(files, "TEXT_IN_MEMORY_BYTES", 0)
    path = put(tmp_path, f'a,b\n1,"{"x" * 9_000}"\n2,y\n')
    with File(str(path)).scan(None, None) as scan:
        assert [len(text) for batch in scan.batches(["b"]) for text in batch["b"].to_pylist()] == [9_000, 1]


@pytest.mark.parametrize(
    ("early", "late", "kind"),
    [
        ("", "0.5", "double"),
        ("1", "0.5", "double"),
        ("1", "x", "string"),
        ("1", "007", "string"),
        ("9007199254740993", "0.5", "string"),
        ("2024-01-01", "2024-01-01 10:00", "timestamp[s]"),
        ("NA", "3", "int64"),
        ("NA", "x", "string"),
    ],
)
def test_a_large_file_has_the_types_of_the_whole_file(
    early: str, late: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "id,a\n" + "".join(f"{n},{early if n < 5_000 else late}\n" for n in range(5_100)))
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1_000)
    whole = rows(path)
    monkeypatch.setattr(files, "TEXT_IN_MEMORY_BYTES", 0)
    with File(str(path)).scan(None, None) as scan:
        assert str(scan.schema.field("a").type) == kind
        assert scan.schema == whole.schema
        assert pa.Table.from_batches(scan.batches(["id", "a"])).combine_chunks().equals(whole.combine_chunks())


def test_numbers_in_the_notation_of_other_countries(tmp_path: Path) -> None:
    path = put(tmp_path, "a;b\n1.234,5;x\n-1.000.000,25;y\n12,5;z\n;w\n")
    data = new.read(path)
    assert data.options == {"delimiter": ";", "decimal": ",", "thousands": "."}
    assert data.rows["a"].to_pylist() == [1234.5, -1000000.25, 12.5, None]
    path = put(tmp_path, 'a,b\n"1,234",x\n"12,345.5",y\n7,z\n')
    assert rows(path, thousands=",")["a"].to_pylist() == [1234.0, 12345.5, 7.0]
    # Neither is a number in this dialect.
    path = put(tmp_path, "a;b\n1.5;1,5\n2,5;12,34\n")
    assert types(path, delimiter=";", decimal=",") == {"a": "string", "b": "double"}


def test_texts_that_mean_missing(tmp_path: Path) -> None:
    path = put(tmp_path, "a,b\n1,?\n?,x\n-,y\n3,-\n")
    assert rows(path, nulls=["?", "-"]).to_pydict() == {"a": [1, None, None, 3], "b": [None, "x", "y", None]}


def test_texts_that_mean_missing_may_have_blanks_around_them(tmp_path: Path) -> None:
    path = put(tmp_path, "a,b,c\n1, ?,x\n2, 2.5,?\n?, -, ?y\n")
    found = rows(path, nulls=["?", "-"]).to_pydict()
    assert found == {"a": [1, 2, None], "b": [None, 2.5, None], "c": ["x", None, " ?y"]}


def test_comments_are_skipped_everywhere(tmp_path: Path) -> None:
    path = put(tmp_path, '# one\na,b\n1,"x\n# no comment"\n# two, with a comma\n2,y\n')
    assert rows(path, comment="#").to_pydict() == {"a": [1, 2], "b": ["x\n# no comment", "y"]}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "cp1251", "shift_jis"])
def test_other_encodings_are_detected(encoding: str, tmp_path: Path) -> None:
    words = {
        "cp1252": ["Größe über Maß", "naïve façade", "smörgåsbord"],
        "utf-16": ["Größe", "日本語"],
        "cp1251": ["Привет мир это текст", "Москва столица России", "Данные за прошлый год"],
        "shift_jis": ["日本語のテキストです", "東京都の人口について", "データの例をここに示す"],
    }[encoding]
    content = "id,word\n" + "".join(f"{number},{word}\n" for number, word in enumerate(words * 40))
    path = put(tmp_path, content.encode(encoding))
    assert new.read(path).rows["word"].to_pylist() == words * 40


def test_the_first_letter_outside_ascii_may_come_late(tmp_path: Path) -> None:
    path = put(tmp_path, b"id,word\n" + b"1,plain\n" * 300_000 + "2,Größe\n".encode("latin-1"))
    data = new.read(path)
    assert data.options == {"encoding": "cp1252"}
    assert data.rows["word"][-1].as_py() == "Größe"
    with raises(Code.FILE_UNREADABLE, "UTF-8", "File(…, encoding='cp1252')"):
        rows(path)


@pytest.mark.parametrize(
    "content",
    [
        "5.1,3.5,setosa\n4.9,3.0,setosa\n",
        "2024-01-01,a,b\n2024-01-02,a,c\n",
        "red,small,yes\nblue,small,no\nred,large,yes\nblue,small,no\n",
    ],
)
def test_a_missing_header_needs_an_option(content: str, tmp_path: Path) -> None:
    path = put(tmp_path, content)
    with raises(Code.HEADER_UNCLEAR, path, "--header", "--no-header"):
        new.read(path)
    assert new.read(path, header=False).rows.num_rows == content.count("\n")
    assert new.read(path, header=False).options == {"names": ["column_1", "column_2", "column_3"]}
    assert new.read(path, header=True).rows.num_rows == content.count("\n") - 1


def test_columns_without_names_are_named_after_their_positions(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 2], "b": [3, 4]}).to_csv(tmp_path / "rows.csv")
    assert rows(tmp_path / "rows.csv").column_names == ["Unnamed: 0", "a", "b"]
    assert rows(put(tmp_path, "a,b,,\n1,2,,\n")).column_names == ["a", "b", "Unnamed: 2", "Unnamed: 3"]


@pytest.mark.parametrize("folds", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize(
    ("content", "names"),
    [
        # R's write.table writes row names like this.
        ('"x","y z"\n"1",5,"a"\n"2",6,"b"\n', ["Unnamed: 0", "x", "y z"]),
        ("x,y\nnorth,5,6\nsouth,7,8\n", ["Unnamed: 0", "x", "y"]),
        ('# a\n"x\n1",y\n1,5,6\n# b\n2,7,8\n', ["Unnamed: 0", "x\n1", "y"]),
        ("A title\n\nx,y\n1,5,6\n2,7,8\n", ["Unnamed: 0", "x", "y"]),
        # An extra delimiter at the end of every row.
        ("x,y\n1,5,\n2,7,\n", ["x", "y", "Unnamed: 2"]),
    ],
)
def test_a_header_without_a_name_for_row_names_is_read(
    content: str, names: list[str], delimiter: str, folds: str, tmp_path: Path
) -> None:
    path = put(tmp_path, content.replace(",", delimiter).replace("\n", folds))
    data = new.read(path)
    assert data.rows.column_names == data.options["names"] == names
    assert data.rows.num_rows == 2
    assert rows(path, **data.options).equals(data.rows)
    with raises(Code.FILE_UNREADABLE, path, "File(…, ", "names="):
        rows(path, delimiter=delimiter)


@pytest.mark.parametrize(
    ("content", "code", "value"),
    [
        (b"PK\x03\x04", Code.FILE_UNREADABLE, ""),
        (b"ARROW1\0\0", Code.FORMAT_UNSUPPORTED, "an Arrow file"),
        (b"\xd0\xcf\x11\xe0", Code.FORMAT_UNSUPPORTED, "a spreadsheet or a document"),
        (b"a,b\n1,\x00\n", Code.FORMAT_UNSUPPORTED, "zero bytes"),
        (b"\x1f\x8b\x08broken", Code.FILE_UNREADABLE, ""),
        (b"", Code.FILE_EMPTY, ""),
        (b"\n\n", Code.FILE_EMPTY, ""),
        (b"a,b", Code.FILE_EMPTY, ""),
        (b"a,b\n\n", Code.FILE_EMPTY, ""),
    ],
)
def test_files_without_rows_or_in_another_format_are_errors(
    content: bytes, code: Code, value: str, tmp_path: Path
) -> None:
    path = put(tmp_path, content)
    with raises(code, path, value):
        new.read(path)


def test_a_spreadsheet_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "rows.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
        archive.writestr("xl/workbook.xml", "")
    with raises(Code.FORMAT_UNSUPPORTED, "rows.xlsx", "a spreadsheet or a document"):
        new.read(tmp_path / "rows.xlsx")


def test_the_error_of_a_wrong_dialect_proposes_the_right_one(tmp_path: Path) -> None:
    path = put(tmp_path, "a;b\n1,5;x,y\n2,5;y\n")
    with raises(Code.FILE_UNREADABLE, path, "File(…, delimiter=';', decimal=',')"):
        rows(path)


@pytest.mark.parametrize("folds", ["\n", "\r\n"])
@pytest.mark.parametrize("before", ["", "\ufeff", "\n"])
def test_line_breaks_in_a_header_are_read(before: str, folds: str, tmp_path: Path) -> None:
    path = put(tmp_path, f'{before}a,"of two{folds}lines",b{folds}1,2,3{folds}')
    assert rows(path).to_pydict() == {"a": [1], f"of two{folds}lines": [2], "b": [3]}


@pytest.mark.parametrize("blank", [*text.MISSING, " nan "])
def test_every_notation_of_a_missing_number_is_null(blank: str, tmp_path: Path) -> None:
    path = put(tmp_path, f"a,b\n1.5,1\n{blank},{blank}\n2.5,0\n")
    assert rows(path).to_pydict() == {"a": [1.5, None, 2.5], "b": [1, None, 0]}


def test_decimals_become_the_nearest_numbers(tmp_path: Path) -> None:
    texts = ["10.04", "81.21", "9902705.62", "-1.007", "0.000000001", None]
    found = pa.table({"a": pa.array([None if t is None else Decimal(t) for t in texts], pa.decimal128(20, 9))})
    parquet.write_table(found, tmp_path / "rows.parquet")
    read = rows(tmp_path / "rows.parquet", types={"a": "number"})["a"].to_pylist()
    assert read == [None if t is None else float(t) for t in texts]


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({"delimiter": ";;"}, "delimiter=';;'"),
        ({"delimiter": '"'}, "delimiter and quote are both"),
        ({"decimal": ",", "thousands": ","}, "decimal and thousands are both ','"),
        ({"encoding": "utf-9"}, "encoding='utf-9'"),
        ({"nulls": "?"}, "nulls='?'"),
        ({"names": [1]}, "names=[1]"),
        ({"skip": -1}, "skip=-1"),
        ({"comment": ""}, "comment=''"),
        ({"types": ["a"]}, "types=['a']"),
    ],
)
def test_invalid_options_are_named(options: dict[str, Any], value: str) -> None:
    with raises(Code.INVALID_DEFINITION, value, kind=InvalidDefinition):
        File("rows.csv", **options)
