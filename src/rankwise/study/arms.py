"""The augmentations of a study: copies made before training, and changes of batches during it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankwise._process import torch_seeded
from rankwise._reading import read_json
from rankwise.data import ImageSet
from rankwise.errors import MissingDependencyError, RankwiseError
from rankwise.lowrank import FixedEnergy, LowRankAugmenter, NormalEnergy, RandomLowRank
from rankwise.study.design import Study, StudyError
from rankwise.study.design_parts import Arm, Both

if TYPE_CHECKING:
    import torch

Images = NDArray[np.uint8]


def copied_rows(arm: Arm, images: ImageSet, seed: int) -> NDArray[np.int64]:
    """Which images an arm copies: a share of ``1 - skip_threshold``, drawn one by one.

    The draw depends on (seed, source id, epoch 0) alone, as `rankwise.RandomLowRank` has it, and
    not on the kind of copy: arms of one skip threshold copy the same images.

    Returns
    -------
    ndarray of int64
        Rows of `images`, ascending.
    """
    if isinstance(arm, Both):
        return np.sort(np.concatenate([copied_rows(part, images, seed) for part in arm.parts]))
    if arm.copies is None and arm.kind != "matched":
        return np.zeros(0, np.int64)
    transform = RandomLowRank(FixedEnergy(1.0), skip_threshold=arm.skip_threshold, seed=seed)
    return LowRankAugmenter(transform).plan(images).rows


def make_copies(arm: Arm, images: ImageSet, seed: int) -> tuple[NDArray[np.int64], Images]:
    """Make the copies of an arm, as in section 3.2 of the paper.

    Parameters
    ----------
    arm : Arm
    images : ImageSet
        Training images only.
    seed : int

    Returns
    -------
    rows : ndarray of int64, (copies,)
        What each was made of, ascending.
    copies : ndarray of uint8, (copies, H, W[, C])
    """
    if isinstance(arm, Both):
        made = [make_copies(part, images, seed) for part in arm.parts]
        rows = np.concatenate([rows for rows, _ in made])
        order = np.argsort(rows, kind="stable")
        return rows[order], np.concatenate([copies for _, copies in made])[order]
    kind = arm.copies
    rows = copied_rows(arm, images, seed)
    if kind is None or not len(rows):
        return rows[:0], images.images[:0]
    if kind == "low-rank":
        transform = RandomLowRank(
            NormalEnergy(arm.energy, arm.energy_std),
            skip_threshold=arm.skip_threshold,
            reference=arm.reference,
            seed=seed,
        )
        augmented = LowRankAugmenter(transform).augment(images, shuffle=False)
        return augmented.log.rows, np.asarray(augmented.images.images[len(images) :])
    originals = np.ascontiguousarray(images.images[rows])
    if kind == "duplicate":
        return rows, originals
    if kind == "albumentations":
        return rows, _checked(arm, _albumented(load_pipeline(arm), originals, seed), originals)
    if arm.library is not None:
        from rankwise.study.library_arms import LibraryAugmentation

        return rows, _checked(arm, LibraryAugmentation(arm).on_images(originals, seed), originals)
    if kind == "callable":
        random = np.random.default_rng(seed)
        return rows, _checked(arm, find_callable(str(arm.function))(originals, random), originals)
    from rankwise.study.degrade import degrade

    return rows, degrade(originals, kind, arm.severity)


def batch_augmentation(arm: Arm) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What an arm does to the batches of a training, None where it leaves them alone.

    Returns
    -------
    callable or None
        From a float batch ``(n, C, H, W)`` in [-1, 1] to another. Its random choices come from
        PyTorch's generator, whose state the training keeps.
    """
    if isinstance(arm, Both):
        both = [change for change in map(batch_augmentation, arm.parts) if change is not None]
        return both[0] if len(both) == 1 else _InTurn(both) if both else None
    if arm.with_default:
        from rankwise.nets import default_augmentation

        return default_augmentation()
    if arm.use == "copies":
        return None
    if arm.library is not None:
        from rankwise.study.library_arms import LibraryAugmentation

        return LibraryAugmentation(arm)
    if arm.kind == "albumentations":
        return _AlbumentationsOnBatches(arm)
    if arm.kind == "callable":
        return _CallableOnBatches(arm)
    return None


