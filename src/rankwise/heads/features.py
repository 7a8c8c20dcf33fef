"""Features of images: a backbone's outputs, batch by batch, kept in a cache."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from rankwise._arrays import Referred, Rows
from rankwise._device import resolve_device
from rankwise._files import atomic_path, expanded
from rankwise._fingerprints import NoFingerprintError, fingerprint
from rankwise._progress import progress_bar
from rankwise.cluster import elsewhere, on_workers
from rankwise.data import ImageSet
from rankwise.data.storage import allocate
from rankwise.errors import is_shortage
from rankwise.heads.backbones import as_backbone
from rankwise.heads.runtime import runtime_of
from rankwise.nets.batches import scale
from rankwise.nets.borrowing import evaluating, on_device
from rankwise.nets.memory_format import memory_format

BATCH = 64
"""Images a batch of a forward pass: on a CPU larger ones need fresh memory for every map."""

LARGEST_VALUE = 16.0
"""Of floating-point images: normalised by any usual mean and deviation they have single digits."""


def to_float_batch(images: np.ndarray | torch.Tensor, device: Any = "cpu") -> torch.Tensor:
    """Images as networks take them: uint8 ``(n, H, W[, C])`` to float32 ``(n, C, H, W)``, [-1, 1].

    Floating-point batches ``(n, C, H, W)`` pass as they are, unless their scale is another; copied,
    since a network's first layer may work in place.
    """
    # A copy: torch wants arrays writable, which memory-mapped ones aren't.
    batch = torch.as_tensor(np.array(images) if isinstance(images, np.ndarray) else images)
    batch = batch.to(device)
    if batch.is_floating_point():
        if batch.ndim != 4:
            raise ValueError(
                "floating-point images are batches (n, channels, height, width) in [-1, 1], got "
                f"shape {tuple(batch.shape)}"
            )
        largest = float(batch.abs().amax()) if batch.numel() else 0.0
        if LARGEST_VALUE < largest < np.inf:
            raise ValueError(
                f"floating-point images are in [-1, 1], got values up to {largest:.4g} in size; "
                "x / 127.5 - 1 takes pixels 0 to 255 there, and uint8 images are taken as they are"
            )
        own = isinstance(images, torch.Tensor) and batch.data_ptr() == images.data_ptr()
        return batch.clone() if own and batch.dtype == torch.float32 else batch.float()
    if batch.dtype != torch.uint8 or batch.ndim not in (3, 4):
        raise ValueError(
            "images are uint8 of shape (n, height, width[, channels]) or floating point of shape "
            f"(n, channels, height, width), got {batch.dtype} of shape {tuple(batch.shape)}"
        )
    return scale(batch)


def iterate_features(
    backbone: nn.Module, images: Any, *, batch_size: int = BATCH, device: str = "auto"
) -> Iterator[np.ndarray]:
    """Features of images, float32 blocks of shape (at most `batch_size`, d), in order.

    The images are read batch by batch, so a memory-mapped array never has to fit in memory.
    """
    # "cpu:torch" is the name of torch's products on the CPU, under test.
    target = torch.device(resolve_device(device).removesuffix(":torch"))
    model = on_device(as_backbone(backbone), target)
    run = None
    for first in range(0, len(images), batch_size):
        # Between two blocks, while the caller computes, the backbone is as it was.
        with evaluating(model), memory_format(model):
            batch = to_float_batch(images[first : first + batch_size], target)
            run = run or runner_of(model, batch)
            block = run(batch)
        yield block


def runner_of(model: Any, like: torch.Tensor) -> Callable[[torch.Tensor], np.ndarray]:
    """From float batches of the shape of one to features: by onnxruntime on a CPU where it can."""
    run = None
    if like.device.type == "cpu":
        _, channels, height, width = like.shape
        run = runtime_of(model, (channels, height, width))
    if run is None:
        return lambda batch: model(batch).float().cpu().numpy()
    fast = run
    return lambda batch: fast(batch.numpy())


def extract_features(
    backbone: nn.Module,
    images: Any,
    *,
    batch_size: int = BATCH,
    device: str = "auto",
    cache: str | Path | None = None,
    progress: bool = False,
) -> np.ndarray:
    """Features of images in one array, from the cache where they are there already.

    Parameters
    ----------
    backbone : nn.Module
        Taken as `as_backbone` does.
    images : ImageSet, or array as `to_float_batch` takes it
    batch_size : int, default=64
    device : {"auto", "cpu", "cuda"}
    cache : path, optional
        Folder of earlier features. A file's name is a hash of the images and of all that the
        backbone is: weights, buffers, attributes and code. So a changed backbone or image is
        never given another's features; a backbone that can't be seen into isn't kept, with a
        warning. An interrupted call leaves what it has done there, for the next one.
    progress : bool

    Returns
    -------
    float32 array of shape (n, d)
        Memory-mapped where it comes from the cache (then read-only), or exceeds 256 MiB.
    """
    model = as_backbone(backbone)
    path = None
    if cache is not None:
        path = _place(expanded(cache), model, images, device)
        kept = None if path is None else _kept(path, len(images))
        if kept is not None:
            return kept
    pixels = images.images if isinstance(images, ImageSet) else images
    step = batch_size * -(-_PART // batch_size)
    parts = [] if path is None else _kept_parts(path, len(pixels), step)
    first = sum(map(len, parts))
    features = np.empty((0, 0), dtype=np.float32)
    if parts:
        features = allocate((len(pixels), 4 * parts[0].shape[1])).view(np.float32)
        np.concatenate(parts, out=features[:first])
    taking = on_workers("features")
    with progress_bar(taking, len(pixels), enabled=progress, unit="images") as advance:
        advance(first)
        for block in _made(model, pixels, first, step, batch_size, device):
            if not len(features):
                shape = (len(pixels), 4 * block.shape[1])
                features = allocate(shape).view(np.float32)
            features[first : first + len(block)] = block
            first += len(block)
            if path is not None and first % step == 0 and first < len(pixels):
                _write(_part(path, first // step - 1), features[first - step : first])
            advance(len(block))
    if path is None:
        return features
    _write(path, features)
    for number in range(len(pixels) // step + 1):
        _part(path, number).unlink(missing_ok=True)
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _made(
    model: nn.Module, images: Any, first: int, step: int, batch_size: int, device: str
) -> Iterator[np.ndarray]:
    """Features from an image on, here or on the surrounding ``rankwise.cluster``."""
    away = elsewhere()
    if away is None:
        referred = isinstance(images, Referred)
        rest = Rows(images, np.arange(first, len(images))) if referred else images[first:]
        yield from iterate_features(model, rest, batch_size=batch_size, device=device)
        return
    parts = [slice(n, min(n + step, len(images))) for n in range(first, len(images), step)]
    yield from away.map(_part_of, parts, (model, images, batch_size, device))


def _part_of(common: tuple[nn.Module, Any, int, str], part: slice) -> np.ndarray:
    model, images, batch_size, device = common
    some = images[part]
    found = iterate_features(model, some, batch_size=batch_size, device=device)
    return np.concatenate(list(found))


class BackboneFeatures(Referred):
    """Features that are made where they are asked for, from images that lie in shards.

    Parameters
    ----------
    backbone : nn.Module
    images : Referred
    batch_size, device
        As for `iterate_features`.
    """

    def __init__(self, backbone: nn.Module, images: Any, batch_size: int, device: str) -> None:
        self.backbone, self.images = as_backbone(backbone), images
        self.batch_size, self.device = batch_size, device
        self.dtype = np.dtype(np.float32)
        self.shape = (len(images), self[np.array([0])].shape[1])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Any) -> np.ndarray:
        """Features of some images."""
        return _part_of((self.backbone, self.images, self.batch_size, self.device), key)


_PART = 512
"""Images after which an interrupted call has kept their features, or a few more."""


def _part(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}-{number:05d}.npy")


def _write(path: Path, features: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, features, allow_pickle=False)


def _kept_parts(path: Path, n: int, step: int) -> list[np.ndarray]:
    """What an interrupted call with such batches has kept, from the first image on."""
    found: list[np.ndarray] = []
    while (len(found) + 1) * step < n:
        part = _kept(_part(path, len(found)), step)
        if part is None or (found and part.shape != found[0].shape):
            break
        found.append(part)
    return found


def _place(cache: Path, model: nn.Module, images: Any, device: str) -> Path | None:
    """File of these features; None, with a warning, if no name could tell them from others."""
    kind = resolve_device(device).split(":")[0]  # kernels differ in rounding, and TF32 in more
    try:
        key = fingerprint(model, _images_fingerprint(images), kind)
    except NoFingerprintError as error:
        warnings.warn(
            f"the features aren't kept in {cache}: {error}, so another backbone couldn't be told "
            "from this one; a method fingerprint_parts() may say what there is to tell",
            UserWarning,
            stacklevel=3,
        )
        return None
    return cache / f"features-{key[:32]}.npy"


def _kept(path: Path, n: int) -> np.ndarray | None:
    """Features of an earlier call; None where there are none, or the file is damaged."""
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy's parser of headers raises nearly anything
        if is_shortage(error):
            raise
        return None  # made again, and the file replaced
    whole = found.dtype == np.float32 and found.ndim == 2 and len(found) == n
    return found if whole else None


def _images_fingerprint(images: Any) -> str:
    if isinstance(images, ImageSet):
        return images.fingerprint
    if isinstance(images, Referred):
        return fingerprint(images, package=False)
    array = images.cpu().numpy() if isinstance(images, torch.Tensor) else np.asarray(images)
    return fingerprint(array, package=False)
