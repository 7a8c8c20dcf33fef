"""Fine-tuning of the top of a backbone, from maps that the rest of it gives once.

What is frozen gives the same maps for an image in every epoch. So a backbone that is a fixed graph
of torch's own layers is cut below the first layer that is trained: the maps there are computed
once, by onnxruntime where it is installed, and epochs run through the rest alone. Of
EfficientNet-Lite0 that is a twentieth of the products.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from rankwise.heads.backbones import Backbone, as_backbone
from rankwise.heads.features import extract_features, to_float_batch
from rankwise.heads.layer_graph import LayerNetwork, NotAGraphError, describe_layers, uses
from rankwise.nets.borrowing import evaluating
from rankwise.nets.freezing import freeze, unfreeze_top
from rankwise.nets.settings import TrainingResult, TrainingSettings
from rankwise.nets.training import train_network
from rankwise.nets.transfer import FINE_EPOCHS, FINE_RATE, TOP_LAYERS, TransferNetwork


def fine_tune(
    network: TransferNetwork,
    images: Any,
    labels: ArrayLike,
    settings: TrainingSettings | None = None,
    *,
    n_top: int = TOP_LAYERS,
    validation: tuple[Any, ArrayLike] | None = None,
    cache: Path | str | None = None,
    seed: int = 42,
    device: str = "auto",
    progress: bool = False,
) -> TrainingResult:
    """Train the top layers of a backbone together with the head, on unchanged images (paper B.1).

    The same training as `rankwise.nets.train_network`'s, to rounding. The network is left with the
    weights of the best epoch on the validation images, the last one without them.

    Parameters
    ----------
    network : TransferNetwork
        Of `rankwise.nets.transfer_network`, its head trained or solved before
        (`rankwise.heads.head.solve_head`).
    images : uint8 array of shape (n, H, W) or (n, H, W, C)
    labels : int array of shape (n,)
    settings : TrainingSettings, optional
        Default: 50 epochs of RMSprop with 1e-5 (paper B.1).
    n_top : int, default=4
        Layers of the backbone to train, as `rankwise.nets.unfreeze_top` counts them; a residual
        block is one. Paper B.1's number.
    validation : (images, labels), optional
    cache : path, optional
        Where the maps are kept, as features are by `rankwise.heads.features.extract_features`.
    seed, device, progress
        As in `rankwise.nets.train_network`.

    Raises
    ------
    ValueError
        If there aren't so many layers, images and labels don't fit, or the backbone takes a power
        of its features, which has no slope at zero.
    """
    own = getattr(network.backbone, "preparation", None)
    if own is not None and own.power != 1.0:
        raise ValueError(
            f"the backbone takes the power {own.power:g} of its features, which has no slope at "
            "zero; fine_tune takes one that gives them as they are (power=1)"
        )
    settings = settings or TrainingSettings(
        FINE_EPOCHS, optimizer="rmsprop", learning_rate=FINE_RATE
    )
    freeze(network.backbone)
    unfreeze_top(network.backbone, n_top)
    options: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
    try:
        cut = cut_below_trained(as_backbone(network.backbone), images[:1])
    except NotAGraphError:
        found = train_network(network, images, labels, settings, validation=validation, **options)
        network.load_state_dict(found.best_state)
        return found

    def maps(some: Any) -> torch.Tensor:
        flat = extract_features(cut.below, some, cache=cache, device=device, progress=progress)
        flat = flat if flat.flags.writeable else np.array(flat)  # torch wants it so
        return torch.from_numpy(flat.reshape(len(flat), *cut.shape))

    top = _Top(cut, network)
    held = None if validation is None else (maps(validation[0]), validation[1])
    found = train_network(top, maps(images), labels, settings, validation=held, **options)
    last = _adopted(network, found.last_state)
    return replace(found, best_state=_adopted(network, found.best_state), last_state=last)


@dataclass(frozen=True)
class Cut:
    """A backbone in two.

    Attributes
    ----------
    below : Backbone
        From images to maps, flattened: what is frozen, with the backbone's own preparation.
    above : LayerNetwork
        From maps ``(n, *shape)`` to the backbone's features or maps, its weights copied.
    shape : tuple of int
    """

    below: Backbone
    above: LayerNetwork
    shape: tuple[int, ...]


def cut_below_trained(backbone: Backbone, image: Any) -> Cut:
    """Cut a backbone where all that comes before is frozen, as late as one tensor carries it.

    Parameters
    ----------
    backbone : Backbone
    image : uint8 array of shape (1, H, W) or (1, H, W, C)
        Any one of those to come: says the shape of the maps.

    Raises
    ------
    NotAGraphError
        If the backbone isn't a graph of torch's own layers, or nothing before its trained layers
        is frozen.
    """
    bare = backbone.bare()
    steps = describe_layers(bare)
    trained = {name for name, p in bare.named_parameters() if p.requires_grad}
    place = _place(steps, trained)
    below = LayerNetwork([*steps[:place], _flatten(place)])
    above = LayerNetwork([_moved(step, place) for step in steps[place:]])
    for part in (below, above):
        _take(part, bare)
    for name, parameter in above.named_parameters():
        parameter.requires_grad_(name in trained)
    lower = Backbone(below, f"{backbone.name}, its first {place} steps")
    lower.preparation = backbone.preparation
    unflattened = LayerNetwork(steps[:place])
    _take(unflattened, bare)
    with evaluating(unflattened):
        prepared = backbone.preparation(to_float_batch(image), backbone.name)
        shape = tuple(unflattened(prepared).shape[1:])
    return Cut(lower, above, shape)


class _Top(nn.Module):
    """What is trained: from maps to logits. Under a frozen backbone, statistics don't move."""

    def __init__(self, cut: Cut, network: TransferNetwork) -> None:
        super().__init__()
        self.backbone, self.dropout, self.head = cut.above, network.dropout, network.head
        self._held = isinstance(network.backbone, Backbone) and network.backbone.frozen

    def train(self, mode: bool = True) -> Self:
        """As `Backbone.train`."""
        super().train(mode)
        if self._held:
            self.backbone.eval()
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)`` of maps ``(n, C, h, w)``."""
        y = self.backbone(x)
        return self.head(self.dropout(y.mean(dim=(2, 3)) if y.ndim == 4 else y.flatten(1)))


def _place(steps: list[dict[str, Any]], trained: set[str]) -> int:
    """Number of steps below the cut: the last that all later ones need nothing before of."""
    first = next(i for i, step in enumerate(steps) if _is_among(step, trained))
    for place in range(first, 0, -1):
        needed = [n for step in steps[place:] for n in _needs(step)]
        if "tensor" not in steps[place - 1] and all(n >= place for n in needed):
            return place
    raise NotAGraphError("nothing that is frozen comes before all of what is trained")


def _needs(step: dict[str, Any]) -> list[int]:
    return [] if "tensor" in step else uses([step["inputs"], list(step["options"].values())])


def _is_among(step: dict[str, Any], trained: set[str]) -> bool:
    name = step.get("tensor")
    if name is not None:
        return name in trained
    return "layer" in step and any(n.startswith(f"{step['name']}.") for n in trained)


def _moved(step: dict[str, Any], by: int) -> dict[str, Any]:
    """A step whose inputs are counted from another one on."""

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {"step": value["step"] - by}
        return [moved(v) for v in value] if isinstance(value, list) else value

    if "tensor" in step:
        return step
    options = step["options"]
    if "function" in step:
        options = {key: moved(value) for key, value in options.items()}
    return step | {"inputs": moved(step["inputs"]), "options": options}


def _flatten(place: int) -> dict[str, Any]:
    return {"function": "flatten", "inputs": [{"step": place}, 1], "options": {}}


def _take(part: LayerNetwork, whole: nn.Module) -> None:
    """Copy the weights that a part has of the whole."""
    known = whole.state_dict()
    part.load_state_dict({name: known[name] for name in part.state_dict()})


def _adopted(network: TransferNetwork, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put what was trained into a network; a copy of its whole state then."""
    bare = as_backbone(network.backbone).bare()
    for part, name in ((bare, "backbone."), (network.head, "head.")):
        own = {k.removeprefix(name): v for k, v in state.items() if k.startswith(name)}
        part.load_state_dict(part.state_dict() | own)
    return {k: v.detach().to("cpu", copy=True) for k, v in network.state_dict().items()}
