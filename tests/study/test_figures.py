"""Charts: well-formed SVG, points where they belong, nothing told by colour alone."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankwise.study.figures import (
    HEIGHT,
    N_STYLES,
    WIDTH,
    Axes,
    Series,
    data_range,
    line_chart,
    nice_ticks,
    swatch,
)

AXES = Axes("loss of <b>", "epoch", "loss & more")


def parts(svg, tag):
    return list(ET.fromstring(svg).iter(tag))


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_are_round_and_within(low, span, wanted):
    high = low + span
    if span <= 1e-9 * abs(low):  # Fewer digits than a float has: nothing round lies between.
        return
    ticks = nice_ticks(low, high, wanted)
    assert len(ticks) <= wanted + 1
    room = 1e-6 * span
    assert all(low - room <= t <= high + room for t in ticks)
    if len(ticks) > 1:
        step = ticks[1] - ticks[0]
        mantissa = step / 10 ** np.floor(np.log10(step) + 1e-6)
        assert min(abs(mantissa - m) for m in (1, 2, 5, 10)) < 1e-3


def test_ticks_by_hand():
    assert nice_ticks(0, 1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert nice_ticks(0.93, 1.0, 5) == pytest.approx([0.94, 0.96, 0.98, 1.0])
    assert nice_ticks(3, 3) == [3]


def test_a_line_goes_through_its_values():
    svg = line_chart([Series("a", [1, 2, 3], [0.0, 1.0, 0.5])], AXES)
    (line,) = parts(svg, "polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    xs, ys = zip(*points, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    # SVG's y grows downwards; ½ is half way between 0 and 1.
    assert ys[0] > ys[2] > ys[1]
    assert ys[2] == pytest.approx((ys[0] + ys[1]) / 2, abs=0.2)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.lists(st.floats(-1e4, 1e4) | st.just(float("nan")), min_size=1, max_size=30),
        min_size=1,
        max_size=9,
    )
)
def test_everything_stays_in_the_box(values):
    series = [
        Series(f"s{i}", range(len(v)), v, np.subtract(v, 1), np.add(v, 1), style=i)
        for i, v in enumerate(values)
    ]
    if not np.isfinite(np.concatenate([np.asarray(v) for v in values])).any():
        with pytest.raises(ValueError, match="has no finite point"):
            line_chart(series, AXES)
        return
    svg = line_chart(series, AXES, mark_x=0.0)
    assert "nan" not in re.sub(r'aria-label="[^"]*"', "", svg)
    for tag in ("polyline", "polygon"):
        for element in parts(svg, tag):
            for point in element.get("points").split():
                x, y = map(float, point.split(","))
                assert 0 <= x <= WIDTH
                assert 0 <= y <= HEIGHT


def test_text_is_escaped_and_read_out():
    svg = line_chart([Series('"<script>', [1, 2], [1, 2])], AXES)
    assert "<script>" not in svg
    label = ET.fromstring(svg).get("aria-label")
    assert label == 'loss of <b>. "<script> ends at 2.'
    assert ET.fromstring(svg).get("role") == "img"


def test_styles_differ_without_colour():
    looks = set()
    for style in range(N_STYLES):
        svg = ET.fromstring(swatch(style))
        (line,) = svg.iter("line")
        marker = next(e for e in svg if "marker" in e.get("class"))
        shape = marker.tag if marker.tag == "circle" else marker.get("points")
        looks.add((line.get("stroke-dasharray"), shape))
    assert len(looks) == N_STYLES
    assert 'class="band' in swatch(0, band=True)
    assert swatch(N_STYLES) == swatch(0)


def test_no_colour_is_written_into_a_chart():
    svg = line_chart([Series("a", [1, 2], [1, 2], [0, 1], [2, 3])], AXES) + swatch(3)
    assert not re.search(r'(fill|stroke)="|#[0-9a-fA-F]{3}|rgb', svg)


def test_percent_axes_and_named_ticks():
    axes = Axes("t", "severity", "accuracy", percent=True, x_ticks=((0, "clean"), (1, "1")))
    texts = [t.text for t in parts(line_chart([Series("a", [0, 1], [0.2, 0.9])], axes), "text")]
    assert {"clean", "1", "severity", "accuracy", "40%", "80%"} <= set(texts)
    narrow = [t.text for t in parts(line_chart([Series("a", [0, 1], [0.98, 0.99])], axes), "text")]
    assert "98.5%" in narrow
    narrow = [t.text for t in parts(line_chart([Series("a", [0, 1], [0.98, 0.981])], axes), "text")]
    assert "98.05%" in narrow
    loss = [t.text for t in parts(line_chart([Series("a", [0, 1], [-2, 3])], AXES), "text")]
    assert "−2" in loss


def test_a_constant_line_has_a_range():
    low, high = data_range([Series("a", [0, 1], [0.0, 0.0])])
    assert low < 0 < high
    assert data_range([Series("a", [0], [np.nan])]) == pytest.approx((-0.05, 1.05))
    line_chart([Series("a", [1], [0.5])], AXES)


def test_a_mark_outside_is_left_out():
    inside = line_chart([Series("a", [1, 2], [1, 2])], AXES, mark_x=1.5)
    outside = line_chart([Series("a", [1, 2], [1, 2])], AXES, mark_x=3)
    assert 'class="mark"' in inside
    assert 'class="mark"' not in outside


def test_many_lines_are_marked_as_a_crowd():
    lines = [Series(f"s{i}", [1, 2], [1, 2], [0, 1], [2, 3], i) for i in range(3)]
    assert ET.fromstring(line_chart(lines, AXES)).get("data-crowded") == ""
    assert ET.fromstring(line_chart(lines[:2], AXES)).get("data-crowded") is None
