"""Training through Lightning: in memory, resumable to the same numbers, silent; and prediction.

What an epoch does depends on (seed, epoch) alone: the order of the images, dropout and augmentation
(both draw from PyTorch's generator, which is seeded at the beginning of each epoch). So a training
that was killed and goes on from its last whole epoch ends with the same numbers, to the bit on one
CPU, as one that wasn't.

For other output layers than softmax see `rankwise.nets.losses`.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import nn

from rankwise._arrays import refuse_masked
from rankwise._claims import differences
from rankwise._files import expanded, temporary_folder, write_json
from rankwise._fingerprints import NoFingerprintError, fingerprint
from rankwise._process import torch_seeded
from rankwise._reading import UnreadableError, blamed_on, read_json_object
from rankwise.errors import RunError
from rankwise.nets.batches import kept_on, scale, updates_per_pass
from rankwise.nets.borrowing import evaluating, given_back, on_device
from rankwise.nets.memory_format import memory_format
from rankwise.nets.projected_loss import make_loss
from rankwise.nets.settings import TrainingResult, TrainingSettings
from rankwise.training.usual_settings import usual_settings

DESCRIPTION = "training.json"
Validation = tuple[ArrayLike, ArrayLike]


@usual_settings()
def train_network(
    model: nn.Module,
    images: ArrayLike,
    labels: ArrayLike,
    settings: TrainingSettings,
    *,
    validation: Validation | None = None,
    augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
    folder: Path | str | None = None,
    seed: int = 42,
    device: str = "auto",
    devices: int = 1,
    progress: bool = False,
    after_epoch: Callable[[int, dict[str, Any]], None] | None = None,
) -> TrainingResult:
    """Train a network; afterwards it holds the weights of the last epoch, where it was before.

    PyTorch has one default generator, so trainings in several threads of one process wait for
    each other; in several processes they don't.

    Parameters
    ----------
    model : Module
        ``forward(x)`` gives logits ``(n, K)`` of float32 ``(n, C, H, W)`` in [-1, 1]. Frozen
        parameters stay, and parts frozen entirely stay in evaluation mode.
    images : uint8 array (n, H, W) or (n, H, W, C)
        Or a float32 tensor of PyTorch's, ``(n, …)``, which the network gets as it is.
    labels : int array (n,)
        From 0 to K − 1.
    settings : TrainingSettings
    validation : (images, labels), optional
        Measured after each epoch; decides the best one.
    augment : callable, optional
        From a float batch ``(n, C, H, W)`` on the device to another; in training only. Randomness
        must come from PyTorch's default generator, otherwise resumption changes the numbers.
    folder : Path, optional
        Keeps ``last.ckpt`` (Lightning's checkpoint: weights, optimiser, history),
        ``best.safetensors`` (best validation accuracy), ``history.json`` and what was asked for. A
        training that was killed goes on from there, a finished one is read, if everything that
        its result follows from is the same: images, settings, seed, kind of device, the network's
        code and starting weights, the augmentation's code and values. Default None: nothing is
        written, and a kill loses all.
    seed : int
        Default 42 (paper C.2). PyTorch's own generator is left as it was.
    device : str
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
    devices : int
        Number of devices, by Lightning's ``ddp_spawn``: the script needs the usual
        ``if __name__ == "__main__"``, and an `augment` or `after_epoch` must be picklable. A batch
        is shared among them. Default 1.
    progress : bool
        A bar of updates on standard error. Default False: silence.
    after_epoch : callable, optional
        ``after_epoch(epoch, metrics)``, epoch from 1; may raise `StopTraining`. Not called again
        for epochs done before a kill.

    Returns
    -------
    TrainingResult

    Raises
    ------
    ValueError
        For images, labels or a device that don't fit.
    RunError
        If the folder holds another training, or a damaged one.
    """
    training = as_tensors(images, labels, "images")
    checked = None if validation is None else as_tensors(*validation, "validation images")
    if checked is not None:
        check_same_shape(training[0], checked[0])
    if not isinstance(devices, Integral) or devices < 1:
        raise ValueError(f"devices must be a whole number of 1 or more; got {devices!r}")
    accelerator, chosen = _accelerator(device, int(devices))
    wanted = None
    if folder is not None:
        wanted = _describe(model, training, checked, settings, seed, augment, device)
    _check_labels(model, training, checked)
    if folder is None and devices > 1:
        # Their results come back through files.
        with temporary_folder() as temporary:
            return _train(
                model, training, checked, settings, augment, temporary, seed, accelerator, chosen,
                progress, after_epoch,
            )  # fmt: skip
    where = None if folder is None else expanded(folder)
    if where is not None and wanted is not None:
        _claim(where, wanted)
    return _train(
        model, training, checked, settings, augment, where, seed, accelerator, chosen, progress,
        after_epoch,
    )  # fmt: skip


@usual_settings()
def predict_logits(
    model: nn.Module, images: ArrayLike, *, batch_size: int = 128, device: str = "auto"
) -> NDArray[np.float32]:
    """Logits ``(n, K)`` in evaluation mode, float32; the model is left as it was.

    Parameters
    ----------
    model : Module
        Where it isn't on the device, a copy of it is.
    images : uint8 array (n, H, W) or (n, H, W, C)
    batch_size : int
        Default 128.
    device : str
        As in `train_network`.
    """
    if not isinstance(batch_size, Integral) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of 1 or more; got {batch_size!r}")
    target = torch_device(device)
    tensor = kept_on(as_tensors(images, None, "images"), target)[0]
    placed = on_device(model, target)
    parts = []
    with evaluating(placed), memory_format(placed):
        for start in range(0, len(tensor), batch_size):
            x = scale(tensor[start : start + batch_size].to(target))
            parts.append(placed(x).float().to(tensor.device))
    return torch.cat(parts).cpu().numpy()


def torch_device(device: str) -> torch.device:
    """The device that a name stands for; "auto" is a GPU where there is one."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"unknown device {device!r}; accepted: auto, cpu, cuda, cuda:N, mps")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} was asked for, but PyTorch finds no GPU; use cpu")
    return found


