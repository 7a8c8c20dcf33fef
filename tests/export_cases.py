"""Kinds of models that the tests of the exports fit, and the images for them."""

import shutil

import numpy as np
import pytest
from sklearn.datasets import load_digits

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")

KINDS = {
    "symmetric": ("grey", {"unit": "symmetric", "squash": True}),
    "bilinear": ("grey", {"unit": "bilinear", "activation": "logistic"}),
    "rank-2": ("grey", {"unit": "bilinear", "rank": 2, "window": False}),
    "colour": ("colour", {"unit": "colour", "window": (0.3, 0.7)}),
    "colour-bilinear": ("colour", {"unit": "colour-bilinear"}),
    "multilinear": ("tensor", {"unit": "multilinear"}),
    "floats": ("floats", {"unit": "bilinear"}),
    "convolutional": ("colour", {"preset": "tiny", "max_iter": 1}),
}


def digits_as(layout):
    """The digits as images of several shapes, and their labels."""
    bunch = load_digits()
    grey = (bunch.images * 255 / 16).astype(np.uint8)
    images = {
        "grey": lambda: grey,
        "colour": lambda: np.stack([grey, 255 - grey, grey // 2], axis=-1),
        "tensor": lambda: grey.reshape(-1, 4, 2, 4, 2),
        "floats": lambda: bunch.images.astype(np.float32) / 4,
    }[layout]()
    return images, bunch.target
