"""What joint training of convolutional units takes, estimated before any of it is."""

import numpy as np
import pytest
import torch

from rankwise.training import room
from rankwise.training.joint_plan import JointPlan
from rankwise.training.modules import ConvolutionalModule
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
    needed = 60 * room.kept_values(units) * 4  # two workers, shards of 30
    monkeypatch.setattr(room, "available_memory", lambda: needed)
    room.check_room(units, plan, 1000, 2)
    monkeypatch.setattr(room, "available_memory", lambda: needed - 1)
    with pytest.raises(
        ValueError, match=r"training 64 convolutional units on images of 24×24 needs"
    ):
        room.check_room(units, plan, 1000, 2)
    room.check_room(units, plan, 1000, 1)
