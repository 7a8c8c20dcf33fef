"""Peak anonymous memory of what a cluster does, by the number of rows; of `cluster.py`."""

from __future__ import annotations

import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np

import rankwise
from cluster_parts import SEED, network
from common import in_fresh_process, say
from rankwise import LowRankAugmenter, RandomLowRank, VarProHead
from rankwise.data.shards import ShardWriter, open_shards
from rankwise.lowrank.export import augment_files


class AnonymousPeak:
    """The largest ``RssAnon`` of this process while a block runs, in MB."""

    def __enter__(self) -> AnonymousPeak:
        self.megabytes = _anonymous()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        self.megabytes = max(self.megabytes, _anonymous())

    def _watch(self) -> None:
        while not self._stop.wait(0.005):
            self.megabytes = max(self.megabytes, _anonymous())


def _anonymous() -> float:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))


def write(folder: str, n: int) -> tuple[str, str]:
    """Shards of so many images and of so many features."""
    rng = np.random.default_rng(SEED)
    size = 8192
    return (
        written_rows(Path(folder) / f"images-{n}", n, (16, 16), np.uint8, size, rng),
        written_rows(Path(folder) / f"features-{n}", n, (64,), np.float32, size, rng),
    )


def train(pixels: str, features: str, folder: str, n: int) -> float:
    """Peak anonymous MB of sub-networks and their glue."""
    images, names = open_shards(pixels)
    with AnonymousPeak() as peak:
        network(2, 25, 1000).fit(images, names.astype(np.int8))
    return peak.megabytes


def predict(pixels: str, features: str, folder: str, n: int) -> float:
    """Of a prediction, its model fitted on a few of the rows."""
    images, names = open_shards(pixels)
    few = np.arange(2000)
    model = network(2, 25, 1000).fit(images.chosen(few), names[few].astype(np.int8))
    with AnonymousPeak() as peak:
        for start in range(0, n, 100_000):  # as `rankwise predict` does: outputs are n × K numbers
            model.outputs(images.chosen(np.arange(start, min(n, start + 100_000))))
    return peak.megabytes


def head(pixels: str, features: str, folder: str, n: int) -> float:
    """Of a head with leave-one-out."""
    with AnonymousPeak() as peak:
        VarProHead().fit_shards(features)
    return peak.megabytes


def augment(pixels: str, features: str, folder: str, n: int) -> float:
    """Of reading the set and writing its copies."""
    with AnonymousPeak() as peak:
        data = rankwise.load_images(pixels, "train")
        augmenter = LowRankAugmenter(RandomLowRank(p=0.2, seed=SEED))
        augment_files(data, augmenter, Path(folder) / f"copies-{n}")
    return peak.megabytes


def written_rows(
    place: Path, n: int, shape: tuple[int, ...], dtype: Any, size: int, rng: np.random.Generator
) -> str:
    """Random rows of two classes in shards, made one file at a time."""
    writer = ShardWriter(str(place), place.name, ["0", "1"])
    codes = np.arange(n) % 2
    files = []
    for i, start in enumerate(range(0, n, size)):
        some = codes[start : start + size]
        rows = rng.integers(0, 200, (len(some), *shape)).astype(dtype)
        rows.reshape(len(some), -1)[:, 0] += (50 * some).astype(dtype)
        files.append(writer.write("train", i, -(-n // size), rows))
    writer.add("train", files, codes, np.arange(n).astype("U7"))
    writer.finish()
    return str(place)


COMMANDS = {"train": train, "predict": predict, "head": head, "augment": augment}


def memory(quick: bool) -> list[dict[str, Any]]:
    """Each command's peak, by the number of rows, each in a process of its own."""
    rows = []
    for n in (10_000, 20_000) if quick else (10_000, 100_000, 1_000_000):
        with tempfile.TemporaryDirectory() as folder:
            places = in_fresh_process(write, folder, n)
            found = {k: in_fresh_process(f, *places, folder, n) for k, f in COMMANDS.items()}
        rows.append({"n": n, "mb": found})
        say(f"memory: {rows[-1]}")
    return rows
