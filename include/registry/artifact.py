"""Artifacts: estimators and models as bytes in the format of skops, which holds no code; loaded when proven."""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from include.errors import LastingError

if TYPE_CHECKING:
    from types import ModuleType

TYPES = (
    "sklearn._loss.loss.HalfTweedieLossIdentity",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace",
    "sklearn.gaussian_process.kernels.ConstantKernel",
    "sklearn.gaussian_process.kernels.Product",
    "sklearn.gaussian_process.kernels.RBF",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.multiclass._ConstantPredictor",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.tree._tree.Tree",
)
"""Parts of scikit-learn's estimators that may be loaded, beside the estimators, arrays and numbers that skops knows."""

LOADERS = frozenset(
    {"DefaultDictNode", "DictNode", "DTypeNode", "FunctionNode", "JsonNode", "ListNode", "LossNode", "MaskedArrayNode"}
    | {"NdArrayNode", "ObjectNode", "RandomGeneratorNode", "RandomStateNode", "SetNode", "SliceNode"}
    | {"SparseMatrixNode", "TreeNode", "TupleNode", "TypeNode"}
)
"""The kinds of parts that may be loaded. What calls methods or applies functions is not among them."""


class Rejected(LastingError):
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
        Rejected: The bytes are others, or hold what is not allowed.
    """
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise Rejected(f"The artifact has the SHA-256 {found[:12]}… instead of {sha256[:12]}…: its bytes were changed.")
    skops = _skops()
    try:
        _require_known_parts(content)
        return skops.loads(content, trusted=[*TYPES, *trusted])
    except skops.exceptions.UntrustedTypesFoundException:
        strangers = sorted(set(skops.get_untrusted_types(data=content)) - {*TYPES, *trusted})
        raise Rejected(
            f"The artifact holds types that are not allowed: {', '.join(strangers)}.",
            "If they are the definition's own, name them in its field trusted.",
        ) from None
    except (zipfile.BadZipFile, ValueError, TypeError, KeyError, AttributeError, ImportError, RecursionError) as error:
        raise Rejected(f"The artifact cannot be read: {error}.") from error


def _require_known_parts(content: bytes) -> None:
    import numpy as np

    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for name in archive.namelist():
            if name.endswith((".npy", ".npz")):
                # Arrays of objects are pickles; numpy refuses them here.
                array = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
                _ = [array[member] for member in array.files] if name.endswith(".npz") else None
            elif name != "schema.json":
                raise Rejected(f"The artifact holds the file {name!r}, which belongs to no model.")
        schema = json.loads(archive.read("schema.json"))
    if schema["protocol"] != _skops()._protocol.PROTOCOL:
        raise Rejected(
            f"The artifact is written in the format {schema['protocol']} of skops.", "Train the model again."
        )
    if strangers := {part["__loader__"] for part in _parts(schema)} - LOADERS:
        raise Rejected(f"The artifact holds parts that are not allowed: {', '.join(sorted(map(str, strangers)))}.")


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
