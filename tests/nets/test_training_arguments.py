"""What training refuses, and the devices it runs on."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nets.small import Tiny, digits
from rankwise.nets import TrainingSettings, predict_logits, train_network

IMAGES, LABELS = digits(360)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"epochs": 0}, "epochs must be a whole number of 1 or more; got 0"),
        ({"epochs": 1.5}, "epochs must be a whole number"),
        ({"batch_size": 0}, "batch_size must be a whole number of 1 or more"),
        ({"steps_per_epoch": 0}, "steps_per_epoch must be a whole number of 1 or more"),
        ({"patience": 0}, "patience must be a whole number of 1 or more; got 0"),
        ({"learning_rate": 0}, "learning_rate must be a number above 0; got 0"),
        ({"learning_rate": "a"}, "learning_rate must be a number above 0; got 'a'"),
        ({"learning_rate": float("inf")}, "learning_rate must be a number above 0; got inf"),
        ({"optimizer": "lion"}, "unknown optimizer 'lion'; accepted: adam, adamw, rmsprop, sgd"),
        ({"precision": "16"}, "unknown precision '16'; accepted: 32-true, bf16-mixed, 16-mixed"),
        ({"output": "hinge"}, "unknown output 'hinge'; accepted: softmax, varpro"),
    ],
)
def test_wrong_settings_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**{"epochs": 1, **choices})


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((IMAGES / 255, LABELS), {}, r"images must be a uint8 array .*; got float64 \(360, 8, 8\)"),
        ((IMAGES[0], LABELS[:8]), {}, r"images must be a uint8 array"),
        ((IMAGES[:0], LABELS[:0]), {}, "with n ≥ 1"),
        ((torch.zeros(0, 1, 8, 8), []), {}, r"with n ≥ 1; got float32 \(0, 1, 8, 8\)"),
        ((torch.zeros(9), LABELS[:9]), {}, r"must be a uint8 array .*; got float32 \(9,\)"),
        ((torch.zeros(9, 1, 8, 8).double(), LABELS[:9]), {}, "got float64"),
        ((IMAGES, LABELS[:9]), {}, r"labels of the images must be 360 whole numbers from 0"),
        ((IMAGES, LABELS - 1), {}, "whole numbers from 0"),
        ((IMAGES, LABELS + 0.5), {}, "got float64"),
        ((IMAGES, LABELS), {"validation": (IMAGES[:, :7], LABELS)}, r"shape \(7, 8\), the train"),
        ((IMAGES, LABELS), {"device": "tpu9"}, "unknown device 'tpu9'; accepted: auto, cpu, cuda"),
        ((IMAGES, LABELS), {"device": "meta"}, "unknown device 'meta'"),
        ((IMAGES, LABELS), {"devices": 0}, "devices must be a whole number of 1 or more; got 0"),
        (
            (IMAGES, LABELS),
            {"devices": "2"},
            "devices must be a whole number of 1 or more; got '2'",
        ),
        (
            (IMAGES, LABELS + 3),
            {"device": "cpu"},
            "labels of the images must be from 0 to 9, as the network gives 10 logits; got 12",
        ),
        (
            (IMAGES, LABELS),
            {"device": "cpu", "validation": (IMAGES[:4], LABELS[:4] + 7)},
            "labels of the validation images must be from 0 to 9, .*; got 10",
        ),
    ],
)
def test_wrong_arguments_are_refused(arguments, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train_network(Tiny(), *arguments, TrainingSettings(1), folder=tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, "8"])
def test_wrong_batches_of_a_prediction_are_refused(batch_size):
    message = f"batch_size must be a whole number of 1 or more; got {batch_size!r}"
    with pytest.raises(ValueError, match=message):
        predict_logits(Tiny(), IMAGES, batch_size=batch_size)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there():
    with pytest.raises(ValueError, match="device 'cuda' was asked for, but PyTorch finds no GPU"):
        predict_logits(Tiny(), IMAGES, device="cuda")


def test_two_devices_share_the_work_and_bring_it_back(tmp_path):
    """A process of its own, since Lightning spawns from it; two CPU processes for two GPUs."""
    script = tmp_path / "two.py"
    script.write_text(
        "import sys, torch\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "from nets.small import Tiny, digits\n"
        "from rankwise.nets import TrainingSettings, predict_logits, train_network\n"
        "if __name__ == '__main__':\n"
        "    torch.set_num_threads(1)\n"
        "    x, y = digits(300)\n"
        "    model, held = Tiny(), (x[200:], y[200:])\n"
        "    settings = TrainingSettings(2, batch_size=51)\n"
        "    result = train_network(model, x[:200], y[:200], settings, validation=held,\n"
        "                           device='cpu', devices=2)\n"
        "    hits = predict_logits(model, held[0], device='cpu').argmax(1) == held[1]\n"
        "    assert abs(hits.mean() - result.history[-1]['validation_accuracy']) < 1e-9\n"
        "    assert result.history[1]['train_loss'] < result.history[0]['train_loss']\n"
        "    print(result.n_updates)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "8\n"
    assert "distributed" not in done.stderr
