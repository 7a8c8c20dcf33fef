"""`LowRankAugmenter`: copies of a data set made once, beside their originals or cached on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import blocks
from rankwise._files import expanded, temporary_folder
from rankwise._progress import progress_bar
from rankwise.cluster import on_workers
from rankwise.data import ImageSet
from rankwise.data.fingerprint import fingerprint
from rankwise.data.storage import ROWS, allocate, column, counted, gathered
from rankwise.lowrank._copies import CopyBlock, CopyPlan, make_copies, plan_copies
from rankwise.lowrank.options import OptionError
from rankwise.lowrank.transforms import RandomLowRank

_MEMORY = 16 * 2**20


@dataclass(frozen=True)
class CopyLog:
    """What was done, one entry for each copy.

    Attributes
    ----------
    rows : ndarray of int64, (copies,)
        Row of the original in the set that was augmented.
    source_ids : ndarray of str, (copies,)
    energies : ndarray of float64, (copies,)
        As drawn, in (0, 1].
    ranks : ndarray of int64, (copies, matrices)
    errors : ndarray of float64, (copies,)
        ``‖A − A_k‖_F / ‖A‖_F``, after rounding.
    psnr : ndarray of float64, (copies,)
        Decibels; infinite for a copy that equals its original.
    """

    rows: NDArray[np.int64]
    source_ids: NDArray
    energies: NDArray[np.float64]
    ranks: NDArray[np.int64]
    errors: NDArray[np.float64]
    psnr: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class AugmentedSet:
    """Originals and copies in one set, shuffled together.

    Attributes
    ----------
    images : ImageSet
        Each copy carries the label and the source id of its original, so that
        `rankwise.data.hold_out_by_source` keeps them together and
        `rankwise.data.check_no_shared_sources` refuses parts that don't.
    copy_of : ndarray of int64, (n,)
        For each row the place of its entry in `log`, or -1 for an original.
    log : CopyLog
    """

    images: ImageSet
    copy_of: NDArray[np.int64]
    log: CopyLog


class LowRankAugmenter:
    """Make low-rank copies of part of a data set, as in section 3.2 of the paper.

    Parameters
    ----------
    transform : RandomLowRank, optional
        Draws and options. Default: the paper's, with seed 42 (its appendix C.2). Every draw
        depends on the transform's seed (0 where it has none), the source id and the epoch only,
        and, for images that share a source id, on their pixels: never on the order of the rows.
    workers : int
        Processes, one BLAS thread each; -1 for one a core.
    progress : bool
        Show a bar on standard error.

    Examples
    --------
    >>> from rankwise.data import load_images
    >>> digits = load_images("digits", limit=100)
    >>> augmented = LowRankAugmenter(RandomLowRank(p=0.5, seed=1)).augment(digits)
    >>> len(augmented.images) == 100 + len(augmented.log)
    True
    """

    def __init__(
        self,
        transform: RandomLowRank | None = None,
        *,
        workers: int = 1,
        progress: bool = False,
    ) -> None:
        if workers == 0 or workers < -1:
            raise OptionError(f"workers must be a number from 1, or -1, not {workers}")
        self.transform = RandomLowRank(seed=42) if transform is None else transform
        self.workers = workers
        self.progress = progress

    def plan(self, images: ImageSet, epoch: int = 0) -> CopyPlan:
        """Draw: which rows get a copy, at which energy. Decomposes nothing."""
        return plan_copies(images, self.transform, epoch)

    def augment(
        self,
        images: ImageSet,
        *,
        epoch: int = 0,
        cache: str | os.PathLike[str] | None = None,
        shuffle: bool = True,
    ) -> AugmentedSet:
        """Put copies beside their originals.

        Parameters
        ----------
        images : ImageSet
            Training images only: what is tested on isn't augmented.
        epoch : int
            Another epoch draws anew.
        cache : path, optional
            A folder that keeps the copies. A second call, also after a stop, makes only what is
            missing there.
        shuffle : bool
            Mix originals and copies (paper, section 3.2), by a permutation from the seed.
            Without, the copies follow the originals.

        Returns
        -------
        AugmentedSet
            Memory-mapped where it exceeds 16 MiB.

        Raises
        ------
        RunError
            If `cache` holds copies of other images or options.
        """
        plan = self.plan(images, epoch)
        total = len(images) + len(plan.rows)
        order = self.order(total, epoch) if shuffle else counted(total)
        # Of each row of the result its original and its copy; and where each of them has gone.
        parents, copy_of, places = (column(total, np.int64) for _ in range(3))
        for part in blocks(total, ROWS):
            at = order[part]
            is_copy = at >= len(images)
            copy_of[part] = np.where(is_copy, at - len(images), -1)
            parents[part] = at
            parents[part][is_copy] = plan.rows[copy_of[part][is_copy]]
            places[at] = np.arange(part.start, part.stop)
        pixels = allocate((total, *images.image_shape), _MEMORY)
        with _kept(cache) as folder:
            made = make_copies(images, plan, self.transform.options, folder, self.workers)
            for start in range(0, len(images), plan.block):
                stop = min(start + plan.block, len(images))
                pixels[places[start:stop]] = images.images[start:stop]
            taking = on_workers("copies", processes=True)
            with progress_bar(taking, len(plan.rows), enabled=self.progress) as advance:
                log = _gather(images, plan, made, pixels, places[len(images) :], advance)
        labels = gathered(images.labels, parents)
        result = ImageSet(
            images=pixels,
            labels=labels,
            class_names=images.class_names,
            source_ids=gathered(images.source_ids, parents),
            fingerprint=fingerprint(pixels, labels, images.class_names),
            name=f"{images.name}+low-rank",
            split=images.split,
            holds_copies=images.holds_copies or len(log) > 0,
        )
        return AugmentedSet(result, copy_of, log)

    def order(self, total: int, epoch: int = 0) -> NDArray[np.int64]:
        """The permutation that mixes originals and copies."""
        seed = 0 if self.transform.seed is None else self.transform.seed
        found = counted(total)
        np.random.default_rng([seed, epoch]).shuffle(found)
        return found


@contextmanager
def _kept(cache: str | os.PathLike[str] | None) -> Iterator[Path]:
    """The folder `cache`, or one that goes with the context."""
    if cache is None:
        with temporary_folder() as folder:
            yield folder
        return
    place = expanded(cache)
    place.mkdir(parents=True, exist_ok=True)
    yield place


def _gather(
    images: ImageSet,
    plan: CopyPlan,
    made: Iterator[tuple[slice, CopyBlock]],
    pixels: NDArray[np.uint8],
    places: NDArray[np.int64],
    advance: Callable[[int], None],
) -> CopyLog:
    """Put the copies into their `places` of `pixels`."""
    copies = len(plan.rows)
    errors, psnr = column(copies, np.float64), column(copies, np.float64)
    ranks = np.empty((0, 1), np.int64)
    for part, block in made:
        pixels[places[part]] = block.copies
        if not len(ranks):
            ranks = column(copies, np.int64, block.ranks.shape[1])
        ranks[part], errors[part], psnr[part] = block.ranks, block.errors, block.psnr
        advance(part.stop - part.start)
    return CopyLog(
        rows=plan.rows,
        source_ids=gathered(images.source_ids, plan.rows),
        energies=plan.energies,
        ranks=ranks,
        errors=errors,
        psnr=psnr,
    )
