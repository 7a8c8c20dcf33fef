"""The first paper's figure A.2 and Table 5, drawn from the networks themselves.

Nothing of the picture is written down twice: boxes, shapes and counts are read from what
`make_network` gives and `summary` follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import TYPE_CHECKING, Any

from torch import nn

from rankwise.nets.layers import ConvolutionReLU, ResidualBlock
from rankwise.nets.registry import make_network
from rankwise.nets.summary import LayerRow, Summary, summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 80
_COLUMNS = (36, 42)
_BLOCK = ("convolution 3×3", "batch norm", "ReLU", "convolution 3×3", "batch norm")
_SHORTCUT = "x itself, or a 1×1 convolution and batch norm"


@dataclass(frozen=True)
class Drawn:
    """One network of figure A.2.

    Attributes
    ----------
    name : str
    image_shape : (H, W, C)
        That of Table 5.
    n_classes : int
    depth, parameters : str
        What Table 5 says of it.
    boxes : tuple of (label, output shape)
        From top to bottom; equal residual blocks in a row are one box.
    summary : Summary
        Layer by layer.
    """

    name: str
    image_shape: tuple[int, int, int]
    n_classes: int
    depth: str
    parameters: str
    boxes: tuple[tuple[str, str], ...]
    summary: Summary

    @property
    def depth_here(self) -> int:
        """Counted as the paper's: the simple network's without dropout."""
        found = self.summary
        return found.depth if self.name == "resnet25" else found.depth_without_dropout


def drawn_networks() -> tuple[Drawn, Drawn]:
    """The two networks of figure A.2, at the image shapes of Table 5.

    ResNet25 is counted with flip, rotation and zoom, which give it the depth of Table 5.
    """
    simple = _drawn("simple-cnn", (28, 28, 1), 10, "9 (without dropout)", "100K")
    residual = _drawn("resnet25", (100, 100, 3), 2, "25 (incl. dropout)", "5M")
    return simple, residual


def _drawn(
    name: str, shape: tuple[int, int, int], n_classes: int, depth: str, parameters: str
) -> Drawn:
    network = make_network(name, shape, n_classes)
    found = summary(network, shape, augmented=name == "resnet25")
    modules = dict(network.named_modules())
    labelled = [(_label(row, modules.get(row.name)), _shape(row)) for row in found.layers]
    boxes = []
    for box, same in groupby(labelled):
        times = len(list(same))
        boxes.append((f"{box[0]}  ({times} times)" if times > 1 else box[0], box[1]))
    return Drawn(name, shape, n_classes, depth, parameters, tuple(boxes), found)


def _label(row: LayerRow, module: nn.Module | None) -> str:
    if isinstance(module, ConvolutionReLU):
        return f"{_convolution(module[0])}, ReLU"
    if isinstance(module, nn.Conv2d):
        return _convolution(module)
    if isinstance(module, ResidualBlock):
        return f"RCB, {module.conv1.out_channels} filters{_stride(module.conv1.stride)}"
    if isinstance(module, nn.MaxPool2d):
        size, stride = module.kernel_size, module.stride
        return f"max pooling {size}×{size}{_stride(stride if stride != size else 1)}"
    if isinstance(module, nn.Dropout):
        return f"dropout {module.p:g}"
    if isinstance(module, nn.Linear):
        return "softmax"
    return {"BatchNorm2d": "batch norm", "AdaptiveAvgPool2d": "mean over pixels"}.get(
        row.kind, row.kind if row.kind == "ReLU" else row.kind.lower().replace("[-1", "[−1")
    )


def _convolution(module: Any) -> str:
    height, width = module.kernel_size
    return f"convolution {height}×{width}{_stride(module.stride)}"


def _stride(stride: Any) -> str:
    step = stride if isinstance(stride, int) else stride[0]
    return "" if step == 1 else f" /{step}"


def _shape(row: LayerRow) -> str:
    if len(row.output_shape) < 3:
        return str(row.output_shape[0])
    channels, height, width = row.output_shape
    return f"{height}×{width}×{channels}"


def table_5(networks: Sequence[Drawn]) -> list[tuple[str, ...]]:
    """Table 5 beside what is here: a header and a row for each network."""
    rows: list[tuple[str, ...]] = [
        ("network", "images", "depth, paper", "here", "parameters, paper", "here")
    ]
    for network in networks:
        shape = "×".join(map(str, network.image_shape))
        count = f"{network.summary.trainable:,}"
        rows.append(
            (network.name, shape, network.depth, str(network.depth_here), network.parameters, count)
        )
    return rows


def diagram_text(networks: Sequence[Drawn]) -> str:
    """Figure A.2 and Table 5 in letters, at most 80 columns wide.

    Parameters
    ----------
    networks : sequence of Drawn
        Two, as `drawn_networks` gives them.
    """
    columns = [_column(n, width) for n, width in zip(networks, _COLUMNS, strict=True)]
    lines = ["Figure A.2: the networks of the low-rank augmentation paper", ""]
    for left, right in zip_longest(*columns, fillvalue=""):
        lines.append(f"{left:<{_COLUMNS[0]}}  {right}".rstrip())
    chain = " - ".join(word.replace("convolution", "conv") for word in _BLOCK)
    inside = f"x -+- {chain} -(+)- ReLU ->"
    first, last = inside.index("+"), inside.index("(+)") + 1
    lines += [
        "",
        "RCB, a residual convolution block; no convolution has a bias:",
        "",
        inside,
        " " * first + "|" + " " * (last - first - 1) + "|",
        " " * first + "+" + f" {_SHORTCUT} ".center(last - first - 1, "-") + "+",
        "",
        "Table 5: depth (a block counts as one layer), trainable parameters",
        "",
    ]
    rows = table_5(networks)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _column(network: Drawn, width: int) -> list[str]:
    rule = "+" + "-" * (width - 2) + "+"
    between = "+" + "v".center(width - 2, "-") + "+"
    lines = [f"{network.name}, {network.n_classes} classes", rule]
    for i, (label, shape) in enumerate(network.boxes):
        if i:
            lines.append(between)
        lines.append(f"| {label:<{width - 5 - len(shape)}} {shape} |")
    return [*lines, rule]


def draw_diagram(networks: Sequence[Drawn]) -> Figure:
    """Figure A.2 and, below it, Table 5, as a picture.

    Parameters
    ----------
    networks : sequence of Drawn
        Two, as `drawn_networks` gives them.
    """
    from matplotlib.figure import Figure

    most = max(len(network.boxes) for network in networks)
    sheet = Figure(figsize=(12, 0.52 * most + 2.6), layout="constrained")
    parts: Any = sheet.subfigures(2, 1, height_ratios=[0.52 * most + 1.2, 1.4])
    upper, lower = parts
    upper.suptitle("The networks of the low-rank augmentation paper (figure A.2)", fontsize=13)
    for axis, network in zip(upper.subplots(1, 3), [*networks, None], strict=True):
        axis.set(xlim=(0, 1), ylim=(-most, 1))
        axis.axis("off")
        if network is None:
            _draw_block(axis)
        else:
            _draw_column(axis, network)
    axis = lower.subplots()
    axis.axis("off")
    header, *rows = table_5(networks)
    table = axis.table(rows, colLabels=header, loc="center", cellLoc="left")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.scale(1, 1.5)
    lower.suptitle("Table 5: depth (a block is one layer) and trainable parameters", fontsize=11)
    return sheet


_COLOURS = {"conv": "#cfe0f5", "RCB": "#f7d9b5", "max": "#d9ead3", "softmax": "#ead1dc"}


def _draw_column(axis: Any, network: Drawn) -> None:
    axis.set_title(f"{network.name}, {network.n_classes} classes", fontsize=11)
    for i, (label, shape) in enumerate(network.boxes):
        _box(axis, (0.02, 0.98), -i, label, shape)
        if i:
            _arrow(axis, (0.5, 0.3 - i + 0.4), (0.5, 0.3 - i))


def _draw_block(axis: Any) -> None:
    axis.set_title("RCB, no bias", fontsize=11)
    parts = ("x", *_BLOCK, "+", "ReLU")
    for i, label in enumerate(parts):
        _box(axis, (0.02, 0.6), -i, label, "")
        if i:
            _arrow(axis, (0.31, 0.3 - i + 0.4), (0.31, 0.3 - i))
    place = len(parts) - 2
    axis.plot([0.6, 0.8, 0.8], [0, 0, -place], color="0.3", linewidth=1.2)
    _arrow(axis, (0.8, -place), (0.6, -place))
    axis.text(
        0.84,
        -place / 2,
        _SHORTCUT.replace(", or", ",\nor") + "\nwhere the size changes",
        rotation=90,
        fontsize=8.5,
        ha="left",
        va="center",
    )


def _box(axis: Any, sides: tuple[float, float], middle: float, label: str, shape: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    left, right = sides
    colour = next((c for start, c in _COLOURS.items() if label.startswith(start)), "#f2f2f2")
    axis.add_patch(
        FancyBboxPatch(
            (left, middle - 0.3),
            right - left,
            0.6,
            boxstyle="round,pad=0,rounding_size=0.02",
            facecolor=colour,
            edgecolor="0.3",
        )
    )
    if not shape:
        axis.text((left + right) / 2, middle, label, ha="center", va="center", fontsize=9)
        return
    axis.text(left + 0.03, middle, label, ha="left", va="center", fontsize=9)
    axis.text(right - 0.03, middle, shape, ha="right", va="center", fontsize=9, color="0.35")


def _arrow(axis: Any, start: tuple[float, float], end: tuple[float, float]) -> None:
    style = {"arrowstyle": "-|>", "color": "0.3", "shrinkA": 0, "shrinkB": 0}
    axis.annotate("", end, start, arrowprops=style)


def diagram_facts(networks: Sequence[Drawn]) -> list[dict[str, Any]]:
    """The same as plain values, for JSON."""
    return [
        {
            "name": network.name,
            "image_shape": list(network.image_shape),
            "n_classes": network.n_classes,
            "depth": network.depth_here,
            "depth_of_table_5": network.depth,
            "parameters": network.summary.parameters,
            "parameters_of_table_5": network.parameters,
            "layers": [
                {
                    "name": row.name,
                    "kind": row.kind,
                    "output_shape": list(row.output_shape),
                    "parameters": row.parameters,
                }
                for row in network.summary.layers
            ],
        }
        for network in networks
    ]
