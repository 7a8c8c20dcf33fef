"""The curve: rivals are trained as ours are, who is compared with whom, the picture."""

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from rankwise.training import augment
from rankwise.training.augment import FARTHER, NEARER, SHIFTS

ROOT = Path(__file__).parents[1]
TURNED = partial(replace, mirror=True)


class SeenError(Exception):
    """Stops a fit behind what is looked at."""


@pytest.mark.parametrize(
    ("n", "preset", "moves", "long"),
    [
        (9_999, "accurate", NEARER, None),
        (10_000, "accurate", SHIFTS, FARTHER),
        (10_000, "tiny", SHIFTS, None),
    ],
)
def test_images_are_moved_as_ours_are(monkeypatch, n, preset, moves, long):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    curve, models = importlib.import_module("curve"), importlib.import_module("curve_models")
    found = []

    def of_joint(network, plan, *given, **options):
        found.append(plan)
        raise SeenError

    monkeypatch.setattr(augment, "with_mirrors", lambda *given, mirrored: TURNED(mirrored))
    monkeypatch.setattr(models, "JointTraining", of_joint)
    make, options = curve.RIVALS[curve.PLAIN], {"max_iter": 1}
    network = models.RivalNetwork(make, 5000, preset, options, 42, 1, models.RATES)
    images = np.zeros((n, 16, 16), np.uint8)
    with pytest.raises(SeenError):
        network.fit(images, np.arange(n) % 2)
    (plan,) = found
    assert plan.optimiser == "adamw"
    assert plan.augmentation == TURNED(moves)
    assert plan.long == (None if long is None else TURNED(long))


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


def row(curve, kind, seconds, accuracy, label="one"):
    sizes = {"n_parameters": 5000, "int8_bytes": None, "microseconds": 9.0, "fit_seconds": seconds}
    return {"row": f"{kind} {seconds}", "kind": kind, "label": label, "accuracy": accuracy} | sizes


@pytest.mark.parametrize(
    ("mine", "said"), [(0.9, "ahead of"), (0.8001, "within 0.40 points of"), (0.7, "behind")]
)
def test_the_same_minutes_are_no_axis(monkeypatch, mine, said):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    curve = importlib.import_module("curve")
    rivals = [row(curve, curve.PLAIN, s, a) for s, a in ((60.0, 0.7), (61.0, 0.8))]
    results = [*rivals, row(curve, curve.OURS, 59.0, mine, "small")]
    results.append(row(curve, curve.OTHER, 3.0, 0.99))  # trained by other code, as long as it takes
    assert not curve.same_size(results).rows
    last = curve.notes(results)[-1]
    assert last.startswith("By seconds of training, about the same for all: small (")
    assert f"the best of ours, is {said} the best rival, one (80.00%)." in last
    results[0]["fit_seconds"] = 10.0
    assert curve.same_size(results).columns == ("model", "seconds of training")
    assert "about the same for all" not in curve.notes(results)[-1]


def test_the_picture_has_a_panel_for_each_size_that_differs(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    picture = importlib.import_module("curve_picture")
    points = [
        row(picture, kind, 60.0, accuracy) | {"n_parameters": n, "int8_bytes": n, "label": name}
        for kind, accuracy, n, name in (
            (picture.OURS, 0.7, 1000, "ours"),
            (picture.OURS, 0.8, 9000, "larger"),
            (picture.PLAIN, 0.8, 9000, "plain CNN, 9k"),
            (picture.OTHER, 0.5, 100, "other"),
        )
    ]
    named, panels = [], []
    of_axis, scaled = picture._named, picture._scaled
    monkeypatch.setattr(picture, "_named", lambda a, f: (of_axis(a, f), named.append(a)))
    monkeypatch.setattr(
        picture, "_scaled", lambda a, label: (scaled(a, label), panels.append(label))
    )
    picture.draw(points, tmp_path / "curve_cifar10.png")
    assert panels == ["parameters", "bytes, int8 export"]
    for axis in named:
        boxes = [text.get_window_extent() for text in axis.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
        texts = {text.get_text() for text in axis.texts}
        assert {"ours", "larger", "other"} <= texts
    (legend,) = named[0].figure.legends
    assert [text.get_text() for text in legend.texts] == [
        "ours, convolutional",
        "plain CNN",
        "other",
        "quoted, not measured here",
    ]
    assert (tmp_path / "curve_cifar10.png").stat().st_size > 10_000


def test_the_rate_is_chosen_by_the_epoch_that_is_kept(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    curve, models = importlib.import_module("curve"), importlib.import_module("curve_models")
    of_rate = {
        0.1: ([0.9, 0.5], 2),  # the best of an epoch, but not the one that stays
        0.2: ([0.6, 0.7], 2),
        0.3: ([0.8, 0.8], 0),  # no finite loss
    }

    class Training:
        def __init__(self, network, plan, n_classes, **options):
            self.plan = plan

        def fit(self, images, labels, validation):
            accuracies, chosen = of_rate[self.plan.learning_rate]
            history = [{"validation_accuracy": a} for a in accuracies]
            return SimpleNamespace(history=history, chosen_epoch=chosen)

    monkeypatch.setattr(models, "JointTraining", Training)
    monkeypatch.setattr(models, "GraphRunner", lambda graph: None)
    monkeypatch.setattr(models.RivalNetwork, "graph", lambda self: None)
    make, options = curve.RIVALS[curve.PLAIN], {"max_iter": 2}
    network = models.RivalNetwork(make, 5000, "tiny", options, 42, 1, tuple(of_rate))
    network.fit(np.zeros((300, 16, 16), np.uint8), np.arange(300) % 2)
    assert network.learning_rate == 0.2


def test_a_picture_of_one_row_has_its_parameters(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    picture = importlib.import_module("curve_picture")
    picture.draw([row(picture, picture.OURS, 60.0, 0.7)], tmp_path / "one.png")
    assert (tmp_path / "one.png").exists()


def test_fewer_test_images_tell_less_apart(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    curve = importlib.import_module("curve")
    results = [row(curve, curve.PLAIN, 60.0, 0.8) | {"seed": 42}]
    assert curve.interval(results) == pytest.approx(0.4)
    assert curve.interval(results, 2500) == pytest.approx(0.8)
