"""What tests of `VarProHead` share."""

import numpy as np


class Stream:
    """Blocks of two classes, made anew each time they are asked for."""

    def __init__(self, n, distance=1.0):
        self.n, self.distance = n, distance

    def __iter__(self):
        for i in range(self.n // 2000):
            rng = np.random.default_rng(i)
            y = rng.integers(2, size=2000)
            yield rng.standard_normal((2000, 40)) + self.distance * y[:, None], y
