"""Threads of BLAS and torch: one inside, what there was outside, whoever else is inside."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import scipy.linalg  # noqa: F401  its BLAS is one of those that are held
import torch
from threadpoolctl import ThreadpoolController

from rankwise._threads import SharedChange, one_blas_thread, one_thread, thread_pool


def blas_threads() -> list[int]:
    return [c.num_threads for c in ThreadpoolController().select(user_api="blas").lib_controllers]


def of_a_new_thread() -> int:
    """Torch's number in a thread that hasn't used it yet: its default for the process."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.fixture(autouse=True)
def two_threads():
    """Two threads wherever there may be one, so that a limit is seen."""
    before, controllers = torch.get_num_threads(), ThreadpoolController()
    torch.set_num_threads(2)
    with controllers.limit(limits=2):
        yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("context", [one_blas_thread, one_thread, lambda: thread_pool(2)])
def test_blas_has_one_thread_inside_and_two_outside(context):
    before = blas_threads()
    assert set(before) == {2}
    with context():
        assert set(blas_threads()) == {1}
        with context():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_torch_has_one_thread_inside_and_two_outside():
    with one_thread():
        assert torch.get_num_threads() == 1
        assert of_a_new_thread() == 2
    assert torch.get_num_threads() == of_a_new_thread() == 2


def test_threads_of_a_pool_compute_on_one_core_and_leave_no_default_behind():
    with thread_pool(3) as pool:
        assert list(pool.map(lambda _: torch.get_num_threads(), range(9))) == [1] * 9
        assert torch.get_num_threads() == of_a_new_thread() == 2
    assert torch.get_num_threads() == of_a_new_thread() == 2


def test_the_last_of_many_threads_sets_blas_back():
    first_in, first_out = threading.Barrier(4), threading.Barrier(4)

    def inside(number: int) -> list[int]:
        # 0 leaves first, then 1 …: each sees one thread as long as anyone is inside.
        first_in.wait()
        with one_thread():
            first_out.wait()
            return blas_threads()

    with ThreadPoolExecutor(4) as pool:
        for _ in range(25):
            assert {n for found in pool.map(inside, range(4)) for n in found} == {1}
            assert set(blas_threads()) == {2}
        assert {pool.submit(torch.get_num_threads).result() for _ in range(8)} == {2}


def test_an_error_inside_sets_back_too():
    for context in (one_blas_thread, one_thread, lambda: thread_pool(1)):
        with pytest.raises(KeyError), context():
            raise KeyError
    assert set(blas_threads()) == {2}
    assert torch.get_num_threads() == 2


def test_a_change_that_fails_is_not_held():
    change = SharedChange()

    def broken():
        raise OSError("no")

    for _ in range(2):
        with pytest.raises(OSError, match="no"), change.holding("a", broken):
            pass
    seen = []
    with change.holding("a", lambda: lambda: seen.append("off")):
        assert not seen
    assert seen == ["off"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_does_not_wait_for_a_thread_it_lacks():
    change = SharedChange()
    with change._lock:
        child = os.fork()
        if child == 0:
            with change.holding("a", lambda: lambda: None):
                os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
