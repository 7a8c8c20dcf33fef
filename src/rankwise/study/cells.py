"""A cell of a study, condition × fold × seed: cut, copy, train, test, in a folder of its own.

A cell's folder holds ``cell.json`` (what it is), ``training/`` (checkpoints, while it runs),
``history.csv``, ``history-frozen.csv`` where a head was trained alone first, ``predictions.npz``,
the weights where it re-trains, and ``result.json``, which is written last: its presence means that
the cell is done. ``lock`` is there while a process works on it, and held by that process; the
system lets go of it when the process ends, in whatever way.
"""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._claims import differences, locked
from rankwise._files import atomic_path, sweep, write_json
from rankwise._reading import read_json_object
from rankwise._threads import one_thread
from rankwise.data import ImageSet
from rankwise.errors import RunError
from rankwise.study.arms import batch_augmentation
from rankwise.study.conditions import Condition
from rankwise.study.cuts import Cut, cut
from rankwise.study.degraded_sets import degraded_sets
from rankwise.study.design import Study
from rankwise.study.design_parts import Arm
from rankwise.study.fitted import Fitted, Training, log_loss
from rankwise.study.models import fit_model
from rankwise.study.protocols import leaks, protocol_of, retraining_epochs

RESULT = "result.json"
REMEDY = "; remove its folder, and the command that runs the study makes it again"
"""Of a damaged cell."""
FAILURE = "failure.json"
LOCK = "lock"

HISTORY = (
    "epoch",
    "train_loss",
    "train_accuracy",
    "validation_loss",
    "validation_accuracy",
    "learning_rate",
    "seconds",
    "n_updates",
)


_NUMBER = (int, float)
_RESULT_TYPES: dict[str, tuple[type, ...]] = {
    "history": (list,),
    "best_epoch": (int,),
    "validation_accuracy": (*_NUMBER, type(None)),
    "test_accuracy": _NUMBER,
    "test_loss": (*_NUMBER, type(None)),
    "degraded": (dict, type(None)),
    "n_train": (int,),
    "n_copies": (int,),
    "n_validation": (int,),
    "n_test": (int,),
    "n_updates": (int,),
    "n_parameters": (int,),
    "leaks": (dict,),
    "predictions": (str,),
    "epochs": (int,),
    "seconds": _NUMBER,
}
"""What a result holds; see `_tested`."""


@dataclass(frozen=True)
class Cell:
    """Which cell: a condition, a seed, and a fold, or the re-training where `fold` is None."""

    condition: Condition
    seed: int
    fold: int | None

    def __hash__(self) -> int:
        return hash(self.place)

    @property
    def stage(self) -> str:
        """``"fold"`` or ``"retrain"``."""
        return "retrain" if self.fold is None else "fold"

    @property
    def place(self) -> str:
        """The cell's folder inside the study's."""
        last = "retrain" if self.fold is None else f"fold-{self.fold}"
        return f"cells/{self.condition.id}/seed-{self.seed}/{last}"


def cells_of(study: Study, conditions: tuple[Condition, ...]) -> list[Cell]:
    """Every cell of a study, folds first: a re-training needs its condition's folds."""
    cells = [
        Cell(condition, seed, fold)
        for condition in conditions
        for seed in study.seeds
        for fold in range(study.folds)
    ]
    if study.retrain:
        cells += [Cell(condition, seed, None) for condition in conditions for seed in study.seeds]
    return cells


def run_cell(
    study: Study,
    cell: Cell,
    images: ImageSet,
    out: Path,
    *,
    best_epochs: tuple[int, ...] = (),
    device: str = "cpu",
    tensorboard: bool = False,
) -> str:
    """Carry out a cell, or go on with it.

    Parameters
    ----------
    study : Study
    cell : Cell
    images : ImageSet
        The whole data set.
    out : Path
        Folder of the study.
    best_epochs : tuple of int
        Of the condition's folds, for a re-training.
    device : str
    tensorboard : bool
        Write events to ``out/tensorboard`` while training.

    Returns
    -------
    str
        ``"done"``; ``"busy"`` if another process works on it; ``"failed: …"`` with the reason,
        which is also in the cell's ``failure.json``.
    """
    folder = out / cell.place
    try:
        with locked(folder / LOCK) as mine:
            if (folder / RESULT).exists():
                # What a run has left that was killed right after its last word goes too.
                if mine:
                    sweep(folder, alone=True)
                    shutil.rmtree(folder / "training", ignore_errors=True)
                return "done"
            if not mine:
                return "busy"
            sweep(folder, alone=True)
            with one_thread():
                (folder / FAILURE).unlink(missing_ok=True)
                _carry_out(study, cell, images, out, folder, best_epochs, device, tensorboard)
    except Exception as error:
        # Whatever stops one cell, such as somebody's own callable, leaves the others to go on.
        reason = _reason(error)
        with suppress(OSError):  # a full disk, say, which is the reason then
            date = time.strftime("%Y-%m-%dT%H:%M:%S")
            write_json(folder / FAILURE, {"error": reason, "date": date})
        return f"failed: {reason}"
    return "done"


