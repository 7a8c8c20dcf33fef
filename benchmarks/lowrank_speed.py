"""The price of a low-rank copy: against SVDs, beside other transforms, as images grow.

Everything is interleaved in one process on one thread: each round runs every contender once, on
the same images, and a contender's figure is the median over the rounds; ratios are medians of the
ratios within a round, so that a busy machine slows both sides of each.

    python benchmarks/lowrank_speed.py --rounds 9
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_images

from common import Table, argument_parser, middle, say, write_result
from rankwise._threads import one_thread
from rankwise.data import ImageSet, load_images
from rankwise.lowrank import LowRankAugmenter, RandomLowRank, low_rank_approximation
from svd_rivals import RIVALS

TITLE = "The price of a low-rank copy"
ENERGY = 0.975
GOAL = 3  # times as fast as the fastest SVD, beyond what the table of bars asks for
FOUR = (0.9, 0.95, 0.975, 0.99)
OURS = "rankwise, batch"
SINGLE = "rankwise, one by one"

# label, data set (None: the photographs in scikit-learn), side to resize to, images
SETS: tuple[tuple[str, str | None, int | None, int], ...] = (
    ("28×28", "mnist", None, 1024),
    ("32×32×3", "cifar10", None, 384),
    ("100×100×3", "cats_vs_dogs", None, 96),
    ("224×224×3", "cats_vs_dogs", 224, 24),
    ("224×224×3 photo", None, 224, 24),
)
SIDES = (28, 56, 112, 224, 448, 1024)

Times = dict[str, list[float]]


def main() -> None:
    """Measure, print, write."""
    parser = argument_parser(__doc__, "lowrank_speed", None)
    parser.add_argument("--rounds", type=int, default=9, help="times everything is run")
    args = parser.parse_args()
    rounds = 2 if args.quick else args.rounds
    tables, data, used = [], {}, []
    with one_thread():
        for label, name, side, count in SETS:
            images = _images(args, name, side, 4 if args.quick else count)
            used.append({"name": name or "scikit-learn's photographs", "n": len(images)})
            say(f"{label}: {len(images)} images")
            times = _rounds(_contenders(images), len(images), rounds)
            data[label] = times
            tables.append(_rival_table(label, times))
        tables.append(_summary_table(data))
        photo = _images(args, None, 224, 1)[0]
        table, data["other transforms"] = _other_transforms(args, rounds)
        tables.append(table)
        sides = SIDES[:3] if args.quick else SIDES
        table, data["growth"] = _growth(sides, rounds)
        tables.append(table)
        table, data["floor"] = _floor(photo, rounds)
        tables.append(table)
    table, data["workers"] = _workers(args, rounds)
    tables.append(table)
    notes = [*NOTES, _goal(data)]
    if torch.cuda.is_available():
        table, data["gpu"] = _gpu(sides, rounds)
        tables.append(table)
    else:
        notes.append("A GPU wasn't at hand.")
    tables.insert(len(SETS) + 1, _bar_table(data))
    for table in tables:
        print(f"\n{table.text()}")
    write_result(args, TITLE, tables, data, {"images": used, "rounds": rounds}, notes)


NOTES = (
    "Whole job: uint8 image in, energy 0.975 of Σσ to rank, rebuilt uint8 image out; one thread.",
    "Times are medians over the rounds (smallest–largest); ratios are medians within a round.",
    "The fastest is, of the SVDs, the one with the smallest median.",
)


def _images(
    args: argparse.Namespace, name: str | None, side: int | None, count: int
) -> list[NDArray[np.uint8]]:
    if name is None or args.quick:
        return _photographs(side or 32, count)
    images = load_images(Path(args.data) / name, "train", limit=count, size=side).images
    return list(images[..., None] if images.ndim == 3 else images)


def _photographs(side: int, count: int) -> list[NDArray[np.uint8]]:
    """Square crops of the two photographs in scikit-learn, shrunk (or, past 427, grown)."""
    crops = []
    for i in range(count):
        photo = load_sample_images().images[i % 2]
        left = (photo.shape[1] - photo.shape[0]) * (i // 2) // max(1, (count - 1) // 2)
        crop = photo[:, left : left + photo.shape[0]]
        crops.append(np.asarray(Image.fromarray(crop).resize((side, side))))
    return crops


def _contenders(images: list[NDArray[np.uint8]]) -> dict[str, Callable[[], Any]]:
    batch = np.stack(images)

    def each(function: Callable[..., Any]) -> Callable[[], Any]:
        return lambda: [function(image, ENERGY) for image in images]

    ours: dict[str, Callable[[], Any]] = {
        OURS: lambda: low_rank_approximation(batch, energy=ENERGY, channel_axis=-1),
        SINGLE: lambda: [
            low_rank_approximation(image, energy=ENERGY, channel_axis=-1) for image in images
        ],
        "four energies": lambda: low_rank_approximation(batch, energy=FOUR, channel_axis=-1),
        "channels joint": lambda: low_rank_approximation(
            batch, energy=ENERGY, channel_axis=-1, channels="joint"
        ),
    }
    return ours | {label: each(function) for label, function in RIVALS.items()}


def _rounds(contenders: dict[str, Callable[[], Any]], images: int, rounds: int) -> Times:
    """Microseconds an image, for each contender in each round; the first round warms up."""
    times: Times = {label: [] for label in contenders}
    for turn in range(rounds + 1):
        for label, run in contenders.items():
            begin = time.perf_counter()
            run()
            if turn:
                times[label].append(1e6 * (time.perf_counter() - begin) / images)
    return times


def _ratio(times: Times, label: str, base: str = OURS) -> float:
    return median(a / b for a, b in zip(times[label], times[base], strict=True))


def _rival_table(label: str, times: Times) -> Table:
    rows = [
        [name, middle(values, 0), f"{_ratio(times, name):.2f}"] for name, values in times.items()
    ]
    return Table(f"{label}, energy {ENERGY}", ["", "µs an image", "times ours"], rows)


def _summary_table(data: dict[str, Times]) -> Table:
    rows = []
    for label, times in data.items():
        fastest = _fastest(times)
        rows.append(
            [
                label,
                f"{_ratio(times, 'numpy.linalg.svd'):.2f}",
                f"{_ratio(times, 'torch.linalg.svd'):.2f}",
                f"{_ratio(times, fastest):.2f} ({fastest.split('.')[0]})",
                f"{_ratio(times, 'four energies'):.2f}",
                f"{_ratio(times, fastest, SINGLE):.2f}",
            ]
        )
    columns = ["size", "numpy", "torch", "the fastest", "4 energies", "one by one"]
    return Table("How many times faster (4 energies: price of four over one)", columns, rows)


def _fastest(times: Times) -> str:
    return min(RIVALS, key=lambda name: median(times[name]))


def _goal(data: dict[str, Any]) -> str:
    """Whether the goal beyond the bars is reached, in words."""
    ratios = {label: _ratio(data[label], _fastest(data[label])) for label, *_ in SETS}
    reached = [label for label, ratio in ratios.items() if ratio >= GOAL]
    where = f"reached at {', '.join(reached)} only" if reached else "not reached at any size"
    where = "reached at every size" if len(reached) == len(ratios) else where
    return (
        f"The goal, {GOAL} times as fast as the fastest SVD, is {where}: batches are "
        f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f} times as fast."
    )


def _bar_table(data: dict[str, Any]) -> Table:
    """What was asked of the package before it was written, and whether it holds here."""
    bars: list[tuple[str, float, float]] = []  # claim, measured, least
    for label, *_ in SETS:
        times = data[label]
        fastest = _fastest(times)
        large = label.startswith(("100", "224"))
        bars.append((f"{label}: the fastest SVD", _ratio(times, fastest), 1.6 if large else 1.0))
        bars.append((f"{label}: the same, one by one", _ratio(times, fastest, SINGLE), 1.0))
        if large:
            bars.append((f"{label}: numpy", _ratio(times, "numpy.linalg.svd"), 2.2))
    workers = data["workers"]
    gain = median(a / b for a, b in zip(workers["1"], workers["2"], strict=True))
    bars.append(("2 workers over one", gain, 1.7))
    rows = [
        [claim, f"{found:.2f}", f"≥ {least}", "met" if found >= least else "missed"]
        for claim, found, least in bars
    ]
    for label, *_ in SETS:
        price = _ratio(data[label], "four energies")
        verdict = "met" if price < 1.5 else "missed"
        rows.append([f"{label}: 4 energies over one", f"{price:.2f}", "< 1.5", verdict])
    return Table("Bars: times as fast as", ["", "measured", "asked", ""], rows)


def _other_transforms(args: argparse.Namespace, rounds: int) -> tuple[Table, Any]:
    import albumentations
    import cv2

    cv2.setNumThreads(1)
    always = {"p": 1.0}
    others = {
        "ImageCompression (JPEG, 50–90)": albumentations.ImageCompression(
            quality_range=(50, 90), **always
        ),
        "Downscale (0.25–0.5)": albumentations.Downscale(scale_range=(0.25, 0.5), **always),
    }
    ours = RandomLowRank(ENERGY, p=1, seed=0, channel_axis=-1)
    rows, data = [], {}
    for label, name, side, count in SETS[1:4]:
        images = _images(args, name, side, 4 if args.quick else count)
        batch = np.stack(images)
        contenders: dict[str, Callable[[], Any]] = {
            OURS: lambda batch=batch: ours(batch),
            SINGLE: lambda images=images: [ours(image) for image in images],
        }
        for other, transform in others.items():
            contenders[other] = lambda images=images, transform=transform: [
                transform(image=image) for image in images
            ]
        times = _rounds(contenders, len(images), rounds)
        data[label] = times
        rows.append([label, *(f"{1e6 / median(values):,.0f}" for values in times.values())])
    columns = ["images a second", "batch", "one by one", "JPEG 50–90", "Downscale"]
    return Table("Beside two transforms of Albumentations, one thread", columns, rows), data


def _growth(sides: tuple[int, ...], rounds: int) -> tuple[Table, Any]:
    rows, data = [], {}
    before: tuple[int, float] | None = None
    for side in sides:
        images = np.stack(_photographs(side, max(1, 20_000 // side**2)))
        run = {
            OURS: lambda images=images: low_rank_approximation(
                images, energy=ENERGY, channel_axis=-1
            )
        }
        values = _rounds(run, len(images), max(2, rounds if side < 500 else 2))[OURS]
        now = median(values)
        power = (
            "" if before is None else f"{np.log(now / before[1]) / np.log(side / before[0]):.2f}"
        )
        rows.append([f"{side}×{side}×3", middle([v / 1000 for v in values], 2), power])
        data[str(side)] = values
        before = (side, now)
    columns = ["image", "ms", "power of the side"]
    return Table("Growth with the size, photographs", columns, rows), data


def _gpu(sides: tuple[int, ...], rounds: int) -> tuple[Table, Any]:
    """Batches on a GPU, beside its own batched SVD; the cliff is that SVD's, above 32×32."""
    rows, data = [], {}
    for side in sides:
        count = max(1, 2_000_000 // side**2)
        photos = np.resize(np.stack(_photographs(side, 2)), (count, side, side, 3))
        images = torch.from_numpy(photos).cuda().movedim(-1, 1).contiguous()

        def ours(images: torch.Tensor = images) -> None:
            low_rank_approximation(images, energy=ENERGY)
            torch.cuda.synchronize()

        def svd(images: torch.Tensor = images) -> None:
            torch.linalg.svd(images.float(), full_matrices=False)
            torch.cuda.synchronize()

        times = _rounds({OURS: ours, "torch.linalg.svd": svd}, count, max(2, rounds // 3))
        data[str(side)] = times
        rows.append(
            [f"{side}×{side}×3", str(count), *(middle(values, 1) for values in times.values())]
        )
    columns = ["µs an image", "batch", "ours, whole job", "torch.linalg.svd alone"]
    return Table(f"On {torch.cuda.get_device_name()}", columns, rows), data


def _floor(photo: NDArray[np.uint8], rounds: int) -> tuple[Table, Any]:
    """The operations that remain if everything else were free, at the speed of a product."""
    side = photo.shape[0]
    _, ranks = low_rank_approximation(photo, energy=ENERGY, return_rank=True)
    vectors = float(np.mean(np.minimum(ranks, side - ranks)))
    steps = {
        "Gram matrix": side**3,
        "reduction to T": 4 / 3 * side**3,
        "vectors of G": 2 * side**2 * vectors,
        "two products": 4 * side**2 * vectors,
    }
    square = np.random.default_rng(0).random((side, side))
    single = square.astype(np.float32)
    run = {
        "float64": lambda: square @ single.astype(np.float64),
        "float32": lambda: single @ single.T.copy(),
        OURS: lambda: low_rank_approximation(photo, energy=ENERGY),
    }
    times = _rounds(run, 1, rounds)
    speed = {kind: 2 * side**3 / median(times[kind]) / 1e3 for kind in ("float64", "float32")}
    floor = 3 * sum(
        count / speed["float64" if name == "reduction to T" else "float32"] / 1e3
        for name, count in steps.items()
    )
    ours = median(times[OURS])
    rows = [[name, f"{3 * count / 1e6:.0f}"] for name, count in steps.items()]
    rows += [
        ["a product runs at, Gflop/s", f"{speed['float64']:.0f} / {speed['float32']:.0f}"],
        ["so the floor is, µs", f"{floor:.0f}"],
        ["measured, µs", f"{ours:.0f}"],
        ["measured over floor", f"{ours / floor:.1f}"],
    ]
    title = f"The floor at {side}×{side}×3: million operations (float64 / float32 products)"
    return Table(title, ["", "value"], rows), {"steps": steps, "times": times, "floor_us": floor}


def _workers(args: argparse.Namespace, rounds: int) -> tuple[Table, Any]:
    """Copies of a whole set by one process and by two, processes already started."""
    count = 24 if args.quick else 4800
    if args.quick:
        photos = np.stack(_photographs(32, count))
        images = ImageSet.from_arrays(photos, np.arange(count) % 2)
    else:
        images = load_images(Path(args.data) / "cats_vs_dogs", "train", limit=count)
    transform = RandomLowRank(ENERGY, p=1, seed=0)
    run = {
        str(workers): lambda workers=workers: LowRankAugmenter(transform, workers=workers).augment(
            images
        )
        for workers in (1, 2)
    }
    times = _rounds(run, count, 1 if args.quick else max(2, rounds // 3))
    gain = median(a / b for a, b in zip(times["1"], times["2"], strict=True))
    rows = [
        ["1 worker, µs a copy", middle(times["1"], 0)],
        ["2 workers", middle(times["2"], 0)],
        ["gain", f"{gain:.2f}"],
    ]
    return Table(f"Pre-computing {count} copies", ["", "value"], rows), times


if __name__ == "__main__":
    main()
