"""`VarProHead` on backbones, as a module, and in files."""

import json

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from rankwise import ImageSet, VarProHead
from rankwise.errors import DataError, ModelFileError
from rankwise.export import export_model
from rankwise.heads.backbones import SmallResNet, save_backbone
from rankwise.heads.features import extract_features
from rankwise.heads.head import load_head, solve_head


@pytest.fixture(scope="module")
def digits():
    return load_digits(return_X_y=True)


@pytest.fixture(scope="module")
def images():
    bunch = load_digits()
    pixels = (bunch.images[:400] * 255 / 16).astype(np.uint8)
    return ImageSet.from_arrays(pixels, bunch.target[:400], [f"d{i}" for i in range(10)])


@pytest.fixture(scope="module")
def backbone_file(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("backbone") / "b.safetensors"
    options = {"width": 8, "n_features": 40}
    record = {"architecture": "small-resnet", "n_classes": 4, "options": options}
    save_backbone(SmallResNet(4, **options), path, record)
    return path


def batch(images):
    return torch.as_tensor(images.images)[:, None].float() / 127.5 - 1


def test_the_module_and_the_estimator_give_the_same(images, backbone_file):
    head = VarProHead(backbone=backbone_file).fit(images)
    assert head.classes_[0] == "d0"
    assert head.image_shape_ == (8, 8)
    module = head.attach()
    assert isinstance(module[1], nn.Linear)
    with torch.no_grad():
        outputs = module(batch(images)).numpy()
        calibrated = head.attach(calibrated=True)(batch(images)).softmax(dim=1).numpy()
    np.testing.assert_allclose(outputs, head.outputs(images), atol=2e-4)
    np.testing.assert_allclose(calibrated, head.predict_proba(images.images), atol=2e-3)
    linear = head.to_linear()
    assert (linear.in_features, linear.out_features) == (40, 10)
    assert head.score(images.images, np.array(images.class_names)[images.labels]) > 0.6


def test_any_module_is_a_backbone(images):
    flat = nn.Flatten()
    y = images.labels
    head = VarProHead(1.0, backbone=flat).fit(images.images, y)
    pixels = images.images.reshape(400, 64) / 127.5 - 1
    np.testing.assert_allclose(
        head.outputs(images.images), VarProHead(1.0).fit(pixels, y).outputs(pixels), atol=1e-5
    )
    loader = DataLoader(TensorDataset(batch(images), torch.as_tensor(y)), batch_size=50)
    streamed = VarProHead(1.0, backbone=flat).fit(loader)
    np.testing.assert_allclose(
        streamed.outputs(images.images), head.outputs(images.images), atol=1e-6
    )
    np.testing.assert_allclose(streamed.outputs(loader), head.outputs(images.images), atol=1e-6)
    on_torch = VarProHead(1.0, backbone=flat, device="cpu:torch")
    for given in ((loader,), (images.images, y)):
        found = on_torch.fit(*given).outputs(images.images)
        np.testing.assert_allclose(found, head.outputs(images.images), atol=1e-6)
    with pytest.raises(DataError, match="fitted on"):
        head.predict(images.images[:, :4])


def test_a_new_fit_knows_nothing_of_the_one_before(images):
    pandas = pytest.importorskip("pandas")
    x, y = images.images.reshape(400, 64) / 255, images.labels
    head = VarProHead(1.0).fit(pandas.DataFrame(x, columns=[f"p{i}" for i in range(64)]), y)
    head.fit([(x[:, :40], y)])
    assert not hasattr(head, "feature_names_in_")
    head.predict(x[:, :40])
    pictures = VarProHead(1.0, backbone=nn.AdaptiveAvgPool2d(2)).fit(images.images, y)
    larger = np.repeat(images.images, 2, axis=1)
    pictures.fit([(larger, y)])
    assert not hasattr(pictures, "image_shape_")
    pictures.predict(larger)


@pytest.mark.parametrize("channels", [1, 3])
def test_floats_with_channels_first_are_the_same_images(images, channels, tmp_path):
    pixels, y = images.images, images.labels
    if channels == 3:
        pixels = np.stack([pixels, pixels[:, ::-1], 255 - pixels], axis=-1)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(channels, 6, 3), nn.ReLU())
    floats = pixels[:, None] if channels == 1 else np.moveaxis(pixels, -1, 1)
    floats = floats.astype(np.float32) / np.float32(127.5) - 1
    head, other = (VarProHead(1.0, backbone=network).fit(v, y) for v in (floats, pixels))
    assert head.image_shape_ == other.image_shape_ == pixels.shape[1:]
    for one in (head, other):
        np.testing.assert_allclose(one.outputs(floats), head.outputs(pixels), atol=1e-4)
    if channels == 1:
        np.testing.assert_array_equal(head.predict(pixels[..., None]), head.predict(pixels))
    pytest.importorskip("onnxruntime")
    test_images = ImageSet.from_arrays(pixels, y)
    for one in (head, VarProHead(1.0, backbone=nn.Sequential(network, nn.Tanh())).fit(floats, y)):
        report = export_model(one, "onnx", tmp_path / "m.onnx", images=test_images)
        assert report["max_abs_difference"] < 1e-3


