"""Unfittable: an estimator does not take the rows it is given, and says so in its own words."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from include.errors import NonRetryableError, UserError
from include.versions.manifest import Manifest

log = logging.getLogger(__name__)


class Unfittable(NonRetryableError):
    """An estimator does not take a version's rows. Trying again gives the same: rows, seed and libraries stay."""


@contextmanager
def in_own_words(done: str, manifest: Manifest) -> Iterator[None]:
    """One sentence for whatever an estimator raises.

    Args:
        done: What was being done, such as "fitted on".

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
        remedy = "Let the model cope with such rows, for example by an imputer or encoder in its pipeline."
        raise Unfittable(f"{about}. {what}.", remedy) from error
