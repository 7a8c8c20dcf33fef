"""The Lightning side of training: the module, its checkpoints, and silence. Imported when used."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import nn

from rankwise._files import atomic_path, write_json
from rankwise._process import ignoring_warnings
from rankwise._progress import progress_bar
from rankwise.nets.batches import EpochBatches, epoch_seed, kept_on, scale
from rankwise.nets.borrowing import on_device
from rankwise.nets.freezing import hold_frozen
from rankwise.nets.losses import Loss
from rankwise.nets.settings import StopTraining, TrainingSettings, at_plateau

LAST, BEST, HISTORY = "last.ckpt", "best.safetensors", "history.json"
EVALUATION_BATCH = 128
LOGGERS = ("lightning.pytorch", "lightning.fabric")
LIGHTNING = r"lightning\..*"

AfterEpoch = Callable[[int, dict[str, Any]], None]
Images = tuple[torch.Tensor, torch.Tensor]


class TrainingModule(pl.LightningModule):
    """A network and its loss, with the history of their training (which the checkpoint keeps)."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        training: Images,
        validation: Images | None,
        steps: int,
        settings: TrainingSettings,
        seed: int,
        augment: Callable[[torch.Tensor], torch.Tensor] | None,
        after_epoch: AfterEpoch | None,
    ) -> None:
        super().__init__()
        self.model, self.loss = model, loss
        # In a tuple, so that an augmentation that is a module isn't part of the checkpoint.
        self._augment = (augment,)
        self._training, self._validation = training, validation
        self._steps, self._settings, self._seed = steps, settings, seed
        self._after_epoch = after_epoch
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best_state: dict[str, torch.Tensor] = {}
        self.stopped = False
        self._begin = 0.0

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Be silent in the processes of further devices too: this is the first of it there."""
        super().__setstate__(state)
        # A process that is just being spawned doesn't know its parent yet, only that it inherits.
        spawning = getattr(multiprocessing.current_process(), "_inheriting", False)
        if spawning or multiprocessing.parent_process() is not None:
            _quieten()
            warnings.filterwarnings("ignore", module=LIGHTNING)

    def train_dataloader(self) -> EpochBatches:
        """Batches of the epoch that is about to begin."""
        size = self._settings.batch_size
        return EpochBatches(
            *self._training, size, self._steps, self._seed, lambda: len(self.history), self._share
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser of all parameters that aren't frozen."""
        return make_optimizer(self._settings, trainable(self.model, self.loss))

    def on_fit_start(self) -> None:
        """Move what isn't a part of this module to the device, the images where they fit."""
        self._training = kept_on(self._training, self.device)
        if self._validation is not None:
            self._validation = kept_on(self._validation, self.device)
        if isinstance(self._augment[0], nn.Module):
            self._augment = (on_device(self._augment[0], self.device),)

    def on_train_epoch_start(self) -> None:
        """Training mode, and randomness that depends on seed, epoch and device only."""
        self.model.train()
        hold_frozen(self.model)
        torch.manual_seed(epoch_seed(self._seed, len(self.history), self.global_rank))
        self._sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        self._count = 0
        self._begin = time.perf_counter()

    def training_step(self, batch: Images, batch_idx: int) -> torch.Tensor:
        """Loss of one batch; its sum and the number of right answers are added up unread."""
        x, y = scale(batch[0]), batch[1]
        if self._augment[0] is not None:
            with torch.no_grad():
                x = self._augment[0](x)
        loss, logits = self.loss(self.model, x, y)
        right = (logits.detach().argmax(1) == y).sum()
        self._sums += torch.stack([loss.detach() * len(y), right])
        self._count += len(y)
        return loss

    @torch.no_grad()
    def on_train_epoch_end(self) -> None:
        """Output layer, validation, history, then the caller's `after_epoch`."""
        self.model.eval()
        with self.trainer.precision_plugin.forward_context():
            self.loss.finish(self.model, TrainingImages(self._training, self.device))
            validation_loss, validation_accuracy = self._evaluate()
        train_loss, right, count = self._summed(self._sums, self._count)
        epoch = len(self.history) + 1
        metrics = {
            "epoch": epoch,
            "train_loss": train_loss / count,
            "train_accuracy": right / count,
            "validation_loss": validation_loss,
            "validation_accuracy": validation_accuracy,
            "learning_rate": float(self.trainer.optimizers[0].param_groups[0]["lr"]),
            "seconds": time.perf_counter() - self._begin,
            "n_updates": epoch * self._steps,
        }
        self.history.append(metrics)
        if self.best_epoch == 0 or self._is_best(validation_accuracy):
            self.best_epoch = epoch
            self.best_state = cpu_state(self.model)
        if self._after_epoch is not None and self.global_rank == 0:
            try:
                self._after_epoch(epoch, dict(metrics))
            except StopTraining:
                self.stopped = True
        losses = [entry["validation_loss"] for entry in self.history]
        self.stopped = self.stopped or at_plateau(losses, self._settings.patience)
        if self.trainer.world_size > 1:
            self.stopped = self.trainer.strategy.reduce_boolean_decision(self.stopped, all=False)
        if self.stopped:
            self.trainer.should_stop = True

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the history."""
        checkpoint["rankwise"] = {
            "history": self.history,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the history back."""
        kept = checkpoint["rankwise"]
        self.history = list(kept["history"])
        self.best_epoch, self.stopped = kept["best_epoch"], kept["stopped"]

    def _is_best(self, accuracy: float | None) -> bool:
        best = self.history[self.best_epoch - 1]["validation_accuracy"]
        return accuracy is None or accuracy > best

    def _evaluate(self) -> tuple[float | None, float | None]:
        if self._validation is None:
            return None, None
        rank, n_devices = self._share()
        own = (self._validation[0][rank::n_devices], self._validation[1][rank::n_devices])
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for x, y in TrainingImages(own, self.device):
            logits = self.model(x)
            loss = self.loss.evaluate(logits, y)
            sums += torch.stack([loss * len(y), (logits.argmax(1) == y).sum()])
        loss_sum, right, count = self._summed(sums, len(own[0]))
        return loss_sum / count, right / count

    def _summed(self, sums: torch.Tensor, count: int) -> list[float]:
        sums = torch.cat([sums, sums.new_tensor([count])])
        if self.trainer.world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        return sums.tolist()

    def _share(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size


class TrainingImages:
    """All images in fixed order, on a device and scaled, as often as it is iterated."""

    def __init__(self, images: Images, device: torch.device) -> None:
        self._images, self._device = images, device

    def __iter__(self) -> Iterator[Images]:
        images, labels = self._images
        for start in range(0, len(images), EVALUATION_BATCH):
            rows = slice(start, start + EVALUATION_BATCH)
            yield scale(images[rows].to(self._device)), labels[rows].to(self._device)


class FolderCheckpoint(Checkpoint):
    """After each epoch: the best weights, everything needed to go on, and the history to read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Best weights first: a kill in between repeats the epoch and writes the same again."""
        assert isinstance(pl_module, TrainingModule)
        from safetensors.torch import save_file

        if trainer.is_global_zero and pl_module.best_epoch == len(pl_module.history):
            with atomic_path(self._folder / BEST) as temporary:
                save_file(pl_module.best_state, temporary)
        if trainer.is_global_zero:
            with atomic_path(self._folder / LAST) as temporary:
                trainer.save_checkpoint(temporary)
            write_json(self._folder / HISTORY, pl_module.history)
        else:
            # Every device takes part; only the first one writes.
            trainer.save_checkpoint(self._folder / LAST)


class PlainFiles(TorchCheckpointIO):
    """Checkpoints written where they are asked for: `atomic_path` makes them whole or absent.

    Lightning's own way takes a detour over the system's temporary folder, where a process that is
    killed would leave them.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None
    ) -> None:
        """Write it."""
        torch.save(checkpoint, path)


class Bar(pl.Callback):
    """The package's own progress bar, on the first device."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._open: AbstractContextManager[Callable[[int], None]] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open it, with the updates there are already."""
        steps = len(pl_module.train_dataloader())
        total = steps * (trainer.max_epochs or 0)
        self._open = progress_bar(self._description, total, enabled=trainer.is_global_zero)
        self._advance = self._open.__enter__()
        self._advance(trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """One update more."""
        self._advance(1)

    def on_train_end(self, *args: Any) -> None:
        """Close it."""
        self._close()

    def on_exception(self, *args: Any) -> None:
        """Close it after an error too."""
        self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None


def make_optimizer(
    settings: TrainingSettings, parameters: list[nn.Parameter]
) -> torch.optim.Optimizer:
    """The optimiser that the settings name; constants as in `TrainingSettings`."""
    rate = settings.learning_rate
    if settings.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, alpha=0.9, eps=1e-7)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate, momentum=0.9)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=rate)


def trainable(model: nn.Module, loss: Loss) -> list[nn.Parameter]:
    """Parameters that the optimiser moves: not the frozen ones, nor a head that is solved for."""
    left_out = set()
    if not loss.trains_head:
        last = model[-1] if isinstance(model, nn.Sequential) else model.get_submodule("head")
        left_out = {id(p) for p in last.parameters()}
    return [p for p in model.parameters() if p.requires_grad and id(p) not in left_out]


def cpu_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the state dict on the CPU, contiguous."""
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in model.state_dict().items()
    }


@contextmanager
def silence() -> Iterator[None]:
    """No banners, tips or warnings of Lightning; Ctrl-C is a `KeyboardInterrupt`, not an exit."""
    levels = [logging.getLogger(name).level for name in LOGGERS]
    on_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if on_main else None
    try:
        with ignoring_warnings(module=LIGHTNING):
            _quieten()
            yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        for name, level in zip(LOGGERS, levels, strict=True):
            logging.getLogger(name).setLevel(level)
        if on_main and handler is not None:
            signal.signal(signal.SIGINT, handler)


def _quieten() -> None:
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
