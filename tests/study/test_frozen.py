"""A last layer on a backbone that stays as it is: features once an image, the same numbers."""

import numpy as np
import pytest
import torch
from torch import nn

from rankwise.study.frozen import BATCH, FeatureStore, digest_of
from study.run_cases import predictions, run, study, timeless

HEAD = {"transfer": True, "frozen_stage": "closed-form", "unfreeze": 0}


class Counting(nn.Module):
    """Means of quarters, and how many images were asked for."""

    seen = 0

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        type(self).seen += len(x)
        return self.scale * nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (BATCH + 9, 8, 8), dtype=np.uint8)


def test_features_are_those_of_the_network_and_computed_once(images, tmp_path):
    network = Counting().eval()
    Counting.seen = 0
    store = FeatureStore(network, tmp_path)
    found = store(images)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)[:, None].float() / 127.5 - 1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    Counting.seen = 0
    np.testing.assert_array_equal(store(images[::-1]), found[::-1])
    np.testing.assert_array_equal(FeatureStore(network, tmp_path)(images[5:20]), found[5:20])
    assert Counting.seen == 0
    # One image more is one batch more, filled up.
    other = images[:1] // 2
    both = FeatureStore(network, tmp_path)(np.concatenate([images[3:4], other]))
    assert Counting.seen == BATCH
    np.testing.assert_array_equal(both[0], found[3])


def test_another_network_has_features_of_its_own(images, tmp_path):
    network = Counting().eval()
    found = FeatureStore(network, tmp_path)(images)
    with torch.no_grad():
        network.scale.fill_(1.0)
    assert not np.allclose(FeatureStore(network, tmp_path)(images), found)


def test_damaged_features_are_computed_again(images, tmp_path):
    network = Counting().eval()
    found = FeatureStore(network, tmp_path)(images)
    for path in tmp_path.rglob("*.npy"):
        path.write_bytes(path.read_bytes()[:40])
    np.testing.assert_array_equal(FeatureStore(network, tmp_path)(images), found)
    np.testing.assert_array_equal(FeatureStore(network, None)(images), found)


def test_an_image_is_told_by_shape_and_pixels(images):
    assert digest_of(images[0]) == digest_of(images[0].copy())
    assert digest_of(images[0]) != digest_of(images[1])
    assert digest_of(images[0]) != digest_of(images[0].reshape(4, 16))


@pytest.mark.usefixtures("somebody")
def test_a_study_of_a_head_alone(tmp_path):
    """The same with kept features as without, in any order; arms of copies take part."""
    models = {"own": {"network": "somebody_s_own:make", "parameters": {"width": 8}, **HEAD}}
    data = {"digits": {"source": "digits", "limit": 150}}
    design = study(["none", "low-rank"], "sound", models=models, data=data, degraded="all")
    results = run(design, tmp_path / "out")
    assert [c["epochs"] for c in results["conditions"]] == [1, 1, 1]
    assert all(cell["n_updates"] == 1 for cell in results["cells"])
    folds = [c for c in results["cells"] if c["stage"] == "fold"]
    assert np.mean([c["test_accuracy"] for c in folds]) > 0.3
    assert list((tmp_path / "out/features").rglob("*.npy"))
    for path in (tmp_path / "out/cells").rglob("result.json"):
        path.unlink()
    again = run(design, tmp_path / "out")
    assert timeless(again["cells"]) == timeless(results["cells"])
    run(design, tmp_path / "other")
    assert predictions(tmp_path / "other") == predictions(tmp_path / "out")


@pytest.mark.usefixtures("somebody")
@pytest.mark.parametrize(
    ("more", "arms", "message"),
    [
        ({"frozen_stage": "epochs"}, ["none"], r"unfreeze = 0 trains the head alone, in one pass"),
        ({}, ["default"], r"arms.default works on batches of a training in epochs, which model"),
    ],
)
def test_what_a_head_alone_does_not_take(more, arms, message):
    from rankwise.study import StudyError

    models = {"own": {"network": "somebody_s_own:make", **HEAD, **more}}
    with pytest.raises(StudyError, match=message):
        study(arms, models=models)
