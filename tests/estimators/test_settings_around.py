"""A fit is the same whatever the process around it has set in PyTorch, which stays set."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from rankwise import ConvolutionalClassifier, QuadraticClassifier, Refine
from settings_cases import bfloat16, double

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (210, 10, 10, 3), dtype=np.uint8)
LABELS = np.arange(210) % 2
IMAGES[LABELS == 1] //= 2


@contextmanager
def nowhere():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


MODELS = {
    "accurate": lambda: ConvolutionalClassifier(
        "accurate", n_units=60, epochs=1, augmentation="moves+low-rank", n_jobs=2
    ),
    "nano": lambda: ConvolutionalClassifier("nano", epochs=1),
    "refined": lambda: QuadraticClassifier(n_units=4, n_subnets=1, refine=Refine(1)),
}


@pytest.fixture(scope="module")
def plain():
    return {name: make().fit(IMAGES, LABELS) for name, make in MODELS.items()}


def settings():
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_inference_mode_enabled(),
        torch.is_grad_enabled(),
        torch.is_autocast_enabled("cpu"),
    )


@pytest.mark.parametrize("around", [double, nowhere, torch.inference_mode, torch.no_grad, bfloat16])
@pytest.mark.parametrize("name", MODELS)
def test_settings_of_the_process_change_no_fit_and_stay(plain, name, around):
    with around():
        before = settings()
        model = MODELS[name]().fit(IMAGES, LABELS)
        outputs = model.outputs(IMAGES[:20])
        if name == "nano":
            assert MODELS[name]().expect(IMAGES, LABELS).epochs == 1
        assert settings() == before
    np.testing.assert_array_equal(model.network_.coef, plain[name].network_.coef)
    np.testing.assert_array_equal(outputs, plain[name].outputs(IMAGES[:20]))
