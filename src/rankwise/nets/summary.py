"""A network's layers, output shapes and parameters: as a table of 80 columns, and as data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from rankwise.nets.borrowing import evaluating
from rankwise.nets.layers import height_width_channels


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Attributes
    ----------
    name : str
        Path in the network.
    kind : str
    output_shape : tuple of int
        Without the batch: ``(C, H, W)`` or ``(features,)``.
    parameters : int
        Its own.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int


@dataclass(frozen=True)
class Summary:
    """What `summary` gives; ``str()`` of it is the table.

    Attributes
    ----------
    layers : tuple of LayerRow
    parameters, trainable : int
        All, and those that aren't frozen.
    """

    layers: tuple[LayerRow, ...]
    parameters: int
    trainable: int

    @property
    def depth(self) -> int:
        """Layers as the paper counts them (table 5): input and scaling too, a block as one."""
        return len(self.layers)

    @property
    def depth_without_dropout(self) -> int:
        """The same, less the dropout layers."""
        return sum(row.kind != "Dropout" for row in self.layers)

    def __str__(self) -> str:
        rule = "-" * 80
        lines = [rule, f"{'layer':<30}{'output shape':<22}{'parameters':>28}", rule]
        for row in self.layers:
            label = row.kind if row.name in ("", row.kind) else f"{row.name} ({row.kind})"
            if len(label) > 44:
                label = f"{label[:43]}…"
            shape = " × ".join(map(str, row.output_shape))
            lines.append(f"{label:<45}{shape:<19}{row.parameters:>16,}")
        lines += [
            rule,
            f"depth {self.depth}, {self.depth_without_dropout} without dropout",
            f"parameters {self.parameters:,}, of which trainable {self.trainable:,}",
        ]
        return "\n".join(lines)


def summary(model: nn.Module, image_shape: Sequence[int], *, augmented: bool = False) -> Summary:
    """Layers in the order in which they run, with a row for the input and one for the scaling.

    A layer is a module without children or one that says so (``is_layer``), as a residual block
    does; a layer that runs twice is one row.

    Parameters
    ----------
    model : Module
        Takes float32 ``(n, C, H, W)``.
    image_shape : (H, W) or (H, W, C)
    augmented : bool
        Count flip, rotation and zoom too, which are layers in Keras. ResNet25 has the depth of
        table 5 (25) with them.

    Returns
    -------
    Summary
        ``print`` shows it.
    """
    height, width, channels = height_width_channels(image_shape)
    shape = (channels, height, width)
    rows = [LayerRow("input", "input", shape, 0)]
    if augmented:
        rows += [LayerRow(name, name, shape, 0) for name in ("flip", "rotation", "zoom")]
    rows.append(LayerRow("scaling to [-1, 1]", "scaling to [-1, 1]", shape, 0))
    seen: set[str] = set()

    def hook(name: str, module: nn.Module) -> None:
        def record(_: nn.Module, __: object, output: object) -> None:
            if name in seen or not isinstance(output, torch.Tensor):
                return
            seen.add(name)
            count = sum(p.numel() for p in module.parameters())
            kind = type(module).__name__
            rows.append(LayerRow(name, kind, tuple(output.shape[1:]), count))

        handles.append(module.register_forward_hook(record))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    _visit(model, "", hook)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with evaluating(model):
            model(torch.zeros(1, *shape, dtype=torch.float32, device=device))
    finally:
        for handle in handles:
            handle.remove()
    parameters = list(model.parameters())
    return Summary(
        tuple(rows),
        sum(p.numel() for p in parameters),
        sum(p.numel() for p in parameters if p.requires_grad),
    )


def _visit(module: nn.Module, name: str, hook) -> None:  # type: ignore[no-untyped-def]
    children = list(module.named_children())
    if not children or getattr(module, "is_layer", False):
        hook(name, module)
        return
    for child_name, child in children:
        _visit(child, f"{name}.{child_name}" if name else child_name, hook)
