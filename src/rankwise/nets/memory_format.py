"""In which order a network's numbers lie in memory while it computes: channels last where it can.

On a CPU the simple CNN trains 1.5 times, and predicts 2.7 times, as fast with its convolutions'
weights in that order. Maps then lie so as well, and `Tensor.view` refuses them where `reshape`
wouldn't; so only networks that say ``channels_last = True`` get it, as all of this package do, and
anybody else's get contiguous images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from rankwise._threads import SharedChange

_ORDERS = SharedChange()


@contextmanager
def memory_format(model: nn.Module) -> Iterator[None]:
    """Compute in the order that suits `model`; afterwards its weights lie where they did.

    Several threads may use a model at once: the last one puts the weights back.
    """
    if not takes_channels_last(model):
        hook = model.register_forward_pre_hook(_contiguous)
        try:
            yield
        finally:
            hook.remove()
        return
    with ExitStack() as stack:
        for weight in model.parameters():
            if weight.ndim == 4:
                stack.enter_context(_ORDERS.holding(id(weight), _channels_last(weight)))
        yield


def _channels_last(weight: nn.Parameter) -> Callable[[], Callable[[], None]]:
    def change() -> Callable[[], None]:
        kept = weight.data
        weight.data = kept.contiguous(memory_format=torch.channels_last)

        def undo() -> None:
            if weight.device == kept.device:
                # Into the memory it had, which others may look at; a training has new values.
                weight.data = kept.copy_(weight.data)
            else:
                weight.data = weight.data.contiguous()

        return undo

    return change


def takes_channels_last(model: nn.Module) -> bool:
    """Whether `model`, or a part of it, says so by an attribute ``channels_last``."""
    return any(getattr(module, "channels_last", False) is True for module in model.modules())


def _contiguous(module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.contiguous() if isinstance(x, torch.Tensor) else x for x in inputs)
