"""Fine-tuning of the top of a backbone, from maps that the rest of it gives once.

What is frozen gives the same maps for an image in every epoch. So a backbone that is a fixed graph
of torch's own layers is cut below the first layer that is trained: the maps there are computed
once, by onnxruntime where it is installed, and epochs run through the rest alone. Of
EfficientNet-Lite0 that is a twentieth of the products.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from rankwise._process import torch_seeded
from rankwise.heads.backbones import Backbone, forward_of
from rankwise.heads.features import extract_features, to_float_batch
from rankwise.heads.layer_graph import (
    LayerNetwork,
    NotAGraphError,
    describe_layers,
    take_weights,
    uses,
)
from rankwise.nets.borrowing import evaluating, given_back
from rankwise.nets.freezing import freeze, hold_frozen, top_layers
from rankwise.nets.memory_format import memory_format, takes_channels_last
from rankwise.nets.settings import TrainingResult, TrainingSettings
from rankwise.nets.training import (
    as_arrays,
    check_range_of_labels,
    check_same_shape,
    torch_device,
    train_network,
)
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
    weights of the best epoch on the validation images, the last one without them. What can't be cut
    (a backbone that is no graph, acts on whole batches or draws numbers in its frozen part, or
    shares or uses by itself what is trained) is trained as `train_network` does.

    Parameters
    ----------
    network : TransferNetwork
        Of `rankwise.nets.transfer_network`, its head trained or solved before
        (`rankwise.heads.head.solve_head`).
    images, labels
        As in `rankwise.nets.train_network`.
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
        If there aren't so many layers, images, labels or the device don't fit, or the backbone
        takes a power of its features, which has no slope at zero. Nothing is changed then.
    """
    own = network.backbone
    if isinstance(own, Backbone) and own.preparation.power != 1.0:
        raise ValueError(
            f"the backbone takes the power {own.preparation.power:g} of its features, which has no "
            "slope at zero; fine_tune takes one that gives them as they are (power=1)"
        )
    pixels, numbers = as_arrays(images, labels, "images")
    checked = None if validation is None else as_arrays(*validation, "validation images")
    if checked is not None:
        check_same_shape(pixels, checked[0])
    held_labels = None if checked is None else checked[1]
    check_range_of_labels(network.head.out_features, numbers, held_labels)
    where = torch_device(device)
    top = top_layers(own, n_top)
    settings = settings or TrainingSettings(
        FINE_EPOCHS, optimizer="rmsprop", learning_rate=FINE_RATE
    )
    freeze(network.backbone)
    for layer in top:
        layer.requires_grad_(True)
    options: dict[str, Any] = {"seed": seed, "device": device, "progress": progress}
    try:
        _check_cuttable(network, pixels)
        cut = cut_below_trained(forward_of(network.backbone), pixels[:1])
    except NotAGraphError:
        found = train_network(network, images, labels, settings, validation=validation, **options)
        network.load_state_dict(found.best_state)
        return found

    def maps(some: np.ndarray) -> torch.Tensor:
        on = str(where) if where.type == "cuda" else "cpu"
        flat = extract_features(cut.below, some, cache=cache, device=on, progress=progress)
        flat = flat if flat.flags.writeable else np.array(flat)  # torch wants it so
        return torch.from_numpy(flat.reshape(len(flat), *cut.shape))

    held = None if checked is None else (maps(checked[0]), checked[1])
    found = train_network(
        _Top(cut, network), maps(pixels), labels, settings, validation=held, **options
    )
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
    moving : frozenset of str
        Layers that a training has in training mode.
    order : torch.memory_format
        In which the whole has the maps in memory: dropout draws its numbers in that order.
    """

    below: Backbone
    above: LayerNetwork
    shape: tuple[int, ...]
    moving: frozenset[str]
    order: torch.memory_format


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
        If the backbone isn't a graph of torch's own layers, nothing before its trained layers is
        frozen, or a copy of its layers, one image at a time below, wouldn't be the same.
    """
    bare = backbone.bare()
    with given_back(backbone):
        backbone.train()
        hold_frozen(backbone)
        steps = describe_layers(bare)
        moving = frozenset(name for name, layer in bare.named_modules() if layer.training)
    with evaluating(backbone):
        if describe_layers(bare) != steps:
            raise NotAGraphError("it takes another way in training")
    every = bare.named_parameters(remove_duplicate=False)
    trained = {name: parameter for name, parameter in every if parameter.requires_grad}
    place = _place(steps, set(trained), moving)
    with torch_seeded():  # starting weights, which are replaced
        lower = LayerNetwork(steps[:place])
        above = LayerNetwork([_moved(step, place) for step in steps[place:]])
        below = LayerNetwork([*steps[:place], _flatten(place)])
    for part in (lower, above, below):
        take_weights(part, bare)
    own = dict(above.named_parameters())
    if not trained.keys() <= own.keys() or len(set(map(id, trained.values()))) < len(trained):
        raise NotAGraphError("what is trained isn't the layers' alone, each its own")
    for name, parameter in own.items():
        parameter.requires_grad_(name in trained)
    lower.channels_last = above.channels_last = takes_channels_last(backbone)
    shape, order = _shape_and_order(
        lower, backbone.preparation(to_float_batch(image), backbone.name)
    )
    flat = Backbone(below, f"{backbone.name}, its first {place} steps")
    flat.preparation = backbone.preparation
    return Cut(flat, above, shape, moving, order)


