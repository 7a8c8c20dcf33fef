"""Small modules and trainings that the tests of joint training share."""

import numpy as np
import torch

from rankwise.training.augment import Augmentation, channel_statistics
from rankwise.training.joint import JointTraining
from rankwise.training.joint_plan import JointPlan
from rankwise.training.modules import ConvolutionalModule, UnitModule
from rankwise.units.convolutional import ConvolutionalUnits, Layer
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start, random_units

UNITS = ConvolutionalUnits((8, 8), (Layer(6, pool=2), Layer(8, pool=2)))


def convolutional(images, seed=0, units=UNITS):
    center, scale = channel_statistics(images)
    return ConvolutionalModule(units, center, scale, torch.Generator().manual_seed(seed))


def windowed(images, n_units=12, activation="tanh"):
    units = make_units("bilinear", (8, 8), activation=activation)
    start = Start(window=(0.4, 0.8), smooth=1)
    rows = images[:100].astype(np.float64) / 255
    return UnitModule(units, *random_units(units, n_units, rows, start, np.random.default_rng(0)))


def training(images, *, workers=1, module=None, **plan):
    options = {"epochs": 3, "batch_size": 60, "augmentation": Augmentation()} | plan
    chosen = convolutional(images) if module is None else module
    return JointTraining(chosen, JointPlan(**options), 10, workers=workers)
