"""Small fitted models of every kind of unit, and a graph with every operation."""

import numpy as np
import pytest

from export_cases import KINDS, digits_as
from rankwise.estimators.options import classifier_of
from rankwise.networks import graph as g

SMALL = {"n_units": 30, "n_subnets": 1, "max_iter": 2}


@pytest.fixture(scope="session")
def fitted():
    """From the name of a kind: a model, images that it hasn't seen, and their labels."""
    models = {}

    def get(kind):
        if kind not in models:
            layout, parameters = KINDS[kind]
            images, labels = digits_as(layout)
            small = {} if "preset" in parameters else SMALL
            n = 120 if "preset" in parameters else 500
            model = classifier_of(**small, **parameters).fit(images[:n], labels[:n])
            models[kind] = model, images[500:600], labels[500:600]
        return models[kind]

    return get


@pytest.fixture(scope="session")
def all_operations():
    """A graph over (6, 7, 2) images with every operation, shared and factored weights included."""
    rng = np.random.default_rng(0)

    def r(*shape):
        return (rng.standard_normal(shape) / 2).astype(np.float32)

    shared = r(2, 5, 3)
    on_maps = g.RankOneForms((r(2, 5, 4), shared, shared), r(5))
    convolutions = (
        g.ToMaps(),
        g.Affine(r(2), r(2)),
        g.Multiply(
            (g.Convolve(r(4, 1, 3, 2), r(4), 1, (1, 0), 2), g.Activate("silu")),
            (g.ConvolveForms(r(4, 2, 2), r(4, 2, 3), r(4, 2, 2), r(4), 1, (1, 0)),),
        ),
        g.Activate("softplus"),
        g.Add((g.Convolve(r(4, 4, 3, 3), r(4), 1, 1), g.Activate("relu")), ()),
        g.Pool("max", 2, 1),
        g.Convolve(r(4, 4, 2, 2), r(4), (2, 2), (1, 1)),
        g.Pool("mean", (1, 1), (1, 1)),
        g.Square(),
        g.Activate("gelu"),
    )
    pooled = (*convolutions, g.Pool("mean", (1, 2)), g.Flatten())
    forms = (*convolutions, g.Pool("max", 1), on_maps)
    image_forms = g.RankOneForms((r(1, 6, 6), r(1, 6, 7), r(1, 6, 2)), r(6))
    branches = (pooled, forms, (image_forms, g.Activate("relu")), (g.Flatten(),))
    n_in = sum(g.output_shape(b, (6, 7, 2))[0] for b in branches)
    ops = (
        g.Concatenate(branches),
        g.Activate("identity"),
        g.Dense(r(n_in, 9), r(9)),
        g.Concatenate(((), (g.Square(),))),
        g.Add((), (g.Activate("tanh"),)),
        g.Activate("tanh"),
        g.Dense(r(18, 3), r(3)),
    )

    def build(output="softmax", scale=255.0):
        return g.Graph((6, 7, 2), ops, ("a", 'b"\\?', "ü"), scale=scale, output=output)

    return build
