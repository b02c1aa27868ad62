"""A column of a file, and what its name, its type and its values show."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from include.datasets.profiling.wording import MAX_LISTED, listed
from include.datasets.profiling.wording import rows as number_of_rows
from include.datasets.sources import text
from include.datasets.sources.plain import plain
from include.datasets.sources.text import Numbers

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

# With fewer rows, ascending numbers do not show that a column counts the rows.
MIN_ROWS_TO_COUNT = 10
_LIKELY_IDS = ("id", "ids", "uuid", "guid", "key", "identifier", "index", "record", "number")
_INDEX = re.compile(r"unnamed: \d+(_level_\d+)?|level_\d+|index|__index_level_\d+__|rownames?|row\.names|\.\.\.1")
# Texts that mean a missing value in many files.
_MARKERS = frozenset((*text.MISSING, "?", "-", "--", ".", "None", "<NA>", "NaT"))


class Column:
    """A column. Everything that takes time is computed once.

    Args:
        name: Its name.
        values: Its values, in any encoding.
    """

    def __init__(self, name: str, values: pa.ChunkedArray) -> None:
        self.name = name
        self.values = plain(values)
        self.type: pa.DataType = self.values.type
        self.rows = len(self.values)
        self.nulls = self.values.null_count

    @cached_property
    def distinct(self) -> int:
        """The number of different values, without null."""
        import pyarrow.compute as pc

        return int(pc.count_distinct(self.values).as_py())

    @property
    def is_empty(self) -> bool:
        """Whether all values are null."""
        return bool(self.nulls == self.rows)

    @property
    def is_unique(self) -> bool:
        """Whether every row has a different value."""
        return not self.nulls and self.distinct == self.rows

    @property
    def is_number(self) -> bool:
        """Whether the type is one of numbers."""
        import pyarrow.types as types

        return bool(types.is_integer(self.type) or types.is_floating(self.type) or types.is_decimal(self.type))

    @property
    def is_text(self) -> bool:
        """Whether the type is text."""
        import pyarrow.types as types

        return bool(types.is_string(self.type) or types.is_large_string(self.type))

    @property
    def is_time(self) -> bool:
        """Whether the type is a timestamp or a date."""
        import pyarrow.types as types

        return bool(types.is_timestamp(self.type) or types.is_date(self.type))

    @property
    def is_boolean(self) -> bool:
        """Whether the type is boolean."""
        import pyarrow.types as types

        return bool(types.is_boolean(self.type))

    @property
    def is_named_like_an_id(self) -> bool:
        """Whether the last word of the name is one such as ``id``."""
        words = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.name).lower().strip("_"))
        return words[-1] in _LIKELY_IDS or self.is_named_like_an_index

    @property
    def is_named_like_an_index(self) -> bool:
        """Whether the name is one that pandas or R gives to an index."""
        return _INDEX.fullmatch(self.name.lower()) is not None

    @property
    def may_identify(self) -> bool:
        """Whether values of the type can identify records. Floating-point numbers cannot."""
        import pyarrow.types as types

        kind = self.type
        exact = types.is_integer(kind) or types.is_decimal(kind)
        time = types.is_temporal(kind) and not (types.is_duration(kind) or types.is_interval(kind))
        return bool(exact or self.is_text or time or types.is_binary(kind) or types.is_fixed_size_binary(kind))

    @cached_property
    def is_whole(self) -> bool:
        """Whether the column has whole numbers only."""
        import numpy as np
        import pyarrow.types as types

        if not self.is_number:
            return False
        if types.is_integer(self.type):
            return True
        values = self.numbers()
        return bool(np.isfinite(values).all() and (values == np.floor(values)).all())

    @cached_property
    def counts_rows(self) -> bool:
        """Whether the numbers only number the rows: in equal steps, or as a permutation of a range."""
        import numpy as np

        if not self.is_number or self.rows < MIN_ROWS_TO_COUNT or self.distinct < 0.9 * self.rows:
            return False
        values = self.numbers()
        if not np.isfinite(values).all():
            return False
        steps = np.diff(values)
        step = np.median(steps)
        if step and np.count_nonzero(np.isclose(steps, step, rtol=1e-6, atol=0)) >= 0.9 * len(steps):
            return True
        whole = bool((values == np.floor(values)).all())
        return whole and bool(values.max() - values.min() + 1 <= 1.1 * self.rows)

    @cached_property
    def reads_as_numbers(self) -> bool:
        """Whether all values of a column of text can be read as numbers."""
        import pyarrow as pa

        try:
            text.convert(self.values.drop_null().combine_chunks(), pa.float64(), Numbers())
        except pa.ArrowInvalid:
            return False
        return True

    def numbers(self) -> NDArray[np.float64]:
        """The numbers, without null."""
        import pyarrow as pa

        found: NDArray[np.float64] = self.values.drop_null().cast(pa.float64(), safe=False).to_numpy()
        return found

    def examples(self) -> str:
        """A few values, for a message."""
        import pyarrow.compute as pc

        return listed(pc.unique(self.values.drop_null().slice(0, 1_000)).to_pylist()[:MAX_LISTED])

    def why_not_unique(self) -> str:
        """Why the column does not identify the records."""
        import pyarrow.compute as pc

        reasons = []
        if self.nulls:
            reasons.append(f"{number_of_rows(self.nulls)} {'has' if self.nulls == 1 else 'have'} no value")
        if (repeated := self.rows - self.nulls - self.distinct) > 0:
            counts = pc.value_counts(self.values.drop_null())
            example = counts.filter(pc.greater(counts.field("counts"), 1))[0].as_py()
            repeat = "repeats" if repeated == 1 else "repeat"
            reasons.append(
                f"{number_of_rows(repeated)} {repeat} a value, such as {example['values']} in {example['counts']} rows"
            )
        return ", and ".join(reasons) or f"it is {self.type}"

    def markers(self) -> dict[str, int]:
        """The texts that may mean a missing value, with the number of rows of each."""
        import pyarrow.compute as pc

        counted = pc.value_counts(self.values.drop_null()).to_pylist()
        found = {pair["values"]: pair["counts"] for pair in counted if pair["values"].strip() in _MARKERS}
        # In a column of signs, such as + and -, a sign is a value.
        others = [pair["values"] for pair in counted if pair["values"] not in found]
        return found if any(letter.isalnum() for value in others for letter in value) else {}
