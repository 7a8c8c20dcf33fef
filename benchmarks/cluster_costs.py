"""What a core takes for each step, and computed from it what many images would; `cluster.py`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cluster_parts import SEED, network
from rankwise.data.shards import open_shards

COLUMNS, SUBNETS, HEAD = 5201, 104, 512
"""The paper's network, and a backbone's features."""
NETWORK_BYTES = 125e6
"""A second, on a link of 1 Gbit/s: assumed, not measured."""


def constants(images: str, quick: bool) -> dict[str, float]:
    """CPU seconds of one core."""
    from io import BytesIO

    from PIL import Image

    from rankwise.data.decode import layout_of, open_image, to_array
    from rankwise.linear.gram import accumulate_gram
    from rankwise.linear.output_layer import solve_gram
    from rankwise.linear.statistics import block_statistics

    pixels, labels = open_shards(images)
    units, samples = (10, 200) if quick else (50, 2000)
    m, n = (200, 2048) if quick else (1201, 8192)
    rng = np.random.default_rng(SEED)
    phi = rng.standard_normal((n, m), dtype=np.float32)
    targets = np.eye(10)[np.arange(n) % 10]
    model = network(1, units, samples)
    model.fit(pixels, labels)
    subnet = _cpu(lambda: model.fit(pixels.chosen(np.arange(samples)), labels[:samples]))
    row = _cpu(lambda: accumulate_gram(lambda b: phi[b], targets)) / n
    statistics = accumulate_gram(lambda b: phi[b], targets)
    solve = _cpu(lambda: solve_gram(statistics))
    rows = phi[:, : min(m, HEAD)]
    head = _cpu(lambda: block_statistics(rows, np.arange(n) % 10)) / n
    buffer = BytesIO()
    Image.fromarray(pixels[0]).save(buffer, "PNG")
    layout, encoded = layout_of(pixels.row_shape), buffer.getvalue()
    decode = _cpu(lambda: [to_array(open_image(encoded), layout, None) for _ in range(500)]) / 500
    return {
        "sub-network": subnet,
        "glue, a row": row * (COLUMNS / m) ** 2,
        "solve": solve * (COLUMNS / m) ** 3,
        "head, a row and pass": head * (HEAD / rows.shape[1]) ** 2,
        "decode, an image": decode,
    }


def _cpu(run: Callable[[], Any]) -> float:
    """CPU seconds of this process, the least of three: other programs don't count."""
    found = []
    for _ in range(3):
        begin = time.process_time()
        run()
        found.append(time.process_time() - begin)
    return min(found)


def costs(known: dict[str, float], n: float, workers: int) -> dict[str, float]:
    """Seconds of each step for so many images on so many workers, by the model."""
    square = 8.0 * COLUMNS**2
    leaves = min(2 * workers, max(1, n / 4096))
    levels = np.ceil(np.log(max(leaves, 1.0)) / np.log(8)) if workers > 1 else 0
    return {
        "decoding": n * known["decode, an image"] / workers,
        "sub-networks": known["sub-network"] * np.ceil(SUBNETS / min(workers, SUBNETS)),
        "glue": n * known["glue, a row"] / workers,
        "sums on their way": levels * 7 * square / NETWORK_BYTES,
        "solve": known["solve"],
    }


def model_rows(known: dict[str, float]) -> list[tuple[str, ...]]:
    rows = []
    for n in (1e6, 1e8, 1e9):
        for workers in (1, 10, 100, 1000):
            found = costs(known, n, workers)
            head = 2 * n * known["head, a row and pass"] / workers
            rows.append(
                (
                    f"10^{np.log10(n):.0f} images, {workers:,} workers",
                    _duration(sum(found.values())),
                    max(found, key=lambda name: found[name]),
                    f"{(2 * workers if workers > 1 else 0) * 8e-9 * COLUMNS**2:,.1f}",
                    _duration(head),
                )
            )
    return rows


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
