"""Artifacts: estimators and models as bytes in the format of skops, which holds no code; loaded when proven."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

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
"""The packages of scikit-learn whose classes may be loaded: they hold parameters and what was learned, and no code.
Its data sets, which read files and addresses, and its utilities are not among them."""

FUNCTIONS = frozenset({"metrics", "feature_selection"})
"""The packages of scikit-learn whose functions may be loaded: scores, which estimators take as parameters."""

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
"""Further types and functions that may be loaded, in addition to the arrays and numbers that skops knows."""

LOADERS = frozenset(
    {"DefaultDictNode", "DictNode", "DTypeNode", "FunctionNode", "JsonNode", "ListNode", "LossNode", "MaskedArrayNode"}
    | {"NdArrayNode", "ObjectNode", "PartialNode", "RandomGeneratorNode", "RandomStateNode", "SetNode", "SliceNode"}
    | {"SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode"}
)
"""The kinds of parts that may be loaded. None of them calls methods or applies functions while it is loaded; a partial
calls its function later, and that function has to be allowed by its own name."""


_OWN = "If they are the definition's own, name them in its field trusted."
_STORABLE = "Use estimators of scikit-learn, or a class of the definition's own that is named in its field trusted."


class UntrustedArtifact(NonRetryableError):
    """An artifact is not what it should be. Nothing of it was executed."""


def dumps(estimator: Any) -> bytes:
    """The estimator, fitted or not, as bytes."""
    dumped: bytes = _skops().dumps(estimator, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    return dumped


def loads(content: bytes, sha256: str, trusted: Collection[str] = ()) -> Any:
    """The estimator, once its bytes are proven to be those of the digest and to hold nothing but allowed types.

    Args:
        sha256: What the bytes must have, in hexadecimal.
        trusted: Further types by their full names: a definition's own transformers. Never a list from the artifact.

    Raises:
        UntrustedArtifact: The bytes are others, or hold what is not allowed.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise UntrustedArtifact(
            f"The artifact has the SHA-256 {found[:12]}… instead of {sha256[:12]}…: its bytes were changed."
        )
    return _loaded(content, trusted, "The artifact")


def require_storable(estimator: Any, trusted: Collection[str] = ()) -> bytes:
    """The bytes of an estimator, fitted or not, once they are known to load.

    Args:
        trusted: Further types by their full names, see ``loads``.

    Raises:
        UntrustedArtifact: It holds what cannot be stored, or what would not load; the type is named.
    """
    try:
        content = dumps(estimator)
    except Exception as error:
        # skops has no error of its own for everything that it cannot store.
        raise UntrustedArtifact(
            f"{type(estimator).__name__} cannot be stored: {str(error).rstrip('.')}.", _STORABLE
        ) from error
    _loaded(content, trusted, type(estimator).__name__)
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


def _loaded(content: bytes, trusted: Collection[str], about: str) -> Any:
    """What an artifact holds, if it is of allowed parts and types only; ``about`` begins the sentence otherwise."""
    skops = _skops()
    try:
        # Names are taken from the schema: to have skops list them would build everything twice.
        names = {f"{part['__module__']}.{part['__class__']}" for part in _parts(_known_schema(content))}
        return skops.loads(content, trusted=[name for name in names if allowed(name) or name in trusted])
    except skops.exceptions.UntrustedTypesFoundException:
        found = skops.get_untrusted_types(data=content)
        strangers = ", ".join(sorted(name for name in found if not allowed(name) and name not in trusted))
        raise UntrustedArtifact(f"{about} holds types that are not allowed: {strangers}.", _OWN) from None
    except (zipfile.BadZipFile, ValueError, TypeError, KeyError, AttributeError, ImportError, RecursionError) as error:
        raise UntrustedArtifact(f"{about} cannot be read: {error}.") from error


def _known_schema(content: bytes) -> Any:
    """The schema of an artifact of known parts.

    Raises:
        UntrustedArtifact: It holds others.
    """
    import numpy as np

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.endswith((".npy", ".npz")):
                # Arrays of objects are pickles; numpy refuses them here.
                array = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                _ = [array[member] for member in array.files] if name.endswith(".npz") else None
            elif name != "schema.json":
                raise UntrustedArtifact(f"The artifact holds the file {name!r}, which belongs to no model.")
        schema = json.loads(archive.read("schema.json"))
    if schema["protocol"] != _skops()._protocol.PROTOCOL:
        raise UntrustedArtifact(
            f"The artifact is written in the format {schema['protocol']} of skops.", "Train the model again."
        )
    if strangers := {part["__loader__"] for part in _parts(schema)} - LOADERS:
        raise UntrustedArtifact(
            f"The artifact holds parts that are not allowed: {', '.join(sorted(map(str, strangers)))}."
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
        # At its import skops looks at every attribute of every module, and deprecated ones complain.
        warnings.simplefilter("ignore")
        import skops.io
        import skops.io.exceptions

    return skops.io
