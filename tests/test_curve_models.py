"""Rivals of the curve: given the moves that ours are given."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from rankwise.training.augment import SHIFTS

ROOT = Path(__file__).parents[1]


class SeenError(Exception):
    """Stops a fit behind what is looked at."""


@pytest.mark.parametrize(("n", "mirrored"), [(9_999, None), (10_000, SHIFTS)])
def test_few_images_are_moved_affinely_as_ours_are(monkeypatch, n, mirrored):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    curve, models = importlib.import_module("curve"), importlib.import_module("curve_models")
    found = []

    def with_mirrors(*given, mirrored):
        found.append(mirrored)
        raise SeenError

    monkeypatch.setattr(models, "with_mirrors", with_mirrors)
    make, options = curve.RIVALS[curve.PLAIN], {"max_iter": 1}
    network = models.RivalNetwork(make, 5000, "tiny", options, 42, 1, models.RATES)
    images = np.zeros((n, 16, 16), np.uint8)
    with pytest.raises(SeenError):
        network.fit(images, np.arange(n) % 2)
    assert found == [mirrored]


def test_a_rival_that_is_better_and_smaller_is_never_left_out(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    curve = importlib.import_module("curve")

    def point(kind, size, accuracy):
        sizes = dict.fromkeys(curve.SIZES, size)
        return {"row": f"{kind} {size}", "kind": kind, "label": kind, "accuracy": accuracy} | sizes

    rivals = [point(curve.PLAIN, 10, 0.5), point(curve.PLAIN, 100, 0.8)]
    slow = [point(curve.SEPARABLE, 10, 0.4), point(curve.SEPARABLE, 1000, 0.7)]
    ours = [point(curve.OURS, size, 0.75) for size in (5, 100, 200)]
    found = [c for c in curve.best_rivals([*rivals, *slow, *ours]) if c["size"] == "int8_bytes"]
    assert [c["rival"] for c in found] == [curve.PLAIN] * 2  # nobody is as small as the first
    assert [c["gain"] for c in found] == pytest.approx([-5, -5])
