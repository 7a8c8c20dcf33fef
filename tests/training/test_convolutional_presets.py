"""What a convolutional preset comes to on images of several shapes and numbers."""

from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest

from rankwise import ConvolutionalClassifier
from rankwise.cli.train import train
from rankwise.training import augment
from rankwise.training.augment import FARTHER, NEARER, SHIFTS, Augmentation
from rankwise.training.convolutional_presets import (
    CONVOLUTIONAL_PRESETS,
    plan_convolutional,
    scaled_to,
)
from rankwise.units.convolutional import Layer


def total(plan, n_classes=10):
    return plan.units.n_parameters + (plan.units.n_features + 1) * n_classes


@pytest.mark.parametrize(
    ("preset", "shape", "most"),
    [
        ("wide", (32, 32, 3), 500_000),
        ("wide", (96, 96, 3), 500_000),
        ("accurate", (28, 28), 101_000),
        ("accurate", (32, 32, 3), 101_000),
        ("accurate", (96, 96, 3), 101_000),
        ("small", (28, 28), 20_000),
        ("small", (96, 96, 3), 20_000),
        ("tiny", (28, 28), 5_000),
        ("tiny", (64, 64, 3), 5_000),
        ("nano", (28, 28), 1_000),
        ("nano", (32, 32, 3), 1_000),
    ],
)
def test_sizes_stay_within_what_their_names_promise(preset, shape, most):
    assert 0.75 * most < total(plan_convolutional(preset, {}, shape, n_samples=60_000)) <= most


