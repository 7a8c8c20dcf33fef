"""Networks of any make as backbones, files of other libraries, and how pixels are prepared."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backbone_cases import pictures
from rankwise.errors import ModelFileError
from rankwise.heads.backbones import (
    Backbone,
    backbone_record,
    load_backbone,
    save_backbone,
)
from rankwise.heads.features import extract_features, to_float_batch
from rankwise.heads.layer_graph import NotAGraphError, describe_layers
from rankwise.heads.onnx_layers import OnnxNodes, onnx_model, write_steps
from rankwise.heads.preparation import Preparation, resize_matrix
from rankwise.heads.runtime import runtime_of
from rankwise.nets import make_network


class Mixed(nn.Module):
    """Functions, methods, a weight by itself, a branch and a layer used twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.pad = nn.ZeroPad2d((0, 1, 0, 1))
        self.both = nn.Sequential(nn.Conv2d(6, 6, 1), nn.Hardswish())
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 6).view(6, 1, 1))
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        y = self.both(self.both(self.pad(x)))
        y = nn.functional.gelu(y * self.scale) + 0.25
        z = torch.cat([y.mean(dim=(2, 3)), torch.sigmoid(y).mean(dim=(2, 3))], dim=1)
        return nn.functional.silu(self.last(z)) * 2.0


def mixed():
    torch.manual_seed(3)
    return Mixed().eval()


