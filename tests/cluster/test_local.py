"""Processes of this machine."""

import os
import time

import numpy as np
from joblib.externals.loky import get_reusable_executor

import rankwise

kept = []


def grow(megabytes):
    kept.append(np.ones(megabytes * 2**17))
    time.sleep(0.1)
    return os.getpid()


def test_processes_that_grow_go_on():
    # joblib's own end themselves a second after their first task, if they grow by 300 MB then.
    get_reusable_executor().shutdown(wait=True)
    with rankwise.cluster("local:2") as executor:
        first = set(executor.map(grow, [0, 0, 0, 0, 0, 0]))
        time.sleep(1.1)
        grown = set(executor.map(grow, [350, 350]))
        assert grown | set(executor.map(grow, [0, 0, 0, 0])) <= first
    get_reusable_executor().shutdown(wait=True)
