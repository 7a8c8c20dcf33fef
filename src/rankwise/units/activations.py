"""Activations of a unit: the value, its slope, and how each export spells it; one entry each.

The paper's text says "sigmoid"; the derivative in its section 8.2, sech², is that of tanh. Both
are here. ReLU and its smooth kin are ours: they do better where all units are trained jointly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from math import sqrt
from typing import Any

from array_api_compat import array_namespace, is_torch_array


@dataclass(frozen=True)
class Activation:
    """An activation ``σ``, with its slope as a function of its value or of ``q``.

    Parameters
    ----------
    value : callable
        ``σ(q)``.
    slope_of_value : callable, optional
        ``σ'`` from ``σ(q)``, where that is cheaper.
    slope : callable, optional
        ``σ'`` from ``q``, where the value doesn't say.
    c, js : str
        ``σ(x)`` as an expression of C99 (of float) and of JavaScript.
    onnx : tuple of tuples
        ``σ(x)`` as nodes of ONNX, each its kind and its inputs: ``"x"``, the place of an earlier
        node, or a float for a constant.
    """

    value: Callable[[Any], Any]
    slope_of_value: Callable[[Any], Any] | None = None
    slope: Callable[[Any], Any] | None = None
    _: KW_ONLY
    c: str
    js: str
    onnx: tuple[tuple[str | int | float, ...], ...]

    def value_and_slope(self, q: Any) -> tuple[Any, Any]:
        """``σ(q)`` and ``σ'(q)``."""
        value = self.value(q)
        if self.slope_of_value is not None:
            return value, self.slope_of_value(value)
        assert self.slope is not None
        return value, self.slope(q)


def _tanh(q: Any) -> Any:
    return array_namespace(q).tanh(q)


def _logistic(q: Any) -> Any:
    # ½(1 + tanh(q/2)) is exact and never overflows.
    return 0.5 * (1.0 + array_namespace(q).tanh(0.5 * q))


def _relu(q: Any) -> Any:
    if is_torch_array(q):
        from torch.nn import functional as F

        return F.relu(q)  # a third of the time of clip, forward and backward
    return q.clip(0)


def _relu_slope(value: Any) -> Any:
    xp = array_namespace(value)
    return xp.astype(value > 0, value.dtype)


def _softplus(q: Any) -> Any:
    xp = array_namespace(q)
    return _relu(q) + xp.log1p(xp.exp(-abs(q)))


def _softplus_slope(value: Any) -> Any:
    return -array_namespace(value).expm1(-value)


def _silu(q: Any) -> Any:
    if is_torch_array(q):
        from torch.nn import functional as F

        return F.silu(q)  # one pass, and one backwards
    return q * _logistic(q)


def _silu_slope(q: Any) -> Any:
    s = _logistic(q)
    return s * (1.0 + q * (1.0 - s))


def _erf(x: Any) -> Any:
    if is_torch_array(x):
        return x.erf()
    from scipy.special import erf

    return erf(x)


def _gelu(q: Any) -> Any:
    if is_torch_array(q):
        from torch.nn import functional as F

        return F.gelu(q)
    return 0.5 * q * (1.0 + _erf(q / sqrt(2.0)))


def _gelu_slope(q: Any) -> Any:
    density = array_namespace(q).exp(-0.5 * q * q) * 0.3989422804014327
    return 0.5 * (1.0 + _erf(q / sqrt(2.0))) + q * density


ACTIVATIONS: dict[str, Activation] = {
    "tanh": Activation(
        _tanh,
        lambda t: 1.0 - t * t,
        c="tanhf(x)",
        js="Math.tanh(x)",
        onnx=(("Tanh", "x"),),
    ),
    "logistic": Activation(
        _logistic,
        lambda s: s * (1.0 - s),
        c="0.5f * (1.0f + tanhf(0.5f * x))",
        js="0.5 * (1 + Math.tanh(0.5 * x))",
        onnx=(("Sigmoid", "x"),),
    ),
    "relu": Activation(
        _relu,
        _relu_slope,
        c="x > 0.0f ? x : 0.0f",
        js="(x > 0 ? x : 0)",
        onnx=(("Relu", "x"),),
    ),
    "softplus": Activation(
        _softplus,
        _softplus_slope,
        c="x > 0.0f ? x + log1pf(expf(-x)) : log1pf(expf(x))",
        js="(x > 0 ? x + Math.log1p(Math.exp(-x)) : Math.log1p(Math.exp(x)))",
        onnx=(("Softplus", "x"),),
    ),
    "silu": Activation(
        _silu,
        slope=_silu_slope,
        c="0.5f * x * (1.0f + tanhf(0.5f * x))",
        js="0.5 * x * (1 + Math.tanh(0.5 * x))",
        onnx=(("Sigmoid", "x"), ("Mul", "x", 0)),
    ),
    "gelu": Activation(
        _gelu,
        slope=_gelu_slope,
        c="0.5f * x * (1.0f + erff(x * 0.70710678f))",
        js="0.5 * x * (1 + erf(x / Math.SQRT2))",
        onnx=(
            ("Mul", "x", 1.0 / sqrt(2.0)),
            ("Erf", 0),
            ("Add", 1, 1.0),
            ("Mul", "x", 0.5),
            ("Mul", 3, 2),
        ),
    ),
}
"""By name. `gelu` is the exact one, with the error function."""
