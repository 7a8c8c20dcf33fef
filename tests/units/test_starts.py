"""Starts: scale, windows, smoothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.units.multilinear import make_units
from rankwise.units.starts import WINDOW, Start, random_units


def draw(kind="bilinear", shape=(12, 10), start=None, n_units=8, seed=0, rank=1, images=None):
    rng = np.random.default_rng(seed)
    if images is None:
        images = rng.random((50, *shape))
    units = make_units(kind, shape, rank=rank)
    params, active = random_units(units, n_units, images, start or Start(), rng)
    return units, images, params, active


@pytest.mark.parametrize(
    ("kind", "shape"), [("symmetric", (9, 9)), ("bilinear", (12, 10)), ("colour", (8, 8, 3))]
)
@pytest.mark.parametrize(
    "start",
    [Start(), Start(WINDOW, 1), Start(deviation=0.3), Start((0.4, 0.8), source="images")],
)
@pytest.mark.parametrize("rank", [1, 3])
def test_pre_activations_have_zero_mean_and_the_deviation_asked_for(kind, shape, start, rank):
    units, images, params, _ = draw(kind, shape, start, rank=rank)
    q = units.scalarize(units.flatten(images), params)
    np.testing.assert_allclose(q.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(q.std(axis=0), start.deviation, rtol=1e-9)


@given(seed=st.integers(0, 2**31), low=st.floats(0.1, 0.5), more=st.floats(0, 0.5))
@settings(max_examples=30, deadline=None)
def test_windows_are_runs_of_the_length_asked_for(seed, low, more):
    start = Start((low, low + more), smooth=1)
    _, _, params, active = draw(shape=(20, 16), start=start, seed=seed)
    assert np.all(params[:-1][~active[:-1]] == 0)
    assert active[-1].all()
    for rows, length in ((active[:20], 20), (active[20:36], 16)):
        counts = rows.sum(axis=0)
        assert np.all(counts >= min(length, max(2, round(low * length))))
        assert np.all(counts <= max(2, round((low + more) * length)))
        changes = np.abs(np.diff(rows.astype(int), axis=0)).sum(axis=0)
        assert np.all(changes <= 2), "a window is one run"


def test_a_window_leaves_the_colour_axis_whole_and_is_shared_by_all_forms_of_a_unit():
    _, _, _, active = draw("colour-bilinear", (12, 12, 3), Start((0.3, 0.5)), rank=2)
    first, second = active[:27], active[27:54]
    assert first[24:].all()
    np.testing.assert_array_equal(first, second)


def test_no_form_of_a_windowed_unit_starts_dead():
    _, _, params, _ = draw(start=Start((0.2, 0.3), 1), rank=3, n_units=50)
    for first in range(0, 66, 22):
        assert np.all(np.abs(params[first : first + 12]).sum(axis=0) > 0)
        assert np.all(np.abs(params[first + 12 : first + 22]).sum(axis=0) > 0)


def test_smoothing_averages_neighbours():
    rough = draw(start=Start(), seed=3)[2][:12]
    smooth = draw(start=Start(smooth=1), seed=3)[2][:12]

    def roughness(v):
        return np.mean(np.diff(v, axis=0) ** 2) / np.mean(v**2)

    assert roughness(smooth) < 0.6 * roughness(rough)


def test_constant_images_give_finite_units():
    _, _, params, _ = draw(images=np.full((20, 12, 10), 0.5))
    assert np.isfinite(params).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": (0.5, 0.2)}, "window must be two fractions"),
        ({"window": (0.0, 0.2)}, "window must be two fractions"),
        ({"smooth": -1}, "smooth must be at least 0, got -1"),
        ({"deviation": 0.0}, "deviation must be positive, got 0.0"),
    ],
)
def test_errors(options, message):
    with pytest.raises(ValueError, match=message):
        Start(**options)


def test_starts_from_images_are_singular_vectors_of_a_window():
    images = np.random.default_rng(1).random((50, 12, 10))
    start = Start((0.4, 0.8), source="images")
    _, _, params, active = draw(start=start, images=images, n_units=5, rank=2)
    assert np.all(params[~active] == 0)
    centered = images - images.mean(axis=0)
    for i in range(5):
        (rows,), (columns,) = np.nonzero(active[:12, i])[:1], np.nonzero(active[12:22, i])[:1]
        forms = [np.outer(params[r : r + 12, i], params[r + 12 : r + 22, i]) for r in (0, 22)]
        # One of the images has both forms' vectors as singular vectors of this window.
        errors = []
        for image in centered:
            u, _, vt = np.linalg.svd(image[np.ix_(rows, columns)], full_matrices=False)
            error = 0.0
            for rho, form in enumerate(forms):
                unit = form[np.ix_(rows, columns)] / np.linalg.norm(form)
                error += 1 - abs(u[:, rho] @ unit @ vt[rho])
            errors.append(error)
        assert min(errors) < 1e-9


def test_blank_images_start_at_random():
    _, _, params, _ = draw(start=Start(source="images"), images=np.ones((5, 12, 10)))
    assert np.isfinite(params).all()
    assert np.abs(params[:-1]).min(axis=0).max() > 0


def test_an_unknown_source_is_named():
    with pytest.raises(ValueError, match="unknown source 'noise'; accepted: gaussian, images"):
        Start(source="noise")
