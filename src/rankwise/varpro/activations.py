"""Activations of a unit: the value and its slope, the slope from the value where that is cheaper.

The paper's text says "sigmoid"; the derivative in its section 8.2, sech², is that of tanh. Both
are here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from array_api_compat import array_namespace


@dataclass(frozen=True)
class Activation:
    """An activation ``σ`` with its slope as a function of its value."""

    value: Callable[[Any], Any]
    slope_of_value: Callable[[Any], Any]

    def value_and_slope(self, q: Any) -> tuple[Any, Any]:
        """``σ(q)`` and ``σ'(q)``."""
        value = self.value(q)
        return value, self.slope_of_value(value)


def _tanh(q: Any) -> Any:
    return array_namespace(q).tanh(q)


def _logistic(q: Any) -> Any:
    # ½(1 + tanh(q/2)) is exact and never overflows.
    return 0.5 * (1.0 + array_namespace(q).tanh(0.5 * q))


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(_tanh, lambda t: 1.0 - t * t),
    "logistic": Activation(_logistic, lambda s: s * (1.0 - s)),
}
