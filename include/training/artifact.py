"""Artifacts: estimators and models as bytes, in the format of skops, which holds no code."""

from __future__ import annotations

import warnings
import zipfile
from typing import Any


def dumps(estimator: Any) -> bytes:
    """The estimator, fitted or not, as bytes."""
    with warnings.catch_warnings():
        # At its import skops looks at every attribute of every module, and deprecated ones complain.
        warnings.simplefilter("ignore")
        import skops.io
    dumped: bytes = skops.io.dumps(estimator, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    return dumped