NETWORKS = {
    "functions and branches": (mixed(), (12, 12, 3)),
    "a plain stack": (
        nn.Sequential(nn.Conv2d(1, 4, 3), nn.ELU(), nn.AvgPool2d(2), nn.Flatten()).eval(),
        (9, 9),
    ),
    "maps": (nn.Sequential(nn.Conv2d(3, 4, 3, groups=1), nn.ReLU6()).eval(), (10, 8, 3)),
    "resnet25": (make_network("resnet25", (32, 32, 3), 4).eval(), (32, 32, 3)),
    "vgg16, which slices itself": (make_network("vgg16", (32, 32, 3), 4).eval(), (32, 32, 3)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_any_graph_of_torch_s_layers_is_saved_and_runs_in_onnxruntime(name, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    network, shape = NETWORKS[name]
    backbone = (
        Backbone(network, name, size=16, crop=0.8) if shape[0] == 12 else Backbone(network, name)
    )
    images = pictures(6, shape)
    with torch.no_grad():
        expected = backbone(to_float_batch(images)).numpy()
    assert runtime_of(backbone, to_float_batch(images).shape[1:]) is not None
    found = extract_features(backbone, images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    monkeypatch.setenv("RANKWISE_ONNXRUNTIME", "0")
    near = {"rtol": 1e-4, "atol": 1e-5 * np.abs(expected).max()}  # maps lie otherwise in memory
    np.testing.assert_allclose(extract_features(backbone, images), expected, **near)
    save_backbone(backbone, tmp_path / "own.safetensors", {"trained_on": "nothing"})
    loaded = load_backbone(tmp_path / "own.safetensors")
    assert loaded.preparation == backbone.preparation
    np.testing.assert_allclose(extract_features(loaded, images), expected, **near)
    assert backbone_record(tmp_path / "own.safetensors")["trained_on"] == "nothing"


class ByValue(nn.Module):
    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


class InPlace(nn.Module):
    """What a layer, a function or a method changed is used again."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        y = x * 2
        return self.change(y) + y


class Unheard(nn.Module):
    def forward(self, x):
        return torch.fft.rfft2(x).abs().mean((2, 3))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (ByValue(), "ByValue can't be followed layer by layer: .* control flow"),
        (Unheard(), "it calls fft_rfft2, which has no place"),
        (
            nn.Sequential(nn.Conv2d(3, 2, 3), nn.Threshold(0.1, 0.0)),
            "layer 1 is a Threshold, which",
        ),
        (InPlace(nn.ReLU(inplace=True)), "change changes in place what add takes after it"),
        (InPlace(lambda y: nn.functional.relu(y, inplace=True)), "relu changes in place what add"),
        (InPlace(lambda y: y.relu_()), "relu_ changes in place what add"),
        (nn.Identity(), "Identity does nothing with its images"),
    ],
)
def test_what_is_no_such_graph_is_named_and_leaves_no_file(network, message, tmp_path):
    path = tmp_path / "own.safetensors"
    with pytest.raises(NotAGraphError, match=message):
        save_backbone(network, path)
    assert not list(tmp_path.iterdir())
    # Torch computes its features all the same.
    assert extract_features(network, pictures(2)).shape[0] == 2


class Called(nn.Module):
    """A convolution and what is called behind it."""

    def __init__(self, call):
        super().__init__()
        self.layer, self.call = nn.Conv2d(3, 4, 3), call

    def forward(self, x):
        return self.call(self.layer, x)


CALLS = {
    "a layer": lambda layer, x: torch.relu(layer(input=x)),
    "a function": lambda layer, x: torch.sigmoid(input=layer(x)),
    "tensors": lambda layer, x: torch.cat(tensors=[layer(x), layer(x)], dim=1),
    "axis": lambda layer, x: torch.cat([layer(x), layer(x).tanh()], axis=1),
    "keepdims": lambda layer, x: layer(x).mean(dim=(2, 3), keepdims=True).tanh(),
    "end": lambda layer, x: torch.flatten(layer(x), 1, end_dim=2).mean(dim=1),
    "an order": lambda layer, x: torch.permute(layer(x), dims=(0, 2, 3, 1)),
}


@pytest.mark.parametrize("name", CALLS)
def test_arguments_may_be_named(name, tmp_path):
    """What ONNX has not is computed by torch, and what is written runs."""
    torch.manual_seed(0)
    network, images = Called(CALLS[name]).eval(), pictures(3, (8, 8, 3))
    with torch.no_grad():
        expected = Backbone(network, name)(to_float_batch(images)).numpy()
    np.testing.assert_allclose(extract_features(network, images), expected, atol=1e-5)
    save_backbone(network, tmp_path / "own.safetensors")
    loaded = load_backbone(tmp_path / "own.safetensors")
    np.testing.assert_allclose(extract_features(loaded, images), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda layer, x: layer(x).permute(dims=(0, 2, 3, 1)), "it calls permute with its arg"),
        (lambda layer, x: layer(x).view(size=(-1, 144)), "it calls view with its argument's name"),
        (
            lambda layer, x: torch.relu_(input=x).mean() + layer(x),
            "relu_ changes in place what layer takes after it",
        ),
    ],
)
def test_names_of_arguments_that_no_description_has(call, message, tmp_path):
    with pytest.raises(NotAGraphError, match=message):
        save_backbone(Called(call), tmp_path / "own.safetensors")
    assert not list(tmp_path.iterdir())
    assert extract_features(Called(call), pictures(2, (8, 8, 3))).shape[0] == 2


class Reusing(nn.Module):
    """Weights of a layer used by themselves as well, before it and after."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        return self.layer(x * self.layer.weight.mean()) + torch.mean(self.layer.bias)


def test_a_layer_whose_weight_is_used_by_itself_is_written(tmp_path):
    network = Reusing()
    save_backbone(network, tmp_path / "own.safetensors")
    found = extract_features(load_backbone(tmp_path / "own.safetensors"), pictures(3))
    np.testing.assert_allclose(found, extract_features(network, pictures(3)), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "Module"}, "'Module', which isn't one of torch's own"),
        ({"layer": "__class__"}, "which isn't one of torch's own"),
        ({"inputs": [{"step": 5}]}, "which comes later"),
        ({"inputs": 3}, "no inputs or no options"),
        ({"inputs": []}, "step 0 is a layer of 0 inputs, not one"),
        ({"options": {"in_channels": 3}}, "missing 2 required"),
    ],
)
def test_damaged_descriptions_are_refused(change, message, tmp_path):
    save_backbone(nn.Sequential(nn.Conv2d(3, 2, 3)), tmp_path / "a.safetensors")
    record = backbone_record(tmp_path / "a.safetensors")
    record["steps"][0] |= change
    metadata = {"format": "rankwise-backbone", "record": json.dumps(record)}
    save_file({"0.weight": torch.zeros(2, 3, 3, 3)}, tmp_path / "b.safetensors", metadata)
    with pytest.raises(ModelFileError, match=message):
        load_backbone(tmp_path / "b.safetensors")


def test_functions_torchscript_and_onnx_files_are_backbones(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    source = (
        "import torch\nfrom torch import nn\n"
        "def make():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU())\n"
        "def fails():\n    raise OSError('no weights here')\n"
        "number = 3\n"
    )
    (tmp_path / "somebody_s_backbones.py").write_text(source, encoding="utf-8")
    choices = {"size": 12, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.2, 0.2), "crop": 0.9}
    own = load_backbone("somebody_s_backbones:make", **choices)
    assert own.name == own.reference == "somebody_s_backbones:make"
    images = pictures(5, (20, 20, 3))
    expected = extract_features(own, images)
    torch.jit.trace(own.network, torch.zeros(1, 3, 12, 12)).save("own.pt")
    nodes = OnnxNodes()
    last = write_steps(nodes, describe_layers(own.network), own.network, "x")
    info = onnx.helper.make_tensor_value_info
    model = onnx_model(nodes, [info("x", 1, ["n", 3, 12, 12])], [info(last, 1, ["n", 4, "h", "w"])])
    (tmp_path / "own.onnx").write_bytes(model.SerializeToString())
    for name in ("own.pt", "own.onnx"):
        loaded = load_backbone(name, **choices)
        np.testing.assert_allclose(extract_features(loaded, images), expected, atol=1e-5)
        kept = extract_features(loaded, images, cache=tmp_path / name[-4:])
        assert len(list((tmp_path / name[-4:]).iterdir())) == 1
        np.testing.assert_array_equal(
            extract_features(load_backbone(name, **choices), images, cache=tmp_path / name[-4:]),
            kept,
        )
    assert load_backbone("own.onnx").preparation == Preparation(channels=3, size=12)
    for name in ("bad.pt", "bad.onnx"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(ModelFileError, match=f"{name} can't be read as"):
            load_backbone(name)
    for name, message in (
        ("somebody_s_backbones:other", "has no function other"),
        ("somebody_s_backbones:number", "has no function number"),
        ("somebody_s_backbones:fails", r"fails\(\) fails: OSError: no weights here"),
        ("nowhere_at_all:make", "can't be imported: No module named 'nowhere_at_all'"),
    ):
        with pytest.raises(ValueError, match=message):
            load_backbone(name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": (0.5,)}, "give both or neither"),
        ({"mean": (0.5,), "std": (0.0,)}, "std must be above 0"),
        ({"mean": (0.5,), "std": (np.inf,)}, r"std must be above 0 and finite, got \(inf,\)"),
        ({"mean": (np.nan,), "std": (0.5,)}, r"mean must be finite, got \(nan,\)"),
        (
            {"channels": 3, "mean": (0.5, 0.5), "std": (0.5,)},
            r"mean has 2 value\(s\) for 3 channel\(s\); one for all of them or one for each is",
        ),
        ({"mean": (0.5,) * 3, "std": (0.5,) * 2}, r"std has 2 value\(s\) for 3 channel"),
        ({"mean": (), "std": ()}, r"mean has 0 value\(s\)"),
        ({"size": 0}, "size must be a whole number of pixels, at least 1, got 0"),
        ({"size": 16.5}, "size must be a whole number of pixels, at least 1, got 16.5"),
        ({"size": np.nan}, "size must be a whole number of pixels"),
        ({"crop": 1.5}, "crop is a share above 0, at most 1"),
        ({"power": 0.0}, "power is an exponent above 0, at most 1; got 0.0"),
    ],
)
def test_preparations_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**options)


