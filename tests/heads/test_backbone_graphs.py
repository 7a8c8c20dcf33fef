"""Backbones as graphs: what is computed, exported, or named as what has no counterpart."""

import numpy as np
import pytest
import torch
from torch import nn

from backbone_cases import pictures, small
from rankwise import ImageSet, VarProHead
from rankwise.heads.backbones import (
    Backbone,
)
from rankwise.heads.features import extract_features
from rankwise.nets import make_network
from rankwise.networks.graph import run
from rankwise.networks.probabilities import probabilities


def fitted(backbone, shape):
    images, labels = pictures(40, shape), np.arange(40) % 3
    images[labels == 1] //= 2
    return VarProHead(1.0, backbone=backbone).fit(images, labels), images


@pytest.mark.parametrize(
    ("backbone", "shape"),
    [
        (small(), (16, 16, 3)),
        (make_network("simple-cnn", (20, 20, 3), 4), (20, 20, 3)),
        (nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU()), (9, 9)),
        (nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 5), nn.Dropout()), (8, 8)),
    ],
)
def test_the_graph_computes_what_the_head_does(backbone, shape):
    head, images = fitted(backbone, shape)
    graph = head.as_graph()
    found = probabilities(run(graph, images), graph.output)
    np.testing.assert_allclose(found, head.predict_proba(images), atol=1e-3)
    assert graph.classes == ("0", "1", "2")


def test_grey_images_and_normalisation_in_the_graph():
    network = small()
    backbone = Backbone(network, "b", channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    head, images = fitted(backbone, (16, 16))
    graph = head.as_graph()
    found = probabilities(run(graph, images), graph.output)
    np.testing.assert_allclose(found, head.predict_proba(images), atol=1e-3)


@pytest.mark.parametrize("name", ["onnx", "c", "safetensors"])
def test_a_head_is_exported_like_any_model(name, tmp_path):
    pytest.importorskip("onnxruntime")
    from rankwise.export import FORMATS, export_model

    head, images = fitted(small(), (16, 16, 3))
    checked = ImageSet.from_arrays(images, np.arange(40) % 3)
    report = export_model(head, name, tmp_path / f"m{FORMATS[name]}", images=checked)
    assert report["max_abs_difference"] < 1e-3
    assert report["agreement"] == 1.0


def test_layers_without_counterpart_are_named():
    head, _ = fitted(nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Tanh()), (8, 8))
    with pytest.raises(ValueError, match="layer Tanh can't be exported"):
        head.as_graph()
    plain = VarProHead(1.0).fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="the head was fitted on features, not on images"):
        plain.as_graph()


class NormThatActs(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x).relu()


class DropoutThatDoubles(nn.Dropout):
    def forward(self, x):
        return 2 * x


class ReverseOrder(nn.Sequential):
    def forward(self, x):
        for part in reversed(self):
            x = part(x)
        return x


def hooked():
    layer = nn.Identity()
    layer.register_forward_hook(lambda module, given, out: 2 * out)
    return layer


OTHERS = {
    "NormThatActs": (lambda: NormThatActs(1), "can't be followed layer by layer"),
    "DropoutThatDoubles": (DropoutThatDoubles, None),
    "ReverseOrder": (lambda: ReverseOrder(nn.ReLU(), nn.Conv2d(1, 1, 1)), None),
    "Identity that has hooks": (hooked, "layer 0 has hooks"),
    "MaxPool2d": (lambda: nn.MaxPool2d(2, dilation=2), None),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(1, affine=False), None),
    "BatchNorm2d ": (
        lambda: nn.BatchNorm2d(1, track_running_stats=False),
        "a layer BatchNorm2d has no counterpart in ONNX here",
    ),
    "Softplus": (lambda: nn.Softplus(2), "a Softplus of another beta has no counterpart"),
    "Mish": (nn.Mish, "a layer Mish has no counterpart in ONNX here"),
    "PReLU": (nn.PReLU, "a layer PReLU has no counterpart in ONNX here"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_no_layer_is_written_as_another(name, tmp_path):
    """A graph has a few layers, each as torch has it; ONNX knows more, or says what it doesn't."""
    pytest.importorskip("onnxruntime")
    from rankwise.export import FORMATS, export_model

    make, in_onnx = OTHERS[name]
    network = nn.Sequential(make(), nn.Conv2d(1, 3, 3), nn.ReLU())
    head, images = fitted(network, (8, 8))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    for file_format in ("c", "html", "safetensors"):
        with pytest.raises(
            ValueError, match=f"a layer {name.strip()} can't be exported as a graph"
        ):
            export_model(head, file_format, tmp_path / f"m{FORMATS[file_format]}")
    assert not list(tmp_path.iterdir())
    if in_onnx is None:
        checked = ImageSet.from_arrays(images, np.arange(40) % 3)
        report = export_model(head, "onnx", tmp_path / "m.onnx", images=checked)
        assert report["max_abs_difference"] < 1e-3
    else:
        with pytest.raises(ValueError, match=in_onnx):
            export_model(head, "onnx", tmp_path / "m.onnx")
        assert not list(tmp_path.iterdir())
    assert network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_hooks_count_in_the_features():
    """What computes in place of torch doesn't know them, so it doesn't."""
    images = pictures(6, (8, 8))
    network = nn.Sequential(hooked(), nn.Flatten())
    once = extract_features(nn.Sequential(nn.Identity(), nn.Flatten()), images)
    np.testing.assert_allclose(extract_features(network, images), 2 * once, rtol=1e-6)
    whole = nn.Sequential(nn.Identity(), nn.Flatten())
    whole.register_forward_pre_hook(lambda module, given: (3 * given[0],))
    np.testing.assert_allclose(extract_features(whole, images), 3 * once, rtol=1e-6)
