"""The forest plot: places, words, and that nothing leaves the picture."""

import xml.etree.ElementTree as ET

import pytest

from rankwise.study.forest import ForestRow, forest

ROW = ForestRow("a <b> – none", "▲", 0.02, 0.01, 0.03, (0.0, 0.04), 0.005, (0.015, 0.025))


def parts(svg, name, kind):
    return [e for e in ET.fromstring(svg).iter(kind) if e.get("class") == name]


def test_an_effect_lies_in_the_middle_of_its_intervals():
    svg = forest([ROW], "Effects")
    (point,) = parts(svg, "point", "circle")
    (inner,) = parts(svg, "interval", "line")
    (outer,) = parts(svg, "outer", "line")
    x = float(point.get("cx"))
    for line in (inner, outer):
        assert (float(line.get("x1")) + float(line.get("x2"))) / 2 == pytest.approx(x, abs=0.2)
    assert float(outer.get("x1")) < float(inner.get("x1"))
    (zero,) = parts(svg, "zero", "line")
    (band,) = parts(svg, "rope", "rect")
    assert float(band.get("x")) + float(band.get("width")) / 2 == pytest.approx(
        float(zero.get("x1")), abs=0.2
    )
    assert len(parts(svg, "dot", "circle")) == 2


def test_text_is_escaped_and_told_in_words():
    svg = forest([ROW], "Effects")
    assert "a &lt;b&gt; – none" in svg
    label = ET.fromstring(svg).get("aria-label")
    assert label == "Effects. a <b> – none: +2.00 points, +1.00 to +3.00"
    long = ForestRow("x" * 90, "?", 0.0, -0.01, 0.01, (-0.02, 0.02), 0.005, ())
    assert "x" * 41 + "…" in forest([long], "E")


def test_rows_share_a_scale():
    other = ForestRow("c – none", "?", -0.3, -0.4, -0.2, (-0.5, -0.1), 0.005, ())
    svg = forest([ROW, other], "Effects")
    first, second = (float(p.get("cx")) for p in parts(svg, "point", "circle"))
    assert second < first
    for line in ET.fromstring(svg).iter("line"):
        assert 0 <= float(line.get("x1")) <= 360


def ticks(svg):
    found = [e.text for e in parts(svg, "tick", "text") if e.get("text-anchor") == "middle"]
    return [float(text.replace("−", "-")) for text in found if text != "points of accuracy"]


def test_one_comparison_of_one_degree_of_freedom_leaves_the_others_readable():
    wide = ForestRow("w – none", "?", 0.0833, -2.6231, 2.7898, (-40.1, 41.2), 0.005, (-0.1, 0.26))
    rows = [ROW, ROW, wide, ROW]
    svg = forest(rows, "Effects")
    assert max(map(abs, ticks(svg))) <= 30  # of 4,000 points before
    lines = parts(svg, "interval", "line")
    widths = [float(line.get("x2")) - float(line.get("x1")) for line in lines]
    assert min(widths) > 5  # a dot before
    # What goes on beyond the scale has an arrow at each end, of both of its intervals.
    assert len(parts(svg, "interval arrow", "path")) == 2
    assert len(parts(svg, "outer arrow", "path")) == 2
    assert not parts(forest([ROW], "Effects"), "interval arrow", "path")
    label = ET.fromstring(svg).get("aria-label")
    assert "w – none: +8.33 points, −100 to +100, wider than can be shown" in label
    # All means and folds are within.
    for circle in parts(svg, "point", "circle") + parts(svg, "dot", "circle"):
        assert 14 < float(circle.get("cx")) < 346


def test_no_scale_goes_beyond_what_is_possible():
    wide = ForestRow("w", "?", 0.08, -2.6, 2.8, (-40.0, 41.0), 0.005, ())
    svg = forest([wide, wide], "Effects")
    assert max(map(abs, ticks(svg))) == 100
    # An interaction is a difference of two differences.
    both = ForestRow("a × b", "?", 0.08, -2.6, 1.8, (-40.0, 41.0), 0.005, (), most=2.0)
    svg = forest([both], "Effects")
    assert max(map(abs, ticks(svg))) == 200
    label = ET.fromstring(svg).get("aria-label")
    assert "a × b: +8.00 points, −200 to +180.00, wider than can be shown" in label


def test_nothing_to_draw():
    with pytest.raises(ValueError, match="a forest plot needs at least one comparison"):
        forest([], "Effects")
