"""Single updates of a joint training: the objective, its gradients, and the output layer.

The objective on a batch is cross-entropy or ``½‖τ − ΦA‖²`` a sample. Two ways to treat ``A``:

- ``"running"``: variable projection. ``A`` minimises the squared loss over a running window of
  batches (`linear.running.RunningLayer`), full from the start, and the gradient in the units'
  parameters is that at this ``A`` held fixed, ``−Σ_k a_ik (D_ilᵀ r_k)``: the exact gradient of
  the projected functional, since the derivative in ``A`` is zero at the minimum.
- ``"trained"``: ``A`` is a parameter like the others, under either loss.

A batch is cut into shards at fixed places; each is one task on one thread, and their gradients
are added in order. So any number of workers gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from math import inf
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rankwise._arrays import Images, blocks
from rankwise._threads import thread_pool
from rankwise.linear.running import RunningLayer
from rankwise.networks.convolutional import OUTPUT_BLOCK, as_maps
from rankwise.training.affine import moved
from rankwise.training.augment import erased, turned_in
from rankwise.training.distributed import is_parallel, shared_out
from rankwise.training.joint_plan import JointPlan
from rankwise.training.modules import Moments
from rankwise.training.precision import resolve_precision
from rankwise.training.steps import Clock, Steps, share_of_rate
from rankwise.training.teaching import TAUGHT, divergence

_MOMENTUM = 0.05
_STRETCH = 8.0


class JointUpdates:
    """A module, its output layer and their optimiser, one update at a time.

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

    _pool: ThreadPoolExecutor

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
        self.moves = plan.augmentation
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
        affine, squares = None, None
        moves = self.moves
        if moves is not None:
            size = (maps.shape[2], maps.shape[3])
            turned = None if rows is None else turned_in(epoch, rows, self._coins(rows))
            affine = moves.draw(len(maps), size, draws, turned)
            squares = moves.squares(len(maps), size, draws)
        labels = torch.from_numpy(encoded)
        counts = None if weights is None else torch.from_numpy(weights).float()
        parts = list(blocks(len(maps), self.plan.shard_size(len(maps))))

        def placed(part: slice) -> torch.Tensor:
            x = maps[part].to(self.device)
            if affine is None or moves is None:
                return x
            x = moved(x, affine[part], moves.fill)
            return x if squares is None else erased(x, squares[part])

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
        self.steps.step(self._pool.map)
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
            if self.moves is not None:
                sides = (maps.shape[2], maps.shape[3])
                affine = self.moves.draw(len(maps), sides, draws)
                squares = self.moves.squares(len(maps), sides, draws)
                maps = moved(maps, affine, self.moves.fill)
                maps = maps if squares is None else erased(maps, squares)
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

    def _coins(self, rows: np.ndarray) -> np.ndarray:
        """Whether each of these images begins mirrored: of its place, whatever the batch."""
        if rows.max() >= len(self._tossed):
            rng = np.random.default_rng([self.seed, 6])
            self._tossed = rng.random(2 * int(rows.max()) + 1000) < 0.5
        return self._tossed

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
