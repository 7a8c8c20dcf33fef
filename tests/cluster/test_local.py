"""Processes of this machine."""

import time

import numpy as np
from joblib.externals.loky import get_reusable_executor

import rankwise

kept = []


def grow(megabytes):
    kept.append(np.ones(megabytes * 2**17))
    return megabytes


def test_processes_that_grow_go_on():
    # joblib's own end themselves a second after their first task, if they grow by 300 MB then.
    with rankwise.cluster("local:2") as executor:
        assert list(executor.map(grow, [0, 0, 0, 0])) == [0, 0, 0, 0]
        time.sleep(1.1)
        assert list(executor.map(grow, [350, 350, 0, 0, 0, 0])) == [350, 350, 0, 0, 0, 0]
    get_reusable_executor().shutdown(wait=True)
