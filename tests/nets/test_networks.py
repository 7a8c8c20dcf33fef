"""The paper's three networks: parameters, depth, shapes, weights from files."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rankwise.errors import ModelFileError
from rankwise.nets import NETWORKS, make_network, summary
from rankwise.nets.vgg16 import DEVIATION, MEAN, VGG16
from rankwise.nets.weights import read_weights


@pytest.fixture(scope="module")
def vgg():
    return make_network("vgg16", (32, 32, 3), 5)


def test_simple_cnn_is_that_of_table_5():
    found = summary(make_network("simple-cnn", (28, 28, 1), 10), (28, 28, 1))
    # 3·3·1·32 + 32, 3·3·32·64 + 64, 3·3·64·128 + 128, 3·3·128·10 + 10
    assert found.parameters == found.trainable == 320 + 18_496 + 73_856 + 11_530
    assert round(found.parameters, -5) == 100_000
    assert found.depth_without_dropout == 9
    assert found.depth == 10


def test_resnet25_is_that_of_table_5():
    network = make_network("resnet25", (100, 100, 3), 2)
    found = summary(network, (100, 100, 3), augmented=True)
    assert round(found.parameters, -6) == 5_000_000
    assert found.depth == 25
    on_main_path = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    assert len([n for n in on_main_path if "shortcut" not in n]) == 25
    blocks = [row for row in found.layers if row.kind == "ResidualBlock"]
    assert [row.output_shape[0] for row in blocks] == [64] * 4 + [128] * 5 + [256] * 3
    assert all(
        m.bias is None for m in network.blocks.modules() if isinstance(m, nn.Conv2d)
    )  # paper A.2


def test_vgg16_has_the_published_size(vgg):
    # Simonyan & Zisserman, table 2: 138 million; the convolutional base is 14,714,688.
    assert sum(p.numel() for p in vgg.base.parameters()) == 14_714_688
    with torch.device("meta"):
        whole = VGG16((224, 224, 3), 1000, top=True)
    assert sum(p.numel() for p in whole.parameters()) == 138_357_544
    assert whole.n_features == 4096


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("simple-cnn", (28, 28)),
        ("simple-cnn", (8, 8)),
        ("simple-cnn", (18, 20, 3)),
        ("simple-cnn", (17, 5, 2)),
        ("resnet25", (8, 8)),
        ("resnet25", (33, 40, 3)),
        ("vgg16", (32, 32)),
        ("vgg16", (40, 32, 3)),
    ],
)
def test_shapes_and_the_head_of_the_features(name, shape):
    network = make_network(name, shape, 3).eval()
    channels = shape[2] if len(shape) == 3 else 1
    x = torch.rand(2, channels, *shape[:2], generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        features, logits = network.features(x), network(x)
        assert features.shape == (2, network.n_features)
        torch.testing.assert_close(logits, network.head(features))
    assert logits.shape == (2, 3)
    assert logits.dtype == torch.float32


def test_dropout_stands_before_the_head_only():
    network = make_network("simple-cnn", (8, 8), 3, dropout=0.9).train()
    x = torch.ones(1, 1, 8, 8)
    assert torch.equal(network.features(x), network.features(x))
    assert not torch.equal(network(x), network(x))
    still = make_network("simple-cnn", (8, 8), 3, dropout=0.0).train()
    assert torch.equal(still(x), still(x))


def test_weights_follow_the_seed_and_nothing_else():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one = make_network("simple-cnn", (8, 8), 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    again = make_network("simple-cnn", (8, 8), 3)
    other = make_network("simple-cnn", (8, 8), 3, seed=43)
    assert torch.equal(one.head.weight, again.head.weight)
    assert not torch.equal(one.head.weight, other.head.weight)


def test_vgg_takes_grey_and_normalises_as_imagenet(vgg):
    seen = {}
    handle = vgg.base.register_forward_pre_hook(lambda _, x: seen.update(x=x[0]))
    try:
        vgg.eval()
        vgg.features(torch.full((1, 1, 32, 32), -1.0))
    finally:
        handle.remove()
    expected = -np.array(MEAN) / np.array(DEVIATION)
    assert seen["x"].shape == (1, 3, 32, 32)
    np.testing.assert_allclose(seen["x"][0, :, 4, 7].numpy(), expected, rtol=1e-6)


def torchvision_names(network):
    return {n.replace("base.", "features."): v.clone() for n, v in network.state_dict().items()}


def test_vgg_weights_come_from_a_local_file(vgg, tmp_path):
    path = tmp_path / "vgg.safetensors"
    save_file(torchvision_names(vgg), path)
    other = make_network("vgg16", (64, 64, 3), 2, weights=path, seed=1)
    for name, value in other.base.state_dict().items():
        assert torch.equal(value, vgg.base.state_dict()[name])
    # The head is a new one: another number of classes.
    assert other.head.weight.shape == (2, 512)


def test_whole_vgg_takes_timms_names_too():
    whole = VGG16.__new__(VGG16)
    nn.Module.__init__(whole)
    # The real one has 138 M parameters; its names and shapes do, in small.
    whole.base = nn.Sequential(nn.Conv2d(3, 4, 3))
    layers = [nn.Linear(12, 6), nn.ReLU(), nn.Dropout(), nn.Linear(6, 6), nn.ReLU()]
    whole.classifier = nn.Sequential(*layers, nn.Dropout(), nn.Linear(6, 2))
    whole.top = True
    state = {
        "features.0.weight": torch.rand(4, 3, 3, 3),
        "features.0.bias": torch.rand(4),
        "pre_logits.fc1.weight": torch.rand(6, 3, 2, 2),
        "pre_logits.fc1.bias": torch.rand(6),
        "pre_logits.fc2.weight": torch.rand(6, 6, 1, 1),
        "pre_logits.fc2.bias": torch.rand(6),
        "head.fc.weight": torch.rand(1000, 6),
        "head.fc.bias": torch.rand(1000),
    }
    head = whole.head.weight.clone()
    whole.load_torchvision(state)
    assert torch.equal(whole.classifier[0].weight, state["pre_logits.fc1.weight"].flatten(1))
    assert torch.equal(whole.classifier[3].bias, state["pre_logits.fc2.bias"])
    assert torch.equal(whole.head.weight, head)


def test_foreign_and_damaged_weights_are_refused(vgg, tmp_path):
    foreign = tmp_path / "foreign.safetensors"
    save_file({"layer1.weight": torch.zeros(2)}, foreign)
    with pytest.raises(ModelFileError, match=r"has no tensor 'features\.0\.weight'.*torchvision"):
        make_network("vgg16", (32, 32, 3), 2, weights=foreign)
    state = torchvision_names(vgg)
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    with pytest.raises(ModelFileError, match=r"shape \(64, 1, 3, 3\), VGG16 needs \(64, 3, 3, 3\)"):
        vgg.load_torchvision(state)
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(foreign.read_bytes()[:-3])
    with pytest.raises(ModelFileError, match=r"damaged\.safetensors can't be read"):
        read_weights(damaged)
    with pytest.raises(ModelFileError, match=r"is no file; weights are a local"):
        read_weights(tmp_path / "absent.safetensors")
    with pytest.raises(ModelFileError, match="is no file"):
        read_weights(tmp_path)


def test_a_hub_out_of_reach_is_asked_once(monkeypatch, tmp_path):
    """The hub's own download would ask six times, and print five of them."""
    import huggingface_hub

    plain, asked = huggingface_hub.hf_hub_download, []

    def unreachable(url):
        asked.append(url)
        raise ConnectionError("no route to it\nand more")

    def only_cached(name, file, local_files_only=False):
        assert local_files_only
        return plain(name, file, local_files_only=True)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", unreachable)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", only_cached)
    with pytest.raises(ModelFileError) as caught:
        read_weights("someone/vgg16")
    assert str(caught.value) == (
        "someone/vgg16 has no model.safetensors in the hub's cache and it can't be downloaded (no "
        "route to it); a local .safetensors file works as well"
    )
    assert [url.rpartition("/")[2] for url in asked] == ["model.safetensors"]


