"""Policy: the rule by which a challenger becomes the champion of a dataset."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from include.definitions import InvalidDefinition
from include.durations import duration_field


class PolicyName(StrEnum):
    """The name of a policy as it is stored and shown."""

    EVIDENCE = "evidence"
    NOT_WORSE_AND_FRESHER = "not_worse_and_fresher"
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Policy:
    """The value that each of the functions below returns.

    Attributes:
        name: Which of the functions.
        margin: The accepted loss, as a share of the records or in the unit of the metric.
        older_than: The age of the champion from which the loss is accepted.
    """

    name: PolicyName
    margin: float | None = None
    older_than: timedelta | None = None


def evidence() -> Policy:
    """Promote a challenger that is shown to be better; the default."""
    return Policy(PolicyName.EVIDENCE)


def not_worse_and_fresher(margin: float, older_than: str | timedelta) -> Policy:
    """Promote also a challenger that is shown not to be worse by ``margin``, once the champion is ``older_than``.

    For data that drift, where age is a risk of its own. The first champion must still beat the baseline.

    Args:
        margin: The accepted loss, above 0: accuracy as a share (0.01 is one point), or in the metric's unit.
        older_than: The age of the champion, such as ``30 days``. A ``timedelta`` is accepted, too.

    Raises:
        InvalidDefinition: The margin is not above 0, or the age is not a duration.
    """
    if not margin > 0:
        raise InvalidDefinition("promotion", f"margin={margin!r} is not above 0.", "Write margin=0.01 for one point.")
    if not isinstance(older_than, timedelta):
        older_than = duration_field("promotion", older_than, 'Write older_than="30 days".')
    elif older_than <= timedelta(0):
        raise InvalidDefinition("promotion", f"older_than={older_than} is not above 0.", 'Write older_than="30 days".')
    return Policy(PolicyName.NOT_WORSE_AND_FRESHER, margin, older_than)


def manual() -> Policy:
    """Let a person decide; the verdicts are advice."""
    return Policy(PolicyName.MANUAL)
