"""Digits as uint8 images, and a network small enough to train in a test."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def digits(n):
    """The first `n` digits: uint8 ``(n, 8, 8)`` and labels."""
    data = load_digits()
    return (data.images[:n] * 15.9375).astype(np.uint8), data.target[:n].astype(np.int64)


class Tiny(nn.Module):
    """Convolution, batch norm, pooling, dropout, linear: every kind of state there is."""

    def __init__(self, n_classes=10, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.conv = nn.Conv2d(1, 8, 3, padding=1)
            self.norm = nn.BatchNorm2d(8)
            self.pool = nn.MaxPool2d(2)
            self.dropout = nn.Dropout(0.25)
            self.n_features = 128
            self.head = nn.Linear(128, n_classes)

    def features(self, x):
        return self.pool(torch.relu(self.norm(self.conv(x)))).flatten(1)

    def forward(self, x):
        return self.head(self.dropout(self.features(x)))


def assert_same_state(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def without_seconds(history):
    return [{k: v for k, v in entry.items() if k != "seconds"} for entry in history]
