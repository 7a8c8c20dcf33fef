"""Whatever a graph holds that exports have no word for is refused by each, in one sentence.

Written as something else, a model would answer wrongly on a device, where nobody looks.
"""

import re
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import get_args

import numpy as np
import pytest

from rankwise.export import C_PRECISIONS, FORMATS, PRECISIONS, export_model
from rankwise.export.c_source import c_source, write_c
from rankwise.export.c_templates import ACTIVATIONS as IN_C
from rankwise.export.c_templates import PROBABILITIES
from rankwise.export.html import constants_in_js, write_html
from rankwise.export.integers import to_integers
from rankwise.export.onnx import write_onnx
from rankwise.export.weights import _OPERATIONS, fingerprint, write_weights
from rankwise.networks import graph as g
from rankwise.networks.operations import Op
from rankwise.networks.probabilities import OUTPUTS
from rankwise.units.activations import ACTIVATIONS

WRITERS = {"onnx": write_onnx, "c": write_c, "html": write_html, "safetensors": write_weights}
WAYS = [(f, p) for f in FORMATS for p in (C_PRECISIONS if f == "c" else PRECISIONS)]


@dataclass(frozen=True, eq=False)
class Cube:
    """An operation of somebody's own."""


class Twice(g.Activate):
    """One that inherits from ours, and computes something else."""


def forced(value, **changes):
    """What can't be made: a choice changed past all checks, as a damaged memory or file might."""
    value = replace(value)
    for name, changed in changes.items():
        object.__setattr__(value, name, changed)
    return value


def graph(activation=None, pool=None, forms=g.ConvolveForms):
    """The smallest that C computes in whole numbers."""
    ones = np.ones((2, 1, 1), np.float32)
    wide = np.ones((2, 1, 3), np.float32)
    ops = (
        g.ToMaps(),
        g.Affine(np.ones(1), -np.ones(1) / 2),
        forms(ones, wide, wide, np.zeros(2), 1, 1),
        activation or g.Activate("relu"),
        pool or g.Pool("mean", 4),
        g.Flatten(),
        g.Dense(np.eye(2, dtype=np.float32), np.zeros(2)),
    )
    made = g.Graph(
        (4, 4), (*ops[:3], g.Activate("relu"), g.Pool("mean", 4), *ops[5:]), ("a", "b"), 255.0
    )
    return forced(made, ops=ops)


def within(op):
    """Inside a branch, beside one that is known."""
    return g.Concatenate(((g.Square(),), (g.Multiply((g.Square(),), (op,)),)))


UNKNOWN = {
    "activation": (
        lambda: graph(forced(g.Activate("relu"), name="mish")),
        r"^unknown activation 'mish'; accepted: tanh, logistic, relu, softplus, silu, gelu, "
        r"identity$",
    ),
    "activation in a branch": (
        lambda: graph(within(forced(g.Activate("relu"), name="mish"))),
        r"^unknown activation 'mish'; accepted: tanh, .*, identity$",
    ),
    "no activation": (
        lambda: graph(forced(g.Activate("relu"), name=None)),
        r"^unknown activation None; accepted: tanh, .*, identity$",
    ),
    "operation": (
        lambda: graph(Cube()),
        r"^unknown operation 'Cube'; accepted: ToMaps, .*Concatenate$",
    ),
    "operation in a branch": (
        lambda: graph(within(Cube())),
        r"^unknown operation 'Cube'; accepted: ",
    ),
    "one that inherits": (lambda: graph(Twice("relu")), r"^unknown operation 'Twice'; accepted: "),
    "forms that inherit": (
        lambda: graph(forms=type("Mine", (g.ConvolveForms,), {})),
        r"^unknown operation 'Mine'; accepted: ",
    ),
    "nothing": (lambda: graph(within(None)), r"^unknown operation 'NoneType'; accepted: "),
    "pooling": (
        lambda: graph(pool=forced(g.Pool("mean", 4), kind="median")),
        r"^unknown pooling 'median'; accepted: mean, max$",
    ),
    "output": (
        lambda: forced(graph(), output="sparsemax"),
        r"^unknown output 'sparsemax'; accepted: sum-to-one, ",
    ),
}


class Model:
    """Whatever has ``as_graph`` can be exported."""

    def __init__(self, made):
        self.as_graph = lambda: made


@pytest.mark.parametrize("kind", UNKNOWN)
@pytest.mark.parametrize(("file_format", "precision"), WAYS)
def test_no_format_writes_what_it_has_no_word_for(tmp_path, file_format, precision, kind):
    make, message = UNKNOWN[kind]
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 4), dtype=np.uint8)
    out = tmp_path / f"m{FORMATS[file_format]}"
    given = {"precision": precision}
    if file_format == "c":
        given["calibration"] = images
    with pytest.raises(ValueError, match=message):
        export_model(Model(make()), file_format, out, **given)
    bare = WRITERS[file_format] if precision != "int4" else to_integers
    with pytest.raises(ValueError, match=message):
        bare(make(), out if precision != "int4" else images, precision=precision)
    assert not list(tmp_path.iterdir())
    # The same without it is written: the refusal is of nothing else.
    export_model(Model(graph()), file_format, out, **given)
    assert out.stat().st_size > 0


@pytest.mark.parametrize("kind", UNKNOWN)
def test_nor_is_it_measured_or_named(kind):
    make, message = UNKNOWN[kind]
    for use in (fingerprint, c_source, g.Graph.check):
        with pytest.raises(ValueError, match=message):
            use(make())


def test_every_format_has_a_word_for_all_that_is_accepted():
    kinds = {kind.__name__ for kind in get_args(Op)}
    assert set(_OPERATIONS) == kinds
    page = files("rankwise.export") / "page" / "network.js"
    script = page.read_text(encoding="utf-8")
    assert kinds <= set(re.findall(r"^  (\w+)\(.*\) \{$", script, re.MULTILINE))
    named = set(re.findall(r"^  (\w+): \(x\) =>", constants_in_js(), re.MULTILINE))
    assert named == set(g.GRAPH_ACTIVATIONS) == {*ACTIVATIONS, "identity"}
    assert set(IN_C) == set(ACTIVATIONS)
    assert set(PROBABILITIES) == set(OUTPUTS)
    with pytest.raises(TypeError):
        g.GRAPH_ACTIVATIONS["mish"] = np.tanh
