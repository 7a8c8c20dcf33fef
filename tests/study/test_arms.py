"""Arms: which images are copied, what the copies are, what happens to batches."""

import json
import sys
import types

import albumentations
import numpy as np
import pytest
import torch

from rankwise.data import ImageSet, load_images
from rankwise.errors import MissingDependencyError
from rankwise.lowrank import NormalEnergy, RandomLowRank
from rankwise.study.arms import (
    batch_augmentation,
    check_arm,
    copied_rows,
    make_copies,
    to_batch,
    to_images,
    with_pipelines,
)
from rankwise.study.degrade import degrade
from rankwise.study.design import StudyError
from rankwise.study.design_parts import Arm
from rankwise.study.reading import study_from


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "all", limit=200)


@pytest.fixture
def functions(monkeypatch, tmp_path):
    """A module of somebody's own, and one that can't be imported."""
    (tmp_path / "halfdone.py").write_text("x = y\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    module = types.ModuleType("somebody")
    module.__dict__.update(
        negative=lambda batch: -batch,
        smaller=lambda batch: batch[:1],
        noisy=lambda images, random: images ^ random.integers(0, 2, images.shape, dtype=np.uint8),
        floats=lambda images, random: images / 255,
        cropped=lambda images, random: images[:, 1:],
        number=3,
        broken=lambda *given: given[9],
    )
    monkeypatch.setitem(sys.modules, "somebody", module)


def pipeline(*transforms):
    # Through JSON, as a study file has it.
    return json.loads(json.dumps(albumentations.to_dict(albumentations.Compose(transforms))))


def test_the_skip_threshold_is_the_share_without_a_copy(digits):
    for skip in (0.0, 0.3, 0.8, 1.0):
        rows = copied_rows(Arm(kind="duplicate", skip_threshold=skip), digits, 42)
        assert abs(len(rows) / 200 - (1 - skip)) < 0.1
        assert (np.diff(rows) > 0).all()
    assert len(copied_rows(Arm(kind="duplicate", skip_threshold=0), digits, 42)) == 200
    assert len(copied_rows(Arm(kind="duplicate", skip_threshold=1), digits, 42)) == 0
    assert len(copied_rows(Arm(kind="none"), digits, 42)) == 0


def test_all_kinds_copy_the_same_images(digits):
    kinds = ("low-rank", "duplicate", "jpeg", "downscale", "blur", "default+low-rank")
    rows = [make_copies(Arm(kind=kind), digits, 42)[0] for kind in kinds]
    assert len(rows[0]) > 20
    for other in rows[1:]:
        assert np.array_equal(other, rows[0])
    assert np.array_equal(copied_rows(Arm(kind="matched"), digits, 42), rows[0])
    assert not np.array_equal(make_copies(Arm(kind="duplicate"), digits, 43)[0], rows[0])


def test_low_rank_copies_are_the_transform_s_own(digits):
    arm = Arm(kind="low-rank", energy=0.8, energy_std=0.1, skip_threshold=0.5)
    rows, copies = make_copies(arm, digits, 7)
    transform = RandomLowRank(NormalEnergy(0.8, 0.1), p=0.5, seed=7, channel_axis=None)
    for row, copy in zip(rows[:10], copies[:10], strict=True):
        expected = transform(digits.images[row], source_id=digits.source_ids[row], epoch=0)
        assert np.array_equal(copy, expected)
    assert (copies != digits.images[rows]).any()


def test_a_copy_depends_on_its_image_alone(digits):
    arm = Arm(kind="low-rank", energy=0.8, skip_threshold=0.5)
    rows, copies = make_copies(arm, digits, 7)
    some = digits.subset(np.arange(100, 200)[::-1])
    fewer, again = make_copies(arm, some, 7)
    by_row = dict(zip(rows.tolist(), copies, strict=True))
    assert sorted(199 - fewer) == [row for row in rows if row >= 100]
    for row, copy in zip((199 - fewer).tolist(), again, strict=True):
        assert np.array_equal(copy, by_row[row])


def test_duplicates_are_equal_and_degraded_copies_are_degraded(digits):
    rows, copies = make_copies(Arm(kind="duplicate"), digits, 42)
    assert np.array_equal(copies, digits.images[rows])
    for kind in ("jpeg", "downscale", "blur"):
        for severity in (1, 5):
            arm = Arm(kind=f"default+{kind}", severity=severity)
            rows, copies = make_copies(arm, digits, 42)
            assert np.array_equal(copies, degrade(digits.images[rows], kind, severity))


def test_batches_keep_their_pixels():
    images = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 3), dtype=np.uint8)
    assert to_batch(images).shape == (3, 3, 5, 4)
    assert float(to_batch(images).abs().max()) <= 1
    assert np.array_equal(to_images(to_batch(images)), images)
    assert np.array_equal(to_images(to_batch(images[..., 0])), images[..., 0])


def test_arms_without_a_change_of_batches():
    for kind in ("none", "low-rank", "duplicate", "matched"):
        assert batch_augmentation(Arm(kind=kind)) is None


@pytest.mark.parametrize("kind", ["default", "default+low-rank"])
def test_the_default_augmentation_changes_batches(kind):
    augment = batch_augmentation(Arm(kind=kind))
    batch = torch.rand(4, 1, 12, 12) * 2 - 1
    changed = augment(batch)
    assert changed.shape == batch.shape
    assert not torch.equal(changed, batch)


