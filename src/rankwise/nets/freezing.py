"""Frozen parts of a network: parameters that don't move, and layers that stay as at prediction."""

from __future__ import annotations

from torch import nn


def freeze(part: nn.Module) -> None:
    """Keep all parameters of a network, or of a part of it, as they are.

    Training leaves them alone, and keeps parts that are frozen entirely in evaluation mode: batch
    norm uses and keeps its running statistics, dropout does nothing.
    """
    part.requires_grad_(False)
    hold_frozen(part)


def unfreeze_top(part: nn.Module, n_layers: int) -> None:
    """Let the last layers of a frozen part be trained again (paper B.1: 4 layers, of VGG16's base).

    Layers are counted as Keras does: convolution (with its activation), pooling and normalisation
    are a layer each, a residual block is one; the mean over all pixels and flattening belong to the
    new head there and don't count. VGG16's last four are three convolutions and a pooling.

    Parameters
    ----------
    part : Module
        Such as ``network.base`` of VGG16, or the backbone of a `TransferNetwork`.
    n_layers : int
        Counted from the end, in the order of registration.

    Raises
    ------
    ValueError
        If there aren't that many layers, or none of them has parameters.
    """
    for layer in top_layers(part, n_layers):
        layer.requires_grad_(True)


def top_layers(part: nn.Module, n_layers: int) -> list[nn.Module]:
    """The layers that `unfreeze_top` means, which raises what this does."""
    layers = keras_layers(part)
    if not 1 <= n_layers <= len(layers):
        raise ValueError(f"n_layers must be between 1 and {len(layers)}; got {n_layers}")
    top = layers[-n_layers:]
    if not any(True for layer in top for _ in layer.parameters()):
        raise ValueError(f"the last {n_layers} layers have no parameters; unfreeze more")
    return top


def hold_frozen(network: nn.Module) -> None:
    """Put every part whose parameters are all frozen in evaluation mode."""
    parameters = list(network.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        network.eval()
        return
    for child in network.children():
        hold_frozen(child)


def keras_layers(part: nn.Module) -> list[nn.Module]:
    """Layers in order of registration, as Keras counts them."""
    if getattr(part, "is_layer", False):
        return [part]
    children = list(part.children())
    if children:
        return [layer for child in children for layer in keras_layers(child)]
    return [] if isinstance(part, _WITHIN_A_LAYER + _BETWEEN_BASE_AND_HEAD) else [part]


# Parts of a layer in Keras, or of no effect at prediction.
_WITHIN_A_LAYER = (nn.ReLU, nn.ReLU6, nn.GELU, nn.SiLU, nn.Hardswish, nn.Identity, nn.Dropout)
# Between a convolutional base (Keras: ``include_top=False``) and its head.
_BETWEEN_BASE_AND_HEAD = (nn.AdaptiveAvgPool2d, nn.Flatten)
