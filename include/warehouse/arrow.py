"""Converts the rows of a query to Arrow columns, whose types depend on PostgreSQL's types only, not on the rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation, localcontext
from functools import partial
from typing import TYPE_CHECKING

from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    import psycopg2
    import pyarrow as pa
    from psycopg2.extensions import cursor as Cursor

    Read = Callable[[pa.Array], pa.Array]

PIECE_ROWS = 32_768
# A numeric without a precision has this many digits before the decimal point, and as many after it.
DIGITS = 38
# Every number with at most this many digits fits into an int64.
INT64_DIGITS = 18
NUMERIC = 1700
# Types without a counterpart in Arrow whose text form is a name or a category.
WORDS = frozenset(
    {"text", "varchar", "bpchar", "char", "name", "citext", "uuid", "ltree", "regclass", "regtype"}
    | {"inet", "cidr", "macaddr", "macaddr8", "bit", "varbit"}
)

log = logging.getLogger(__name__)


@dataclass
class Column:
    """A column of a query.

    Attributes:
        name: Its name.
        database: Its PostgreSQL type, such as ``numeric(20,0)``.
        type: Its Arrow type.
        fit: Whether it can be a feature or an id: False for ``jsonb``, arrays and the like.
    """

    name: str
    database: str
    type: pa.DataType
    fit: bool
    _read: Read
    _texts: list[pa.Array] = field(default_factory=list)
    _pieces: list[pa.Array] | None = None

    def pieces(self) -> list[pa.Array]:
        """The values in pieces of ``PIECE_ROWS``. The first call converts them.

        Raises:
            NonRetryableError: The Arrow type cannot hold a value, such as an infinite date.
        """
        if self._pieces is None:
            self._pieces = [self._converted(texts) for texts in self._texts]
            self._texts = []
        return self._pieces

    def _converted(self, texts: pa.Array) -> pa.Array:
        import pyarrow as pa

        if (found := self._attempt(texts)) is not None:
            return found
        value = next(text for text in texts if self._attempt(pa.array([text.as_py()], text.type)) is None)
        raise NonRetryableError(
            f"The query's column {self.name!r} is {self.database} and has the value {value.as_py()!r}, which the Arrow "
            f"type {self.type} cannot hold.",
            "Convert it in the SQL, or leave the column out.",
            code=Code.TYPE_MISMATCH,
        )

    def _attempt(self, texts: pa.Array) -> pa.Array | None:
        import pyarrow as pa

        try:
            return self._read(texts)
        except (pa.ArrowException, InvalidOperation, ValueError):
            return None


def run(cursor: Cursor, statement: str) -> list[Column]:
    """Runs a query and fetches all of its rows.

    Raises:
        psycopg2.Error: PostgreSQL refuses the query.
        NonRetryableError: The query returns no columns, or two of one name.
    """
    _as_text(cursor)
    cursor.execute(statement)
    described = _described(cursor)
    pieces = list(_fetched(cursor))
    columns = _columns(cursor, described)
    for number, column in enumerate(columns):
        column._texts = [piece[number] for piece in pieces]
    return columns


def describe(cursor: Cursor, statement: str) -> list[Column]:
    """The columns of a query, without running it.

    Raises:
        psycopg2.Error: PostgreSQL refuses the query.
        NonRetryableError: The query returns no columns, or two of one name.
    """
    cursor.execute(f"DECLARE millrace_described NO SCROLL CURSOR FOR {statement}")
    cursor.execute("FETCH FORWARD 0 FROM millrace_described")
    return _columns(cursor, _described(cursor))


def _described(cursor: Cursor) -> list[psycopg2.extensions.Column]:
    if cursor.description is None:
        raise NonRetryableError("The source's query returns no rows.", "Write a SELECT.", code=Code.QUERY_FAILED)
    described = list(cursor.description)
    names = [column.name for column in described]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise NonRetryableError(
            f"The source's query has several columns with the name {', '.join(repeated)}.",
            "Rename all but one, with AS.",
            code=Code.COLUMN_DUPLICATED,
        )
    return described


def _columns(cursor: Cursor, described: Sequence[psycopg2.extensions.Column]) -> list[Column]:
    types = _types(cursor, [column.type_code for column in described])
    return [_column(column, types) for column in described]


def _as_text(cursor: Cursor) -> None:
    """Makes the cursor return every value in PostgreSQL's text form."""
    from psycopg2 import extensions

    codes = tuple(extensions.string_types)
    extensions.register_type(extensions.new_type(codes, "MILLRACE_TEXT", lambda text, _: text), cursor)


def _fetched(cursor: Cursor) -> Iterator[list[pa.Array]]:
    import pyarrow as pa

    while rows := cursor.fetchmany(PIECE_ROWS):
        yield [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]


@dataclass(frozen=True)
class _Type:
    """A row of ``pg_type``: the internal name, the name in SQL, the kind (``a``: array), the type code of elements."""

    name: str
    sql: str
    kind: str
    element: int