def test_an_albumentations_pipeline_on_batches():
    arm = Arm(kind="albumentations", pipeline=pipeline(albumentations.HorizontalFlip(p=1)))
    batch = to_batch(np.random.default_rng(0).integers(0, 256, (4, 6, 6), dtype=np.uint8))
    assert torch.allclose(batch_augmentation(arm)(batch), batch.flip(-1), atol=1e-6)
    arm = Arm(kind="albumentations", pipeline=pipeline(albumentations.HorizontalFlip(p=0.5)))
    augment = batch_augmentation(arm)
    many = batch.repeat(8, 1, 1, 1)
    torch.manual_seed(5)
    first, second = augment(many), augment(many)
    torch.manual_seed(5)
    # PyTorch's generator decides, which a resumed training has in its old state.
    assert torch.equal(augment(many), first)
    assert not torch.equal(first, second)


def test_an_albumentations_pipeline_as_copies_and_with_our_own_transform(digits):
    from rankwise.lowrank.adapters.albumentations import RandomLowRank as OurTransform

    arm = Arm(
        kind="albumentations",
        use="copies",
        skip_threshold=0.5,
        pipeline=pipeline(OurTransform(energy=0.5, p=1)),
    )
    rows, copies = make_copies(arm, digits, 42)
    assert batch_augmentation(arm) is None
    expected = RandomLowRank(0.5, p=1)(digits.images[rows[0]])
    assert np.array_equal(copies[0], expected)
    assert np.array_equal(make_copies(arm, digits, 42)[1], copies)


def test_a_pipeline_in_a_file_becomes_part_of_the_study(tmp_path):
    path = tmp_path / "flip.json"
    albumentations.save(albumentations.Compose([albumentations.HorizontalFlip(p=1)]), path)
    study = study_from(
        {
            "data": {"d": {"source": "digits"}},
            "models": ["simple-cnn"],
            "arms": {"flip": {"kind": "albumentations", "pipeline": str(path)}},
        }
    )
    kept = with_pipelines(study).arms["flip"].pipeline
    assert kept == json.loads(path.read_text())
    check_arm(with_pipelines(study).arms["flip"], (8, 8))
    path.write_text("[]")
    with pytest.raises(StudyError, match=r"flip\.json holds no object; A\.save writes one"):
        with_pipelines(study)
    path.unlink()
    with pytest.raises(StudyError, match=r"a JSON file that A\.save wrote is accepted"):
        with_pipelines(study)


@pytest.mark.usefixtures("functions")
def test_a_function_of_somebody_s_own(digits):
    batch = torch.rand(3, 1, 8, 8)
    arm = Arm(kind="callable", function="somebody:negative")
    assert torch.equal(batch_augmentation(arm)(batch), -batch)
    arm = Arm(kind="callable", function="somebody:noisy", use="copies", skip_threshold=0.5)
    rows, copies = make_copies(arm, digits, 3)
    assert np.abs(copies.astype(int) - digits.images[rows]).max() == 1
    assert np.array_equal(make_copies(arm, digits, 3)[1], copies)


@pytest.mark.usefixtures("functions")
@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"function": "nobody.here:x"}, "nobody.here:x can't be imported: No module named"),
        ({"function": "halfdone:x"}, "halfdone:x can't be imported: NameError: name 'y' is not"),
        ({"function": "xml:nobody"}, r"the module xml has no nobody \(.*__init__.py\)"),
        ({"function": "somebody:x"}, "somebody:x: the module somebody has no x"),
        ({"function": "somebody:number"}, "somebody:number isn't callable"),
        ({"function": "somebody:smaller"}, r"made \(1, 1, 8, 8\) of a batch of shape \(2, 1, 8, 8"),
        (
            {"function": "somebody:broken"},
            r"take images of shape \(8, 8\): IndexError: tuple index",
        ),
        ({"function": "somebody:broken", "use": "copies"}, "somebody:broken can't take images of"),
        ({"function": "somebody:floats", "use": "copies"}, "images of type float64; uint8 is"),
        ({"function": "somebody:cropped", "use": "copies"}, "it must keep number and shape"),
        ({"pipeline": {"transform": 3}}, "isn't what albumentations.to_dict gives"),
    ],
)
def test_an_arm_that_cannot_be_used_is_refused_early(arm, message):
    kind = "albumentations" if "pipeline" in arm else "callable"
    with pytest.raises(StudyError, match=message):
        check_arm(Arm(kind=kind, **arm), (8, 8))


def test_a_pipeline_that_crops_is_refused():
    arm = Arm(
        kind="albumentations", pipeline=pipeline(albumentations.CenterCrop(height=4, width=4))
    )
    with pytest.raises(StudyError, match=r"into 2 of \[\(4, 4\)\]; it must keep number and shape"):
        check_arm(arm, (8, 8))


def test_albumentations_must_be_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "rankwise.lowrank.adapters.albumentations", None)
    monkeypatch.delitem(sys.modules, "rankwise.lowrank.adapters.albumentations")
    monkeypatch.setitem(sys.modules, "albumentations", None)
    monkeypatch.setitem(sys.modules, "albumentations.core.transforms_interface", None)
    arm = Arm(kind="albumentations", pipeline={})
    with pytest.raises(MissingDependencyError, match=r"pip install 'rankwise\[albumentations\]'"):
        check_arm(arm, (8, 8))


def test_colour_images_are_copied_in_colour():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    colour = ImageSet.from_arrays(images, np.arange(20) % 2)
    for kind in ("low-rank", "jpeg"):
        rows, copies = make_copies(Arm(kind=kind, skip_threshold=0), colour, 0)
        assert copies.shape == images[rows].shape
