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
