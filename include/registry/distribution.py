"""Distributions from which a search draws parameters, in a form that can be stored.

Loading an object of ``scipy.stats`` executes code from the artifact, so such objects are not allowed. The name and the
arguments of the distribution are stored instead.
"""

from __future__ import annotations

from typing import Any


class Distribution:
    """A frozen distribution of ``scipy.stats``, by its name.

    Attributes:
        name: Such as ``loguniform``.
        arguments: Its positional arguments: numbers.
        options: Its keyword arguments: numbers.
    """

    def __init__(self, name: str, arguments: list[Any], options: dict[str, Any]) -> None:
        self.name = name
        self.arguments = arguments
        self.options = options

    @classmethod
    def of(cls, frozen: Any) -> Distribution:
        """The same distribution in this form; ``is_frozen(frozen)`` is true."""
        return cls(frozen.dist.name, list(frozen.args), dict(frozen.kwds))

    def rvs(self, *args: Any, **kwargs: Any) -> Any:
        """Draws the same values as the distribution of ``scipy.stats`` with the same random state."""
        import scipy.stats

        made = getattr(scipy.stats, self.name, None)
        if not isinstance(made, scipy.stats.rv_continuous | scipy.stats.rv_discrete):
            raise ValueError(f"scipy.stats has no distribution {self.name!r}")
        return made(*self.arguments, **self.options).rvs(*args, **kwargs)

    def __repr__(self) -> str:
        given = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.options.items())]
        return f"{self.name}({', '.join(given)})"


def is_frozen(value: Any) -> bool:
    """Whether a value is a frozen distribution of ``scipy.stats`` that ``Distribution`` can represent."""
    if not type(value).__module__.startswith("scipy.stats."):
        return False
    import scipy.stats

    dist = getattr(value, "dist", None)
    if not isinstance(dist, scipy.stats.rv_continuous | scipy.stats.rv_discrete):
        return False
    return type(getattr(scipy.stats, dist.name, None)) is type(dist)
