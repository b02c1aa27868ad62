"""Models of the registry: checked when they are loaded; they accept only rows like those they were trained on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.registry import artifact, probe
from include.warehouse import queries
from include.warehouse.connection import connected

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    from numpy.typing import NDArray
    from psycopg2.extensions import connection as Connection

    from include.versions.manifest import Manifest

_SHOWN_CLASSES = 5


class IncompatibleModel(NonRetryableError):
    """The rows or the target differ from those that a model was trained on."""


@dataclass(frozen=True)
class Model:
    """A fitted model of a version.

    Attributes:
        name: Its model line: the name in the definition.
        manifest: The manifest of the version that it was trained on.
        estimator: The fitted estimator.
        schema: The names and Arrow types of its features, in their order.
        trained_on: The hashes of the ids of its training records, ascending.
    """

    name: str
    manifest: Manifest
    estimator: Any
    schema: pa.Schema
    trained_on: NDArray[np.uint64]

    def predict(self, rows: pd.DataFrame | pa.Table) -> NDArray[Any]:
        """One prediction for each row, shape (rows,); columns that are not features are ignored.

        Raises:
            IncompatibleModel: A feature is missing, or cannot be converted to its type without loss.
        """
        predicted: NDArray[Any] = self.estimator.predict(self._features(rows))
        return predicted

    def require_same_target(self, manifest: Manifest) -> None:
        """Checks that the model predicts the target of a version, so that its predictions can be compared with it.

        Raises:
            IncompatibleModel: It predicts another column or kind of target, labels of another type, or other classes.
        """
        own, version = self.manifest, f"version {manifest.short}"
        if (own.target, own.kind) != (manifest.target, manifest.kind):
            raise IncompatibleModel(
                f"{self} predicts {own.target!r} ({own.kind}), but the target of {version} is {manifest.target!r} "
                f"({manifest.kind}).",
                "Make the source deliver the target as before.",
                code=Code.TARGET_INCOMPATIBLE,
            )
        if own.kind == "regression":
            return
        then, now = _type_of(own, own.target), _type_of(manifest, manifest.target)
        if _family_by_name(then) != _family_by_name(now):
            raise IncompatibleModel(
                f"{self} predicts {own.target!r} as {then} ({_some(own.classes)}), but in {version} it is {now} "
                f"({_some(manifest.classes)}).",
                "Make the source deliver the labels in the same type as before.",
                code=Code.TARGET_INCOMPATIBLE,
            )
        if own.classes and not set(own.classes) & set(manifest.classes):
            raise IncompatibleModel(
                f"{self} predicts the classes {_some(own.classes)}, but {version} has only {_some(manifest.classes)}.",
                "Make the source deliver the classes under the same names as before.",
                code=Code.TARGET_INCOMPATIBLE,
            )

    def _features(self, rows: pd.DataFrame | pa.Table) -> pd.DataFrame:
        import pyarrow as pa

        if missing := [name for name in self.schema.names if name not in _names(rows)]:
            raise IncompatibleModel(
                f"{self} needs the column {', '.join(missing)}; the rows have {', '.join(_names(rows))}.",
                "Add the missing column.",
                code=Code.FEATURES_INCOMPATIBLE,
            )
        try:
            given = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows[self.schema.names], None, False)
            columns = [_cast(given[field.name], field) for field in self.schema]
            frame: pd.DataFrame = pa.table(columns, names=self.schema.names).to_pandas()
            return frame
        except pa.ArrowException as error:
            types = ", ".join(f"{field.name} {field.type}" for field in self.schema)
            raise IncompatibleModel(
                f"{self} cannot use these rows: {error}.",
                f"Its features are {types}.",
                code=Code.FEATURES_INCOMPATIBLE,
            ) from error

    def __str__(self) -> str:
        return f"The model {self.name} of {self.manifest.dataset!r} (version {self.manifest.short})"


def champion(dataset: str) -> Model:
    """Loads the champion of a dataset and checks it.

    Raises:
        UserError: The dataset has no champion, or PostgreSQL is unavailable.
        UntrustedArtifact: Its bytes were changed, or contain a type that is not allowed.
        PredictionMismatch: It does not predict what it predicted at its training.
    """
    with connected(f"millrace champion {dataset}") as connection:
        found = queries.load("registry").champion_of(connection, dataset=dataset)
        if found is None:
            raise UserError(
                f"Dataset {dataset!r} has no champion: no model has beaten the baseline yet, or the last champion was "
                "retired.",
                f"See why: ./millrace champion {dataset}.",
                code=Code.CHAMPION_MISSING,
            )
        return load(connection, found.artifact, trusted(dataset))


def load(connection: Connection, number: int, trusted: Collection[str]) -> Model:
    """Loads a registered model by its number and checks it.

    Args:
        trusted: Types of the definition, see ``artifact.loads``.

    Raises:
        UntrustedArtifact: Its bytes were changed, or contain a type that is not allowed.
        PredictionMismatch: It does not predict what it predicted at its training.
    """
    import numpy as np

    from include.versions.manifest import decode

    name, manifest, sha256, content, probed, trained_on = queries.load("registry").artifact_by_id(
        connection, artifact=number
    )
    hashes = np.frombuffer(bytes(trained_on), "<u8")
    return checked(name, decode(bytes(manifest)), bytes(content), sha256, bytes(probed), trusted, hashes)


def checked(
    name: str,
    manifest: Manifest,
    content: bytes,
    sha256: str,
    probed: bytes,
    trusted: Collection[str],
    trained_on: NDArray[np.uint64],
) -> Model:
    """A model from its bytes, after checking that it predicts its probe as before.

    Raises:
        UntrustedArtifact: Its bytes were changed, or contain a type that is not allowed.
        PredictionMismatch: It does not predict what it predicted at its training.
    """
    import pyarrow as pa

    estimator = artifact.loads(content, sha256, trusted)
    probe.recheck(estimator, probed)
    with pa.ipc.open_stream(probed) as reader:
        schema = reader.schema.remove(len(reader.schema) - 1)
    return Model(name, manifest, estimator, schema, trained_on)


def trusted(dataset: str) -> Collection[str]:
    """The types that a definition trusts; none if the definition is missing or broken."""
    from include.datasets import definitions

    definition = definitions.find().valid.get(dataset)
    return definition.trusted if definition else ()


def _names(rows: pd.DataFrame | pa.Table) -> list[str]:
    import pyarrow as pa

    return rows.column_names if isinstance(rows, pa.Table) else [str(name) for name in rows.columns]


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    """The column in the type of the feature; a number or a time that does not fit into the type stays as it is.

    A source may deliver whole numbers one day, fractions the next, and an empty column before the first value. They are
    the same column to an estimator of scikit-learn, which computes with floats.
    """
    import pyarrow as pa
    import pyarrow.types as types

    from include.datasets.sources.plain import cast

    given, wanted = _family(column.type), _family(field.type)
    if given != wanted and "null" not in (given, wanted):
        raise pa.ArrowTypeError(f"{field.name} is {column.type} and must be {field.type}")
    if wanted == "null" or (types.is_boolean(field.type) and not types.is_boolean(column.type)):
        return column
    try:
        return cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        if wanted not in ("number", "time"):
            raise
        return cast(column, pa.float64()) if types.is_decimal(column.type) else column


def _type_of(manifest: Manifest, name: str) -> str:
    return next(column.type for column in manifest.columns if column.name == name)


def _family_by_name(type_: str) -> str:
    """``_family`` of a type by its name in a manifest."""
    if type_.startswith("dictionary<values="):
        type_ = type_.removeprefix("dictionary<values=").partition(",")[0]
    if type_.startswith(("int", "uint", "float", "double", "halffloat", "decimal", "bool")):
        return "number"
    return "text" if type_ in ("string", "large_string", "string_view") else type_


def _some(classes: Sequence[Any]) -> str:
    shown = ", ".join(map(repr, classes[:_SHOWN_CLASSES]))
    return shown if len(classes) <= _SHOWN_CLASSES else f"{shown} and {len(classes) - _SHOWN_CLASSES} more"


def _family(type_: pa.DataType) -> str:
    import pyarrow.types as types

    if types.is_dictionary(type_):
        return _family(type_.value_type)
    if types.is_integer(type_) or types.is_floating(type_) or types.is_decimal(type_) or types.is_boolean(type_):
        return "number"
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return "text"
    return "time" if types.is_temporal(type_) else str(type_)