def _types(cursor: Cursor, codes: Sequence[int]) -> dict[int, _Type]:
    """The types with these codes, and those of their elements, by code."""
    cursor.execute(
        "SELECT oid, typname, format_type(oid, NULL), CASE typcategory WHEN 'A' THEN 'a' ELSE typtype END, typelem"
        " FROM pg_type WHERE oid = ANY (%(codes)s::oid[])"
        " OR oid IN (SELECT typelem FROM pg_type WHERE oid = ANY (%(codes)s::oid[]))",
        {"codes": list(set(codes))},
    )
    return {int(code): _Type(name, sql, kind, int(element)) for code, name, sql, kind, element in cursor.fetchall()}


def _column(found: psycopg2.extensions.Column, types: Mapping[int, _Type]) -> Column:
    import pyarrow as pa

    code, known = found.type_code, types[found.type_code]
    if code == NUMERIC:
        precision, scale = _declared(found)
        type_ = _decimal(precision, scale)
        database = f"numeric({precision},{scale})" if precision else "numeric"
        return Column(found.name, database, type_, True, partial(_numeric, type_=type_))
    if known.kind == "a" and known.element in types:
        element, read, _ = _arrow(types[known.element])
        return Column(found.name, known.sql, pa.list_(element), False, partial(_list, element=element, read=read))
    type_, read, fit = _arrow(known)
    return Column(found.name, known.sql, type_, fit, read)


def _arrow(known: _Type) -> tuple[pa.DataType, Read, bool]:
    """For a type that is not an array: the Arrow type, the conversion of its values, and whether it is ``fit``."""
    import pyarrow as pa

    plain = {
        "int2": pa.int16(),
        "int4": pa.int32(),
        "int8": pa.int64(),
        "oid": pa.int64(),
        "float4": pa.float32(),
        "float8": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamptz": pa.timestamp("us", "UTC"),
    }
    special: dict[str, tuple[pa.DataType, Read, bool]] = {
        "bool": (pa.bool_(), _bool, True),
        "time": (pa.time64("us"), _time, False),
        "bytea": (pa.binary(), _bytes, False),
        "numeric": (_decimal(0, 0), partial(_numeric, type_=_decimal(0, 0)), True),
    }
    if known.name in special:
        return special[known.name]
    type_ = plain.get(known.name, pa.string())
    fit = known.name in plain or known.name in WORDS or known.kind == "e"
    return type_, lambda texts: texts.cast(type_), fit


def _declared(found: psycopg2.extensions.Column) -> tuple[int, int]:
    """Precision and scale of a numeric column; 0 and 0 without a precision."""
    if found.precision is None or found.scale is None or found.precision == 0xFFFF:
        return 0, 0
    # The scale is an eleven-bit two's complement number, which psycopg2 returns undecoded.
    return found.precision, ((found.scale & 0x7FF) ^ 0x400) - 0x400


def _decimal(precision: int, scale: int) -> pa.DataType:
    import pyarrow as pa

    if not precision:
        return pa.decimal256(2 * DIGITS, DIGITS)
    digits = max(precision, scale) if scale > 0 else precision - scale
    if scale <= 0 and digits <= INT64_DIGITS:
        return pa.int64()
    if digits > 2 * DIGITS:
        # No decimal type of Arrow has enough digits.
        return pa.float64()
    return (pa.decimal128 if digits <= DIGITS else pa.decimal256)(digits, max(scale, 0))


def _bool(texts: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.equal(texts, "t")


def _bytes(texts: pa.Array) -> pa.Array:
    import pyarrow as pa

    values = (None if text is None else bytes.fromhex(text.removeprefix("\\x")) for text in texts.to_pylist())
    return pa.array(values, pa.binary())


def _time(texts: pa.Array) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    return pc.binary_join_element_wise("1970-01-01", texts, " ").cast(pa.timestamp("us")).cast(pa.time64("us"))


def _list(texts: pa.Array, element: pa.DataType, read: Read) -> pa.Array:
    import pyarrow as pa
    from psycopg2 import extensions

    text_type = extensions.new_type((), "MILLRACE_TEXT", lambda text, _: text)
    parse = extensions.new_array_type((), "MILLRACE_LIST", text_type)
    lists = pa.array([parse(text, None) for text in texts.to_pylist()], pa.list_(pa.string()))
    return pa.ListArray.from_arrays(lists.offsets, read(lists.values), pa.list_(element), mask=lists.is_null())


def _numeric(texts: pa.Array, type_: pa.DataType) -> pa.Array:
    """Converts decimals; without a precision they are rounded to ``DIGITS`` decimals. NaN and infinity become null."""
    import pyarrow as pa

    try:
        return texts.cast(type_)
    except pa.ArrowInvalid:
        values = [None if text is None else Decimal(text) for text in texts.to_pylist()]
    if infinite := sum(value is not None and not value.is_finite() for value in values):
        log.warning("%d values of a numeric column are NaN or infinite; they are treated as missing.", infinite)
    with localcontext(prec=2 * DIGITS):
        last = Decimal(1).scaleb(-getattr(type_, "scale", 0))
        finite = [value.quantize(last) if value is not None and value.is_finite() else None for value in values]
    return pa.array(list(map(_whole, finite)) if pa.types.is_integer(type_) else finite, type_)


def _whole(value: Decimal | None) -> int | None:
    return None if value is None else int(value)
