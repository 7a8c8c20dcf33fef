"""Channels-last order: the same numbers, for the networks that take it, and no trace afterwards."""

import numpy as np
import pytest
import torch
from torch import nn

from rankwise.heads.backbones import Backbone, SmallResNet
from rankwise.heads.features import extract_features
from rankwise.nets import TrainingSettings, make_network, predict_logits, train_network
from rankwise.nets.batches import scale
from rankwise.nets.memory_format import memory_format, takes_channels_last


class Viewing(nn.Module):
    """Somebody's network that uses ``view`` where channels-last maps need ``reshape``."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.head = nn.Conv2d(channels, 4, 3), nn.Linear(4 * 36, 2)

    def forward(self, x):
        x = self.conv(x)
        return self.head(x.view(x.size(0), -1))


def images(n, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


@pytest.mark.parametrize("name", ["simple-cnn", "resnet25"])
def test_same_logits_in_either_order_and_weights_lie_as_before(name):
    x = images(3, 32, 32, 3)
    network = make_network(name, (32, 32, 3), 4, seed=0).double().eval()
    assert takes_channels_last(network)
    with torch.no_grad():
        batch = scale(torch.from_numpy(x)).double()
        plain = network(batch.contiguous())
        with memory_format(network):
            weights = [p for p in network.parameters() if p.ndim == 4]
            assert all(p.is_contiguous(memory_format=torch.channels_last) for p in weights)
            turned = network(batch)
    assert torch.allclose(plain, turned, rtol=1e-9, atol=1e-12)
    assert all(p.is_contiguous() for p in network.parameters())


def test_weights_lie_as_before_after_an_error():
    network = SmallResNet(2, width=8)
    with pytest.raises(KeyError), memory_format(network):
        raise KeyError
    assert all(p.is_contiguous() for p in network.parameters())


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_networks_of_others_get_contiguous_images(shape):
    network = Viewing(1 if len(shape) == 2 else 3)
    x, y = images(20, *shape), np.arange(20) % 2
    assert not takes_channels_last(network)
    result = train_network(network, x, y, TrainingSettings(epochs=1, batch_size=8))
    assert len(result.history) == 1
    assert predict_logits(network, x).shape == (20, 2)
    assert extract_features(network, x).shape == (20, 2)
    assert not network._forward_pre_hooks


def test_a_wrapped_network_is_recognised():
    assert takes_channels_last(Backbone(SmallResNet(2, width=8), "mine"))
    assert not takes_channels_last(Backbone(nn.Conv2d(3, 4, 3), "other"))


def test_trained_weights_are_contiguous_and_can_be_saved(tmp_path):
    network = make_network("simple-cnn", (12, 12), 2, seed=0)
    x, y = images(24, 12, 12), np.arange(24) % 2
    train_network(network, x, y, TrainingSettings(epochs=1, batch_size=8), folder=tmp_path / "run")
    assert all(p.is_contiguous() for p in network.parameters())
