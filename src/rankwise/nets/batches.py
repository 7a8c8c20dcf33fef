"""Images in memory as batches: shuffled by (seed, pass), sliced by index, scaled on the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray


def updates_per_pass(n_images: int, batch_size: int) -> int:
    """Batches of one pass over the images.

    The last one is smaller; a single image left over joins the batch before it, because batch norm
    can't be trained on one image.
    """
    full, rest = divmod(n_images, batch_size)
    return max(1, full + (rest > 1))


def scale(batch: torch.Tensor) -> torch.Tensor:
    """Uint8 ``(n, H, W[, C])`` to float32 ``(n, C, H, W)`` in [-1, 1]: min–max of the type.

    ``x/127.5 − 1`` (paper 3.2). The result of colour images is in channels-last memory order.
    Floating-point batches ``(n, C, H, W)`` pass as copies: a network's layers may work in place.
    """
    if batch.is_floating_point():
        return batch.clone()
    batch = batch.unsqueeze(1) if batch.ndim == 3 else batch.permute(0, 3, 1, 2)
    return batch.float().div_(127.5).sub_(1)


def kept_on(
    pair: tuple[torch.Tensor, torch.Tensor], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images and labels on a GPU, if a quarter of what is free there holds them; else as given.

    So the batches of small images are cut on the GPU, without a transfer that each update waits
    for. The quarter leaves room for other processes that share the GPU.
    """
    if device.type != "cuda":
        return pair
    free, _ = torch.cuda.mem_get_info(device)
    images, labels = pair
    if 4 * (images.nbytes + labels.nbytes) > free:
        return pair
    try:
        return images.to(device), labels.to(device)
    except torch.OutOfMemoryError:  # others have taken it since
        return pair


def epoch_seed(seed: int, epoch: int, *more: int) -> int:
    """Seed of an epoch's randomness: the same whatever happened before it."""
    return int(np.random.SeedSequence([seed, epoch, *more]).generate_state(1)[0])


def pass_order(n_images: int, seed: int, number: int) -> NDArray[np.int64]:
    """Order of the images in pass `number` (from 0): a permutation drawn from (seed, number)."""
    return np.random.default_rng([seed, number]).permutation(n_images)


class EpochBatches:
    """The batches of an epoch, as often as it is iterated.

    Update u (counted from 0 over the whole training) is batch ``u mod p`` of pass ``u div p``, p
    being `updates_per_pass`. So what an update sees depends on the seed and u alone.

    Parameters
    ----------
    images, labels : Tensor
        Uint8 ``(n, H, W[, C])`` and int64 ``(n,)``.
    batch_size : int
    steps : int
        Batches of an epoch.
    seed : int
    epoch : callable
        Gives the epoch (from 0) that is about to begin.
    share : callable
        Gives (rank, number of devices). Each device takes every so-manieth image of a batch;
        the images that don't divide evenly are left out.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        batch_size: int,
        steps: int,
        seed: int,
        epoch: Callable[[], int],
        share: Callable[[], tuple[int, int]],
    ) -> None:
        self.images, self.labels = images, labels
        self.batch_size, self.steps, self.seed = batch_size, steps, seed
        self._epoch, self._share = epoch, share

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        rank, n_devices = self._share()
        n = len(self.images)
        per_pass = updates_per_pass(n, self.batch_size)
        first = self._epoch() * self.steps
        number, order = -1, torch.empty(0, dtype=torch.int64)
        where = self.images.device
        for update in range(first, first + self.steps):
            wanted, place = divmod(update, per_pass)
            if wanted != number:
                number = wanted
                order = torch.from_numpy(pass_order(n, self.seed, wanted)).to(where)
            stop = n if place == per_pass - 1 else (place + 1) * self.batch_size
            rows = order[place * self.batch_size : stop]
            if n_devices > 1:
                rows = rows[: len(rows) // n_devices * n_devices][rank::n_devices]
            yield self.images[rows], self.labels[rows]