def find_callable(spelled: str) -> Callable[..., Any]:
    """Import ``package.module:name``.

    Raises
    ------
    StudyError
        If the module can't be imported, has no such name, or it isn't callable.
    """
    place, _, name = spelled.partition(":")
    try:
        module = importlib.import_module(place)
    except Exception as error:  # whatever somebody's own module raises
        kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
        reason = str(error).partition("\n")[0] or "no message"
        raise StudyError(
            f"{spelled} can't be imported: {kind}{reason}; a module on Python's path is accepted "
            "(for `rankwise study` also one in the current folder, or beside the study file that "
            "it is given)"
        ) from error
    if not hasattr(module, name):
        raise StudyError(f"{spelled}: the module {place} has no {name} ({_file_of(module)})")
    found = getattr(module, name)
    if not callable(found):
        raise StudyError(f"{spelled} isn't callable; a function or a class is accepted")
    return found


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "a folder without __init__.py"


def load_pipeline(arm: Arm) -> Any:
    """The Albumentations pipeline of an arm, from its own serialised form.

    Raises
    ------
    MissingDependencyError
        If Albumentations isn't installed.
    StudyError
        If it isn't such a form.
    """
    # Makes our own transform known to the library, so that a pipeline may hold it.
    _load_adapter()
    import albumentations

    try:
        return albumentations.from_dict(pipeline_dict(arm))
    except (KeyError, TypeError, ValueError, AttributeError, ImportError) as error:
        raise StudyError(
            f"an arm's pipeline isn't what albumentations.to_dict gives: {error!r}"
        ) from error


def _load_adapter() -> None:
    """Load the adapter, or say what to install."""
    try:
        importlib.import_module("rankwise.lowrank.adapters.albumentations")
    except MissingDependencyError as error:
        raise MissingDependencyError(f"an arm needs a library: {error}") from error


def pipeline_dict(arm: Arm) -> dict[str, Any]:
    """The serialised pipeline of an arm, read from its file where it names one."""
    if isinstance(arm.pipeline, dict):
        return arm.pipeline
    path = Path(str(arm.pipeline))
    value = read_json(path, error=StudyError, hint="; a JSON file that A.save wrote is accepted")
    if not isinstance(value, dict):
        raise StudyError(f"the pipeline {path} holds no object; A.save writes one")
    return value


def with_pipelines(study: Study) -> Study:
    """A study that holds its pipelines themselves, so that a changed file is another study."""
    arms = {
        name: arm.model_copy(update={"pipeline": pipeline_dict(arm)})
        if arm.kind == "albumentations"
        else arm
        for name, arm in study.arms.items()
    }
    return study.model_copy(update={"arms": arms})


def check_arm(arm: Arm, image_shape: tuple[int, ...]) -> None:
    """Try an arm on two images, so that it fails before anything has been trained.

    Raises
    ------
    StudyError
        If it isn't there, raises an error, or changes the shape, the type or the range of images.
    """
    if isinstance(arm, Both):
        for part in arm.parts:
            check_arm(part, image_shape)
        return
    if not arm.is_foreign:
        return
    try:
        _try_arm(arm, image_shape)
    except RankwiseError:
        raise
    except Exception as error:  # whatever somebody's own code raises
        reason = f"{type(error).__name__}: {str(error) or 'no message'}".splitlines()[0]
        called = {"callable": arm.function, "albumentations": "the Albumentations pipeline"}.get(
            arm.kind, arm.kind
        )
        raise StudyError(
            f"{called} can't take images of shape {tuple(image_shape)}: {reason}"
        ) from error


