"""Check everything that runs on a GPU against the CPU, and time it beside its rival.

Needs this checkout, a CUDA torch, numpy, scipy and scikit-learn, nothing else: no installation and
no data sets. At most 8 minutes; what isn't begun by then is named as skipped. Prints one JSON, and
ends with an error if something disagrees.

    python benchmarks/gpu.py
    python benchmarks/gpu.py --device cpu:torch --quick   # the same code without a GPU

Each part has ``agrees`` and the differences behind it, with the bound that each must keep, and
``seconds``: the median over repeated runs, after one that isn't counted.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

SOURCE = Path(__file__).resolve().parents[1] / "src"
LIMIT = 8 * 60.0


def make_importable() -> list[str]:
    """Put the checkout first on Python's path, and stand in for light libraries that aren't there.

    Returns
    -------
    list of str
        The libraries stood in for.
    """
    sys.path.insert(0, str(SOURCE))
    missing = []
    try:
        import jaxtyping  # noqa: F401  whether it is there
    except ImportError:
        # Shapes in annotations: they are checked under test only, and never looked at here.
        class Shape:
            def __class_getitem__(cls, item: Any) -> Any:
                return item[0]

        module = types.ModuleType("jaxtyping")
        for name in ("Bool", "Float", "Int", "Integer", "Num", "Shaped", "UInt8"):
            setattr(module, name, Shape)
        sys.modules["jaxtyping"] = module
        missing.append("jaxtyping")
    try:
        import array_api_compat  # noqa: F401  whether it is there
    except ImportError:
        # scikit-learn and scipy bring copies of their own.
        try:
            from sklearn.externals import array_api_compat as compat
        except ImportError:
            from scipy._lib import array_api_compat as compat
        sys.modules["array_api_compat"] = compat
        missing.append("array-api-compat")
    return missing


@dataclass
class Part:
    """What a part found.

    Attributes
    ----------
    differences : dict
        From a name to the difference from the CPU and the bound that it must keep.
    seconds : dict
        Of ours on the device, of the CPU, and of rivals on the device.
    sizes : dict
        What was computed.
    """

    differences: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)

    def report(self) -> dict[str, Any]:
        agrees = all(found <= bound for found, bound in self.differences.values())
        return {
            "agrees": agrees,
            "differences": {
                name: {"found": found, "bound": bound}
                for name, (found, bound) in self.differences.items()
            },
            "seconds": {name: round(value, 6) for name, value in self.seconds.items()},
            "sizes": self.sizes,
        }


class Clock:
    """Times calls, waiting for the device, until the limit."""

    def __init__(self, device: Any, limit: float) -> None:
        self.device, self.end = device, time.perf_counter() + limit

    def left(self) -> float:
        """Seconds until the limit."""
        return self.end - time.perf_counter()

    def __call__(self, call: Callable[[], Any], times: int = 3) -> float:
        """Median seconds of a call after one that isn't counted; fewer where time runs out."""
        call()
        found = []
        for _ in range(times):
            begin = self._now()
            call()
            found.append(self._now() - begin)
            if self.left() < found[-1]:
                break
        return median(found)

    def once(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """Seconds and result of one call."""
        begin = self._now()
        result = call()
        return self._now() - begin, result

    def _now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def images_like_digits(n: int, side: int, channels: int | None = None) -> tuple[Any, Any]:
    """Digits of scikit-learn, larger: uint8 ``(n, side, side[, channels])`` and labels."""
    import numpy as np
    from sklearn.datasets import load_digits

    bunch = load_digits()
    rng = np.random.default_rng(0)
    rows = np.arange(n) % len(bunch.images)
    places = (np.arange(side) * 8) // side
    pixels = bunch.images[rows][:, places][:, :, places] * (255 / 16)
    pixels = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255)
    if channels is not None:
        tints = rng.uniform(0.5, 1.0, (n, 1, 1, channels))
        pixels = pixels[..., None] * tints
    return pixels.astype(np.uint8), bunch.target[rows]


