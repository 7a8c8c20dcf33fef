"""What tests of studies share: small designs, and a user's own module for them."""

import numpy as np

from rankwise.study import run_study
from rankwise.study.reading import study_from

MINIMAL = {"data": {"digits": {"source": "digits"}}, "models": ["simple-cnn"], "arms": ["none"]}

SOMEBODY = '''
import os, signal
import torch
from torch import nn

calls = 0


def make(image_shape, n_classes, width=4):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(1, width, 3)
            self.head = nn.Linear(width, n_classes)
            self.n_features = width

        def features(self, x):
            return torch.relu(self.convolution(x)).mean(dim=(2, 3))

        def forward(self, x):
            return self.head(self.features(x))

    return Network()


def scores_of_three(image_shape, n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def too_deep(image_shape, n_classes):
    return nn.Sequential(nn.Conv2d(3, 4, 9), nn.Flatten(), nn.Linear(4, n_classes))


def no_network(image_shape, n_classes):
    return 3


def deadly(batch):
    """Ends the process at the update that DEADLY_UPDATE names."""
    global calls
    calls += len(batch) > 2
    if str(calls) == os.environ.get("DEADLY_UPDATE"):
        os.kill(os.getpid(), signal.SIGKILL)
    return batch + 0.1 * torch.randn_like(batch)


def broken(image_shape, n_classes, width):
    raise KeyError("nothing there")


def failing(batch):
    if len(batch) > 2 and os.path.exists(os.environ.get("FAIL", "")):
        raise OSError("the disk is full\\nand more")
    return batch
'''


def study(arms=("none",), protocol="paper", **more):
    values = {
        "protocol": protocol,
        "data": {"digits": {"source": "digits", "limit": 80}},
        "models": {"own": {"network": "somebody_s_own:make"}},
        "arms": arms if isinstance(arms, dict) else list(arms),
        "epochs": 2,
        "folds": 2,
        "batch_size": 16,
        "degraded": "none",
    }
    return study_from(values | more)


def run(design, out, **options):
    return run_study(design, out, **({"workers": 1, "device": "cpu"} | options))


def timeless(value):
    """Without what a second run may measure differently."""
    if isinstance(value, dict):
        hidden = (
            "seconds",
            "train_seconds",
            "per_fold",
            "started",
            "finished",
            "environment",
            "workers",
        )
        return {k: timeless(v) for k, v in value.items() if k not in hidden}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def predictions(out):
    found = {}
    for path in sorted(out.rglob("predictions.npz")):
        with np.load(path) as stored:
            found[str(path.relative_to(out))] = {k: stored[k].tolist() for k in stored}
    return found
