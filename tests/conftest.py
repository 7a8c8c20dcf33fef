"""Shapes and dtypes in annotations are checked here, and only here; a run that tests share."""

import json
import os
import sys

# Before numpy and torch are imported: small matrices gain nothing from more threads, which would
# take the cores from the other workers' tests.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Processes that tests start would compile every file of the package anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import jaxtyping
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from PIL import Image
from sklearn.datasets import load_digits

from cli_cases import FAST, run

# A module that a test writes twice within a second would be the first one again.
sys.dont_write_bytecode = True

CHECKED = ["lowrank", "units", "linear", "varpro", "networks", "training"]
jaxtyping.install_import_hook([f"rankwise.{room}" for room in CHECKED], "shape_checks.checked")

# How long an example takes says how busy the machine is, not whether the package is right.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


# The longest files begin first, so that no worker is left alone with one at the end.
LONGEST = ("test_kills.py", "test_fuzz.py", "test_examples.py", "test_gpu_script.py")


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "model"
    stdout, _ = run("train", "digits", "--out", out, *FAST, "--bootstrap", "--json")
    return out, json.loads(stdout)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    bunch = load_digits()
    for name, i in (("zero", 0), ("one", 1)):
        Image.fromarray((bunch.images[i] * 255 / 16).astype(np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="session")
def digits():
    """All handwritten digits of scikit-learn: uint8 images and labels."""
    bunch = load_digits()
    images = (bunch.images * 255 / 16).astype(np.uint8)
    images.setflags(write=False)
    return images, bunch.target