def _try_arm(arm: Arm, image_shape: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, *image_shape), dtype=np.uint8)
    small = ImageSet.from_arrays(images, np.array([0, 1]), class_names=("a", "b"))
    if arm.use == "copies":
        make_copies(arm.model_copy(update={"skip_threshold": 0.0}), small, 0)
    else:
        augment = batch_augmentation(arm)
        if augment is not None:
            with torch_seeded():
                augment(to_batch(images))
    if arm.library is not None:
        from rankwise.study.library_arms import LibraryAugmentation

        LibraryAugmentation(arm).check(image_shape)
    elif arm.kind == "callable" and arm.use == "fly":
        from rankwise.study.library_arms import check_range

        check_range(str(arm.function), find_callable(str(arm.function)), image_shape, -1, 1)


class _InTurn:
    """Two augmentations of a batch, one after the other."""

    def __init__(self, changes: list[Callable[[torch.Tensor], torch.Tensor]]) -> None:
        self.changes = changes

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        for change in self.changes:
            batch = change(batch)
        return batch


class _AlbumentationsOnBatches:
    """A pipeline applied to each image of a batch, as uint8."""

    def __init__(self, arm: Arm) -> None:
        self.arm = arm
        self.pipeline = load_pipeline(arm)

    def fingerprint_parts(self) -> Any:
        """What it does, whatever state the library keeps: it is seeded for each batch."""
        import albumentations

        return pipeline_dict(self.arm), albumentations.__version__

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        import torch

        images = to_images(batch)
        seed = int(torch.randint(2**31, ()))
        changed = _checked(self.arm, _albumented(self.pipeline, images, seed), images)
        return to_batch(changed).to(batch.device)


class _CallableOnBatches:
    """A function of a float batch."""

    def __init__(self, arm: Arm) -> None:
        self.name = str(arm.function)
        self.function = find_callable(self.name)

    def fingerprint_parts(self) -> str:
        """Its name: a study's folder is claimed with the function's code."""
        return self.name

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        changed = self.function(batch)
        shape = tuple(getattr(changed, "shape", ()))
        if shape != tuple(batch.shape):
            raise StudyError(
                f"{self.name} made {shape or type(changed).__name__} of a batch of shape "
                f"{tuple(batch.shape)}; a tensor of the same shape is accepted"
            )
        return changed


def _albumented(pipeline: Any, images: Images, seed: int) -> list[Any]:
    pipeline.set_random_seed(seed)
    return [pipeline(image=image)["image"] for image in images]


def _checked(arm: Arm, changed: Any, images: Images) -> Images:
    """What an augmentation of somebody else's made, if it's images of the same shape."""
    shapes = {np.asarray(image).shape for image in changed}
    if shapes != {images.shape[1:]} or len(changed) != len(images):
        raise StudyError(
            f"an arm of kind {arm.kind!r} turned {len(images)} images of shape {images.shape[1:]} "
            f"into {len(changed)} of {sorted(shapes)}; it must keep number and shape"
        )
    stacked = np.stack([np.asarray(image) for image in changed])
    if stacked.dtype != np.uint8:
        raise StudyError(
            f"an arm of kind {arm.kind!r} made images of type {stacked.dtype}; uint8 is accepted"
        )
    return stacked


def to_images(batch: torch.Tensor) -> Images:
    """A float batch ``(n, C, H, W)`` in [-1, 1] as uint8 images ``(n, H, W[, C])``."""
    pixels = ((batch.detach().cpu() + 1) * 127.5).round().clamp(0, 255).byte().numpy()
    return (
        pixels[:, 0] if pixels.shape[1] == 1 else np.ascontiguousarray(np.moveaxis(pixels, 1, -1))
    )


def to_batch(images: Images) -> torch.Tensor:
    """The other way round."""
    import torch

    planes = images[:, None] if images.ndim == 3 else np.moveaxis(images, -1, 1)
    return torch.from_numpy(np.ascontiguousarray(planes)).float() / 127.5 - 1
