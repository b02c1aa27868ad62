"""Artifacts: estimators and models as bytes in the format of skops, which contains no code; checked when loaded."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from include.error_codes import Code
from include.errors import NonRetryableError

if TYPE_CHECKING:
    from types import ModuleType

PACKAGES = frozenset(
    {"_loss", "calibration", "cluster", "compose", "covariance", "cross_decomposition", "decomposition"}
    | {"discriminant_analysis", "dummy", "ensemble", "feature_extraction", "feature_selection", "frozen"}
    | {"gaussian_process", "impute", "isotonic", "kernel_approximation", "kernel_ridge", "linear_model", "manifold"}
    | {"metrics", "mixture", "model_selection", "multiclass", "multioutput", "naive_bayes", "neighbors"}
    | {"neural_network", "pipeline", "preprocessing", "random_projection", "semi_supervised", "svm", "tree"}
)
"""The packages of scikit-learn whose classes may be loaded: they contain parameters and learned values, but no code.
Not among them are ``datasets``, which reads files and URLs, and ``utils``."""

FUNCTIONS = frozenset({"metrics", "feature_selection"})
"""The packages of scikit-learn whose functions may be loaded: scores, which are parameters of estimators."""

_NUMPY_FUNCTIONS = frozenset(
    {"argmax", "argmin", "around", "asarray", "clip", "column_stack", "cumsum", "diff", "digitize", "hstack", "interp"}
    | {"max", "mean", "median", "min", "nan_to_num", "nanmax", "nanmean", "nanmedian", "nanmin", "nanstd", "nansum"}
    | {"percentile", "ptp", "quantile", "ravel", "reshape", "round", "searchsorted", "sort", "squeeze", "std", "sum"}
    | {"transpose", "unique", "var", "vstack", "where"}
)

TYPES = frozenset(
    {
        "builtins.bytes",
        "datetime.date",
        "datetime.datetime",
        "datetime.timedelta",
        "decimal.Decimal",
        "functools.partial",
        "include.registry.distribution.Distribution",
        "numpy.dtype",
        "scipy._lib.array_api_compat.numpy._aliases.asarray",
        "scipy.interpolate._bsplines.BSpline",
        "scipy.interpolate._interpolate.interp1d",
        "sklearn.cluster._kmeans._kmeans_single_elkan",
        "sklearn.cluster._kmeans._kmeans_single_lloyd",
        "sklearn.compose._column_transformer.make_column_selector",
        "sklearn.utils._bunch.Bunch",
        "sklearn.utils._metadata_requests.MetadataRequest",
        "sklearn.utils._metadata_requests.MethodMetadataRequest",
        "sklearn.utils.validation.check_array",
    }
    | {f"numpy.{name}" for name in _NUMPY_FUNCTIONS}
    | {f"scipy.sparse._{form}.{form}_{kind}" for form in ("coo", "csc", "csr") for kind in ("array", "matrix")}
)
"""More types and functions that may be loaded, in addition to the arrays and numbers that skops allows."""

LOADERS = frozenset(
    {"DefaultDictNode", "DictNode", "DTypeNode", "FunctionNode", "JsonNode", "ListNode", "LossNode", "MaskedArrayNode"}
    | {"NdArrayNode", "ObjectNode", "PartialNode", "RandomGeneratorNode", "RandomStateNode", "SetNode", "SliceNode"}
    | {"SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode"}
)
"""The node types that may be loaded. None of them calls a method or a function while it is loaded. A partial calls its
function later, and that function must be allowed by its own name."""

_NAME_TRUSTED = "If they belong to the definition, name them in its field trusted."
_USE_STORABLE = (
    "Use another estimator of scikit-learn. A class of your own must be named in the definition's field trusted."
)
_TRAIN_AGAIN = "Train the model again."


class UntrustedArtifact(NonRetryableError):
    """An artifact is refused. Nothing of it was executed."""


def dumps(estimator: Any) -> bytes:
    """An estimator, fitted or not, as bytes."""
    dumped: bytes = _skops().dumps(estimator, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    return dumped


def loads(content: bytes, sha256: str, trusted: Collection[str] = ()) -> Any:
    """The estimator, after checking that the bytes have the digest and contain allowed types only.

    Args:
        sha256: The digest of the bytes, in hexadecimal.
        trusted: More types by their full names, such as transformers of the definition. Never a list from the artifact.

    Raises:
        UntrustedArtifact: The bytes were changed, or contain a type that is not allowed.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UntrustedArtifact(
            f"The bytes of the stored model were changed: their SHA-256 is {found[:12]}… instead of {sha256[:12]}….",
            "Find out who changed the table. Restore a backup, or train the model again.",
            code=Code.ARTIFACT_CHANGED,
        )
    return _load(content, trusted, "The stored model")