def as_arrays(
    images: ArrayLike, labels: ArrayLike | None, what: str
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images (uint8, or float32 of a tensor) and labels, checked; nothing is copied.

    Raises
    ------
    ValueError
        Saying what `what` must be.
    """
    refuse_masked(images, what)
    refuse_masked(labels, f"labels of the {what}")
    as_it_is = isinstance(images, torch.Tensor) and images.dtype == torch.float32
    array = np.asarray(images.detach() if isinstance(images, torch.Tensor) else images)
    fits = array.ndim >= 2 if as_it_is else array.dtype == np.uint8 and array.ndim in (3, 4)
    if not fits or len(array) == 0:
        raise ValueError(
            f"{what} must be a uint8 array (n, height, width) or (n, height, width, channels) with "
            f"n ≥ 1; got {array.dtype} {array.shape}"
        )
    numbers = np.zeros(len(array), np.int64) if labels is None else np.asarray(labels)
    if numbers.shape != array.shape[:1] or numbers.dtype.kind not in "iu" or numbers.min() < 0:
        raise ValueError(
            f"labels of the {what} must be {len(array)} whole numbers from 0; got {numbers.dtype} "
            f"{numbers.shape}"
        )
    return array, numbers


def check_same_shape(training: Any, validation: Any) -> None:
    """Refuse validation images of another shape than the training images."""
    if validation.shape[1:] != training.shape[1:]:
        raise ValueError(
            f"validation images have shape {tuple(validation.shape[1:])}, the training images "
            f"{tuple(training.shape[1:])}"
        )


def as_tensors(
    images: ArrayLike, labels: ArrayLike | None, what: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `as_arrays` gives as tensors, labels int64; memory is shared where it can be."""
    array, numbers = as_arrays(images, labels, what)
    if not array.flags.c_contiguous or not array.flags.writeable:
        array = np.array(array, order="C")
    return torch.from_numpy(array), torch.from_numpy(numbers.astype(np.int64))


def _train(
    model: nn.Module,
    training: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor] | None,
    settings: TrainingSettings,
    augment: Callable[[torch.Tensor], torch.Tensor] | None,
    folder: Path | None,
    seed: int,
    accelerator: str,
    devices: int | list[int],
    progress: bool,
    after_epoch: Callable[[int, dict[str, Any]], None] | None,
) -> TrainingResult:
    import lightning.pytorch as pl

    from rankwise.nets import _lightning as parts

    steps = settings.steps_per_epoch or updates_per_pass(len(training[0]), settings.batch_size)
    loss = make_loss(settings.output, model)
    if not parts.trainable(model, loss):
        raise ValueError("the network has no parameter to train: all of them are frozen")
    module = parts.TrainingModule(
        model, loss, training, validation, steps, settings, seed, augment, after_epoch
    )
    callbacks: list[pl.Callback] = [parts.Bar("training")] if progress else []
    last = None
    if folder is not None:
        callbacks.append(parts.FolderCheckpoint(folder))
        if (folder / parts.LAST).exists():
            last = folder / parts.LAST
    several = isinstance(devices, int) and devices > 1
    kept = None if last is None else _read_checkpoint(last)
    if kept is None or not _is_over(kept["rankwise"], settings):
        with parts.silence(), torch_seeded(gpus=True), given_back(model):
            trainer = pl.Trainer(
                accelerator=accelerator,
                devices=devices,
                strategy="ddp_spawn" if several else "auto",
                precision=settings.precision,  # type: ignore[arg-type]  # checked there
                max_epochs=settings.epochs,
                callbacks=callbacks,
                default_root_dir=folder or tempfile.gettempdir(),
                logger=False,
                enable_checkpointing=folder is not None,
                plugins=[parts.PlainFiles()],
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                use_distributed_sampler=False,
            )
            with memory_format(model):
                trainer.fit(module, ckpt_path=last, weights_only=True)
    if folder is None:
        history, best_epoch, stopped = module.history, module.best_epoch, module.stopped
        best_state, last_state = module.best_state, parts.cpu_state(model)
    else:
        kept = _read_checkpoint(folder / parts.LAST)
        history, best_epoch, stopped = (
            kept["rankwise"][name] for name in ("history", "best_epoch", "stopped")
        )
        last_state = {
            name.removeprefix("model."): value
            for name, value in kept["state_dict"].items()
            if name.startswith("model.")
        }
        best_state = _read_best(folder / parts.BEST)
        model.load_state_dict(last_state)
    return TrainingResult(
        history=history,
        best_epoch=best_epoch,
        best_state=best_state,
        last_state=last_state,
        n_updates=history[-1]["n_updates"],
        seconds=sum(entry["seconds"] for entry in history),
        stopped=stopped,
    )


