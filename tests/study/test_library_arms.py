"""Augmentations of other libraries by name; torchvision by a module of its shape."""

import sys
import types

import numpy as np
import pytest
import torch

from rankwise.data import load_images
from rankwise.errors import MissingDependencyError
from rankwise.study import StudyError, conditions_of
from rankwise.study.arms import batch_augmentation, check_arm, make_copies
from rankwise.study.design_parts import Arm
from study.run_cases import run, study

pytestmark = pytest.mark.usefixtures("somebody")


class Flip:
    """As torchvision's: of one uint8 image (C, H, W)."""

    def __init__(self, p=0.5):
        self.p = p

    def __call__(self, image):
        assert image.dtype == torch.uint8
        assert image.ndim == 3
        return image.flip(-1) if torch.rand(()) < self.p else image


class Scaled:
    """As torchvision's ToDtype: floats of a uint8 image."""

    def __call__(self, image):
        return image.float() / 255


@pytest.fixture
def torchvision(monkeypatch):
    module = types.ModuleType("torchvision")
    module.__version__ = "9.9"
    for name in ("torchvision.transforms", "torchvision.transforms.v2"):
        part = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, part)
    part.RandomHorizontalFlip = Flip
    monkeypatch.setitem(sys.modules, "torchvision", module)


FLIPS = {
    "albumentations": "albumentations:HorizontalFlip",
    "kornia": "kornia:RandomHorizontalFlip",
    "torchvision": "torchvision:RandomHorizontalFlip",
}


@pytest.mark.parametrize("library", FLIPS)
@pytest.mark.parametrize("colour", [False, True])
def test_a_flip_is_a_flip_on_copies_and_on_batches(library, colour, torchvision):
    if library == "albumentations":
        pytest.importorskip("albumentations")
    arm = Arm(kind=FLIPS[library], parameters={"p": 1.0}, use="copies", skip_threshold=0.0)
    images = load_images("digits", limit=30, seed=1)
    pixels = np.repeat(images.images[..., None], 3, axis=-1) if colour else images.images
    pixels = pixels.copy()
    from rankwise.data import ImageSet

    small = ImageSet.from_arrays(pixels, images.labels)
    rows, copies = make_copies(arm, small, 3)
    np.testing.assert_array_equal(copies, pixels[rows][:, :, ::-1])
    batch = torch.from_numpy(pixels.reshape(30, 8, 8, -1)).permute(0, 3, 1, 2) / 127.5 - 1
    flying = batch_augmentation(arm.model_copy(update={"use": "fly"}))
    torch.testing.assert_close(flying(batch), batch.flip(-1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("library", FLIPS)
def test_draws_come_from_seed_and_generator_and_leave_it_alone(library, torchvision):
    if library == "albumentations":
        pytest.importorskip("albumentations")
    arm = Arm(kind=FLIPS[library], use="copies", skip_threshold=0.0)
    images = load_images("digits", limit=40, seed=1)
    before = torch.get_rng_state()
    one, other = (make_copies(arm, images, 3)[1] for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, make_copies(arm, images, 4)[1])
    assert 0 < (one != images.images).any(axis=(1, 2)).mean() < 1
    flying = batch_augmentation(arm.model_copy(update={"use": "fly"}))
    batch = torch.rand(40, 1, 8, 8) * 2 - 1
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = flying(batch)
        torch.manual_seed(1)
        torch.testing.assert_close(flying(batch), first)


def test_a_missing_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    arm = Arm(kind="torchvision:RandomHorizontalFlip")
    with pytest.raises(
        MissingDependencyError, match=r"^the arm torchvision:RandomHor.*install tor"
    ):
        check_arm(arm, (8, 8))


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("kornia:RandomNothing", {}, r"kornia.augmentation has no RandomNothing; the name of one"),
        ("kornia:RandomErasing", {"size": 3}, r"kornia:RandomErasing doesn't take these parameter"),
        ("kornia:RandomCrop", {"size": [4, 4]}, r"into one of shape \(2, 1, 4, 4\); it must keep"),
    ],
)
def test_what_a_library_does_not_have_or_take(kind, parameters, message):
    with pytest.raises(StudyError, match=message):
        check_arm(Arm(kind=kind, parameters=parameters), (8, 8))


