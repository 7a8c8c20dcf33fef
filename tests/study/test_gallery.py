"""The gallery of an arm's copies."""

import numpy as np
import pytest

from rankwise.data import load_images
from rankwise.lowrank import pictures
from rankwise.study.design_parts import Arm
from rankwise.study.gallery import COLUMNS, draw_arm


def test_a_long_title_moves_no_picture(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(pictures, "save_picture", lambda figure, path: drawn.append(figure))
    images = load_images("digits", limit=40)
    draw_arm(Arm(kind="default+low-rank", energy_std=0.012345), images, tmp_path / "a.png", 42)
    (figure,) = drawn
    figure.canvas.draw()
    places = [axis.get_position() for axis in figure.axes]
    assert len(places) == 2 * COLUMNS
    steps = np.diff([place.x0 for place in places[:COLUMNS]])
    assert steps == pytest.approx(steps[0], rel=0.02)
    # The titles have room of their own.
    title = figure.axes[COLUMNS].title
    assert figure.axes[COLUMNS].get_title("left") == "default+low-rank: energy N(0.975, 0.012345)"
    bottom = title.get_window_extent().transformed(figure.transFigure.inverted())
    assert bottom.y1 <= places[0].y0 + 0.01
