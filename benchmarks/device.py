r"""One image at a time on one core: the C header, its ONNX file, and plain convolutions of torch.

Times are the best of several rounds, rivals interleaved in one process tree; on a busy machine
they are noisy, and their ratios less so.

    python benchmarks/device.py
    python benchmarks/device.py --names mnist-small --rounds 50
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import rankwise
from common import Table, say
from rankwise import pretrained
from rankwise.export import export_model

TIMER = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "model.h"
static uint8_t images[16][model_PIXELS];
int main(int argc, char **argv) {
    float p[model_CLASSES];
    double best = 1e9;
    int n = 0;
    for (size_t i = 0; i < sizeof images; ++i) (&images[0][0])[i] = (uint8_t)(rand() >> 4);
    for (int r = 0; r < 16; ++r) {
        struct timespec a, b;
        double t;
        clock_gettime(CLOCK_MONOTONIC, &a);
        n += model_predict(images[r], p);
        clock_gettime(CLOCK_MONOTONIC, &b);
        t = 1e6 * (double)(b.tv_sec - a.tv_sec) + 1e-3 * (double)(b.tv_nsec - a.tv_nsec);
        if (t < best) best = t;
    }
    printf("%.1f %d\\n", best, n + argc * (argv == NULL));
    return 0;
}
"""
WAYS = {"C -O2": ["-O2"], "C -O3 -march=native": ["-O3", "-march=native"]}


def main() -> None:
    """Print a table of microseconds an image."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = pretrained.names()
    parser.add_argument("--names", nargs="+", choices=known, default=known)
    parser.add_argument("--data", help="not read: times don't depend on what an image shows")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    args = parser.parse_args()
    rows = []
    for name in args.names:
        with tempfile.TemporaryDirectory() as folder:
            times = measured(name, Path(folder), 2 if args.quick else args.rounds)
        rows += [
            (name, way, f"{t:.0f}", f"{t / times['onnxruntime, plain convolutions']:.2f}")
            for way, t in times.items()
        ]
    table = Table(
        "Microseconds an image, one core, the best", ("model", "way", "µs", "ratio"), rows
    )
    say(table.text())


def measured(name: str, folder: Path, rounds: int) -> dict[str, float]:
    """The least time of each way, in microseconds."""
    model = rankwise.load(name)
    export_model(model, "c", folder / "model.h")
    export_model(model, "onnx", folder / "ours.onnx")
    plain(model, folder / "plain.onnx")
    (folder / "time.c").write_text(TIMER)
    for way, flags in WAYS.items():
        program = str(folder / way.replace(" ", ""))
        subprocess.run(
            ["cc", "-std=gnu99", *flags, str(folder / "time.c"), "-lm", "-o", program], check=True
        )
    shape = model.image_shape_
    image = np.random.default_rng(0).integers(0, 256, (1, *shape), dtype=np.uint8)
    maps = (
        image.reshape(1, *shape, -1).transpose(0, 3, 1, 2)
        if len(shape) == 2
        else np.moveaxis(image, 3, 1)
    )
    sessions = {
        "onnxruntime, ours": (session(folder / "ours.onnx"), {"image": image}),
        "onnxruntime, plain convolutions": (
            session(folder / "plain.onnx"),
            {"x": np.ascontiguousarray(maps, dtype=np.float32) / 255},
        ),
    }
    best = dict.fromkeys((*WAYS, *sessions), np.inf)
    for _ in range(rounds):
        for way in WAYS:
            done = subprocess.run(
                [str(folder / way.replace(" ", ""))], capture_output=True, text=True, check=True
            )
            best[way] = min(best[way], float(done.stdout.split()[0]))
        for way, (one, given) in sessions.items():
            for _ in range(16):
                begin = time.perf_counter()
                one.run(None, given)
                best[way] = min(best[way], 1e6 * (time.perf_counter() - begin))
    return best


def session(path: Path) -> Any:
    """On one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def plain(model: Any, path: Path) -> None:
    """The same network as torch's own modules, filters multiplied out, exported by torch."""
    import torch
    from torch import nn

    from rankwise.units.convolutional import compose

    network, layers = model.network_, []
    for stage, w in zip(network.units.stages, network.layers, strict=True):
        filters = torch.from_numpy(compose(w.channel, w.row, w.column))
        convolution = nn.Conv2d(stage.channels, stage.maps, stage.sides, padding=stage.padding)
        convolution.weight.data, convolution.bias.data = filters, torch.from_numpy(w.bias)
        layers.append(convolution)
        if max(stage.pool) > 1:
            layers.append(nn.MaxPool2d(stage.pool))
        layers.append(nn.ReLU())
    linear = nn.Linear(network.units.n_features, network.coef.shape[1])
    linear.weight.data = torch.from_numpy(network.coef[:-1].T.astype(np.float32)).contiguous()
    linear.bias.data = torch.from_numpy(network.coef[-1].astype(np.float32))
    layers += [nn.AvgPool2d(network.units.cell), nn.Flatten(), linear, nn.Softmax(dim=1)]
    shape = network.units.shape
    x = torch.zeros(1, network.units.channels, *shape[:2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that another of its exporters is newer
        torch.onnx.export(
            nn.Sequential(*layers).eval(), (x,), str(path), input_names=["x"], dynamo=False
        )


if __name__ == "__main__":
    main()