FLOATS = r"^an arm of kind '{}' made images of type float32; uint8 is accepted$"
RANGE = (
    r"^{} turned an image of values from 0 to 1 into one whose mean is -?\d\.\d\d; it must keep to "
    r"that range, in which networks are tested$"
)


@pytest.mark.parametrize("use", ["fly", "copies"])
@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 3)])
def test_what_is_no_image_any_more_is_refused_in_either_use(use, shape, torchvision):
    pytest.importorskip("albumentations")
    sys.modules["torchvision.transforms.v2"].Scaled = Scaled
    wanted = {
        "albumentations:Normalize": (FLOATS, {}),
        "torchvision:Scaled": (FLOATS, {}),
        "kornia:Normalize": (RANGE, {"mean": 0.5, "std": 0.5}),
    }
    for kind, (message, parameters) in wanted.items():
        with pytest.raises(StudyError, match=message.format(kind)):
            check_arm(Arm(kind=kind, parameters=parameters, use=use), shape)
    for kind, parameters in (
        ("kornia:RandomGaussianNoise", {"std": 0.35, "p": 1.0}),
        ("kornia:RandomBrightness", {"brightness": (0.5, 1.5)}),
        ("albumentations:RandomBrightnessContrast", {}),
    ):
        check_arm(Arm(kind=kind, parameters=parameters, use=use), shape)


def test_floats_on_batches_are_cut_to_the_range_of_images():
    flying = batch_augmentation(
        Arm(kind="kornia:RandomGaussianNoise", parameters={"std": 0.5, "p": 1.0})
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        changed = flying(torch.rand(8, 1, 8, 8) * 2 - 1)
    assert (changed.min(), changed.max()) == (-1, 1)


def test_a_function_of_one_s_own_keeps_the_range_too(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_ranges.py").write_text(
        "def pixels(batch):\n    return (batch + 1) * 127.5\n"
        "def lost(batch):\n    return batch / 0\n"
        "def noisy(batch):\n    return batch + 0.5 * batch.new_empty(batch.shape).normal_()\n"
    )
    check_arm(Arm(kind="callable", function="own_ranges:noisy"), (8, 8))
    for name, mean in (("pixels", r"\d\d\.\d\d"), ("lost", "-?inf")):
        message = rf"own_ranges:{name} turned an image of values from -1 to 1 into one whose mean "
        with pytest.raises(StudyError, match=rf"^{message}is {mean}; it must keep to that range"):
            check_arm(Arm(kind="callable", function=f"own_ranges:{name}"), (8, 8))


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        ({"kind": "pillow:Flip"}, r"arms.a.kind is 'pillow:Flip'; .*'kornia:NAME' is accepted"),
        (
            {"kind": "kornia:RandomErasing", "energy": 0.5},
            r"it takes parameters, skip_threshold, u",
        ),
        ({"kind": "blur", "parameters": {"p": 1}}, r"arms.a.parameters: an arm of kind 'blur' has"),
    ],
)
def test_mistakes_in_a_study_file(arm, message):
    with pytest.raises(StudyError, match=message):
        study({"none": {}, "a": arm})


def test_names_in_a_list_and_a_study_of_them(tmp_path):
    design = study(["none", "kornia:RandomErasing"], epochs=1, retrain=False)
    assert design.arms["RandomErasing"].kind == "kornia:RandomErasing"
    results = run(design, tmp_path / "out")
    assert [c["arm"] for c in results["conditions"]] == ["none", "RandomErasing"]
    assert len(results["cells"]) == 4


def test_another_version_of_the_library_is_another_study(tmp_path, torchvision):
    from rankwise.errors import RunError
    from rankwise.study.claim import claim
    from rankwise.study.run import load_data

    design = study(["none", "torchvision:RandomHorizontalFlip"])
    data_sets = load_data(design, conditions_of(design))
    claim(design, data_sets, tmp_path)
    claim(design, data_sets, tmp_path)
    sys.modules["torchvision"].__version__ = "10.0"
    place = r"the version of arms.RandomHorizontalFlip.library"
    with pytest.raises(RunError, match=rf"holds another study \(different: {place}\)"):
        claim(design, data_sets, tmp_path)
