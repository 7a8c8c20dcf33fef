"""NIST StRD problems that are separable, with their certified values.

Statistical Reference Datasets, nonlinear regression, National Institute of Standards and
Technology. Each gives a basis, the data, starts for the nonlinear parameters, and what NIST
certifies: nonlinear parameters, linear parameters, residual sum of squares. The data are a work of
the United States government and in the public domain:
https://www.itl.nist.gov/div898/strd/nls/nls_main.shtml.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rankwise.varpro import FunctionBasis


@dataclass(frozen=True)
class Nist:
    """A problem; where terms are `alike`, a fit may find them in any order, NIST sorts them."""

    name: str
    basis: FunctionBasis
    y: np.ndarray
    starts: tuple[tuple[float, ...], ...]
    params: tuple[float, ...]
    coef: tuple[float, ...]
    rss: float
    alike: bool = False

    def in_order(self, params, coef):
        """A fit's parameters of both kinds in NIST's order."""
        if not self.alike:
            return params, coef
        order, owner, sorted_coef = np.argsort(params), self.basis.owner, coef.copy()
        sorted_coef[owner] = coef[owner[order]]
        return params[order], sorted_coef


def _columns(*columns):
    return np.stack(columns, axis=1)


_MISRA_X = np.array(
    [
        77.6,
        114.9,
        141.1,
        190.8,
        239.9,
        289.0,
        332.8,
        378.4,
        434.8,
        477.3,
        536.8,
        593.1,
        689.1,
        760.0,
    ]
)
_MISRA_Y = np.array(
    [
        10.07,
        14.73,
        17.94,
        23.93,
        29.61,
        35.18,
        40.02,
        44.82,
        50.76,
        55.05,
        61.01,
        66.40,
        75.47,
        81.78,
    ]
)


def misra1a() -> Nist:
    x = _MISRA_X
    basis = FunctionBasis(
        lambda b: _columns(1 - np.exp(-b[0] * x)),
        lambda b: _columns(x * np.exp(-b[0] * x)),
        np.array([0]),
    )
    return Nist(
        "Misra1a",
        basis,
        _MISRA_Y,
        ((1e-4,), (5e-4,)),
        (5.5015643181e-04,),
        (2.3894212918e02,),
        1.2455138894e-01,
    )


def misra1b() -> Nist:
    x = _MISRA_X
    basis = FunctionBasis(
        lambda b: _columns(1 - (1 + b[0] * x / 2) ** -2),
        lambda b: _columns(x * (1 + b[0] * x / 2) ** -3),
        np.array([0]),
    )
    return Nist(
        "Misra1b",
        basis,
        _MISRA_Y,
        ((1e-4,), (2e-4,)),
        (3.9039091287e-04,),
        (3.3799746163e02,),
        7.5464681533e-02,
    )


def misra1c() -> Nist:
    x = _MISRA_X
    basis = FunctionBasis(
        lambda b: _columns(1 - (1 + 2 * b[0] * x) ** -0.5),
        lambda b: _columns(x * (1 + 2 * b[0] * x) ** -1.5),
        np.array([0]),
    )
    return Nist(
        "Misra1c",
        basis,
        _MISRA_Y,
        ((1e-4,), (2e-4,)),
        (2.0813627256e-04,),
        (6.3642725809e02,),
        4.0966836971e-02,
    )


def box_bod() -> Nist:
    x = np.array([1.0, 2.0, 3.0, 5.0, 7.0, 10.0])
    y = np.array([109.0, 149.0, 149.0, 191.0, 213.0, 224.0])
    basis = FunctionBasis(
        lambda b: _columns(1 - np.exp(-b[0] * x)),
        lambda b: _columns(x * np.exp(-b[0] * x)),
        np.array([0]),
    )
    return Nist(
        "BoxBOD",
        basis,
        y,
        ((1.0,), (0.75,)),
        (5.4723748542e-01,),
        (2.1380940889e02,),
        1.1680088766e03,
    )


def dan_wood() -> Nist:
    x = np.array([1.309, 1.471, 1.490, 1.565, 1.611, 1.680])
    y = np.array([2.138, 3.421, 3.597, 4.340, 4.882, 5.660])
    basis = FunctionBasis(
        lambda b: _columns(x ** b[0]),
        lambda b: _columns(np.log(x) * x ** b[0]),
        np.array([0]),
    )
    return Nist(
        "DanWood",
        basis,
        y,
        ((5.0,), (4.0,)),
        (3.8604055871e00,),
        (7.6886226176e-01,),
        4.3173084083e-03,
    )


def lanczos3() -> Nist:
    x = np.arange(24) * 0.05
    y = np.array(
        [
            2.5134,
            2.0443,
            1.6684,
            1.3664,
            1.1232,
            0.9269,
            0.7679,
            0.6389,
            0.5338,
            0.4479,
            0.3776,
            0.3197,
            0.2720,
            0.2325,
            0.1997,
            0.1723,
            0.1493,
            0.1301,
            0.1138,
            0.1000,
            0.0883,
            0.0783,
            0.0698,
            0.0624,
        ]
    )
    basis = FunctionBasis(
        lambda b: np.exp(-x[:, None] * b),
        lambda b: -x[:, None] * np.exp(-x[:, None] * b),
        np.arange(3),
    )
    return Nist(
        "Lanczos3",
        basis,
        y,
        ((0.3, 5.5, 7.6), (0.7, 4.2, 6.3)),
        (9.5498101505e-01, 2.9515951832e00, 4.9863565084e00),
        (8.6816414977e-02, 8.4400777463e-01, 1.5825685901e00),
        1.6117193594e-08,
        alike=True,
    )


def mgh17() -> Nist:
    x = np.arange(33) * 10.0
    y = np.array(
        [
            0.844,
            0.908,
            0.932,
            0.936,
            0.925,
            0.908,
            0.881,
            0.850,
            0.818,
            0.784,
            0.751,
            0.718,
            0.685,
            0.658,
            0.628,
            0.603,
            0.580,
            0.558,
            0.538,
            0.522,
            0.506,
            0.490,
            0.478,
            0.467,
            0.457,
            0.448,
            0.438,
            0.431,
            0.424,
            0.420,
            0.414,
            0.411,
            0.406,
        ]
    )
    basis = FunctionBasis(
        lambda b: np.column_stack([np.ones_like(x), np.exp(-x[:, None] * b)]),
        lambda b: -x[:, None] * np.exp(-x[:, None] * b),
        np.array([1, 2]),
    )
    return Nist(
        "MGH17",
        basis,
        y,
        ((1.0, 2.0), (0.01, 0.02)),
        (1.2867534640e-02, 2.2122699662e-02),
        (3.7541005211e-01, 1.9358469127e00, -1.4646871366e00),
        5.4648946975e-05,
        alike=True,
    )


_GAUSS_Y = np.loadtxt(Path(__file__).parent / "nist_gauss.txt").reshape(3, 250)


def _gauss(number: int, starts, params, coef, rss) -> Nist:
    """An exponential and two bells: two nonlinear parameters in one column.

    ``b₁·exp(−b₂x) + b₃·exp(−(x−b₄)²/b₅²) + b₆·exp(−(x−b₇)²/b₈²)``
    """
    x = np.arange(1.0, 251.0)

    def phi(b):
        return _columns(
            np.exp(-b[0] * x),
            np.exp(-(((x - b[1]) / b[2]) ** 2)),
            np.exp(-(((x - b[3]) / b[4]) ** 2)),
        )

    def dphi(b):
        f = phi(b)
        return _columns(
            -x * f[:, 0],
            2 * (x - b[1]) / b[2] ** 2 * f[:, 1],
            2 * (x - b[1]) ** 2 / b[2] ** 3 * f[:, 1],
            2 * (x - b[3]) / b[4] ** 2 * f[:, 2],
            2 * (x - b[3]) ** 2 / b[4] ** 3 * f[:, 2],
        )

    basis = FunctionBasis(phi, dphi, np.array([0, 1, 1, 2, 2]))
    return Nist(f"Gauss{number}", basis, _GAUSS_Y[number - 1], starts, params, coef, rss)


def gauss1() -> Nist:
    return _gauss(
        1,
        ((0.009, 65.0, 20.0, 178.0, 16.5), (0.0105, 63.0, 25.0, 180.0, 20.0)),
        (
            1.0497276517e-02,
            6.7481111276e01,
            2.3129773360e01,
            1.7899805021e02,
            1.8389389025e01,
        ),
        (9.8778210871e01, 1.0048990633e02, 7.1994503004e01),
        1.3158222432e03,
    )


def gauss2() -> Nist:
    return _gauss(
        2,
        ((0.009, 106.0, 18.0, 151.0, 18.0), (0.0105, 105.0, 20.0, 150.0, 20.0)),
        (
            1.0994945399e-02,
            1.0703095519e02,
            2.3578584029e01,
            1.5327010194e02,
            1.9525972636e01,
        ),
        (9.9018328406e01, 1.0188022528e02, 7.2045589471e01),
        1.2475282092e03,
    )


def gauss3() -> Nist:
    return _gauss(
        3,
        ((0.009, 113.0, 20.0, 140.0, 20.0), (0.0096, 110.0, 25.0, 139.0, 25.0)),
        (
            1.0945879335e-02,
            1.1163619459e02,
            2.3300500029e01,
            1.4776164251e02,
            1.9668221230e01,
        ),
        (9.8940368970e01, 1.0069553078e02, 7.3705031418e01),
        1.2444846360e03,
    )


CERTIFIED = [
    misra1a(),
    misra1b(),
    misra1c(),
    box_bod(),
    dan_wood(),
    lanczos3(),
    mgh17(),
    gauss1(),
    gauss2(),
    gauss3(),
]
