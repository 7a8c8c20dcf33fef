"""A small backbone and pictures that several test files look at."""

import numpy as np
import torch

from rankwise.heads.backbones import SmallResNet

OPTIONS = {"width": 8, "n_features": 24}
RECORD = {"architecture": "small-resnet", "n_classes": 4, "options": OPTIONS}


def small(seed=0):
    torch.manual_seed(seed)
    network = SmallResNet(4, **OPTIONS)
    # Statistics of batch norm that differ from none at all.
    network.train()
    network(torch.randn(8, 3, 16, 16))
    return network.eval()


def pictures(n=12, shape=(16, 16, 3), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, *shape), dtype=np.uint8)
