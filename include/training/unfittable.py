"""Unfittable: an estimator rejects the rows of a version."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from include.error_codes import Code
from include.errors import NonRetryableError, UserError
from include.versions.manifest import Manifest

log = logging.getLogger(__name__)


class Unfittable(NonRetryableError):
    """An estimator rejects the rows of a version. A retry has the same rows, seed and libraries, so it fails again."""


@contextmanager
def estimator_errors(done: str, manifest: Manifest) -> Iterator[None]:
    """Turns any error of an estimator into an ``Unfittable`` with the estimator's own message.

    Args:
        done: The action, such as "fitted on".

    Raises:
        Unfittable: The estimator raised an error.
    """
    try:
        yield
    except (UserError, MemoryError, OSError):
        raise
    except Exception as error:
        log.debug("The estimator's error:", exc_info=True)
        what = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(".")
        about = f"The model cannot be {done} version {manifest.short} of {manifest.dataset!r}"
        remedy = "Make the model accept such rows, for example with an imputer or an encoder in its pipeline."
        raise Unfittable(f"{about}: {what}.", remedy, code=Code.FIT_FAILED) from error
