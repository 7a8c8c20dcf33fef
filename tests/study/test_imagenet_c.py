"""ImageNet-C: what is asked of its library, and, where it is there, the library itself."""

import sys
import types

import numpy as np
import pytest

from rankwise.errors import DataError, MissingDependencyError
from rankwise.study.cells import degraded_accuracies
from rankwise.study.degraded_sets import CORRUPTIONS, degraded_sets
from rankwise.study.imagenet_c import NAMES, check_images, corrupt
from rankwise.study.reading import study_from
from rankwise.study.tables import degraded
from study.made_results import make_results
from study.run_cases import MINIMAL

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)


@pytest.fixture
def library(monkeypatch):
    """One that adds noise of the severity, from numpy's global generator."""
    module = types.ModuleType("imagecorruptions")
    module.asked = []

    def change(image, corruption_name, severity):
        assert image.dtype == np.uint8
        assert image.shape[-1] == 3
        module.asked.append((corruption_name, severity))
        noise = np.random.normal(0, 20 * severity, image.shape)  # noqa: NPY002 - as it does
        return np.clip(image + noise, 0, 255).astype(np.uint8)

    module.corrupt = change
    monkeypatch.setitem(sys.modules, "imagecorruptions", module)
    return module


def test_each_image_has_its_own_draw_and_the_global_generator_is_left_alone(library):
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 - to be left alone
    whole = corrupt(IMAGES, "fog", 2)
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002 - as above
    assert whole.shape == IMAGES.shape
    np.testing.assert_array_equal(corrupt(IMAGES[1:2], "fog", 2)[0], whole[1])
    assert not np.array_equal(corrupt(IMAGES, "fog", 2, seed=7), whole)
    colour = np.repeat(IMAGES[..., None], 3, axis=-1)
    assert corrupt(colour, "snow", 1).shape == colour.shape
    assert corrupt(IMAGES[..., None], "snow", 1).shape == (3, 32, 32, 1)
    assert ("snow", 1) in library.asked


def test_what_is_no_corruption_and_too_small_an_image(library):
    with pytest.raises(ValueError, match=r"'svd', severity 1, is no corruption of ImageNet-C; acc"):
        corrupt(IMAGES, "svd", 1)
    with pytest.raises(ValueError, match=r"severity 6"):
        corrupt(IMAGES, "fog", 6)
    check_images((32, 40, 3))
    with pytest.raises(DataError, match=r"32 × 32 pixels at least, and these have 28 × 28; give"):
        check_images((28, 28))


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(
        MissingDependencyError, match=r"^corruptions = 'imagenet-c' needs a library"
    ):
        check_images((64, 64))


def test_sets_are_made_once_and_damaged_ones_again(library, tmp_path):
    found = list(degraded_sets("imagenet-c", IMAGES, tmp_path))
    assert [(name, s) for name, s, _ in found] == [(n, s) for n in NAMES for s in range(1, 6)]
    asked = len(library.asked)
    again = list(degraded_sets("imagenet-c", IMAGES, tmp_path))
    assert len(library.asked) == asked
    for (_, _, one), (_, _, other) in zip(found, again, strict=True):
        np.testing.assert_array_equal(one, other)
    (damaged,) = tmp_path.glob("degraded/fog-3-*.npy")
    damaged.write_bytes(b"nothing")
    fogs = [image for n, s, image in degraded_sets("imagenet-c", IMAGES, tmp_path) if n == "fog"]
    np.testing.assert_array_equal(fogs[2], corrupt(IMAGES, "fog", 3))


def test_our_own_are_kept_as_far_as_the_room_goes(tmp_path, monkeypatch):
    found = list(degraded_sets("own", IMAGES, tmp_path))
    assert len(list(tmp_path.glob("degraded/*.npy"))) == 25
    monkeypatch.setattr("rankwise.study.degraded_sets.degrade", None)  # nothing is made again
    again = list(degraded_sets("own", IMAGES, tmp_path))
    monkeypatch.undo()
    monkeypatch.setattr("rankwise.study.degraded_sets.MOST_BYTES", 25 * IMAGES.nbytes - 1)
    large = list(degraded_sets("own", IMAGES, tmp_path / "other"))
    assert not (tmp_path / "other").exists()
    for (name, severity, one), *others in zip(found, again, large, strict=True):
        for other_name, other_severity, other in others:
            assert (name, severity) == (other_name, other_severity)
            np.testing.assert_array_equal(one, other)


def test_a_cell_is_tested_on_them(library, tmp_path):
    labels = np.array([0, 1, 1])
    fitted = types.SimpleNamespace(
        logits=lambda images: np.stack([images.mean(axis=(1, 2)) < 128, np.ones(3)], axis=1)
    )
    found, right = degraded_accuracies(
        fitted, IMAGES, labels, 0.5, corruptions="imagenet-c", out=tmp_path
    )
    assert list(found) == ["clean", *NAMES]
    assert found["fog"] == [
        np.mean((fitted.logits(corrupt(IMAGES, "fog", s)).argmax(1)) == labels) for s in range(1, 6)
    ]
    assert right.mean() == pytest.approx(np.mean([found[name] for name in NAMES]))


def test_mce_is_the_mean_share_of_the_baseline_s_errors(tmp_path):
    from rankwise.study.report import render

    results = make_results(tmp_path, data_sets=("mnist",))
    results["study"]["corruptions"] = "imagenet-c"
    rng = np.random.default_rng(0)
    for cell in results["cells"]:
        cell["degraded"] = {"clean": 0.9} | {n: rng.uniform(0.3, 0.9, 5).tolist() for n in NAMES}
    (group,) = degraded(results)
    none, other, *_ = group["rows"]
    assert none["mce"] is None
    folds = [c for c in results["cells"] if c["stage"] == "fold"]
    errors = [
        [
            sum(5 - sum(c["degraded"][n]) for c in folds if c["condition"] == row["condition"])
            for n in NAMES
        ]
        for row in (other, none)
    ]
    assert other["mce"] == pytest.approx(np.mean(np.divide(*errors)))
    assert list(other["kinds"]) == list(NAMES)
    page = render(results, tmp_path)
    assert "the fifteen corruptions of ImageNet-C" in page
    assert "Elastic transform" in page
    assert f"{100 * other['mce']:.1f}" in page


@pytest.mark.parametrize(("size", "refused"), [(16, True), (32, False)])
def test_a_study_of_small_images_is_refused_before_it_runs(library, size, refused):
    from rankwise.study.conditions import conditions_of
    from rankwise.study.run import check, load_data

    data = {"digits": {"source": "digits", "limit": 80, "size": size}}
    design = study_from(MINIMAL | {"data": data, "corruptions": "imagenet-c"})
    conditions = conditions_of(design)
    data_sets = load_data(design, conditions)
    if not refused:
        check(design, conditions, data_sets)
        return
    with pytest.raises(DataError, match="and these have 16 × 16"):
        check(design, conditions, data_sets)


def test_the_library_itself_has_all_of_them():
    pytest.importorskip("imagecorruptions")
    assert CORRUPTIONS["imagenet-c"] == NAMES
    for name in NAMES:
        if name != "glass_blur":  # compiled at its first use, for seconds
            found = corrupt(IMAGES, name, 3)
            assert found.shape == IMAGES.shape
            assert not np.array_equal(found, IMAGES)
