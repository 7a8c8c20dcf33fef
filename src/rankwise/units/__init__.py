"""The forms that look at an image, their starts and activations."""

from __future__ import annotations

from rankwise.units.basis import UnitBasis
from rankwise.units.convolutional import ConvolutionalUnits, Layer
from rankwise.units.multilinear import UNIT_KINDS, Units, make_units
from rankwise.units.starts import Start, random_units

__all__ = [
    "UNIT_KINDS",
    "ConvolutionalUnits",
    "Layer",
    "Start",
    "UnitBasis",
    "Units",
    "make_units",
    "random_units",
]