def relative(found: Any, expected: Any) -> float:
    """Norm of the difference, relative to the expected one's."""
    import numpy as np

    found, expected = (np.asarray(a, dtype=np.float64) for a in (found, expected))
    return float(np.linalg.norm(found - expected) / max(np.linalg.norm(expected), 1e-300))


# -- the parts ------------------------------------------------------------------------------


def subnetworks(device: str, quick: bool, clock: Clock) -> Part:
    """Sub-networks in one batch: against each by itself on the CPU; rival: one after another."""
    import numpy as np

    from rankwise.training.batched import train_batched
    from rankwise.training.network_planning import plan_network
    from rankwise.training.subnetworks import train_subnet

    groups, units, samples = (3, 4, 100) if quick else (104, 50, 1500)
    images, labels = images_like_digits(1797, 12 if quick else 28)
    targets = np.eye(10, dtype=np.float32)[labels]
    given = {"n_units": groups * units, "n_subnets": groups, "samples_per_subnet": samples}
    plans = {
        dtype: plan_network(
            "windowed", given, images.shape[1:], n_samples=len(images), dtype=dtype
        ).subnet
        for dtype in ("float64", "float32")
    }
    starts = [None] * groups
    part = Part(sizes={"groups": groups, "units": units, "samples": samples})
    checked = list(range(2))
    exact = dict(train_batched(images, targets, plans["float64"], 42, checked, starts, device))
    for group in checked:
        alone = train_subnet(images, targets, plans["float64"], 42, group)
        found, expected = exact[group].report["history"], alone.report["history"]
        part.differences[f"group {group}: objective at the start"] = (
            relative(found[0]["objective"], expected[0]["objective"]),
            1e-9,
        )
        part.differences[f"group {group}: objective at the end"] = (
            relative(exact[group].report["objective"], alone.report["objective"]),
            1e-4,
        )

    def batch() -> Any:
        return list(
            train_batched(images, targets, plans["float32"], 42, range(groups), starts, device)
        )

    part.seconds["ours: all in one batch"], _ = clock.once(batch)
    few = min(groups, 4)

    def one_by_one() -> Any:
        for group in range(few):
            list(train_batched(images, targets, plans["float32"], 42, [group], starts, device))

    each = clock(one_by_one, times=1) / few
    part.seconds["rival: one after another on the device"] = each * groups
    took, _ = clock.once(lambda: train_subnet(images, targets, plans["float32"], 42, 0))
    part.seconds["CPU: one after another"] = took * groups
    part.sizes["rivals timed on"] = f"{few} and 1 of the groups, times their number"
    return part


def joint(device: str, quick: bool, clock: Clock) -> Part:
    """Joint training: the same epoch on the CPU; rival: a plain loop over dense filters.

    The rival has the maps of our layers, with ReLU, and neither whitening nor skips.
    """
    from dataclasses import replace

    import numpy as np
    import torch
    from torch import nn
    from torch.nn import functional as F

    from rankwise.training.convolutional_presets import plan_convolutional
    from rankwise.training.joint import JointTraining
    from rankwise.training.starting import convolutional_module

    n, side = (200, 8) if quick else (6000, 28)
    images, labels = images_like_digits(n, side)
    plan = plan_convolutional("tiny" if quick else "small", {}, images.shape[1:], n_samples=n)
    target = device.removesuffix(":torch")

    def train(place: str, epochs: int) -> Any:
        start = torch.Generator().manual_seed(42)
        module = convolutional_module(plan.units, images, start)
        training = JointTraining(
            module, replace(plan.joint, epochs=epochs), 10, seed=42, device=place
        )
        return training.fit(images, labels), training

    part = Part(sizes={"images": n, "side": side, "batch": plan.joint.batch_size})
    took, (on_cpu, _) = clock.once(lambda: train("cpu", 1))
    part.seconds["CPU: an epoch, one thread"] = took
    found, training = train(target, 1)
    losses = [result.history[0]["train_loss"] for result in (found, on_cpu)]
    # Convolutions round to TF32 on a GPU, as torch does by default, and each update adds to it.
    part.differences["mean loss of the first epoch"] = (relative(*losses), 5e-2)
    outputs = training.outputs(images[:256])
    training.module.to("cpu")
    training.device, training.coef = "cpu", training.coef.cpu()
    part.differences["outputs of one network"] = (
        relative(outputs, training.outputs(images[:256])),
        1e-2,
    )
    part.seconds["ours: an epoch"] = clock(lambda: train(target, 1), times=1)
    layers: list[nn.Module] = []
    channels = 1
    for stage in plan.units.stages:
        layers += [nn.Conv2d(channels, stage.maps, stage.sides, padding=stage.padding)]
        layers += [nn.BatchNorm2d(stage.maps), nn.ReLU(), nn.MaxPool2d(stage.pool)]
        channels = stage.maps
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(10)).to(target)
        maps = torch.from_numpy(images)[:, None].to(target).float().div_(255)
        plain(maps[:2])
    classes = torch.from_numpy(np.asarray(labels)).to(target)
    optimiser = torch.optim.AdamW(plain.parameters(), lr=1e-3)

    def loop() -> None:
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        for rows in order.split(plan.joint.batch_size):
            optimiser.zero_grad()
            F.cross_entropy(plain(maps[rows]), classes[rows]).backward()
            optimiser.step()

    part.seconds["rival: an epoch of a plain loop, dense filters, nothing moved"] = clock(loop, 1)
    return part