def test_a_hub_that_answers_is_left_to_the_download(monkeypatch, tmp_path):
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.ones(2)}, path)

    class BusyError(HfHubHTTPError):
        def __init__(self):
            pass

    def busy(url):
        raise BusyError

    def download(name, file, local_files_only=False):
        if local_files_only:
            raise LocalEntryNotFoundError("not cached")
        return str(path)

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", busy)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert read_weights("someone/vgg16")["weight"].tolist() == [1, 1]


def test_hub_id_offline_is_one_sentence(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelFileError, match=r"someone/vgg16 has no model\.safetensors in the hub"):
        read_weights("someone/vgg16")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lenet", (28, 28), 10), r"unknown network 'lenet'; there are simple-cnn, resnet25, vgg"),
        (("simple-cnn", (28, 28), 1), "n_classes must be 2 or more; got 1"),
        (("simple-cnn", (28,), 10), r"image_shape must be \(height, width\) or .*; got \(28,\)"),
        (("simple-cnn", (3, 28), 10), r"simple-cnn needs images of 4 × 4 pixels or more"),
        (("vgg16", (31, 40, 3), 10), r"vgg16 needs grey or RGB images of 32 × 32 .* 31 × 40 × 3"),
        (("vgg16", (40, 40, 4), 10), r"got 40 × 40 × 4"),
    ],
)
def test_wrong_networks_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_network(*arguments)


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match=r"dropout must be in \[0, 1\); got 1"):
        make_network("simple-cnn", (28, 28), 10, dropout=1)
    with pytest.raises(ValueError, match="pre-trained weights are for vgg16 only; resnet25"):
        make_network("resnet25", (28, 28), 10, weights="timm/resnet18")


@pytest.mark.parametrize("name", NETWORKS)
def test_summary_fits_a_terminal_and_leaves_the_network_alone(name):
    network = make_network(name, (32, 32, 3), 7).train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    found = summary(network, (32, 32, 3))
    text = str(found)
    assert max(map(len, text.splitlines())) <= 80
    assert f"{found.parameters:,}" in text
    assert f"depth {found.depth}" in text
    assert sum(row.parameters for row in found.layers) == found.parameters
    assert found.layers[-1].output_shape == (7,)
    assert all(module.training for module in network.modules())
    for key, value in network.state_dict().items():
        assert torch.equal(value, before[key])


def test_summary_tells_frozen_parameters():
    network = make_network("simple-cnn", (28, 28), 10)
    network.conv1.requires_grad_(False)
    found = summary(network, (28, 28))
    assert found.trainable == found.parameters - 320
