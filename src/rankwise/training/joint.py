"""Joint refinement: all units together, by mini-batches, the output layer with or without them.

An epoch is one pass over the images by the updates of `joint_updates`. Every draw comes from (seed,
epoch), and each epoch ends in a checkpoint: an interrupted training goes on to the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf, nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rankwise._arrays import Images, chosen
from rankwise.errors import RunError
from rankwise.linear.running import DivergedError
from rankwise.networks.convolutional import OUTPUT_BLOCK
from rankwise.training.augment import Augmentation
from rankwise.training.distributed import check_same, digest_of, is_first, is_parallel
from rankwise.training.joint_checkpoints import JointState, read_state, write_state
from rankwise.training.joint_plan import LONG, JointResult
from rankwise.training.joint_updates import JointUpdates
from rankwise.training.precision import precision_begun

_TIMED_AGAIN_AT = 0.25
"""Share of the schedule: early enough for the rates to go by what is found."""

_LEAST_SHARE = 1e-9

_SURELY_WORSE = 2.0
"""Standard errors of an accuracy by which the luckiest of all epochs has to be ahead."""


class JointTraining(JointUpdates):
    """Trains the units of a module together, epoch by epoch; see the module's docstring.

    Its parameters are those of `JointUpdates`.
    """

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
        behind: Callable[[], float] | None = None,
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
            Chooses between the last epoch and that of the highest accuracy. Never trained on.
        checkpoint : Path, optional
            File that keeps every finished epoch.
        key : str
            Names the fit; a checkpoint of another one isn't taken.
        spent : float
            Seconds of a time budget that went by before.
        behind : callable, optional
            Times what comes behind, in seconds, of which so many are kept of a time budget. Timed
            again when a quarter of the schedule is over: others may have had the processor first.
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
        begin = time.perf_counter()
        self._clock.start()
        self._clock.keep(spent)
        self._behind = None if self.plan.time_budget is None else behind
        self._kept_behind = 0.0 if self._behind is None else self._behind()
        self._clock.keep(self._kept_behind)
        if weights is not None:
            weights = weights / weights.mean()
        found = None if checkpoint is None else self._resume(checkpoint, key)
        state = JointState() if found is None else found
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
            self.moves = self._moves_in(state)
            if self.running is not None and not state.epoch:
                status = self._fill_window(images, encoded, batch, weights)
            while state.epoch < self.plan.epochs and status == "finished" and not over:
                self.moves = self._moves_in(state)
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
        chosen_epoch = state.epoch
        n_validated = 0 if validation is None else len(validation[1])
        if status != "finished" or self._is_worse(state, n_validated):
            chosen_epoch = state.best_epoch
            self._restore(state.best)
        coef = self.coef.detach().cpu().double().numpy()
        return JointResult(
            coef,
            state.history,
            chosen_epoch,
            status,
            self.precision,
            resumed,
            time.perf_counter() - begin,
            state.needs,
        )

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
                if self._behind is not None and self._clock.done >= _TIMED_AGAIN_AT:
                    self._clock.keep(min(0.0, self._behind() - self._kept_behind))
                    self._behind = None
            self.solve()
        except DivergedError:
            total = nan
        return total / max(len(took), 1), rate, took

    def _moves_in(self, state: JointState) -> Augmentation | None:
        """Those of long trainings, if so many epochs are planned or, by the clock, expected.

        What the clock says changes from epoch to epoch; it counts until a quarter is over.
        """
        if self.plan.long is None:
            return self.plan.augmentation
        expected, done = float(self.plan.epochs), 0.0
        if self.plan.time_budget is not None:
            done = self._clock.done
            expected = min(expected, state.epoch / max(done, _LEAST_SHARE))
        if done < _TIMED_AGAIN_AT:
            state.long = expected >= LONG
        return self.plan.long if state.long else self.plan.augmentation

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

    @staticmethod
    def _is_worse(state: JointState, n_validated: int) -> bool:
        """Whether the last epoch is surely worse than the best on so many validation images.

        The rates have fallen to nothing by then, so what says otherwise by less than that is the
        luck of the best of many epochs on few images.
        """
        last = state.history[-1]["validation_accuracy"] if state.history else None
        if last is None or not n_validated:
            return False
        both = (state.best_accuracy + last) / 2
        error = sqrt(both * (1 - both) / n_validated)
        return bool(last < state.best_accuracy - _SURELY_WORSE * error)

    def _is_stuck(self, state: JointState) -> bool:
        patience = self.plan.patience
        return patience is not None and state.epoch - state.best_epoch >= patience

    def _keep(self, path: Path, key: str, state: JointState) -> None:
        parts = {"now": self._tensors(), "steps": self.steps.tensors()}
        if self.running is not None:
            parts["running"] = self.running.tensors()
        write_state(path, key, state, parts, self.precision)

    def _resume(self, path: Path, key: str) -> JointState | None:
        found = read_state(path, key, self.device)
        if found is None:
            return None
        state, parts, precision = found
        self._compute_in(precision_begun(self.plan.precision, precision, path.parent))
        self._restore(parts["now"])
        self.steps.load(parts["steps"])
        if self.running is not None:
            self.running.load({k: v.cpu() for k, v in parts["running"].items()})
        return state
