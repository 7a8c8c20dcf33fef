"""The gallery's pictures, drawn when the site is built: nothing in it is kept from another day."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

HERE = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src")}
"""For a process of its own: the package as it lies here."""


@cache
def photographs() -> list[np.ndarray]:
    """Crops of scikit-learn's two photographs (Creative Commons, see its `load_sample_images`)."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(7)
    crops = []
    for i in range(24):
        photo = Image.fromarray(load_sample_images().images[i % 2]).resize((320, 214))
        top, left = random.integers(0, 214 - 120), random.integers(0, 320 - 120)
        crops.append(np.asarray(photo)[top : top + 120, left : left + 120])
    return crops


def kept(write: Callable[[Path], Any], name: str) -> bytes:
    """What a function writes into a file."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def ranks() -> bytes:
    """The first paper's figures 2.1 and 2.2, random copies and a scree plot."""
    from rankwise.lowrank.pictures import draw_image, save_picture

    return kept(lambda path: save_picture(draw_image(photographs()[0]), path), "a.png")


def copies() -> bytes:
    """Its figure 3.1."""
    from rankwise.lowrank.pictures import draw_set, save_picture
    from rankwise.lowrank.sets import augmented_set

    return kept(lambda path: save_picture(draw_set(augmented_set(photographs())), path), "a.png")


def by_hand() -> bytes:
    """A photograph to be rebuilt with a slider."""
    from rankwise.lowrank.pages import write_image_page

    return kept(
        lambda path: write_image_page(photographs()[0], path, title="A photograph"), "a.html"
    )


def networks() -> bytes:
    """Its figure A.2."""
    from rankwise.lowrank.pictures import save_picture
    from rankwise.nets.diagram import draw_diagram, drawn_networks

    return kept(lambda path: save_picture(draw_diagram(drawn_networks()), path), "a.png")


def units() -> bytes:
    """The first layer of the network that comes with the package."""
    import rankwise
    from rankwise.plots import save_units

    model = rankwise.load("mnist-small")
    return kept(lambda path: save_units(model.network_, path), "a.png")


@cache
def digits() -> Any:
    """Sub-networks on scikit-learn's digits, and how they were asked for."""
    from rankwise import QuadraticClassifier, load_images

    train, test = load_images("digits", split="train"), load_images("digits", split="test")
    return QuadraticClassifier(n_subnets=4).fit(train.images, train.labels), test


def forms() -> bytes:
    """Windowed bilinear forms."""
    from rankwise.plots import save_units

    return kept(lambda path: save_units(digits()[0].network_, path), "a.png")


def confusion() -> bytes:
    """Which digits are taken for which."""
    from sklearn.metrics import confusion_matrix

    from rankwise.plots import save_confusion

    model, test = digits()
    counts = confusion_matrix(test.labels, model.predict(test.images))
    names = [str(name) for name in model.classes_]
    return kept(lambda path: save_confusion(counts, names, path), "a.png")


def page() -> bytes:
    """The same network as a page."""
    import rankwise
    from rankwise.export import export_model

    model = rankwise.load("mnist-small")
    return kept(lambda path: export_model(model, "html", path), "a.html")


def explored() -> bytes:
    """What a run of the digits got wrong, as a page."""
    with TemporaryDirectory() as folder:
        command = ["train", "digits", "--units", "100", "--subnets", "2", "--out", "digits"]
        program = [sys.executable, "-m", "rankwise"]
        subprocess.run(program + command, check=True, cwd=folder, env=HERE, capture_output=True)
        return (Path(folder) / "digits" / "explore.html").read_bytes()


def curve() -> bytes:
    """A fit with its 95% band."""
    from rankwise import VariableProjection
    from rankwise.varpro import SeparableModel

    x = np.linspace(0, 4, 30)
    y = 2 * np.exp(-1.3 * x) + 0.4 + np.random.default_rng(0).normal(0, 0.06, x.size)
    model = SeparableModel(["rate"]).term(lambda x, rate: np.exp(-rate * x), ["rate"]).constant()
    fit = VariableProjection().fit(model.at(x), y, {"rate": 1.0})
    return kept(lambda path: fit.plot().savefig(path, dpi=110), "a.png")


PICTURES: dict[str, Callable[[], bytes]] = {
    "ranks.png": ranks,
    "copies.png": copies,
    "low-rank.html": by_hand,
    "networks.png": networks,
    "units.png": units,
    "forms.png": forms,
    "confusion.png": confusion,
    "digits.html": page,
    "explore.html": explored,
    "curve.png": curve,
}