def require_storable(estimator: Any, trusted: Collection[str] = ()) -> bytes:
    """The bytes of an estimator, fitted or not, after checking that they can be loaded.

    Args:
        trusted: More types by their full names, see ``loads``.

    Raises:
        UntrustedArtifact: The estimator cannot be stored or loaded; the error names the type.
    """
    try:
        content = dumps(estimator)
    except Exception as error:
        # skops raises errors of many types for what it cannot store.
        what = f"{type(estimator).__name__} cannot be stored in the format of skops: {str(error).rstrip('.')}."
        raise UntrustedArtifact(what, _USE_STORABLE, code=Code.MODEL_NOT_STORABLE) from error
    _load(content, trusted, type(estimator).__name__)
    return content


def allowed(name: str) -> bool:
    """Whether a type or function may be loaded, by its full name."""
    if name in TYPES:
        return True
    library, package, *inner = [*name.split("."), ""]
    last = name.rpartition(".")[2].lstrip("_")
    if library != "sklearn" or package not in PACKAGES or inner == [""]:
        return False
    return last[:1].isupper() or package in FUNCTIONS


def _load(content: bytes, trusted: Collection[str], about: str) -> Any:
    """The content of an artifact that has allowed nodes and types only; ``about`` is the subject of an error."""
    skops = _skops()
    try:
        # Read the names from the schema: skops would build every object to list them.
        names = {f"{part['__module__']}.{part['__class__']}" for part in _parts(_known_schema(content))}
        return skops.loads(content, trusted=[name for name in names if allowed(name) or name in trusted])
    except skops.exceptions.UntrustedTypesFoundException:
        found = skops.get_untrusted_types(data=content)
        unknown = ", ".join(sorted(name for name in found if not allowed(name) and name not in trusted))
        what = f"{about} contains types that are not allowed: {unknown}."
        raise UntrustedArtifact(what, _NAME_TRUSTED, code=Code.UNTRUSTED_TYPE) from None
    except (zipfile.BadZipFile, ValueError, TypeError, KeyError, AttributeError, ImportError, RecursionError) as error:
        what = f"{about} is not a readable artifact: {error}."
        raise UntrustedArtifact(what, _TRAIN_AGAIN, code=Code.ARTIFACT_UNREADABLE) from error


def _known_schema(content: bytes) -> Any:
    """The schema of an artifact.

    Raises:
        UntrustedArtifact: The artifact contains other files or nodes than a model needs.
    """
    import numpy as np

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.endswith((".npy", ".npz")):
                # An array of objects is a pickle, which numpy rejects here.
                array = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                _ = [array[member] for member in array.files] if name.endswith(".npz") else None
            elif name != "schema.json":
                raise UntrustedArtifact(
                    f"The stored model contains the file {name!r}, which is not part of a model.",
                    _TRAIN_AGAIN,
                    code=Code.UNTRUSTED_TYPE,
                )
        schema = json.loads(archive.read("schema.json"))
    if schema["protocol"] != _skops()._protocol.PROTOCOL:
        raise UntrustedArtifact(
            f"The stored model has format {schema['protocol']} of skops, which is not the current one.",
            _TRAIN_AGAIN,
            code=Code.ARTIFACT_UNREADABLE,
        )
    if unknown := {part["__loader__"] for part in _parts(schema)} - LOADERS:
        raise UntrustedArtifact(
            f"The stored model contains nodes that are not allowed: {', '.join(sorted(map(str, unknown)))}.",
            _TRAIN_AGAIN,
            code=Code.UNTRUSTED_TYPE,
        )
    return schema


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if "__loader__" in value:
                yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def _skops() -> ModuleType:
    with warnings.catch_warnings():
        # When imported, skops reads every attribute of every module, and deprecated attributes warn.
        warnings.simplefilter("ignore")
        import skops.io
        import skops.io.exceptions

    module: ModuleType = skops.io
    return module