def test_sizes_are_those_that_the_estimator_and_the_command_line_name():
    plans = [plan_convolutional(p, {}, (28, 28), n_samples=60_000) for p in CONVOLUTIONAL_PRESETS]
    sizes = [total(plan) for plan in plans]
    documented = "{:,}, {:,}, {:,}, {:,} and {:,} parameters on MNIST".format(*sizes)
    assert documented in " ".join(ConvolutionalClassifier.__doc__.split())
    said = "(about {}, {}, {}, {} and {} thousand parameters on MNIST)".format(
        *(round(size / 1000) for size in sizes)
    )
    _, option = get_args(get_type_hints(train, include_extras=True)["preset"])
    assert said in option.help
    method = (Path(__file__).parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    for (name, preset), size in zip(CONVOLUTIONAL_PRESETS.items(), sizes, strict=True):
        maps = ", ".join(str(layer.maps) for layer in preset.layers)
        assert f"| `{name}` | {maps} |" in method
        assert f"| {size:,} |" in method


def test_epochs_and_batches_follow_the_number_of_images():
    plans = {
        n: plan_convolutional("accurate", {}, (28, 28), n_samples=n).joint
        for n in (50, 1000, 8000, 50_000, 60_000, 10**6)
    }
    assert (plans[60_000].epochs, plans[60_000].batch_size) == (20, 250)
    assert (plans[50_000].epochs, plans[10**6].epochs) == (24, 2)
    assert plans[8000].epochs == 24
    assert (plans[1000].epochs, plans[1000].batch_size) == (26, 32)
    assert plans[50].epochs == 100


@pytest.mark.parametrize(
    ("shape", "shrink", "n_layers"),
    [((28, 28), 1, 6), ((64, 64), 1, 8), ((65, 30), 2, 6), ((100, 100, 3), 1, 8)],
)
def test_large_images_are_shrunk_and_their_last_maps_are_small(shape, shrink, n_layers):
    units = plan_convolutional("accurate", {}, shape, n_samples=1000).units
    assert units.shrink == shrink
    assert len(units.layers) == n_layers
    assert max(units.stages[-1].out) <= 8


@pytest.mark.parametrize(
    ("preset", "shape", "shrink", "first"),
    [
        ("accurate", (48, 48, 3), 1, 56),
        ("accurate", (49, 49, 3), 1, 24),
        ("accurate", (128, 128, 3), 1, 24),
        ("accurate", (129, 129, 3), 2, 24),
        ("accurate", (130, 90, 3), 3, 56),
        ("wide", (96, 96, 3), 1, 40),
        ("small", (96, 96, 3), 2, 24),
    ],
)
def test_a_light_block_leads_where_images_have_detail(preset, shape, shrink, first):
    units = plan_convolutional(preset, {}, shape, n_samples=1000).units
    assert (units.shrink, units.layers[0].maps) == (shrink, first)
    if CONVOLUTIONAL_PRESETS[preset].leads == first:
        assert [layer.maps for layer in units.layers[:3]] == [first, first, units.layers[2].maps]
        assert [layer.skip for layer in units.layers[:2]] == [False, True]
        assert units.layers[2:] == CONVOLUTIONAL_PRESETS[preset].layers


def test_given_values_replace_the_preset_s():
    given = {"rank": 3, "activation": "gelu", "max_iter": 2, "ridge": 0.1, "n_units": 46}
    plan = plan_convolutional("tiny", given, (28, 28), n_samples=1000)
    assert {layer.rank for layer in plan.units.layers} == {3}
    assert (plan.units.activation, plan.joint.epochs, plan.ridge) == ("gelu", 2, 0.1)
    assert plan.units.n_units == 46


@pytest.mark.parametrize("n_units", [5, 6, 17, 18, 1000])
def test_units_are_shared_out_as_before(n_units):
    layers = tuple(Layer(maps) for maps in (2, 3, 3, 4, 6))
    scaled = scaled_to(layers, n_units)
    assert sum(layer.maps for layer in scaled) == n_units
    assert min(layer.maps for layer in scaled) >= 1
    if n_units == 18:
        assert scaled == layers
    if n_units == 1000:
        assert [round(layer.maps / 1000 * 18) for layer in scaled] == [2, 3, 3, 4, 6]


@pytest.mark.parametrize("n_units", [6, 7, 40, 752, 901])
def test_layers_with_a_skip_have_as_many_units_as_the_one_before(n_units):
    layers = CONVOLUTIONAL_PRESETS["accurate"].layers
    scaled = scaled_to(layers, n_units)
    assert n_units - 1 <= sum(layer.maps for layer in scaled) <= n_units
    pairs = [(a.maps, b.maps) for a, b in zip(scaled[::2], scaled[1::2], strict=True)]
    assert all(a == b >= 1 for a, b in pairs)
    if n_units == 752:
        assert scaled == layers


def test_only_images_large_enough_are_whitened():
    plans = [
        plan_convolutional("accurate", {}, s, n_samples=900) for s in ((7, 9), (8, 8), (8, 8, 3))
    ]
    assert [plan.units.whiten for plan in plans] == [0, 2, 2]
    assert [plan.units.stages[0].channels for plan in plans] == [1, 8, 24]


def test_filters_that_whiten_are_left_out_where_they_would_be_much_of_a_network():
    plans = {
        (preset, shape): plan_convolutional(preset, {}, shape, n_samples=900)
        for preset in ("tiny", "nano")
        for shape in ((28, 28), (32, 32, 3))
    }
    whitened = {key: plan.units.whiten for key, plan in plans.items()}
    assert whitened.pop(("nano", (32, 32, 3))) == 0
    assert set(whitened.values()) == {2}
    fewer = plan_convolutional("tiny", {"n_units": 30}, (32, 32, 3), n_samples=900)
    assert fewer.units.whiten == 0


def test_too_few_units_are_refused():
    with pytest.raises(ValueError, match="n_units must be at least 6, one a layer"):
        scaled_to(CONVOLUTIONAL_PRESETS["small"].layers, 5)


@pytest.mark.parametrize(
    ("preset", "n", "moves"),
    [
        ("accurate", 10_000, SHIFTS),
        ("wide", 50_000, SHIFTS),
        ("nano", 10_000, SHIFTS),
        ("accurate", 9_999, NEARER),
        ("tiny", 100, NEARER),
    ],
)
def test_many_photographs_are_shifted_and_few_moved_nearer(preset, n, moves):
    plan = plan_convolutional(preset, {}, (32, 32, 3), n_samples=n)
    assert plan.mirrored == moves
    assert plan.joint.augmentation == Augmentation()
    large = preset in ("accurate", "wide")
    assert plan.mirrored_long == (FARTHER if large and moves == SHIFTS else None)


@pytest.mark.parametrize("alike", [True, False])
def test_images_are_asked_whether_mirror_images_join(monkeypatch, alike):
    found = replace(SHIFTS if alike else Augmentation(), mirror=alike, flip=alike)
    monkeypatch.setattr(augment, "with_mirrors", lambda *given, **options: found)
    plan = plan_convolutional("accurate", {}, (32, 32, 3), n_samples=50_000)
    joint = plan.joint_for(np.zeros((1, 32, 32, 3)), np.zeros(1, int), 42)
    assert joint.augmentation == found
    assert joint.long == (replace(FARTHER, mirror=True, flip=True) if alike else None)
    assert replace(joint, augmentation=Augmentation(), long=None) == plan.joint
    still = plan_convolutional("accurate", {"augmentation": "none"}, (32, 32), n_samples=50_000)
    assert still.joint_for(np.zeros((1, 32, 32)), np.zeros(1, int), 42) == still.joint


@pytest.mark.parametrize(
    ("preset", "shape", "n_shards"),
    [
        ("small", (8, 8), 2),
        ("small", (28, 28), 2),
        ("small", (32, 32, 3), 2),
        ("small", (64, 64, 3), 4),
        ("small", (66, 66, 3), 2),  # averaged over squares of two pixels
        ("accurate", (28, 28), 4),
    ],
)
def test_batches_of_few_pixels_are_cut_in_two(preset, shape, n_shards):
    joint = plan_convolutional(preset, {}, shape, n_samples=60_000).joint
    assert joint.n_shards == n_shards
    assert -(-joint.batch_size // joint.shard_size(joint.batch_size)) == n_shards
