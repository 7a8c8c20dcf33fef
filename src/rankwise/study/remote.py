"""A cell on a worker that shares no disk: it comes back as files, which this machine keeps."""

from __future__ import annotations

from pathlib import Path

from rankwise._claims import locked
from rankwise._files import atomic_path, temporary_folder
from rankwise.data import ImageSet
from rankwise.study.cells import FAILURE, LOCK, RESULT, Cell, run_cell
from rankwise.study.degraded_sets import FOLDER as DEGRADED
from rankwise.study.design import Study

TRAINING = "training"
"""What an interrupted cell goes on from, in the folder where it was."""

_FOR_OTHER_CELLS = (DEGRADED, "features")
"""What a cell leaves to the next ones in the same folder: the worker's next one has another."""

Files = dict[str, bytes]
"""Content by its place in the study's folder."""


def run_away(
    study: Study,
    cell: Cell,
    images: ImageSet,
    *,
    best_epochs: tuple[int, ...],
    device: str,
    tensorboard: bool,
) -> tuple[str, Files]:
    """Carry out a cell in a temporary folder; give its outcome, and the files that it left.

    Parameters
    ----------
    study, cell, images, best_epochs, device, tensorboard
        As for `run_cell`.
    """
    with temporary_folder() as folder:
        outcome = run_cell(
            study,
            cell,
            images,
            folder,
            best_epochs=best_epochs,
            device=device,
            tensorboard=tensorboard,
        )
        found = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != LOCK
            if not set(path.relative_to(folder).parts) & {TRAINING, *_FOR_OTHER_CELLS}
        }
    return outcome, found


def keep(files: Files, out: Path, cell: Cell) -> None:
    """Write a cell's files, its result last; those of a cell that another run has done are left."""
    result = f"{cell.place}/{RESULT}"
    with locked(out / cell.place / LOCK, wait=True):
        if (out / result).exists():
            return
        for name in sorted(files, key=lambda name: name == result):
            with atomic_path(out / name) as temporary:
                temporary.write_bytes(files[name])
        if result in files:
            (out / cell.place / FAILURE).unlink(missing_ok=True)
