"""The steps of a joint training: optimisers, learning rates, and what a checkpoint keeps of them.

Two ways to step. ``"adamw"`` takes all parameters alike. ``"muon"`` takes the channel vectors of
convolutional units, which make a matrix with one row a form: its gradient's singular values are
all set to about one (K. Jordan's Muon), and since every form is normalised behind it, the matrix
is held at one length, as in his airbench. The rest goes by AdamW: by torch's function, since the
class `torch.optim.AdamW` imports torch's compiler, which takes as long as importing torch itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from math import cos, inf, pi

import torch
from torch.optim.adamw import adamw

from rankwise.training import muon
from rankwise.training.distributed import is_parallel, of_first
from rankwise.training.reserve import MARGIN, least_seconds

OPTIMISERS = ("adamw", "muon")
SCHEDULES = ("one-cycle", "triangle")


def one_cycle(done: float, warm_up: float) -> float:
    """Share of the largest learning rate after a share `done` of the updates.

    Half a cosine up from a tenth during the warm-up, half a cosine down to 10⁻⁴ behind it.
    """
    if done < warm_up:
        low, high, along = 1.0, 0.1, done / warm_up
    else:
        low, high, along = 1e-4, 1.0, (done - warm_up) / max(1 - warm_up, 1e-9)
    return low + (high - low) * 0.5 * (1 + cos(pi * along))


def triangle(done: float, warm_up: float) -> float:
    """Share of the largest learning rate: straight up from a fifth, then straight down to zero."""
    if done < warm_up:
        return 0.2 + 0.8 * done / warm_up
    return (1 - done) / max(1 - warm_up, 1e-9)


def share_of_rate(schedule: str, done: float, warm_up: float) -> float:
    """Share of the largest learning rate of one of `SCHEDULES`."""
    return (one_cycle if schedule == "one-cycle" else triangle)(done, warm_up)


class Steps:
    """Optimisers of a list of parameters.

    Parameters
    ----------
    parameters : sequence of tensors
        Each with ``grad`` set before `step`.
    matrices : sequence of tensors
        Those among them that Muon takes: their last axis is a row of the matrix.
    optimiser : {"adamw", "muon"}
    learning_rate, weight_decay : float
        The largest, of AdamW.
    matrix_rate : float
        The largest, of Muon.
    """

    def __init__(
        self,
        parameters: Sequence[torch.Tensor],
        matrices: Sequence[torch.Tensor],
        *,
        optimiser: str,
        learning_rate: float,
        weight_decay: float,
        matrix_rate: float,
    ) -> None:
        apart = {id(p) for p in matrices} if optimiser == "muon" else set()
        self._matrices = [p for p in parameters if id(p) in apart]
        self._flat = [p.detach().view(-1, p.shape[-1]) for p in self._matrices]
        self._buffers = [torch.zeros_like(flat) for flat in self._flat]
        self._others = [p for p in parameters if id(p) not in apart]
        self._moments = [_moments(p.detach()) for p in self._others]
        self._weight_decay = weight_decay
        self._rates = (learning_rate, matrix_rate)
        self._rate, self._matrix_rate = self._rates

    def set_share(self, share: float) -> float:
        """Learning rates at a share of the largest; gives AdamW's."""
        self._rate, self._matrix_rate = (share * largest for largest in self._rates)
        return self._rate

    def step(self, run: Callable[..., Iterable[None]] = map) -> None:
        """One step along the parameters' gradients.

        Parameters
        ----------
        run : callable
            Calls a function for each of several values, as `map` does: on threads, for example.
        """
        self._step_others()
        # The largest first, so that no thread begins with it when the others are done.
        order = sorted(range(len(self._flat)), key=lambda i: -self._flat[i].numel())
        large = bool(order) and self._flat[order[0]].numel() >= _WORTH_A_THREAD
        list((run if large else map)(self._step_matrix, order))

    def _step_others(self) -> None:
        moved = [
            (p, m) for p, m in zip(self._others, self._moments, strict=True) if p.grad is not None
        ]
        count, mean, square = ([m[name] for _, m in moved] for name in _MOMENTS)
        with torch.no_grad():
            adamw(
                [p for p, _ in moved],
                [p.grad for p, _ in moved if p.grad is not None],
                mean,
                square,
                [],
                count,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=self._rate,
                weight_decay=self._weight_decay,
                eps=1e-8,
                maximize=False,
            )

    def _step_matrix(self, i: int) -> None:
        gradient, flat = self._matrices[i].grad, self._flat[i]
        if gradient is None:
            return
        muon.step(
            flat,
            gradient.reshape(flat.shape),
            self._buffers[i],
            rate=self._matrix_rate,
            momentum=_MOMENTUM,
        )
        flat.mul_(len(flat) ** 0.5 / flat.norm().clamp(min=_SHORTEST))

    def tensors(self) -> dict[str, torch.Tensor]:
        """The optimisers' state, by name."""
        found = {}
        for i, moments in enumerate(self._moments):
            for name, value in moments.items():
                found[f"{i}.{name}"] = value
        for i, buffer in enumerate(self._buffers, start=len(self._others)):
            found[f"{i}.{_BUFFER}"] = buffer
        return found

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go on from a state that `tensors` gave."""
        for name, value in tensors.items():
            place, _, moment = name.partition(".")
            i = int(place)
            if i >= len(self._others):
                self._buffers[i - len(self._others)].copy_(value)
            else:
                self._moments[i][moment].copy_(value)


class Clock:
    """How much of a budget of seconds is used up; without one, never any.

    Seconds that aren't the schedule's, those before its first update and those kept for what comes
    behind its last, leave it less of the budget: it begins at its beginning whatever they are.
    Processes that train together go by the clock of the first: by what `hear` was told last.

    Parameters
    ----------
    budget : float, optional
    now : callable
        Seconds since whenever.
    """

    def __init__(self, budget: float | None, now: Callable[[], float] = time.perf_counter) -> None:
        self._budget, self._now = budget, now
        self.start()

    def start(self) -> None:
        """Begin to count."""
        self._spent, self.kept, self._begin, self._heard = 0.0, 0.0, self._now(), 0.0

    def add(self, seconds: float) -> None:
        """What the schedule had used up before an interruption."""
        self._spent += seconds

    def keep(self, seconds: float) -> None:
        """What isn't the schedule's: used up before, or needed behind it."""
        self.kept += seconds

    def reserve(self, task: Callable[[int], object], n: int, some: int) -> None:
        """Keep the time that a task takes for `n` images, from what it takes for some of them."""
        if self._budget is None:
            return
        some = min(n, some)
        task(min(some, 2))  # the first call of anything is slow
        self.keep(MARGIN * least_seconds(lambda: task(some), self._now) * n / some)

    def begin(self) -> None:
        """Begin the schedule: what went by since `start` isn't its own."""
        now = self._now()
        self.keep(now - self._begin)
        self._begin = now

    @property
    def left(self) -> float:
        """Seconds of the budget that are the schedule's."""
        return inf if self._budget is None else self._budget - self.kept

    def read(self) -> float:
        """Share of these that is used up, as this process sees it."""
        if self._budget is None:
            return 0.0
        return (self._spent + self._now() - self._begin) / self.left if self.left > 0 else inf

    def hear(self, done: float) -> None:
        """What the first process has read."""
        self._heard = done

    def agree(self) -> None:
        """Ask the first process; all have to."""
        if is_parallel() and self._budget is not None:
            self.hear(of_first(self.read()))

    @property
    def done(self) -> float:
        """Share that is used up, the same in all processes."""
        return self._heard if is_parallel() else self.read()

    @property
    def is_over(self) -> bool:
        """Whether nothing is left; processes agree about it."""
        self.agree()
        return self.done >= 1


def _moments(parameter: torch.Tensor) -> dict[str, torch.Tensor]:
    """What AdamW keeps of a parameter, by torch's names; the count of steps is the CPU's."""
    zeros = (torch.zeros(()), torch.zeros_like(parameter), torch.zeros_like(parameter))
    return dict(zip(_MOMENTS, zeros, strict=True))


_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_MOMENTUM = 0.85
_SHORTEST = 1e-12
_WORTH_A_THREAD = 2**14
_BUFFER = "momentum_buffer"