def test_floats_of_another_scale_are_refused(images):
    pixels, y = images.images[:, None].astype(np.float32), images.labels
    message = r"images are in \[-1, 1\], got values up to 255 in size; x / 127.5 - 1 takes"
    for given in ((pixels, y), ([(pixels, y)],)):
        with pytest.raises(ValueError, match=message):
            VarProHead(1.0, backbone=nn.Flatten()).fit(*given)
    normalised = (pixels / 255 - 0.286) / 0.1  # as somebody's network may take them
    VarProHead(1.0, backbone=nn.Flatten()).fit(normalised, y)


def test_a_module_of_the_user_keeps_its_mode_and_gradients(images):
    network = SmallResNet(4, width=8, n_features=16).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    VarProHead(1.0, backbone=network).fit(images.images, images.labels)
    loader = DataLoader(TensorDataset(batch(images), torch.as_tensor(images.labels)), 50)
    VarProHead(1.0, backbone=network).fit(loader)
    assert all(m.training for m in network.modules())
    assert all(p.requires_grad for p in network.parameters())
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


@pytest.mark.parametrize("alpha", ["loo", 2.0])
def test_a_network_s_own_head_is_solved_in_place(images, alpha):
    torch.manual_seed(0)
    network = SmallResNet(11, width=8, n_features=40)
    head = solve_head(network, images.images, images.labels, alpha=alpha, device="cpu")
    network.eval()
    with torch.no_grad():
        p = network(batch(images).expand(-1, 3, -1, -1)).softmax(dim=1).numpy()
    features = extract_features(network, images.images, device="cpu")
    np.testing.assert_allclose(p[:, :10].argmax(1), head.predict(features))
    assert p[:, 10].max() < 0.05, "the eleventh class has no image"
    scaled = p[:, :10] / p[:, :10].sum(axis=1, keepdims=True)
    np.testing.assert_allclose(scaled, head.predict_proba(features), atol=2e-3)


def test_saved_and_loaded_is_the_same(images, backbone_file, tmp_path):
    head = VarProHead(backbone=backbone_file, class_weight={"d3": 2.0}).fit(images)
    head.save(tmp_path)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"model.json", "model.safetensors", "backbone.safetensors"}
    loaded = load_head(tmp_path)
    np.testing.assert_array_equal(loaded.outputs(images), head.outputs(images))
    np.testing.assert_array_equal(loaded.predict_proba(images), head.predict_proba(images))
    assert loaded.classes_.tolist() == head.classes_.tolist()
    assert (loaded.alpha_, loaded.chosen_by_) == (head.alpha_, "loo")
    assert loaded.image_shape_ == (8, 8)
    # Statistics travel with it: it can learn and unlearn on.
    assert loaded.unlearn(images.subset(range(100))).statistics_.n_samples == 300


def test_text_and_number_labels_survive_the_file(digits, tmp_path):
    x, y = digits
    for labels in (y, y.astype(str), y.astype(float)):
        VarProHead(1.0, alphas=None).fit(x, labels).save(tmp_path)
        assert VarProHead.load(tmp_path).predict(x).dtype == labels.dtype


def test_damaged_files_are_named(digits, tmp_path):
    x, y = digits
    with pytest.raises(ModelFileError, match=r"model\.json can't be read"):
        load_head(tmp_path)
    VarProHead(1.0).fit(x, y).save(tmp_path)
    path = tmp_path / "model.json"
    good = path.read_text(encoding="utf-8")

    def edited(**changes):
        path.write_text(json.dumps(json.loads(good) | changes), encoding="utf-8")

    for change, message in (
        ({"format": "other"}, "isn't a head of rankwise"),
        ({"format_version": 9}, "format version 9"),
        ({"solved": {}}, "is damaged: KeyError"),
        ({"weights_sha256": "0"}, "checksum"),
    ):
        edited(**change)
        with pytest.raises(ModelFileError, match=message):
            load_head(tmp_path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ModelFileError, match="isn't JSON"):
        load_head(tmp_path)
    path.write_text(good, encoding="utf-8")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelFileError, match=r"model\.safetensors can't be read"):
        load_head(tmp_path)


def test_a_backbone_that_changed_is_noticed(images, backbone_file, tmp_path):
    VarProHead(1.0, backbone=backbone_file).fit(images).save(tmp_path)
    options = {"width": 8, "n_features": 40}
    record = {"architecture": "small-resnet", "n_classes": 4, "options": options}
    torch.manual_seed(1)
    save_backbone(SmallResNet(4, **options), tmp_path / "backbone.safetensors", record)
    with pytest.raises(ModelFileError, match="have changed"):
        load_head(tmp_path)


def test_progress_is_shown_on_request(digits, capsys):
    VarProHead(verbose=1).fit(*digits)
    assert "statistics" in capsys.readouterr().err