def _shape_and_order(
    lower: LayerNetwork, image: torch.Tensor
) -> tuple[tuple[int, ...], torch.memory_format]:
    """Of an image's maps, which are refused where they depend on the others of its batch."""
    with evaluating(lower), memory_format(lower):
        more = lower(torch.cat([image, image + 1, image + 2]))
        two = lower(torch.cat([image, image + 1]))
    tensors = isinstance(two, torch.Tensor) and two.ndim > 1 and two.is_floating_point()
    if not tensors or len(two) != 2 or len(more) != 3 or two.shape[1:] != more.shape[1:]:
        raise NotAGraphError("below what is trained there is no row for each image")
    scale = float(two.abs().max())
    if not torch.allclose(two, more[:2], rtol=0.0, atol=1e-4 * scale, equal_nan=True):
        raise NotAGraphError("what is frozen gives an image other maps beside other images")
    last = two.ndim == 4 and not two.is_contiguous()
    return tuple(two.shape[1:]), torch.channels_last if last else torch.contiguous_format


class _Top(nn.Module):
    """What is trained, copied: from maps to logits, each layer in the mode it has in the whole."""

    def __init__(self, cut: Cut, network: TransferNetwork) -> None:
        super().__init__()
        self.backbone, self._moving, self._order = cut.above, cut.moving, cut.order
        self.dropout, self.head = copy.deepcopy(network.dropout), copy.deepcopy(network.head)

    def train(self, mode: bool = True) -> Self:
        """As the whole network's: what is held there is held here."""
        super().train(mode)
        for name, layer in self.backbone.named_modules():
            layer.training = mode and name in self._moving
        return self

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """``(n, n_features)`` of maps."""
        y = self.backbone(x.contiguous(memory_format=self._order))
        return y.mean(dim=(2, 3)) if y.ndim == 4 else y.flatten(1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(n, n_classes)`` of maps."""
        return self.head(self.dropout(self.features(x)))


def _place(steps: list[dict[str, Any]], trained: set[str], moving: frozenset[str]) -> int:
    """Number of steps below the cut: the last that all later ones need nothing before of."""
    if any(step.get("function") == "dropout" for step in steps):
        raise NotAGraphError("which part of it a dropout belongs to can't be told")
    first = next(
        (i for i, step in enumerate(steps) if _is_among(step, trained) or _moves(step, moving)), 0
    )
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


def _moves(step: dict[str, Any], moving: frozenset[str]) -> bool:
    """Whether a layer without weights is another one in training, and training has it so."""
    return step.get("layer") in _OTHER_IN_TRAINING and step["name"] in moving


_OTHER_IN_TRAINING = ("Dropout", "Dropout2d", "BatchNorm1d", "BatchNorm2d")


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


def _check_cuttable(network: nn.Module, images: np.ndarray) -> None:
    hooks = any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    if type(network) is not TransferNetwork or hooks:
        raise NotAGraphError("it does more than its backbone and head")
    if images.dtype != np.uint8 and images.ndim != 4:
        raise NotAGraphError("it takes no images")


def _adopted(network: TransferNetwork, state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Put what was trained into a network; a copy of its whole state then."""
    bare = forward_of(network.backbone).bare()
    for part, name in ((bare, "backbone."), (network.head, "head.")):
        known = part.state_dict()
        part.load_state_dict({key: state.get(name + key, value) for key, value in known.items()})
    return {
        name: value.detach().to("cpu", copy=True).contiguous()
        for name, value in network.state_dict().items()
    }