def low_rank(device: str, quick: bool, clock: Clock) -> Part:
    """Low-rank copies: ranks and pixels of the CPU; rivals: torch's batched SVD and eigh."""
    import numpy as np
    import torch

    from rankwise.lowrank._device import approximate_on_device
    from rankwise.lowrank._matrices import Wanted
    from rankwise.lowrank.options import LowRankOptions
    from rankwise.lowrank.reconstruct import approximate, layout_of

    target = torch.device(device.removesuffix(":torch"))
    part, options = Part(), LowRankOptions()
    for side, count in ((12, 8),) if quick else ((32, 512), (96, 128), (224, 32)):
        images, _ = images_like_digits(count, side, 3)
        energies = np.random.default_rng(1).uniform(0.8, 0.999, count)[None]
        on_cpu = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
        layout, wanted = layout_of(on_cpu, "auto"), Wanted(energies)
        expected, ranks = approximate(on_cpu, layout, wanted, options)
        placed = on_cpu.to(target)

        def ours(placed: Any = placed, layout: Any = layout, wanted: Any = wanted) -> Any:
            return approximate_on_device(placed, layout, wanted, options, True)

        found, found_ranks = ours()
        name = f"{side}×{side}"
        part.sizes[name] = f"{count} images of 3 channels"
        part.differences[f"{name}: ranks that differ"] = (float((found_ranks != ranks).sum()), 0.0)
        gap = (found.cpu().int() - expected.int()).abs()
        part.differences[f"{name}: largest difference of a pixel"] = (float(gap.max()), 1.0)
        part.differences[f"{name}: share of pixels that differ"] = (
            float((gap > 0).double().mean()),
            1e-3,
        )
        part.seconds[f"{name}: ours"] = clock(ours)
        part.seconds[f"{name}: CPU"] = clock(
            lambda on_cpu=on_cpu, layout=layout, wanted=wanted: approximate(
                on_cpu, layout, wanted, options
            ),
            times=1,
        )
        planes = placed.float()
        k = max(1, side // 4)

        def svd(planes: Any = planes, k: int = k) -> Any:
            u, s, v = torch.linalg.svd(planes, full_matrices=False)
            return (u[..., :k] * s[..., None, :k]) @ v[..., :k, :]

        def eigh(planes: Any = planes, k: int = k) -> Any:
            vectors = torch.linalg.eigh(planes @ planes.mT)[1][..., -k:]
            return vectors @ (vectors.mT @ planes)

        part.seconds[f"{name}: rival: torch.linalg.svd, float32"] = clock(svd)
        if clock.left() > 0:
            part.seconds[f"{name}: rival: torch.linalg.eigh of the Gram matrix, float32"] = clock(
                eigh
            )
    return part


def head(device: str, quick: bool, clock: Clock) -> Part:
    """The last layer: solution of the CPU; rival: torch's least squares on the device."""
    import numpy as np
    import torch

    from rankwise.heads.head import VarProHead

    n, d = (400, 16) if quick else (50_000, 1024)
    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=n)
    features = (rng.standard_normal((10, d))[labels] * 0.3 + rng.standard_normal((n, d))).astype(
        np.float32
    )
    part = Part(sizes={"samples": n, "features": d, "classes": 10})
    models = {}
    for alpha in (1.0, "loo"):
        for place in ("cpu", device):
            took, models[place] = clock.once(
                lambda alpha=alpha, place=place: VarProHead(alpha, device=place).fit(
                    features, labels
                )
            )
            who = "CPU" if place == "cpu" else "ours"
            part.seconds[f"{who}: alpha={alpha}"] = took
        one, other = models[device], models["cpu"]
        part.differences[f"alpha={alpha}: coefficients"] = (relative(one.coef_, other.coef_), 1e-8)
        part.differences[f"alpha={alpha}: ridge"] = (relative(one.alpha_, other.alpha_), 1e-8)
        part.differences[f"alpha={alpha}: outputs"] = (
            relative(one.outputs(features[:500]), other.outputs(features[:500])),
            1e-8,
        )
        part.seconds[f"ours: alpha={alpha}"] = clock(
            lambda alpha=alpha: VarProHead(alpha, device=device).fit(features, labels), times=1
        )
    target = device.removesuffix(":torch")
    x = torch.from_numpy(features).to(target)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(labels), 10).to(x)

    def least_squares() -> Any:
        return torch.linalg.lstsq(x, one_hot).solution

    part.seconds["rival: torch.linalg.lstsq, float32, no ridge"] = clock(least_squares)
    return part