def _reason(error: Exception) -> str:
    """One line on what stopped a cell."""
    if isinstance(error, MemoryError):
        return "not enough memory; fewer --workers need less"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return f"{type(error).__name__}: {str(error) or 'no message'}".splitlines()[0]


def _carry_out(
    study: Study,
    cell: Cell,
    images: ImageSet,
    out: Path,
    folder: Path,
    best_epochs: tuple[int, ...],
    device: str,
    tensorboard: bool,
) -> None:
    begin = time.perf_counter()
    condition = cell.condition
    protocol = protocol_of(study.protocol)
    model = study.models[condition.model]
    parts = cut(study, condition.options, images, cell.seed, cell.fold)
    epochs = condition.epochs
    if cell.fold is None and not model.in_one_pass:
        epochs = retraining_epochs(protocol, best_epochs)
    training = Training(
        epochs=epochs,
        frozen_epochs=max(1, round(model.frozen_epochs * study.epochs_factor)),
        batch_size=study.batch_size,
        steps_per_epoch=_steps(study, condition.options, parts),
        seed=cell.seed,
        device=device,
        best=cell.fold is not None,
        precision=study.precision,
        patience=study.patience if cell.fold is not None else None,
        n_originals=len(parts.split.train.originals)
        if protocol.equal_updates and study.patience is None
        else None,
    )
    write_json(
        folder / "cell.json",
        {
            "condition": condition.to_json(),
            "arm": condition.options.model_dump(mode="json"),
            "stage": cell.stage,
            "fold": cell.fold,
            "seed": cell.seed,
            "epochs": epochs,
            "steps_per_epoch": training.steps_per_epoch,
            "best_epochs_of_folds": list(best_epochs),
        },
    )
    with events(out / "tensorboard" / cell.place, tensorboard) as after_epoch:
        fitted = fit_model(
            model,
            parts.train,
            parts.validation,
            images.n_classes,
            training,
            augment=batch_augmentation(condition.options),
            sources=parts.sources,
            frozen_on=parts.whole,
            folder=folder / "training",
            features=out / "features",
            after_epoch=after_epoch,
        )
    result = _tested(study, cell, images, parts, fitted, folder, out)
    result["epochs"] = epochs
    result["device"] = device
    result["train_seconds"] = fitted.seconds
    result["seconds"] = fitted.seconds + _seconds_after(begin, fitted)
    write_history(folder / "history.csv", fitted.history)
    if fitted.frozen_history:
        write_history(folder / "history-frozen.csv", fitted.frozen_history)
    if cell.fold is None:
        fitted.save(folder)
    write_json(folder / RESULT, result)
    shutil.rmtree(folder / "training", ignore_errors=True)


def _seconds_after(begin: float, fitted: Fitted) -> float:
    """Time for copies and tests; of a resumed training some epochs were before `begin`."""
    return max(0.0, time.perf_counter() - begin - fitted.seconds)


def _steps(study: Study, arm: Arm, parts: Cut) -> int | None:
    """Updates of an epoch where they aren't one pass over the training images.

    Under equal updates those of a pass over the originals; of a `matched` arm elsewhere, those of
    a pass over originals and the copies that it doesn't have.
    """
    from rankwise.nets import updates_per_pass

    n_originals = len(parts.split.train.originals)
    if protocol_of(study.protocol).equal_updates:
        return updates_per_pass(n_originals, study.batch_size)
    if arm.kind == "matched":
        return updates_per_pass(n_originals + parts.n_virtual, study.batch_size)
    return None


