"""Models of the registry: loaded once they are proven, and given only rows like those that they were trained on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.errors import LastingError, UserError
from include.registry import artifact, probe
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from psycopg2.extensions import connection as Connection


class Unfit(LastingError):
    """Rows are not like those that a model was trained on."""


@dataclass(frozen=True)
class Model:
    """A fitted model with what it needs to know.

    Attributes:
        dataset: The dataset it learned from.
        name: Its line: its name in the definition.
        version: The beginning of the id of its version.
        estimator: What was fitted.
        schema: Names and Arrow types of its features, in their order.
        trained_on: Hashes of the ids of its training records, ascending.
    """

    dataset: str
    name: str
    version: str
    estimator: Any
    schema: pa.Schema
    trained_on: NDArray[np.uint64]

    def predict(self, rows: pd.DataFrame | pa.Table) -> NDArray[Any]:
        """One prediction for each row, shape (rows,); columns that are no features are not looked at.

        Raises:
            Unfit: A feature is missing, or holds what cannot become its type without a loss.
        """
        predicted: NDArray[Any] = self.estimator.predict(self._features(rows))
        return predicted

    def _features(self, rows: pd.DataFrame | pa.Table) -> pd.DataFrame:
        import pyarrow as pa

        if missing := [name for name in self.schema.names if name not in _names(rows)]:
            raise Unfit(f"{self} needs the column {', '.join(missing)}; the rows have {', '.join(_names(rows))}.")
        try:
            given = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows[self.schema.names], None, False)
            columns = [_cast(given[field.name], field) for field in self.schema]
            return pa.table(columns, schema=self.schema).to_pandas()
        except pa.ArrowException as error:
            types = ", ".join(f"{field.name} {field.type}" for field in self.schema)
            raise Unfit(f"{self} cannot take these rows: {error}.", f"Its features are: {types}.") from error

    def __str__(self) -> str:
        return f"The model {self.name} of {self.dataset!r}, version {self.version},"


def champion(dataset: str) -> Model:
    """The champion of a dataset, proven.

    Raises:
        UserError: There is none yet, or Postgres does not answer.
        Rejected: Its bytes were changed, or hold what is not allowed.
        Drifted: It does not predict what it predicted at its training.
    """
    with connected(f"millrace champion {dataset}") as connection:
        found = queries.load("registry").champion_of(connection, dataset=dataset)
        if found is None:
            raise UserError(
                f"Dataset {dataset!r} has no champion: no model has been shown to beat the baseline.",
                f"See ./millrace champion {dataset}.",
            )
        return load(connection, found[1], trusted(dataset))


def load(connection: Connection, number: int, trusted: Collection[str]) -> Model:
    """A registered model by its number, proven.

    Args:
        trusted: Types beside those of the project: the definition's own.

    Raises:
        Rejected: Its bytes were changed, or hold what is not allowed.
        Drifted: It does not predict what it predicted at its training.
    """
    import numpy as np

    _, dataset, name, version, sha256, content, probed, trained_on = queries.load("registry").artifact_by_id(
        connection, artifact=number
    )
    hashes = np.frombuffer(bytes(trained_on), "<u8")
    return proven(dataset, name, version, bytes(content), sha256, bytes(probed), trusted, hashes)


def proven(
    dataset: str,
    name: str,
    version: str,
    content: bytes,
    sha256: str,
    probed: bytes,
    trusted: Collection[str],
    trained_on: NDArray[np.uint64],
) -> Model:
    """A model from its bytes, whose predictions for its probe are as they were."""
    import pyarrow as pa

    estimator = artifact.loads(content, sha256, trusted)
    probe.recheck(estimator, probed)
    with pa.ipc.open_stream(probed) as reader:
        schema = reader.schema.remove(len(reader.schema) - 1)
    return Model(dataset, name, version, estimator, schema, trained_on)


def trusted(dataset: str) -> Collection[str]:
    """The types that a definition trusts; none when it is gone or broken."""
    from include.datasets import definitions

    definition = definitions.find().valid.get(dataset)
    return definition.trusted if definition else ()


def _names(rows: pd.DataFrame | pa.Table) -> list[str]:
    import pyarrow as pa

    return rows.column_names if isinstance(rows, pa.Table) else [str(name) for name in rows.columns]


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    import pyarrow as pa

    if _family(column.type) not in (_family(field.type), "null"):
        raise pa.ArrowTypeError(f"{field.name} is {column.type} and must be {field.type}")
    return column.cast(field.type)


def _family(type_: pa.DataType) -> str:
    import pyarrow.types as types

    if types.is_dictionary(type_):
        return _family(type_.value_type)
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_):
        return "number"
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text"
    return "time" if types.is_temporal(type_) else str(type_)
