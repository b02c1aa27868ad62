"""The types that a definition has to state, so that every version of the file is read alike."""

from __future__ import annotations

from include.datasets.profiling.column import Column


class StatedTypes(dict[str, str]):
    """Types by column, names of ``text.TYPES``. A type that the user chose is never replaced."""

    def add_number(self, column: Column) -> None:
        """States ``number`` for decimals, which models cannot compute with."""
        import pyarrow.types as types

        if types.is_decimal(column.type) or types.is_float16(column.type):
            self.setdefault(column.name, "number")

    def add_text(self, column: Column) -> None:
        """States ``text`` for texts that could be read as numbers in another version of the file."""
        import pyarrow.types as types

        if types.is_string(column.type) and column.reads_as_numbers:
            self.setdefault(column.name, "text")

    def add_integer(self, column: Column) -> None:
        """States ``integer`` for classes such as 1.0 and 0.0, which pandas writes if some are missing."""
        import pyarrow.types as types

        if not types.is_integer(column.type):
            self.setdefault(column.name, "integer")
