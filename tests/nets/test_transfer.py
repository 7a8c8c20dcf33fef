"""Transfer learning: what is frozen, what moves, and any backbone."""

import pytest
import torch
from torch import nn

from nets.small import Tiny, assert_same_state, digits
from rankwise.heads.backbones import load_backbone, save_backbone
from rankwise.nets import (
    TrainingSettings,
    freeze,
    make_network,
    train_network,
    train_transfer,
    transfer_network,
    unfreeze_top,
)
from rankwise.nets.freezing import hold_frozen, keras_layers

IMAGES, LABELS = digits(200)


def backbone():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
    )


def test_any_module_can_be_the_backbone():
    base = backbone()
    network = transfer_network(base, 10, image_shape=(8, 8)).eval()
    assert network.n_features == 6
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        base.eval()
        torch.testing.assert_close(network.features(x), base(x).mean((2, 3)))
        torch.testing.assert_close(network(x), network.head(network.features(x)))
    assert not any(p.requires_grad for p in network.backbone.parameters())
    assert all(p.requires_grad for p in base.parameters())  # a copy was frozen
    assert transfer_network(base, 10, 6).head.weight.shape == (10, 6)


@pytest.mark.parametrize("name", ["simple-cnn", "resnet25", "vgg16"])
def test_our_networks_lose_their_head_only(name):
    pretrained = make_network(name, (32, 32, 3), 8).eval()
    network = transfer_network(pretrained, 2).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.features(x), pretrained.features(x))
        assert network(x).shape == (2, 2)
    parameters = sum(p.numel() for p in network.parameters())
    left = sum(p.numel() for p in pretrained.parameters()) - sum(
        p.numel() for p in pretrained.head.parameters()
    )
    assert parameters == left + 2 * pretrained.n_features + 2


@pytest.mark.parametrize("name", ["simple-cnn", "vgg16"])
def test_a_backbone_of_ours_loses_its_head_and_can_be_written(name, tmp_path):
    shape = (32, 32, 3)
    record = {"architecture": name, "n_classes": 8, "image_shape": list(shape)}
    save_backbone(make_network(name, shape, 8), tmp_path / "a.safetensors", record)
    loaded = load_backbone(tmp_path / "a.safetensors")
    network = transfer_network(loaded, 2, image_shape=shape)
    alone = transfer_network(make_network(name, shape, 8), 2)
    assert len(list(network.parameters())) == len(list(alone.parameters()))
    assert len(keras_layers(network.backbone)) == len(keras_layers(alone.backbone))
    x = torch.rand(2, 3, 32, 32)
    save_backbone(network.backbone, tmp_path / "b.safetensors")
    for other in (network.backbone, load_backbone(tmp_path / "b.safetensors")):
        torch.testing.assert_close(other(x), loaded(x))
    assert loaded.record is not None, "a copy lost its head"


class Wrapped(nn.Module):
    """No backbone of ours: it uses the head of what it holds."""

    def __init__(self):
        super().__init__()
        self.network = make_network("simple-cnn", (8, 8), 7)

    def forward(self, x):
        return self.network(x)


def test_a_head_that_is_used_stays():
    base = Wrapped().eval()
    network = transfer_network(base, 10, image_shape=(8, 8)).eval()
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.features(x), base(x))


class TorchvisionLike(nn.Module):
    """As torchvision's Swin and timm's VGG: maps in `features`, a head, no `n_features`."""

    def __init__(self):
        super().__init__()
        self.features = backbone()
        self.head = nn.Identity()

    def forward(self, x):
        return self.head(self.features(x).mean(dim=(2, 3)))


def test_features_and_a_head_alone_are_no_network_of_ours():
    base = TorchvisionLike().eval()
    network = transfer_network(base, 10, image_shape=(8, 8)).eval()
    assert network.n_features == 6
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(network.features(x), base(x))
    with pytest.raises(ValueError, match=r"n_features \(or image_shape, to find it\) is needed"):
        transfer_network(base, 10)


def test_top_layers_are_counted_as_keras_does():
    base = make_network("vgg16", (32, 32, 3), 2).base
    assert len(keras_layers(base)) == 18
    freeze(base)
    unfreeze_top(base, 4)
    moving = [name for name, p in base.named_parameters() if p.requires_grad]
    assert moving == [f"{n}.{kind}" for n in (24, 26, 28) for kind in ("weight", "bias")]
    blocks = make_network("resnet25", (32, 32), 2).blocks
    freeze(blocks)
    unfreeze_top(blocks, 1)
    moving = {name.split(".")[0] for name, p in blocks.named_parameters() if p.requires_grad}
    assert moving == {"11"}


