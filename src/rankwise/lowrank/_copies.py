"""Blocks of copies on disk: made in parallel, each whole or absent, found again after a stop."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import Referred, Rows, blocks
from rankwise._files import atomic_path, write_json
from rankwise._fingerprints import code_of_package
from rankwise._reading import read_json_object
from rankwise._threads import one_thread
from rankwise.cluster import engine
from rankwise.data import ImageSet
from rankwise.data.ids import repeated
from rankwise.data.storage import ROWS
from rankwise.errors import RunError
from rankwise.lowrank._matrices import Wanted
from rankwise.lowrank._small import fits
from rankwise.lowrank.options import LowRankOptions
from rankwise.lowrank.reconstruct import approximate, layout_of
from rankwise.lowrank.transforms import RandomLowRank

_BLOCK_BYTES = 2 * 2**20
_MEASURED = 2**18  # values at a time, in float64
_PLAN = "plan.json"


@dataclass(frozen=True)
class CopyPlan:
    """Which rows of a set get a copy, at which energy, in which block.

    Attributes
    ----------
    rows : ndarray of int, (copies,)
        Ascending.
    energies : ndarray of float64, (copies,)
    block : int
        Copies in a block; the last one may hold fewer.
    key : str
        Hash of everything that the copies depend on.
    """

    rows: NDArray[np.int64]
    energies: NDArray[np.float64]
    block: int
    key: str

    def blocks(self) -> Iterator[tuple[int, slice]]:
        """Number and range of each block."""
        for number, start in enumerate(range(0, len(self.rows), self.block)):
            yield number, slice(start, min(start + self.block, len(self.rows)))


@dataclass(frozen=True)
class CopyBlock:
    """Copies and what is known about each.

    Attributes
    ----------
    copies : ndarray of uint8, (b, H, W[, C])
    ranks : ndarray of int, (b, matrices)
    errors : ndarray of float64, (b,)
        Relative Frobenius norm.
    psnr : ndarray of float64, (b,)
        Decibels; infinite for a copy that equals its image.
    """

    copies: NDArray[np.uint8]
    ranks: NDArray[np.int64]
    errors: NDArray[np.float64]
    psnr: NDArray[np.float64]


def plan_copies(images: ImageSet, transform: RandomLowRank, epoch: int) -> CopyPlan:
    """Draw for every image of the set; the order of its rows changes no draw.

    An image that is alone with its source id is drawn by (seed, id, epoch), as on the fly. Images
    that share one (crops, cells of one slide) are told apart by `marks_of`.
    """
    marks = marks_of(images)
    rows, energies = [np.empty(0, np.int64)], [np.empty(0)]
    for part in blocks(len(images), ROWS):
        ids = images.source_ids[part].tolist()
        some = [marks.get(row, b"") for row in range(part.start, part.stop)]
        drawn = transform.draw(len(ids), ids, epoch, some)
        copied = np.flatnonzero(~np.isnan(drawn))
        rows.append(part.start + copied)
        energies.append(drawn[copied])
    block = max(1, _BLOCK_BYTES // max(1, int(np.prod(images.image_shape))))
    facts = {
        "fingerprint": images.fingerprint,
        "source_ids": _digest(images.source_ids),
        "transform": transform.to_dict(),
        "epoch": epoch,
        "block": block,
        "code": code_of_package(),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return CopyPlan(np.concatenate(rows), np.concatenate(energies), block, key)


def _digest(names: NDArray) -> str:
    """Of names, in their order."""
    state = hashlib.sha256()
    for block in blocks(len(names)):
        state.update(json.dumps(names[block].tolist()).encode())
    return state.hexdigest()


def marks_of(images: ImageSet) -> dict[int, bytes]:
    """What tells images of one source id apart: a hash of the pixels, by row; none for one alone.

    The second image with the same id and the same pixels has a 1 in its hash, and so on: which of
    two that are equal comes first doesn't matter.
    """
    marks: dict[int, bytes] = {}
    seen: Counter[tuple[str, bytes]] = Counter()
    for row in repeated(images.source_ids).tolist():
        state = hashlib.blake2b(np.ascontiguousarray(images.images[row]).data, digest_size=16)
        place = str(images.source_ids[row]), state.digest()
        state.update(seen[place].to_bytes(8, "little"))
        seen[place] += 1
        marks[row] = state.digest()
    return marks


def make_copies(
    images: ImageSet, plan: CopyPlan, options: LowRankOptions, folder: Path, workers: int = 1
) -> Iterator[tuple[slice, CopyBlock]]:
    """Make those blocks of `plan` that aren't in `folder` yet, and give all of them in turn.

    Tasks make copies, and this process keeps each block in the folder as it comes.

    Parameters
    ----------
    workers : int
        Processes, one BLAS thread each; -1 for one a core. A surrounding ``rankwise.cluster``
        takes their place.

    Returns
    -------
    iterator of (slice, CopyBlock)
        The range of each block in the plan, and its copies.

    Raises
    ------
    RunError
        If `folder` holds the copies of another plan, or a file in it is damaged.
    """
    _claim(folder, plan.key)
    missing = {n: part for n, part in plan.blocks() if not block_path(folder, n).exists()}
    made = engine(workers).map(
        _make_block, _Originals(images.images, plan, list(missing.values())), options
    )
    for number, part in plan.blocks():
        if number not in missing:
            yield part, read_block(folder, number)
            continue
        block = next(made)
        path = block_path(folder, number)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **vars(block))
        yield part, block


class _Originals(Sequence[tuple[Any, NDArray[np.float64]]]):
    """What each block is made of, its images copied when a task is sent and not before."""

    def __init__(self, images: Any, plan: CopyPlan, parts: list[slice]) -> None:
        self._images, self._plan, self._parts = images, plan, parts

    def __len__(self) -> int:
        return len(self._parts)

    def __getitem__(self, number: Any) -> Any:
        part = self._parts[number]
        rows, energies = self._plan.rows[part], self._plan.energies[part]
        # What lies in shards goes there by its address.
        some = Rows(self._images, rows)
        return (some if isinstance(self._images, Referred) else some[:]), energies


def read_block(folder: Path, number: int) -> CopyBlock:
    """One block, in memory.

    Raises
    ------
    RunError
        If the file is damaged.
    """
    path = block_path(folder, number)
    try:
        with np.load(path, allow_pickle=False) as file:
            return CopyBlock(**{name: file[name] for name in CopyBlock.__dataclass_fields__})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise RunError(f"{path} is damaged ({error}); remove it and run again") from error


def block_path(folder: Path, number: int) -> Path:
    """Where block `number` lies."""
    return folder / f"copies-{number:05d}.npz"


def _claim(folder: Path, key: str) -> None:
    path = folder / _PLAN
    if not path.exists():
        write_json(path, {"key": key})
        return
    remedy = "; choose another folder, or remove it"
    if read_json_object(path, error=RunError, hint=remedy).get("key") != key:
        raise RunError(
            f"{folder} holds copies made from other images or with other options{remedy}"
        )


def _make_block(options: LowRankOptions, originals: tuple[Any, NDArray[np.float64]]) -> CopyBlock:
    images, energies = np.asarray(originals[0][:]), originals[1]
    n, axis = len(images), -1 if images.ndim == 4 else None
    layout = layout_of(images, axis)
    if n == 1 and fits(layout.planes(images).shape[1:], Wanted(energies[None])):
        # Alone it would take another path, which may round a half the other way.
        images, energies = np.repeat(images, 2, axis=0), np.repeat(energies, 2)
        layout = layout_of(images, axis)
    with one_thread():
        copies, ranks = approximate(images, layout, Wanted(energies[None]), options)
        planes, rebuilt = layout.planes(images), layout.planes(copies[0])
        parts = [
            _measure(planes[part], rebuilt[part])
            for part in blocks(len(planes), max(1, _MEASURED // planes[0].size))
        ]
    errors, decibels = map(np.concatenate, zip(*parts, strict=True))
    return CopyBlock(copies[0][:n], ranks[0][:n], errors[:n], decibels[:n])


def _measure(
    images: NDArray[np.uint8], copies: NDArray[np.uint8]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`approximation_error` and `psnr` of planes (b, C, H, W), both from one difference."""
    values = images.reshape(len(images), -1).astype(np.float64)
    norms = np.einsum("ij,ij->i", values, values)
    values -= copies.reshape(len(copies), -1)
    squares = np.einsum("ij,ij->i", values, values)
    errors = np.sqrt(np.divide(squares, norms, out=np.zeros_like(norms), where=norms > 0))
    with np.errstate(divide="ignore"):
        return errors, 10 * np.log10(255.0**2 * values.shape[1] / squares)
