"""The networks of a study, by name: the package's own, pre-trained ones, timm's, somebody's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rankwise._process import torch_seeded
from rankwise.errors import MissingDependencyError, RankwiseError
from rankwise.study.arms import find_callable
from rankwise.study.design import StudyError
from rankwise.study.design_parts import Model

if TYPE_CHECKING:
    from torch import nn


def build_network(
    model: Model, image_shape: tuple[int, ...], n_classes: int, seed: int
) -> nn.Module:
    """A network with weights from the seed; a frozen backbone under a new head for transfer.

    Raises
    ------
    StudyError
        If what a study names isn't a network for these images.
    MissingDependencyError
        If its library isn't installed.
    """
    from torch import nn

    with torch_seeded(seed):
        network = _network(model, image_shape, n_classes, seed)
    if not isinstance(network, nn.Module):
        found = type(network).__name__
        raise StudyError(f"{model.network} gave {found}; a torch.nn.Module is needed")
    if not model.is_transfer:
        return network
    from rankwise.nets import freeze, transfer_network, unfreeze_top

    network = _without_its_head(network, n_classes)
    try:
        transferred = transfer_network(
            network, n_classes, image_shape=image_shape, dropout=model.dropout, seed=seed
        )
        # Too many layers to unfreeze are found here, before the frozen stage.
        if model.unfreeze:
            unfreeze_top(transferred.backbone, model.unfreeze)
        freeze(transferred.backbone)
        return transferred
    except Exception as error:  # whatever somebody's own network raises
        raise StudyError(f"{model.network} can't be fine-tuned: {reason_of(error)}") from error


def _without_its_head(network: nn.Module, n_classes: int) -> nn.Module:
    """Somebody's own network with its last layer replaced by the identity.

    A second layer on its random logits would learn from as many numbers as there are classes.
    Networks of this package, and backbones, lose their head elsewhere.
    """
    from torch import nn

    from rankwise.heads.backbones import Backbone
    from rankwise.nets.layers import has_own_features

    if isinstance(network, Backbone) or (has_own_features(network) and hasattr(network, "head")):
        return network
    linear = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not linear or network.get_submodule(linear[-1]).out_features != n_classes:
        return network
    if linear[-1] == "":
        return nn.Flatten()
    parent, _, attribute = linear[-1].rpartition(".")
    setattr(network.get_submodule(parent), attribute, nn.Identity())
    return network


def _network(model: Model, image_shape: tuple[int, ...], n_classes: int, seed: int) -> Any:
    if model.network == "backbone":
        return _pretrained(str(model.backbone))
    if model.network.startswith("timm:"):
        return _from_timm(model, image_shape, n_classes)
    if ":" in model.network:
        return _own_network(model, image_shape, n_classes)
    from rankwise.nets import make_network

    return make_network(
        model.network,
        image_shape,
        n_classes,
        dropout=model.dropout,
        weights=model.weights,
        seed=seed,
    )


def _own_network(model: Model, image_shape: tuple[int, ...], n_classes: int) -> Any:
    make = find_callable(model.network)
    try:
        return make(image_shape, n_classes, **model.parameters)
    except RankwiseError:
        raise
    except Exception as error:  # whatever somebody's own function raises
        given = "".join(f", {name}={value!r}" for name, value in model.parameters.items())
        raise StudyError(
            f"{model.network} can't be called as ({image_shape}, {n_classes}{given}): "
            f"{reason_of(error)}"
        ) from error


def reason_of(error: Exception) -> str:
    """An error of somebody else's code in one line."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _pretrained(name: str) -> nn.Module:
    """A backbone without the head that it was trained with."""
    from torch import nn

    from rankwise.heads.backbones import load_backbone

    backbone = load_backbone(name)
    network = backbone.network
    for parent in (network, getattr(network, "classifier", None)):
        last = list(parent.named_children())[-1:] if isinstance(parent, nn.Module) else []
        if last and isinstance(last[0][1], nn.Linear):
            setattr(parent, last[0][0], nn.Identity())
    return backbone


def _from_timm(model: Model, image_shape: tuple[int, ...], n_classes: int) -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            f"{model.network} needs timm: pip install 'rankwise[timm]'"
        ) from error
    from rankwise.heads.backbones import timm_backbone

    name = model.network.removeprefix("timm:")
    options = {
        "pretrained": model.transfer,
        "num_classes": 0 if model.transfer else n_classes,
        **model.parameters,
    }
    if not options["pretrained"]:
        options.setdefault("in_chans", image_shape[2] if len(image_shape) == 3 else 1)
    try:
        network = timm.create_model(name, **options)
        # Weights made elsewhere expect pixels normalised, and as many channels, as there.
        return timm_backbone(network, name, frozen=False) if options["pretrained"] else network
    except Exception as error:  # timm and the hub raise errors of many kinds
        raise StudyError(f"timm can't make {name!r}: {reason_of(error)}") from error