def test_vgg16_under_a_new_head_moves_its_last_three_convolutions():
    """B.1's four topmost layers are the base's, not the mean over pixels and flattening."""
    network = transfer_network(make_network("vgg16", (32, 32, 3), 8), 2)
    unfreeze_top(network.backbone, 4)
    moving = [n for n, p in network.backbone.named_parameters() if p.requires_grad]
    assert moving == [
        f"network.base.{n}.{kind}" for n in (24, 26, 28) for kind in ("weight", "bias")
    ]


def test_frozen_parts_are_in_evaluation_mode():
    base = backbone()
    network = transfer_network(base, 10, 6)
    network.train()
    hold_frozen(network)
    assert not network.backbone.training
    assert network.head.training
    assert network.dropout.training
    unfreeze_top(network.backbone, 2)
    network.train()
    hold_frozen(network)
    modes = {type(m).__name__ + str(i): m.training for i, m in enumerate(network.backbone)}
    assert modes["BatchNorm2d1"] is False
    assert modes["BatchNorm2d5"] is True


def test_two_steps_move_what_they_should(tmp_path):
    network = transfer_network(backbone(), 10, 6)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    head = TrainingSettings(2, batch_size=50, optimizer="rmsprop", learning_rate=1e-2)
    fine = TrainingSettings(2, batch_size=50, optimizer="rmsprop", learning_rate=1e-3)
    epochs = []

    def run(model):
        return train_transfer(
            model, IMAGES[:150], LABELS[:150], head, fine, n_top=2, device="cpu", folder=tmp_path,
            validation=(IMAGES[150:], LABELS[150:]),
            after_epoch=lambda epoch, metrics: epochs.append((epoch, metrics["epoch"])),
        )  # fmt: skip

    result = run(network)
    assert epochs == [(1, 1), (2, 2), (3, 3), (4, 4)]
    changed = {
        step: {k for k, v in found.last_state.items() if not torch.equal(v, start[k])}
        for step, found, start in (
            ("head", result.head, before),
            ("fine", result.fine, result.head.best_state),
        )
    }
    assert changed["head"] == {"head.weight", "head.bias"}
    moving = {"backbone.4.weight", "backbone.4.bias"} | {
        f"backbone.5.{n}"
        for n in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert changed["fine"] == changed["head"] | moving
    again = run(transfer_network(backbone(), 10, 6))
    assert len(epochs) == 4  # both steps were read from the folder
    assert_same_state(again.fine.best_state, result.fine.best_state)


def test_defaults_are_the_papers(monkeypatch):
    asked = []

    class EnoughError(Exception):
        pass

    def spy(model, images, labels, settings, **options):
        asked.append((settings, [n for n, p in model.named_parameters() if p.requires_grad]))
        if len(asked) == 2:
            raise EnoughError
        from rankwise.nets import TrainingResult

        return TrainingResult([{"epoch": 1}], 1, model.state_dict(), model.state_dict(), 1, 0.0)

    monkeypatch.setattr("rankwise.nets.transfer.train_network", spy)
    with pytest.raises(EnoughError):
        train_transfer(transfer_network(backbone(), 10, 6), IMAGES, LABELS)
    (head, first), (fine, second) = asked
    assert (head.epochs, head.optimizer) == (50, "rmsprop")
    assert (fine.optimizer, fine.learning_rate) == ("rmsprop", 1e-5)
    assert first == ["head.weight", "head.bias"]
    # The last four as Keras counts: batch norm, convolution, pooling, batch norm.
    assert [n for n in second if n.startswith("backbone")] == [
        "backbone.1.weight",
        "backbone.1.bias",
        "backbone.4.weight",
        "backbone.4.bias",
        "backbone.5.weight",
        "backbone.5.bias",
    ]


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    asked = []

    class EnoughError(Exception):
        pass

    def spy(*arguments, folder, **options):
        asked.append(folder)
        raise EnoughError

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("rankwise.nets.transfer.train_network", spy)
    with pytest.raises(EnoughError):
        train_transfer(transfer_network(backbone(), 10, 6), IMAGES, LABELS, folder="~/run")
    assert asked == [tmp_path / "run" / "head"]


def test_messages():
    with pytest.raises(ValueError, match=r"n_features \(or image_shape, to find it\) is needed"):
        transfer_network(backbone(), 10)
    with pytest.raises(
        ValueError, match=r"must give features \(n, d\) or maps .*; it gives \(1, 8"
    ):
        transfer_network(nn.Flatten(1, 2), 10, image_shape=(8, 9))
    with pytest.raises(ValueError, match="n_layers must be between 1 and 5; got 6"):
        unfreeze_top(backbone(), 6)
    pool_last = nn.Sequential(nn.Conv2d(1, 1, 1), nn.MaxPool2d(2))
    with pytest.raises(ValueError, match="the last 1 layers have no parameters; unfreeze more"):
        unfreeze_top(pool_last, 1)
    frozen = Tiny()
    freeze(frozen)
    with pytest.raises(ValueError, match="all of them are frozen"):
        train_network(frozen, IMAGES, LABELS, TrainingSettings(1), device="cpu")
