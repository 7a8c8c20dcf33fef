"""What joint training of convolutional units takes, estimated before any of it is."""

import numpy as np
import pytest
import torch

from rankwise.training import room
from rankwise.training.convolutional_presets import plan_convolutional
from rankwise.training.joint import JointTraining
from rankwise.training.joint_plan import JointPlan
from rankwise.training.modules import ConvolutionalModule
from rankwise.training.starting import convolutional_module
from rankwise.units.convolutional import ConvolutionalUnits, Layer

UNITS = [
    ConvolutionalUnits((24, 24), (Layer(16, pool=2), Layer(24, pool=2), Layer(24))),
    ConvolutionalUnits((20, 16, 3), (Layer(12, 5), Layer(12, skip=True)), activation="gelu"),
]


@pytest.mark.parametrize("units", UNITS)
def test_the_estimate_is_what_autograd_keeps_or_a_little_less(units):
    module = ConvolutionalModule(
        units,
        np.zeros(units.channels, np.float32),
        np.ones(units.channels, np.float32),
        torch.Generator().manual_seed(0),
    )
    kept: dict[int, int] = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    maps, n = torch.randn(32, units.channels, *units.shape[:2]), 32
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        features = module(maps, [])  # noqa: F841  # holds what is kept
    estimate = 4 * n * room.kept_values(units)
    assert 0.5 * sum(kept.values()) <= estimate <= 1.5 * sum(kept.values())


def test_a_training_without_room_is_refused(monkeypatch):
    units, plan = UNITS[0], JointPlan(batch_size=120)
    # Two workers, shards of 30, each with filters of its own.
    shards = 60 * room.kept_values(units) + 2 * room.composed_values(units, "float32")
    needed = 4 * (shards + room.kept_of_parameters(units, "adamw"))
    monkeypatch.setattr(room, "available_memory", lambda: needed)
    room.check_room(units, plan, 1000, 2)
    monkeypatch.setattr(room, "available_memory", lambda: needed - 1)
    with pytest.raises(
        ValueError, match=r"training 64 convolutional units on images of 24×24 needs"
    ):
        room.check_room(units, plan, 1000, 2)
    room.check_room(units, plan, 1000, 1)


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_what_parameters_come_to_is_what_a_training_keeps(optimiser):
    units = ConvolutionalUnits((12, 12), (Layer(6, pool=2), Layer(6, skip=True)), whiten=2)
    images = np.random.default_rng(0).random((20, 12, 12), dtype=np.float32)
    module = convolutional_module(units, images, torch.Generator().manual_seed(0))
    training = JointTraining(module, JointPlan(optimiser=optimiser, batch_size=20), 3)
    with training.threads():
        training.update(images, np.arange(20) % 3, torch.Generator().manual_seed(0))
    moments = sum(t.numel() for k, t in training.steps.tensors().items() if "step" not in k)
    outer = training.coef.numel()
    # Of the output layer, which isn't counted, AdamW keeps two moments.
    assert sum(p.numel() for p in training.parameters) == room.trained_values(units)
    assert (
        room.kept_of_parameters(units, optimiser)
        == 3 * room.trained_values(units) + moments - 2 * outer
    )


def test_filters_that_are_composed_are_counted_where_channels_are_not_mixed_first():
    units = ConvolutionalUnits((8, 8), (Layer(32, rank=2), Layer(40, side=5, rank=1)))
    assert room.composed_values(units, "float32") == 32 * 9
    assert room.composed_values(units, "bfloat16") == 32 * 9 + 40 * 32 * 25


def test_very_many_units_are_refused_for_their_parameters_alone(monkeypatch):
    """Such a fit on forty images was killed at 23 GB: nothing of it is made here."""
    given = {"n_units": 15 * 10**4, "max_iter": 1}
    plan = plan_convolutional("tiny", given, (28, 28), n_samples=40)
    shards = 4 * 40 * room.kept_values(plan.units)
    assert shards < 10 * 2**30 < 60 * 2**30 < 4 * room.kept_of_parameters(plan.units, "adamw")
    monkeypatch.setattr(room, "available_memory", lambda: 60 * 2**30)
    with pytest.raises(ValueError, match=r"training 150,000 convolutional units .* GiB of mem"):
        room.check_room(plan.units, plan.joint, 40, 2)