def _tested(
    study: Study,
    cell: Cell,
    images: ImageSet,
    parts: Cut,
    fitted: Fitted,
    folder: Path,
    out: Path,
) -> dict[str, Any]:
    """Predict, and put everything about the cell together, as ``results.json`` has it."""
    test = parts.split.test.rows
    test_images, test_labels = images.images[test], images.labels[test]
    logits = fitted.logits(test_images)
    predicted = logits.argmax(axis=1)
    validation_predicted = np.zeros(0, np.int64)
    validation_labels = np.zeros(0, np.int64)
    validation_accuracy = None
    if parts.validation is not None:
        validation_labels = parts.validation[1]
        validation_predicted = fitted.logits(parts.validation[0]).argmax(axis=1)
        validation_accuracy = float(np.mean(validation_predicted == validation_labels))
    clean = float(np.mean(predicted == test_labels))
    wanted = study.degraded or protocol_of(study.protocol).degraded
    degraded = None
    right: dict[str, Any] = {}
    if wanted == "all" or (wanted == "retrain" and cell.fold is None):
        degraded, degraded_right = degraded_accuracies(
            fitted, test_images, test_labels, clean, corruptions=study.corruptions, out=out
        )
        right["degraded_right"] = degraded_right
    codes = np.unique(images.source_ids, return_inverse=True)[1].astype(np.int64)
    held = parts.split.validation.rows
    with atomic_path(folder / "predictions.npz") as temporary:
        np.savez_compressed(
            temporary,
            test_index=test,
            test_source=codes[test],
            test_labels=test_labels,
            test_predicted=predicted,
            validation_index=held,
            validation_source=codes[held],
            validation_labels=validation_labels,
            validation_predicted=validation_predicted,
            **right,
        )
    return {
        "condition": cell.condition.id,
        "stage": cell.stage,
        "fold": cell.fold,
        "seed": cell.seed,
        "status": "done",
        "history": fitted.history,
        "best_epoch": fitted.best_epoch,
        "validation_accuracy": validation_accuracy,
        "test_accuracy": clean,
        "test_loss": log_loss(logits, test_labels),
        "degraded": degraded,
        "n_train": len(parts.split.train.originals),
        "n_copies": len(parts.split.train.copied),
        "n_validation": len(parts.split.validation),
        "n_test": len(test),
        "n_updates": fitted.n_updates,
        "n_parameters": fitted.n_parameters,
        "start": fitted.start,
        "leaks": leaks(parts.split, images.source_ids),
        "predictions": f"{cell.place}/predictions.npz",
    }


def degraded_accuracies(
    fitted: Fitted,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    clean: float,
    *,
    corruptions: str = "own",
    out: Path,
) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """Test accuracy on every kind of degraded images, at severities 1 to 5.

    Returns
    -------
    accuracies : dict
        ``clean``, and a list of five by kind.
    right : float32 array of shape (n,)
        How often each image was labelled right, over kinds and severities.
    """
    found: dict[str, Any] = {"clean": clean}
    right, n = np.zeros(len(labels)), 0
    for kind, _, changed in degraded_sets(corruptions, images, out):
        predicted = fitted.logits(changed).argmax(axis=1)
        right += predicted == labels
        n += 1
        found.setdefault(kind, []).append(float(np.mean(predicted == labels)))
    return found, (right / n).astype(np.float32)


def write_history(path: Path, history: list[dict[str, Any]]) -> None:
    """One line an epoch; empty where there is no value."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, HISTORY, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(history)


def read_result(out: Path, cell: Cell) -> dict[str, Any] | None:
    """The result of a cell, None if it isn't done.

    Raises
    ------
    RunError
        If the file is damaged, or another cell's.
    """
    path = out / cell.place / RESULT
    if not path.exists():
        return None
    remedy = "; remove it, and the command that runs the study makes it again"
    found = read_json_object(path, error=RunError, hint=remedy)
    wrong = [
        name
        for name, kinds in _RESULT_TYPES.items()
        if not isinstance(found.get(name), kinds) or isinstance(found.get(name), bool)
    ]
    mine = {"condition": cell.condition.id, "stage": cell.stage, "seed": cell.seed}
    wrong += differences(found, mine | {"fold": cell.fold})
    if wrong:
        raise RunError(f"{path} is damaged: its {', '.join(wrong)} can't be{remedy}")
    return found


@contextmanager
def events(
    folder: Path, enabled: bool
) -> Iterator[Callable[[int, Mapping[str, Any]], None] | None]:
    """TensorBoard's events of a training, epoch by epoch."""
    if not enabled:
        yield None
        return
    with import_tensorboard()(str(folder)) as writer:

        def after_epoch(epoch: int, metrics: Mapping[str, Any]) -> None:
            for name in HISTORY[1:5]:
                if metrics.get(name) is not None:
                    writer.add_scalar(name.replace("_", "/", 1), metrics[name], epoch)
            writer.flush()

        yield after_epoch


def import_tensorboard() -> Any:
    """TensorBoard's writer, or what to install.

    Raises
    ------
    MissingDependencyError
    """
    from rankwise.errors import MissingDependencyError

    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            "--tensorboard needs a library: pip install 'rankwise[tensorboard]'"
        ) from error
    return SummaryWriter
