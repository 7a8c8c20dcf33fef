"""Somebody's network, used and given back: its modes, its device, what it holds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import chain

import torch
from torch import nn

from rankwise._threads import SharedChange

_MODES = SharedChange()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every layer is in the mode it was in.

    Several threads may use a model, or layers of it, at once: the last one sets the modes back.
    """
    with ExitStack() as stack:
        for layer in model.modules():
            stack.enter_context(_MODES.holding(id(layer), _evaluate(layer)))
        stack.enter_context(torch.no_grad())
        yield


def _evaluate(layer: nn.Module) -> Callable[[], Callable[[], None]]:
    def change() -> Callable[[], None]:
        mode = layer.training
        layer.training = False

        def undo() -> None:
            layer.training = mode

        return undo

    return change


def on_device(model: nn.Module, device: torch.device | str) -> nn.Module:
    """The model where all of it is on a device already, else a copy of it there."""
    target = torch.device(device)
    if all(_is_on(tensor, target) for tensor in chain(model.parameters(), model.buffers())):
        return model
    return copy.deepcopy(model).to(target)


def _is_on(tensor: torch.Tensor, target: torch.device) -> bool:
    if tensor.device.type != target.type:
        return False
    return target.index is None or tensor.device.index == target.index


@contextmanager
def given_back(model: nn.Module) -> Iterator[None]:
    """Let a training have a model; afterwards it is where it was, each layer in its mode.

    A model that is spread over several devices stays where it was trained.
    """
    modes = {layer: layer.training for layer in model.modules()}
    homes = {tensor.device for tensor in chain(model.parameters(), model.buffers())}
    try:
        yield
    finally:
        if len(homes) == 1:
            model.to(homes.pop())
        for layer, mode in modes.items():
            layer.training = mode
        model.zero_grad(set_to_none=True)
