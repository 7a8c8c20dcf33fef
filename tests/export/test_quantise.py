"""Rounding to float16 and int8: its bounds, and the units that it leaves alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from rankwise.export.quantise import OUTLIER, encode, quantise
from rankwise.networks.graph import (
    Activate,
    Affine,
    Concatenate,
    Dense,
    Flatten,
    Graph,
    RankOneForms,
    arrays_of,
    run,
)

NUMBERS = st.floats(-1e6, 1e6, width=32)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), shape=array_shapes(min_dims=2, max_dims=4, max_side=5))
def test_int8_errs_by_half_a_step_at_most(data, shape):
    weights = data.draw(arrays(np.float32, shape, elements=NUMBERS))
    axes = tuple(sorted(data.draw(st.sets(st.integers(0, len(shape) - 1), max_size=2))))
    encoded = encode(weights, axes, "int8")
    assert encoded.values.dtype == np.int8
    assert encoded.scales.dtype == np.float32
    assert encoded.scales.shape == tuple(s if a in axes else 1 for a, s in enumerate(shape))
    error = np.abs(encoded.values * encoded.scales.astype(float) - weights)
    assert (error <= 0.5000001 * encoded.scales + 1e-38).all()
    # Zeros, as outside the windows, stay zero.
    assert not encoded.decode()[weights == 0].any()
    np.testing.assert_array_equal(encode(-weights, axes, "int8").values, -encoded.values)
    assert encoded.nbytes == weights.size + 4 * encoded.scales.size


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, 12, elements=st.floats(-6e4, 6e4, width=32)))
def test_float16_errs_by_a_2048th_at_most(weights):
    encoded = encode(weights, (), "float16")
    assert encoded.values.dtype == np.float16
    assert (np.abs(encoded.decode() - weights) <= np.abs(weights) / 2048 + 3e-8).all()
    assert encoded.nbytes == 24


def test_float32_of_float64_weights():
    weights = np.random.default_rng(0).standard_normal((3, 4))
    np.testing.assert_array_equal(encode(weights, (0,), "float32").decode(), weights.astype("f4"))


@pytest.mark.parametrize(
    ("weights", "precision", "message"),
    [
        ([1.0], "int4", "unknown precision 'int4'; accepted: float32, float16, int8"),
        ([7e4], "float16", "float16 holds numbers up to 65504, but the model has a weight of 7e"),
        ([np.nan], "int8", "weights that aren't finite"),
    ],
)
def test_what_cannot_be_rounded_is_said(weights, precision, message):
    with pytest.raises(ValueError, match=message):
        encode(np.array(weights), (), precision)


def forms_graph(rng, outliers, *between, shared=False):
    n = 6
    first = rng.uniform(0.5, 1.0, (2, n, 4))
    first[1, outliers, 2] = 2 * OUTLIER
    second = first if shared else rng.uniform(0.5, 1.0, (2, n, 4))
    forms = RankOneForms((first, second), rng.standard_normal(n))
    dense = Dense(rng.standard_normal((n, 3)), rng.standard_normal(3))
    return Graph((4, 4), (forms, *between, dense), tuple("abc"))


@pytest.mark.parametrize("shared", [False, True])
def test_units_with_an_outlier_stay_in_float16(shared):
    rng = np.random.default_rng(1)
    between = (Activate("tanh"), Affine(rng.standard_normal(6), rng.standard_normal(6)))
    graph = forms_graph(rng, [1, 4], *between, shared=shared)
    quantised = quantise(graph, "int8")
    joined = quantised.graph.ops[0]
    assert isinstance(joined, Concatenate)
    (easy,), (hard,) = joined.branches
    assert [f.shape[1] for f in (*easy.factors, *hard.factors)] == [4, 4, 2, 2]
    assert {quantised.of(f).values.dtype for f in easy.factors} == {np.dtype("int8")}
    assert {quantised.of(f).values.dtype for f in hard.factors} == {np.dtype("float16")}
    assert (easy.factors[0] is easy.factors[1]) == shared
    # The order of the units changes, what they compute together doesn't.
    images = rng.standard_normal((5, 4, 4))
    np.testing.assert_allclose(run(quantised.graph, images), run(graph, images), atol=1e-12)
    # Biases aren't rounded.
    assert quantised.of(hard.bias).values.dtype == np.float32


@pytest.mark.parametrize("outliers", [[1, 4], list(range(6))])
def test_units_that_float16_cannot_hold_are_float32(outliers):
    graph = forms_graph(np.random.default_rng(1), outliers)
    graph.ops[0].factors[0][1, 4, 2] = 9e4
    quantised = quantise(graph, "int8")
    stored = {quantised.of(a).values.dtype.name for a in arrays_of(quantised.graph.ops)}
    assert stored == {"float32", "int8"}
    of_forms = quantised.rounded().ops[0]
    hard = of_forms.branches[1][0] if isinstance(of_forms, Concatenate) else of_forms
    exact = graph.ops[0].factors[0][:, outliers].astype(np.float32)
    np.testing.assert_array_equal(hard.factors[0], exact)


@pytest.mark.parametrize("outliers", [[], list(range(6))])
def test_all_alike_stay_together(outliers):
    graph = forms_graph(np.random.default_rng(2), outliers)
    quantised = quantise(graph, "int8")
    assert quantised.graph is graph
    kept = {quantised.of(f).values.dtype for f in graph.ops[0].factors}
    assert kept == {np.dtype("float16" if outliers else "int8")}


def test_what_stands_between_must_be_one_by_one():
    graph = forms_graph(np.random.default_rng(3), [1], Flatten())
    assert quantise(graph, "int8").graph is graph
    # Nor is anything moved for a precision that has no trouble with outliers.
    graph = forms_graph(np.random.default_rng(3), [1])
    assert quantise(graph, "float16").graph is graph


def test_zeros_outside_a_window_do_not_make_outliers():
    rng = np.random.default_rng(4)
    graph = forms_graph(rng, [])
    for factor in graph.ops[0].factors:
        factor[:, :, 1:] = 0.0
        factor[:, 2] = 0.0
    assert quantise(graph, "int8").graph is graph
    assert all(np.isfinite(a).all() for a in arrays_of(quantise(graph, "int8").rounded().ops))
