"""Joint refinement: all units together, by mini-batches, the output layer with or without them.

The objective on a batch is cross-entropy or ``½‖τ − ΦA‖²`` a sample. Two ways to treat ``A``:

- ``"running"``: variable projection. ``A`` minimises the squared loss over a running window of
  batches (`output_statistics.RunningLayer`), full from the start, and the gradient in the units'
  parameters is that at this ``A`` held fixed, ``−Σ_k a_ik (D_ilᵀ r_k)``: the exact gradient of
  the projected functional, since the derivative in ``A`` is zero at the minimum.
- ``"trained"``: ``A`` is a parameter like the others, under either loss.

A batch is cut into shards at fixed places; each is one task on one thread, and their gradients
are added in order. So any number of workers gives the same bits. Every draw comes from (seed,
epoch), and each epoch ends in a checkpoint: an interrupted training goes on to the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rankwise._arrays import Images, blocks, chosen
from rankwise._threads import thread_pool
from rankwise.errors import RunError
from rankwise.linear.running import DivergedError, RunningLayer
from rankwise.networks.convolutional import OUTPUT_BLOCK, as_maps
from rankwise.training.affine import moved
from rankwise.training.augment import turned_in
from rankwise.training.checkpoints import read_checkpoint, write_checkpoint
from rankwise.training.distributed import check_same, digest_of, is_first, is_parallel, shared_out
from rankwise.training.joint_plan import JointPlan, JointResult
from rankwise.training.modules import Moments
from rankwise.training.precision import precision_begun, resolve_precision
from rankwise.training.steps import Clock, Steps, share_of_rate
from rankwise.training.teaching import TAUGHT, divergence

_MOMENTUM = 0.05
_STRETCH = 8.0


@dataclass
class _State:
    """What a checkpoint keeps beside the module and the optimiser."""

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_accuracy: float = -inf
    best: dict[str, torch.Tensor] = field(default_factory=dict)
    ended: bool = False  # by the time budget
    needs: float | None = None


class JointTraining:
    """Trains the units of a module together; see the module's docstring.

    Parameters
    ----------
    module : torch.nn.Module
        As in `rankwise.training.modules`: maps to features.
    plan : JointPlan
    n_classes : int
    coef : array of shape (m + 1, n_classes), optional
        Output layer to start from; default zero.
    seed : int
    workers : int
        Threads. Any number gives the same numbers.
    device : str
        A torch device.
    """

    def __init__(
        self,
        module: nn.Module,
        plan: JointPlan,
        n_classes: int,
        *,
        coef: np.ndarray | None = None,
        seed: int = 42,
        workers: int = 1,
        device: str = "cpu",
    ) -> None:
        self.module = module.to(device)
        self.plan = plan
        self.n_classes = n_classes
        self.seed = seed
        self.device = device
        self.workers = workers if device == "cpu" else 1
        m = int(module.n_features)  # type: ignore[arg-type]  # torch types attributes as modules
        start = np.zeros((m + 1, n_classes)) if coef is None else coef
        self.coef = (
            torch.as_tensor(start).float().to(device).requires_grad_(plan.output_layer == "trained")
        )
        self.running = (
            RunningLayer(m, n_classes, ridge=plan.ridge) if plan.output_layer == "running" else None
        )
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        trained = [*self.parameters, *([self.coef] if self.coef.requires_grad else [])]
        self.trained = trained
        self.steps = Steps(
            trained,
            module.matrices(),  # type: ignore[operator]  # a method of ours
            optimiser=plan.optimiser,
            learning_rate=plan.learning_rate,
            matrix_rate=plan.matrix_rate,
            weight_decay=plan.weight_decay,
        )
        self._compute_in(resolve_precision(plan.precision, device))
        self._clock = Clock(plan.time_budget)
        self._tossed = np.zeros(0, dtype=bool)

    def _compute_in(self, precision: str) -> None:
        self.precision = precision
        self._dtype = torch.bfloat16 if precision == "bfloat16" else None
        teacher = self.plan.teacher
        self._taught = None if teacher is None else teacher.on(self.device, self._dtype)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Hold the threads that `update` runs on."""
        with thread_pool(self.workers) as self._pool:
            yield

    # -- one update -------------------------------------------------------------------------

    def update(
        self,
        images: np.ndarray,
        encoded: np.ndarray,
        draws: torch.Generator,
        *,
        rows: np.ndarray | None = None,
        epoch: int = 0,
        weights: np.ndarray | None = None,
    ) -> float:
        """One step on one batch, inside `threads`; gives its mean loss before.

        Parameters
        ----------
        images : array of shape (n, H, W[, C])
        encoded : int array of shape (n,)
        draws : torch.Generator
            Of the augmentation.
        rows : int array of shape (n,), optional
            Places of the images among all of them, and the epoch: what the plan's `extra` may
            draw by.
        epoch : int
        weights : array of shape (n,), optional
            How often each image counts; of mean 1 over all images.
        """
        maps = as_maps(images)
        affine = None
        if self.plan.augmentation is not None:
            size = (maps.shape[2], maps.shape[3])
            turned = None if rows is None else turned_in(epoch, rows, self._coins(rows))
            affine = self.plan.augmentation.draw(len(maps), size, draws, turned)
        labels = torch.from_numpy(encoded)
        counts = None if weights is None else torch.from_numpy(weights).float()
        parts = list(blocks(len(maps), self.plan.shard_size(len(maps))))

        def placed(part: slice) -> torch.Tensor:
            x = maps[part].to(self.device)
            if affine is None or self.plan.augmentation is None:
                return x
            return moved(x, affine[part], self.plan.augmentation.fill)

        changed: torch.Tensor | None = None
        if self.plan.extra is not None:
            # All at once on this thread: a transform may have a state of its own.
            changed = torch.cat(list(self._pool.map(placed, parts)))
            changed = self.plan.extra(changed, source_id=rows, epoch=epoch)

        read = self._clock.read() if is_parallel() else 0.0

        def shard(part: slice) -> tuple[float, Sequence[torch.Tensor], Moments, Any, float]:
            x = placed(part) if changed is None else changed[part]
            moments: Moments = []
            features = self.module(x, moments, self._dtype)
            y = labels[part].to(self.device)
            own = None if counts is None else counts[part].to(self.device)
            loss = self.loss(features, y, own)
            if self._taught is not None:
                told = divergence(self._outputs(features), self._taught(x), own)
                loss = (1 - TAUGHT) * loss + TAUGHT * told
            loss = loss * (len(x) / len(maps))
            gradients = torch.autograd.grad(loss, self.trained)
            roots = features.new_ones(len(y)) if own is None else own.sqrt()
            moments = [(mean.detach(), variance.detach()) for mean, variance in moments]
            seen = (features.detach(), y, roots)
            return float(loss.detach()), gradients, moments, seen, read

        results = shared_out(lambda own: list(self._pool.map(shard, own)), parts)
        self._clock.hear(results[0][4])  # the first shard is the first process's
        for j, parameter in enumerate(self.trained):
            gradient = results[0][1][j]
            for other in results[1:]:
                gradient = gradient + other[1][j]
            parameter.grad = gradient
        self.steps.step()
        shares = [(part.stop - part.start) / len(maps) for part in parts]
        self._keep_moments([r[2] for r in results], shares)
        if self.running is not None:
            both = zip(*(r[3] for r in results), strict=True)
            features, seen, roots = (torch.cat(parts) for parts in both)
            self.running.add(
                features, F.one_hot(seen, self.n_classes), None if weights is None else roots
            )
            self.running.end_batch()
            if self.running.n_batches % self.plan.solve_every == 0:
                self.solve()
        return sum(r[0] for r in results)

    def loss(
        self, features: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mean loss of a batch, weighted, with the output layer as it is."""
        outputs = self._outputs(features)
        smoothing = self.plan.smoothing
        if self.plan.loss == "cross-entropy" and weights is None:
            return F.cross_entropy(outputs, labels, label_smoothing=smoothing)
        if self.plan.loss == "cross-entropy":
            each = F.cross_entropy(outputs, labels, label_smoothing=smoothing, reduction="none")
        else:
            targets = F.one_hot(labels, self.n_classes).to(outputs)
            each = 0.5 * (outputs - targets).square().sum(dim=1)
        return each.mean() if weights is None else (each * weights).mean()

    def _outputs(self, features: torch.Tensor) -> torch.Tensor:
        return features @ self.coef[:-1] + self.coef[-1]

    def solve_first(
        self,
        images: Images,
        encoded: np.ndarray,
        draws: torch.Generator,
        weights: np.ndarray | None = None,
    ) -> None:
        """Start from the glue: the ridge solution for the units as they are, on moved images.

        For the cross-entropy its outputs, about 0 and 1, are stretched eightfold to logits. A
        running output layer begins with the statistics as its window's.

        Parameters
        ----------
        images : array of shape (n, H, W[, C])
            A few thousand do.
        encoded : int array of shape (n,)
        draws : torch.Generator
            Of the augmentation.
        weights : array of shape (n,), optional
        """
        m, size = len(self.coef) - 1, self.plan.batch_size
        layer = RunningLayer(m, self.n_classes, ridge=self.plan.ridge, window=inf)
        for block in blocks(len(images), size):
            maps = as_maps(images[block]).to(self.device)
            if self.plan.augmentation is not None:
                sides = (maps.shape[2], maps.shape[3])
                affine = self.plan.augmentation.draw(len(maps), sides, draws)
                maps = moved(maps, affine, self.plan.augmentation.fill)
            with torch.no_grad():
                features = self.module(maps, [])
            labels = torch.from_numpy(encoded[block]).to(self.device)
            own = None if weights is None else torch.from_numpy(weights[block]).float()
            roots = None if own is None else own.sqrt().to(self.device)
            layer.add(features, F.one_hot(labels, self.n_classes), roots)
        if self.running is not None:
            self.running.fill(layer, size)
        factor = _STRETCH if self.plan.loss == "cross-entropy" else 1.0
        with torch.no_grad():
            self.coef.copy_(layer.solve() * factor)

    def set_rate(self, done: float) -> float:
        """Learning rates of the schedule after a share `done` of the training; gives AdamW's."""
        return self.steps.set_share(share_of_rate(self.plan.schedule, done, self.plan.warm_up))

    def solve(self) -> None:
        """Bring a running output layer up to date; a trained one stays as it is."""
        if self.running is not None:
            self.coef = self.running.solve().to(self.device)

    def _keep_moments(self, found: list[Moments], shares: Sequence[float]) -> None:
        """Go a little towards the batch's moments: those of its shards, by their share of it."""
        with torch.no_grad():
            weights = torch.tensor(shares, dtype=torch.float32, device=self.device)[:, None]
            mean = [
                (
                    (weights * torch.stack([m for m, _ in layer])).sum(dim=0),
                    (weights * torch.stack([v for _, v in layer])).sum(dim=0),
                )
                for layer in zip(*found, strict=True)
            ]
            self.module.set_moments(mean, _MOMENTUM)  # type: ignore[operator]  # a method of ours

    # -- all of it --------------------------------------------------------------------------

    def fit(
        self,
        images: Images,
        encoded: np.ndarray,
        *,
        weights: np.ndarray | None = None,
        validation: tuple[Images, np.ndarray] | None = None,
        checkpoint: Path | None = None,
        key: str = "",
        spent: float = 0.0,
        advance: Callable[[int], object] = lambda n: None,
        after_epoch: Callable[[dict[str, Any]], object] = lambda entry: None,
    ) -> JointResult:
        """Train to the end of the schedule, or go on from a checkpoint.

        Parameters
        ----------
        images : array of shape (n, H, W[, C])
        encoded : int array of shape (n,)
        weights : array of shape (n,), optional
            How often each image counts, in ratio to the others; default all once.
        validation : tuple of (images, encoded), optional
            Chooses the epoch. Never trained on.
        checkpoint : Path, optional
            File that keeps every finished epoch.
        key : str
            Names the fit; a checkpoint of another one isn't taken.
        spent : float
            Seconds of a time budget that went by before, or are needed behind.
        advance : callable
            Told the number of epochs done.
        after_epoch : callable
            Gets the entry of the history; what isn't false ends the training.

        Raises
        ------
        RunError
            If the checkpoint is another fit's or another precision's, or processes that train
            together (see `distributed`) differ or compute on another device than the CPU.
        """
        if is_parallel() and self.device != "cpu":
            raise RunError("processes that train together compute on CPUs; the device is 'cpu'")
        begin, state = time.perf_counter(), _State()
        self._clock.start()
        self._clock.keep(spent)
        if weights is not None:
            weights = weights / weights.mean()
        if checkpoint is not None:
            self._resume(checkpoint, key, state)
        if not state.best:
            state.best = self._tensors()
        resumed = state.epoch
        told = (len(images), self.seed, self.plan.epochs, self.plan.batch_size, self.precision)
        check_same("data, options or checkpoints", (*told, key, resumed, state.ended))
        check_same("what they start from", digest_of(self._tensors()))
        self._clock.add(float(sum(entry["seconds"] for entry in state.history)))
        if validation is not None:
            self._clock.reserve(
                lambda n: self.accuracy(validation[0][:n], validation[1][:n]),
                len(validation[1]),
                self.workers * OUTPUT_BLOCK,
            )
        self._clock.begin()
        self._clock.agree()
        advance(resumed)
        status = "early-stop" if self._is_stuck(state) else "finished"
        batch = min(self.plan.batch_size, len(images))
        per_epoch = len(images) // batch
        over = state.ended or (state.epoch > 0 and self._clock.is_over)
        if over and not state.ended:
            state.ended = True
            if checkpoint is not None and is_first():
                self._keep(checkpoint, key, state)
        with self.threads():
            if self.running is not None and not state.epoch:
                status = self._fill_window(images, encoded, batch, weights)
            while state.epoch < self.plan.epochs and status == "finished" and not over:
                tick = time.perf_counter()
                loss, rate, took = self._epoch(
                    images, encoded, state.epoch, batch, per_epoch, weights
                )
                check_same("parameters", digest_of(self._tensors()))
                accuracy = None if validation is None else self.accuracy(*validation)
                state.epoch += 1
                seconds = time.perf_counter() - tick
                entry = {
                    "epoch": state.epoch,
                    "train_loss": loss,
                    "validation_accuracy": accuracy,
                    "learning_rate": rate,
                    "seconds": seconds,
                }
                state.history.append(entry)
                if not np.isfinite(loss):
                    status = "non-finite"
                    break
                if accuracy is None or accuracy >= state.best_accuracy:
                    state.best_accuracy = -inf if accuracy is None else accuracy
                    state.best_epoch, state.best = state.epoch, self._tensors()
                over = state.ended = self._clock.is_over
                if over and state.epoch == 1:
                    state.needs = self._needed(seconds, took, per_epoch, images, encoded)
                if checkpoint is not None and is_first():
                    self._keep(checkpoint, key, state)
                advance(1)
                if after_epoch(entry) or self._is_stuck(state):
                    status = "early-stop"
        self._restore(state.best)
        coef = self.coef.detach().cpu().double().numpy()
        return JointResult(
            coef,
            state.history,
            state.best_epoch,
            status,
            self.precision,
            resumed,
            time.perf_counter() - begin,
            state.needs,
        )

    def accuracy(self, images: Images, encoded: np.ndarray) -> float:
        """Of the output layer as it is, on images that are not moved."""
        return float(np.mean(self.outputs(images).argmax(axis=1) == encoded))

    def outputs(self, images: Images) -> np.ndarray:
        """Outputs ``(n, K)`` of images as they are."""

        def part(block: slice) -> torch.Tensor:
            with torch.no_grad():
                features = self.module(as_maps(images[block]).to(self.device))
                return self._outputs(features).cpu()

        with thread_pool(self.workers) as pool:
            return torch.cat(list(pool.map(part, blocks(len(images), OUTPUT_BLOCK)))).numpy()

    def _epoch(
        self,
        images: Images,
        encoded: np.ndarray,
        epoch: int,
        batch: int,
        per_epoch: int,
        weights: np.ndarray | None,
    ) -> tuple[float, float, list[float]]:
        """Mean loss, the last rate, and the seconds of each update."""
        rng = np.random.default_rng([self.seed, 3, epoch])
        draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
        order = rng.permutation(len(images))
        total, rate, took = 0.0, 0.0, list[float]()
        try:
            for i in range(per_epoch):
                done = (epoch * per_epoch + i) / (self.plan.epochs * per_epoch)
                done = max(done, self._clock.done)
                if done >= 1 and i:
                    break
                tick, rate = time.perf_counter(), self.set_rate(min(done, 1.0))
                # Sorted: rows lie in memory in that order, and a batch has none.
                drawn = np.sort(order[i * batch : (i + 1) * batch])
                total += self.update(
                    images[drawn],
                    encoded[drawn],
                    draws,
                    rows=drawn,
                    epoch=epoch,
                    weights=None if weights is None else weights[drawn],
                )
                took.append(time.perf_counter() - tick)
            self.solve()
        except DivergedError:
            total = nan
        return total / max(len(took), 1), rate, took

    def _needed(
        self,
        seconds: float,
        took: list[float],
        per_epoch: int,
        images: Images,
        encoded: np.ndarray,
    ) -> float | None:
        """Seconds of one epoch and what is kept, if it was cut short or the budget is less.

        Parameters
        ----------
        seconds : float
            Of the epoch as it was, with its validation.
        took : list of float
            Of its updates.
        per_epoch : int
            Updates of a whole one.
        images, encoded
            As in `fit`.
        """
        others = took[1:]
        if not others and per_epoch > 1:
            # The first one is slow, as of anything, so another is timed, and not kept.
            kept = self._tensors()
            size, draws = min(self.plan.batch_size, len(images)), torch.Generator().manual_seed(0)
            tick = time.perf_counter()
            self.set_rate(1.0)
            self.update(images[:size], encoded[:size], draws, rows=np.arange(size))
            others = [time.perf_counter() - tick]
            self._restore(kept)
        usual = float(np.median(others or took))
        needs = self._clock.kept + seconds - sum(took[1:]) + usual * (per_epoch - 1)
        return needs if len(took) < per_epoch or seconds > self._clock.left else None

    def _coins(self, rows: np.ndarray) -> np.ndarray:
        """Whether each of these images begins mirrored: of its place, whatever the batch."""
        if rows.max() >= len(self._tossed):
            rng = np.random.default_rng([self.seed, 6])
            self._tossed = rng.random(2 * int(rows.max()) + 1000) < 0.5
        return self._tossed

    def _fill_window(
        self, images: Images, encoded: np.ndarray, batch: int, weights: np.ndarray | None
    ) -> str:
        """Let a running output layer begin with as many training images as its window holds.

        Gives the status then.
        """
        assert self.running is not None
        rng = np.random.default_rng([self.seed, 5])
        n = min(len(images), round(self.running.window) * batch)
        rows = np.sort(rng.permutation(len(images))[:n])
        draws = torch.Generator().manual_seed(int(rng.integers(2**62)))
        try:
            own = None if weights is None else weights[rows]
            self.solve_first(chosen(images, rows), encoded[rows], draws, own)
        except DivergedError:
            return "non-finite"
        return "finished"

    def _is_stuck(self, state: _State) -> bool:
        patience = self.plan.patience
        return patience is not None and state.epoch - state.best_epoch >= patience

    # -- checkpoints ------------------------------------------------------------------------

    _pool: ThreadPoolExecutor

    def _tensors(self) -> dict[str, torch.Tensor]:
        """What the result consists of."""
        state = {f"module.{k}": v.detach().clone() for k, v in self.module.state_dict().items()}
        return state | {"coef": self.coef.detach().clone()}

    def _restore(self, tensors: dict[str, torch.Tensor]) -> None:
        prefix = "module."
        self.module.load_state_dict(
            {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        )
        with torch.no_grad():
            self.coef.copy_(tensors["coef"])

    def _keep(self, path: Path, key: str, state: _State) -> None:
        tensors = {f"now.{k}": v for k, v in self._tensors().items()}
        tensors |= {f"best.{k}": v for k, v in state.best.items()}
        tensors |= {f"steps.{k}": v for k, v in self.steps.tensors().items()}
        if self.running is not None:
            tensors |= {f"running.{k}": v for k, v in self.running.tensors().items()}
        write_checkpoint(
            path,
            key,
            tensors,
            {
                "epoch": state.epoch,
                "history": state.history,
                "best_epoch": state.best_epoch,
                "best_accuracy": None if state.best_accuracy == -inf else state.best_accuracy,
                "precision": self.precision,
                "ended": state.ended,
                "needs": state.needs,
            },
        )

    def _resume(self, path: Path, key: str, state: _State) -> None:
        found = read_checkpoint(path, key)
        if found is None:
            return
        tensors, known = found
        self._compute_in(precision_begun(self.plan.precision, known["precision"], path.parent))
        parts: dict[str, dict[str, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor.to(self.device)
        self._restore(parts["now"])
        self.steps.load(parts["steps"])
        if self.running is not None:
            self.running.load({k: v.cpu() for k, v in parts["running"].items()})
        state.epoch, state.history = known["epoch"], known["history"]
        state.best_epoch, state.best = known["best_epoch"], parts["best"]
        state.ended, state.needs = known["ended"], known["needs"]
        accuracy = known["best_accuracy"]
        state.best_accuracy = -inf if accuracy is None else accuracy