def _check_labels(
    model: nn.Module,
    training: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor] | None,
) -> None:
    """Refuse labels that the network has no logit for; it is asked on two images."""
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    with torch_seeded(gpus=True), evaluating(model), memory_format(model):
        logits = model(scale(training[0][:2].to(device)))
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        return
    held = None if validation is None else validation[1]
    check_range_of_labels(logits.shape[1], training[1], held)


def check_range_of_labels(n_classes: int, labels: Any, validating: Any = None) -> None:
    """Refuse labels beyond a network's logits."""
    for what, some in (("images", labels), ("validation images", validating)):
        largest = -1 if some is None else int(some.max())
        if largest >= n_classes:
            raise ValueError(
                f"labels of the {what} must be from 0 to {n_classes - 1}, as the network gives "
                f"{n_classes} logits; got {largest}"
            )


def _is_over(kept: dict[str, Any], settings: TrainingSettings) -> bool:
    return bool(kept["stopped"]) or len(kept["history"]) >= settings.epochs


def _accelerator(device: str, devices: int) -> tuple[str, int | list[int]]:
    found = torch_device(device)
    name = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[found.type]
    if found.index is None or found.type == "cpu":
        return name, devices
    if devices > 1:
        raise ValueError(f"device {device!r} is one device; with devices={devices} use 'cuda'")
    return name, [found.index]


def _describe(
    model: nn.Module,
    training: tuple[torch.Tensor, torch.Tensor],
    validation: tuple[torch.Tensor, torch.Tensor] | None,
    settings: TrainingSettings,
    seed: int,
    augment: Callable[[torch.Tensor], torch.Tensor] | None,
    device: str,
) -> dict[str, Any]:
    """What must be equal for a training to be the same one, named for whom it isn't."""
    trainable = [(name, p.requires_grad) for name, p in model.named_parameters()]
    return {
        "format": 2,
        "settings": asdict(settings),
        "seed": seed,
        "images": _digest(training),
        "validation": None if validation is None else _digest(validation),
        "network": _seen_into("the network", model, trainable),
        "augmentation": None if augment is None else _seen_into("the augmentation", augment),
        "device": torch_device(device).type,
    }


def _seen_into(what: str, *things: Any) -> str:
    try:
        return fingerprint(*things)
    except NoFingerprintError as error:
        raise ValueError(
            f"a training in a folder must be told from any other, and {what} can't be: {error}; "
            "give it a method fingerprint_parts() that says what its results follow from, or train "
            "without a folder"
        ) from error


def _digest(data: tuple[torch.Tensor, torch.Tensor]) -> str:
    digest = hashlib.sha256(str(tuple(data[0].shape)).encode())
    for tensor in data:
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def _claim(folder: Path, wanted: dict[str, Any]) -> None:
    """Write what is asked for into the folder, or compare it with what is there."""
    path = folder / DESCRIPTION
    if not path.exists():
        write_json(path, wanted)
        return
    found = read_json_object(path, error=RunError, hint="; choose another folder")
    different = sorted(differences(found, wanted))
    if different:
        raise RunError(
            f"{folder} holds another training (different: {', '.join(different)}); choose another "
            "folder"
        )


def _read_checkpoint(path: Path) -> dict[str, Any]:
    with blamed_on(path, RunError, "; delete it to train afresh"):
        found = torch.load(path, map_location="cpu", weights_only=True)
        kept = found["rankwise"]
        if not isinstance(found["state_dict"], dict) or not kept["history"]:
            raise UnreadableError("it holds no training")
        kept["best_epoch"], kept["stopped"]
    return found


def _read_best(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    with blamed_on(path, RunError, "; delete its folder to train afresh"):
        return load_file(path)
