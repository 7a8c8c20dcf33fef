"""Processes of this machine."""

import os
import signal
import time

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor

import rankwise
from rankwise.errors import ClusterError

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


@pytest.mark.parametrize("number", ["0", "-1", "²", "٣", "1.5"])
def test_other_than_a_number_of_processes_is_refused(number):
    with (
        pytest.raises(ClusterError, match=f"'local:{number}' is no cluster; tcp://HOST:8786"),
        rankwise.cluster(f"local:{number}"),
    ):
        pass


def interrupt_itself(number):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.05)
    return number


def test_ctrl_c_is_left_to_the_caller():
    # A terminal sends it to all processes; in a worker it would be a traceback.
    before = signal.getsignal(signal.SIGINT)
    with rankwise.cluster("local:2") as executor:
        assert sorted(executor.map(interrupt_itself, range(4))) == [0, 1, 2, 3]
    assert signal.getsignal(signal.SIGINT) is before
