"""What a convolutional preset comes to on images of several shapes and numbers."""

from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from rankwise import ConvolutionalClassifier
from rankwise.cli.model import train
from rankwise.training.convolutional_presets import (
    CONVOLUTIONAL_PRESETS,
    plan_convolutional,
    scaled_to,
)


def total(plan, n_classes=10):
    return plan.units.n_parameters + (plan.units.n_features + 1) * n_classes


@pytest.mark.parametrize(
    ("preset", "shape", "most"),
    [
        ("accurate", (28, 28), 150_800),
        ("accurate", (32, 32, 3), 202_800),
        ("small", (28, 28), 50_000),
        ("tiny", (28, 28), 10_000),
    ],
)
def test_sizes_stay_within_what_their_names_promise(preset, shape, most):
    assert 0.3 * most < total(plan_convolutional(preset, {}, shape, n_samples=60_000)) <= most


def test_sizes_are_those_that_the_estimator_and_the_command_line_name():
    plans = [plan_convolutional(p, {}, (28, 28), n_samples=60_000) for p in CONVOLUTIONAL_PRESETS]
    sizes = [total(plan) for plan in plans]
    documented = "{:,}, {:,} and {:,} parameters on MNIST".format(*sizes)
    assert documented in " ".join(ConvolutionalClassifier.__doc__.split())
    said = "(about {}, {} and {} thousand parameters on MNIST)".format(
        *(round(size / 1000) for size in sizes)
    )
    _, option = get_args(get_type_hints(train, include_extras=True)["preset"])
    assert said in option.help
    method = (Path(__file__).parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
    for (name, preset), size in zip(CONVOLUTIONAL_PRESETS.items(), sizes, strict=True):
        first, *others = (str(layer.maps) for layer in preset.layers)
        maps = ", ".join([f"{first} (5×5)", *others])
        assert f"| `{name}` | {maps} |" in method
        assert f"| {size:,} |" in method


def test_epochs_and_batches_follow_the_number_of_images():
    plans = {
        n: plan_convolutional("accurate", {}, (28, 28), n_samples=n).joint
        for n in (50, 1000, 8000, 50_000, 60_000, 10**6)
    }
    assert (plans[60_000].epochs, plans[60_000].batch_size) == (14, 125)
    assert (plans[50_000].epochs, plans[10**6].epochs) == (17, 1)
    assert plans[8000].epochs == 24
    assert (plans[1000].epochs, plans[1000].batch_size) == (26, 32)
    assert plans[50].epochs == 100


@pytest.mark.parametrize(
    ("shape", "shrink", "n_layers"),
    [((28, 28), 1, 4), ((64, 64), 1, 4), ((65, 30), 2, 4), ((100, 100, 3), 2, 4)],
)
def test_large_images_are_shrunk_and_their_last_maps_are_small(shape, shrink, n_layers):
    units = plan_convolutional("accurate", {}, shape, n_samples=1000).units
    assert units.shrink == shrink
    assert len(units.layers) >= n_layers
    assert max(units.stages[-1].out) <= 8


def test_given_values_replace_the_preset_s():
    given = {"rank": 3, "activation": "gelu", "max_iter": 2, "ridge": 0.1, "n_units": 46}
    plan = plan_convolutional("tiny", given, (28, 28), n_samples=1000)
    assert {layer.rank for layer in plan.units.layers} == {3}
    assert (plan.units.activation, plan.joint.epochs, plan.ridge) == ("gelu", 2, 0.1)
    assert plan.units.n_units == 46


@pytest.mark.parametrize("n_units", [4, 5, 17, 92, 1000])
def test_units_are_shared_out_as_before(n_units):
    layers = CONVOLUTIONAL_PRESETS["tiny"].layers
    scaled = scaled_to(layers, n_units)
    assert sum(layer.maps for layer in scaled) == n_units
    assert min(layer.maps for layer in scaled) >= 1
    if n_units == 92:
        assert scaled == layers
    if n_units == 1000:
        assert [round(layer.maps / 1000 * 92) for layer in scaled] == [12, 24, 24, 32]


def test_too_few_units_are_refused():
    with pytest.raises(ValueError, match="n_units must be at least 5, one a layer"):
        scaled_to(CONVOLUTIONAL_PRESETS["small"].layers, 4)