def test_one_mean_is_for_all_channels_and_two_are_for_none_of_three():
    network, images = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh()), pictures(4, (8, 8, 3))
    found = [
        extract_features(Backbone(network, "b", mean=(0.4,) * n, std=(0.2,) * n), images)
        for n in (1, 3)
    ]
    np.testing.assert_array_equal(*found)
    with pytest.raises(ValueError, match=r"mean has 2 value\(s\) for 3 channel\(s\)"):
        extract_features(Backbone(network, "b", mean=(0.4,) * 2, std=(0.2,) * 2), images)


@pytest.mark.parametrize(("n", "size"), [(20, 33), (50, 20), (17, 17)])
def test_resizing_is_pillow_s_bicubic(n, size):
    from PIL import Image

    image = np.random.default_rng(n).random((n, n), dtype=np.float32)
    matrix = resize_matrix(n, size, 0.0, float(n))
    expected = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(matrix @ image @ matrix.T, expected, atol=1e-5)


def test_the_middle_of_an_oblong_image_is_taken():
    preparation = Preparation(size=8, crop=0.5)
    x = torch.zeros(1, 1, 16, 40)
    x[..., 4:12, 16:24] = 1.0
    np.testing.assert_allclose(preparation(x), np.ones((1, 1, 8, 8)), atol=1e-6)
