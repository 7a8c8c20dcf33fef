"""A new last layer on a backbone that stays as it is: features once an image, one solve a cell.

The cells of a study see the same images again and again, in other folds, and all of them the same
degraded test images. So features are kept by the content of each image, in ``features/`` of the
study's folder, and several runs may share it: a file is whole or absent, and never changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rankwise._files import atomic_path
from rankwise._fingerprints import NoFingerprintError, fingerprint
from rankwise.errors import is_shortage

if TYPE_CHECKING:
    from torch import nn

_DIGEST = 16
BATCH = 32
"""Images of a forward pass. The last one is filled up: how many are asked for changes nothing."""

Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


class FeatureStore:
    """Features of images, each computed once.

    Parameters
    ----------
    network : nn.Module
        From float images ``(n, C, H, W)`` in [-1, 1] to features ``(n, d)``; in evaluation mode.
    folder : Path, optional
        Where they are kept; default nowhere but in memory.
    device : str
    """

    def __init__(self, network: nn.Module, folder: Path | None, device: str = "cpu") -> None:
        self.network, self.device = network, device
        self.folder = None if folder is None else _place(folder, network, device)
        self._known: dict[bytes, tuple[NDArray[np.float32], int]] = {}
        self._read: set[str] = set()

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features ``(n, d)`` of uint8 images ``(n, H, W[, C])``."""
        keys = [digest_of(image) for image in images]
        if any(key not in self._known for key in keys):
            self._look()
        rows = {key: row for row, key in enumerate(keys) if key not in self._known}
        if rows:
            missing = list(rows.values())
            self._keep(list(rows), self._computed(images[missing]))
        found = [self._known[key] for key in keys]
        return np.stack([block[row] for block, row in found]).astype(np.float32, copy=False)

    def _computed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        from rankwise.heads.features import iterate_features

        short = -len(images) % BATCH
        filled = np.concatenate([images, np.repeat(images[-1:], short, axis=0)])
        blocks = iterate_features(self.network, filled, batch_size=BATCH, device=self.device)
        return np.concatenate(list(blocks))[: len(images)].astype(np.float32, copy=False)

    def _keep(self, keys: list[bytes], features: NDArray[np.float32]) -> None:
        self._known |= {key: (features, row) for row, key in enumerate(keys)}
        if self.folder is None:
            return
        together = hashlib.blake2b(b"".join(keys), digest_size=_DIGEST).hexdigest()
        self.folder.mkdir(parents=True, exist_ok=True)
        # The features first: whoever sees the keys finds them.
        for name, array in (
            (f"{together}.npy", features),
            (f"{together}.keys.npy", np.frombuffer(b"".join(keys), np.uint8)),
        ):
            with atomic_path(self.folder / name) as temporary, temporary.open("wb") as file:
                np.save(file, array, allow_pickle=False)
        self._read.add(f"{together}.keys.npy")

    def _look(self) -> None:
        """Take in what there is, other processes' too; what is damaged is computed again."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.keys.npy")):
            if path.name in self._read:
                continue
            self._read.add(path.name)
            try:
                keys = np.load(path, allow_pickle=False).tobytes()
                place = path.with_name(path.name.replace(".keys", ""))
                features = np.load(place, mmap_mode="r", allow_pickle=False)
            except Exception as error:  # numpy's parser of headers raises nearly anything
                if is_shortage(error):
                    raise
                continue
            if features.ndim == 2 and len(keys) == _DIGEST * len(features):
                for row in range(len(features)):
                    key = keys[row * _DIGEST : (row + 1) * _DIGEST]
                    self._known.setdefault(key, (features, row))


def _place(folder: Path, network: nn.Module, device: str) -> Path | None:
    """A folder for these features; None where the network can't be told from others."""
    try:
        return folder / fingerprint(network, device)[:32]
    except NoFingerprintError:
        return None


def digest_of(image: NDArray[np.uint8]) -> bytes:
    """What tells an image from any other: its shape and its pixels."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=_DIGEST)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def solved_head(
    network: Any,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    *,
    folder: Path | None,
    device: str,
) -> tuple[Callable[[NDArray[np.uint8]], NDArray[np.float64]], float]:
    """Solve a network's last layer in one pass, in place, from features that are kept.

    Parameters
    ----------
    network : TransferNetwork
        Its ``head`` is written, divided by the temperature; nothing else of it changes.
    images, labels
        Training images.
    folder : Path, optional
        As for `FeatureStore`.
    device : str

    Returns
    -------
    logits : callable
        From images to scores ``(n, n_classes)``.
    seconds : float
    """
    from rankwise.heads.head import VarProHead
    from rankwise.nets.projected_loss import write_layer

    begin = time.perf_counter()
    store = FeatureStore(network.backbone.eval(), folder, device)
    head = VarProHead("loo").fit(store(images), labels)
    layer = network.head
    write_layer(layer, head.classes_, head.coef_, head.intercept_, head.temperature_)
    weight, bias = (p.detach().cpu().double().numpy() for p in (layer.weight, layer.bias))

    def logits(images: NDArray[np.uint8]) -> NDArray[np.float64]:
        return store(images).astype(np.float64) @ weight.T + bias

    return logits, time.perf_counter() - begin
