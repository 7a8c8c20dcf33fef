"""Whatever is given in place of what's asked for ends in a sentence of the package's own.

In a process without the annotations' checks, which would refuse most of it before.
"""

import subprocess
import sys

SCRIPT = """
import traceback, warnings
import numpy as np
from rankwise import VariableProjection
from rankwise.varpro import FunctionBasis, FunctionModel, SeparableModel

warnings.simplefilter("ignore")
x = np.linspace(0, 1, 12)
y = np.exp(-x)
JUNK = [
    None, 3, -1, "a", [], [1.0], [1, 2], np.array([0]), np.array([-1]), np.array([5]), [0.5],
    np.nan, [np.nan], {}, {"k": 1}, {"k": None}, {"k": "z"}, (0, 1), (1, 0), np.ones(12),
    np.ones((12, 2)), np.ones((3, 2)), np.ones((2, 3, 4)), 1j, [1j], object(), lambda b: b, True,
    np.zeros(12), [[1], [2, 3]], "k", ["k"], ["z"], b"x", np.array(["a"]), np.array(None),
    float("inf"), [x, x], (None, None), (0, "a"), -np.ones(12), np.eye(12), range(3), [None],
]
model = FunctionModel(lambda x, k: np.exp(-k * x))
terms = SeparableModel(["k"]).term(lambda x, k: np.exp(-k * x)).constant()
phi = lambda b: np.exp(-b[0] * x)[:, None]
slope = lambda b: (-x * np.exp(-b[0] * x))[:, None]
rng = np.random.default_rng(0)
junk = lambda: JUNK[rng.integers(len(JUNK))]
maybe = lambda good: junk() if rng.random() < 0.5 else good
some = lambda *names: {name: junk() for name in names if rng.random() < 0.25}
TRIES = (
    lambda: VariableProjection().fit(FunctionBasis(phi, slope, junk(), maybe(None)), y, [1.0]),
    lambda: VariableProjection().fit(model.at(x), maybe(y), maybe([1.0])),
    lambda: VariableProjection().fit(
        terms.at(x), y, [1.0],
        **some("weights", "sigma", "covariance", "bounds", "fixed", "tied", "linear_bounds"),
    ),
    lambda: VariableProjection().fit(junk(), y, [1.0]),
    lambda: VariableProjection(
        **some("ridge", "rcond", "max_iterations", "ftol", "atol", "loss", "f_scale", "solver",
               "jacobian")
    ).fit(terms.at(x), y, [1.0]),
    lambda: VariableProjection().fit_each(
        terms.at(x), maybe(np.stack([y, y], 1)), maybe([1.0]), **some("weights", "sigma", "bounds")
    ),
)
fitted = refused = 0
for i in range(900):
    try:
        TRIES[i % len(TRIES)]()
        fitted += 1
    except (ValueError, TypeError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert "rankwise" in last.filename and last.line.startswith("raise"), (i, error, last)
        refused += 1
print(fitted, refused)
"""


def test_junk_is_refused_in_a_sentence():
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr[-2000:]
    fitted, refused = map(int, result.stdout.split())
    assert fitted > 40
    assert refused > 500
