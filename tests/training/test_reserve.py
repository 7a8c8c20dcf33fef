"""What is kept of a time budget, by clocks that tests set."""

import threading

import numpy as np
import pytest
import torch

from rankwise.training.reserve import least_seconds, seconds_behind, too_short
from rankwise.training.steps import Clock


def clock_of(*readings):
    return iter(map(float, readings)).__next__


def test_the_shortest_of_a_few_times_counts():
    calls = []
    found = least_seconds(lambda: calls.append(1), clock_of(0, 9, 10, 12, 20, 25))
    assert (found, len(calls)) == (2.0, 3)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_glue_is_timed_on_the_threads_that_it_will_have(threads):
    """Timed on all of torch's threads in one, it took up to a hundred times as long."""
    here, seen, rows = threading.get_ident(), set(), []
    together = threading.Barrier(threads, timeout=20)

    def features(part):
        together.wait()  # breaks unless so many are computed at a time
        seen.add((threading.get_ident() == here, torch.get_num_threads()))
        rows.append(part.stop - part.start)
        return np.zeros((part.stop - part.start, 3))

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        seconds_behind(features, 1000, 0, threads=threads)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == {(False, 1)}
    assert rows == [2] * threads + [128] * 3 * threads


def seconds(n_trained, n_validated, **options):
    """Where the 128 images of the probe, or all there are, take two seconds at best."""
    now = clock_of(0, 3, 10, 12, 20, 25)
    return seconds_behind(lambda part: np.zeros((1, 1)), n_trained, n_validated, now=now, **options)


def test_images_behind_the_training_are_counted_as_they_will_be_shared_out():
    each = 1.3 * 2 / 128
    assert seconds(1000, 0) == pytest.approx(1000 * each)
    assert seconds(64, 0) == pytest.approx(1.3 * 2), "no more than there are"
    assert seconds(1000, 300) == pytest.approx((1000 + 2 * 300) * each)
    assert seconds(1000, 300, choices=0) == pytest.approx(1000 * each)
    assert seconds(1000, 300, passes=3) == pytest.approx((3000 + 600) * each)
    # Parts of 1024 of blocks of 4096, and of 256 images where outputs are computed.
    assert seconds(1000, 0, threads=2) == pytest.approx(1000 * each), "one part, one thread"
    assert seconds(10_000, 0, threads=2) == pytest.approx((2048 + 2048 + 1024) * each)
    assert seconds(10_000, 0, threads=2, passes=2) == pytest.approx((5120 + 8192) * each)
    assert seconds(1000, 1000, threads=2) == pytest.approx((1000 + 2 * 512) * each)


def test_what_is_kept_leaves_the_schedule_its_beginning():
    clock = Clock(40.0, now=clock_of(0, 0, 5, 5, 15, 25))
    clock.start()
    clock.keep(15.0)
    clock.begin()  # five seconds later
    assert clock.left == 20
    assert [clock.read() for _ in range(3)] == [0.0, 0.5, 1.0]


def test_more_kept_than_there_is_leaves_nothing():
    clock = Clock(10.0, now=clock_of(0, 0))
    clock.keep(11.0)
    assert clock.is_over


def test_work_in_between_is_kept_as_the_shortest_of_a_few_is():
    clock, sizes = Clock(100.0, now=clock_of(0, 0, 9, 10, 12, 20, 25)), []
    clock.reserve(sizes.append, 1000, 200)
    assert sizes == [2, 200, 200, 200]
    assert clock.left == pytest.approx(100 - 1.3 * 2 * 1000 / 200)
    free = Clock(None)
    free.reserve(sizes.append, 1000, 200)
    assert len(sizes) == 4, "nothing is timed without a budget"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"of_teacher": False},
            "the time budget is 0.5 seconds, and a fit of one epoch takes about 8.12 seconds here, "
            "so that the units have hardly been trained; more minutes, or a smaller preset, are "
            "needed",
        ),
        (
            {"of_teacher": True},
            "the teacher's share of the time budget is 0.5 seconds, and a fit of one epoch takes "
            "about 8.12 seconds here, so that it has hardly been trained; more minutes, or a "
            "smaller teacher, are needed",
        ),
        (
            {"of_teacher": False, "taken": 0.4},
            "the time budget is 0.5 seconds, of which the teacher took 0.4, and a fit of one epoch "
            "takes about 8.12 seconds here, so that the units have hardly been trained; more "
            "minutes, or a smaller teacher, are needed",
        ),
    ],
)
def test_what_a_budget_that_is_too_short_tells(options, words):
    assert too_short(0.5, 8.123, **options) == words
    assert "budget is 1 second, " in too_short(1.0, 8.123, **options)
