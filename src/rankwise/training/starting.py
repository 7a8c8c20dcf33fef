"""Convolutional units as they start, from the images that they will be trained on."""

from __future__ import annotations

import torch

from rankwise._arrays import Images
from rankwise.training.augment import channel_statistics
from rankwise.training.modules import ConvolutionalModule
from rankwise.training.whitening import whitening
from rankwise.units.convolutional import ConvolutionalUnits


def convolutional_module(
    units: ConvolutionalUnits, images: Images, generator: torch.Generator
) -> ConvolutionalModule:
    """Units with the images' centre, scale and, where they whiten, principal axes.

    Parameters
    ----------
    units : ConvolutionalUnits
    images : array of shape (n, H, W[, C])
        Training images.
    generator : torch.Generator
    """
    center, scale = channel_statistics(images)
    filters = None
    if units.whiten:
        filters = whitening(images, center, scale, shrink=units.shrink, side=units.whiten)
    return ConvolutionalModule(units, center, scale, generator, filters)
