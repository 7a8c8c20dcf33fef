"""The models that come with the package: each is whole, small, and has a card that says enough."""

import re
import subprocess
import sys

import numpy as np
import pytest

import rankwise
from rankwise import pretrained

KNOWN = {"mnist-tiny", "mnist-small", "fashion-small", "cifar10-accurate"}


@pytest.mark.parametrize("name", pretrained.names())
def test_a_model_predicts_and_its_card_says_what_it_is(name):
    model = rankwise.load(name)
    images = np.zeros((2, *model.image_shape_), np.uint8)
    assert model.predict_proba(images).shape == (2, 10)
    card = pretrained.card(name)
    assert f'rankwise.load("{name}")' in card
    assert f"| parameters | {model.n_parameters_total_:,} |" in card
    for row in ("data", "command", "accuracy", "seeds", "size", "limits"):
        assert re.search(rf"^\| {row} \| .+ \|$", card, re.MULTILINE), row


def test_they_are_those_that_are_promised_and_small():
    assert set(pretrained.names()) <= KNOWN
    assert "mnist-small" in pretrained.names()
    folder = pretrained._FOLDER
    assert sum(path.stat().st_size for path in folder.glob("*/*")) < 1_000_000


def test_an_unknown_name_is_answered_with_those_there_are():
    with pytest.raises(ValueError, match=r"no model 'mnist' comes with rankwise; it has .*small"):
        rankwise.load("mnist")


def test_three_lines(tmp_path):
    """The first thing that someone tries, in a process of its own."""
    lines = (
        "import numpy, rankwise\n"
        "model = rankwise.load('mnist-small')\n"
        "print(model.predict(numpy.zeros((1, 28, 28), numpy.uint8)))\n"
    )
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"\['?\d'?\]\n", done.stdout), done.stderr