def features(device: str, quick: bool, clock: Clock) -> Part:
    """Features of a backbone: those of the CPU; rival: a plain loop over batches."""
    import torch

    from rankwise.heads.backbones import SmallResNet, as_backbone
    from rankwise.heads.features import extract_features

    n, side = (20, 16) if quick else (4096, 64)
    images, _ = images_like_digits(n, side, 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SmallResNet(10, width=8 if quick else 32)
    backbone = as_backbone(network)
    target = torch.device(device.removesuffix(":torch"))
    before = {name: value.device for name, value in network.state_dict().items()}
    part = Part(sizes={"images": n, "side": side})
    few = min(n, 256)
    took, expected = clock.once(lambda: extract_features(backbone, images[:few], device="cpu"))
    part.seconds["CPU: all images, from some of them"] = took * n / few
    found = extract_features(backbone, images[:few], device=device)
    part.differences["features"] = (relative(found, expected), 1e-2)  # TF32, as above
    part.seconds["ours"] = clock(lambda: extract_features(backbone, images, device=device))
    after = {name: value.device for name, value in network.state_dict().items()}
    part.differences["tensors of the network that were moved"] = (
        float(sum(before[name] != after[name] for name in before)),
        0.0,
    )
    with torch.random.fork_rng(devices=[]):
        copied = SmallResNet(10, width=8 if quick else 32)
    copied.load_state_dict(network.state_dict())
    placed = as_backbone(copied).eval().to(target)

    def loop() -> None:
        with torch.no_grad():
            for rows in torch.from_numpy(images).split(64):
                batch = rows.to(target).permute(0, 3, 1, 2).float().div(127.5).sub(1)
                placed(batch).cpu()

    part.seconds["rival: a plain loop"] = clock(loop)
    return part


def networks(device: str, quick: bool, clock: Clock) -> Part:
    """Training of the studies' networks: losses and accuracies of the CPU; rival: a plain loop.

    Left out without Lightning. A GPU's sums differ in their last bits, and training makes more of
    that from step to step.
    """
    import importlib.util

    import numpy as np
    import torch

    n, side, epochs = (80, 16, 1) if quick else (8000, 28, 2)
    part = Part(sizes={"images": n, "side": side, "epochs": epochs})
    needed = ("lightning", "safetensors", "psutil")
    absent = [name for name in needed if importlib.util.find_spec(name) is None]
    if absent:
        part.sizes["not run for want of"] = absent
        return part
    from rankwise.nets import TrainingSettings, make_network, train_network

    images, labels = images_like_digits(n, side)
    held = n // 4
    settings = TrainingSettings(epochs)

    def trained(where: str) -> Any:
        network = make_network("simple-cnn", (side, side), 10, dropout=0.0, seed=0)
        return train_network(
            network,
            images[held:],
            labels[held:],
            settings,
            validation=(images[:held], labels[:held]),
            device=where,
        )

    took, expected = clock.once(lambda: trained("cpu"))
    part.seconds["CPU"] = took
    found = trained(device.removesuffix(":torch"))
    for name, bound in (("train_loss", 0.05), ("validation_accuracy", 0.03)):
        pairs = zip(found.history, expected.history, strict=True)
        worst = float(np.max([abs(a[name] - b[name]) for a, b in pairs]))
        part.differences[name] = (worst, bound)
    target = torch.device(device.removesuffix(":torch"))
    part.seconds["ours"] = clock(lambda: trained(str(target)), times=1)

    def loop() -> None:
        network = make_network("simple-cnn", (side, side), 10, dropout=0.0, seed=0).to(target)
        optimizer = torch.optim.Adam(network.parameters())
        maps = torch.from_numpy(images[held:]).unsqueeze(1).to(target).float().div(127.5).sub(1)
        answers = torch.from_numpy(labels[held:]).to(target)
        for _ in range(epochs):
            for rows in torch.randperm(len(maps)).to(target).split(128):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(network(maps[rows]), answers[rows]).backward()
                optimizer.step()

    part.seconds["rival: a plain loop, nothing validated"] = clock(loop, times=1)
    return part


PARTS = {
    "batched sub-networks": subnetworks,
    "joint training": joint,
    "low-rank copies": low_rank,
    "head": head,
    "features": features,
    "networks": networks,
}


def machine(device: Any) -> dict[str, Any]:
    """What computed."""
    import platform

    import numpy
    import scipy
    import sklearn
    import torch

    known: dict[str, Any] = {
        "device": str(device),
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "scikit-learn": sklearn.__version__,
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    if device.type == "cuda":
        known["gpu"] = torch.cuda.get_device_name(device)
        known["cuda"] = torch.version.cuda
    return known


def main() -> int:
    """Run the parts, print what they found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="a torch device, or cpu:torch")
    parser.add_argument("--quick", action="store_true", help="smallest sizes, to try the script")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds, default 480")
    parser.add_argument("--out", type=Path, help="also write the JSON into this file")
    args = parser.parse_args()
    missing = make_importable()
    import torch

    device = torch.device(args.device.removesuffix(":torch"))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch finds no GPU here; --device cpu:torch runs the same code")
    clock = Clock(device, args.limit)
    begin = time.perf_counter()
    found: dict[str, Any] = {}
    for name in args.only:
        if clock.left() <= 0:
            found[name] = {"skipped": f"{args.limit:g} s were over"}
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        tick = time.perf_counter()
        try:
            found[name] = PARTS[name](args.device, args.quick, clock).report()
        except Exception as error:  # whatever one part does, the others are still of use
            traceback.print_exc(file=sys.stderr)
            found[name] = {"agrees": False, "error": f"{type(error).__name__}: {error}"}
        found[name]["took"] = round(time.perf_counter() - tick, 2)
        if device.type == "cuda":
            found[name]["gpu_memory_mb"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
            torch.cuda.reset_peak_memory_stats(device)
    from provenance import code_of_run, commit

    result = {
        "machine": machine(device),
        "stood_in_for": missing,
        "quick": args.quick,
        "commit": commit(),
        "code": code_of_run(),
        "seconds": round(time.perf_counter() - begin, 2),
        "parts": found,
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if args.out is not None:
        args.out.write_text(text + "\n", encoding="utf-8")
    return int(not all(part.get("agrees", True) for part in found.values()))


if __name__ == "__main__":
    sys.exit(main())
