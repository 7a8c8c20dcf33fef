"""A step of Muon's beside `torch.optim.Muon`'s, which rounds its products to bfloat16.

The matrices are those that a preset has on 32 × 32 colour images, their gradients random; one
thread, both in turn, the least of several runs. How far the two steps are apart is beside them: the
largest difference of a number by the largest step of one.

python benchmarks/muon.py        # half a minute
"""

from __future__ import annotations

import time
from typing import Any

import torch

from common import Table, argument_parser, say, write_result
from rankwise._threads import one_thread
from rankwise.training import muon
from rankwise.training.convolutional_presets import CONVOLUTIONAL_PRESETS, plan_convolutional

TITLE = "A step of Muon's, products in float32 and in bfloat16"
SHAPE = (32, 32, 3)
RATE, MOMENTUM = 0.03, 0.85


def main() -> None:
    """Measure all presets."""
    parser = argument_parser(__doc__, "muon", None)
    parser.add_argument("--repeats", type=int, default=15)
    args = parser.parse_args()
    presets = ["nano"] if args.quick else list(CONVOLUTIONAL_PRESETS)[::-1]
    repeats = 1 if args.quick else args.repeats
    rows = []
    with one_thread():
        for preset in presets:
            rows.append(measure(preset, repeats))
            say(f"{preset}: {rows[-1]['times']:.1f} times")
    lines = [
        (
            r["preset"],
            f"{1e3 * r['seconds']['bfloat16']:.2f}",
            f"{1e3 * r['seconds']['float32']:.2f}",
            f"{r['times']:.1f}",
            f"{r['apart']:.3f}",
        )
        for r in rows
    ]
    columns = ("preset", "torch's, ms", "ours, ms", "times", "apart")
    found = Table(TITLE, columns, lines)
    note = (
        "times: how many times as fast ours is on one thread. A processor with instructions for "
        "bfloat16 (AMX, AVX-512 with BF16) may have another answer."
    )
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    known = {"repeats": args.repeats, "bfloat16 instructions": "yes" if native else "no"}
    write_result(args, TITLE, [found], rows, known, [note])
    print(found.text())
    print(note)


def measure(preset: str, repeats: int) -> dict[str, Any]:
    """Both steps of one preset's matrices."""
    generator = torch.Generator().manual_seed(0)
    units = plan_convolutional(preset, {}, SHAPE, n_samples=50_000).units
    sizes = [(stage.maps * stage.rank, stage.channels) for stage in units.stages]
    start = [torch.randn(*size, generator=generator) for size in sizes]
    gradients = [torch.randn(*size, generator=generator) for size in sizes]
    theirs = [torch.nn.Parameter(x.clone()) for x in start]
    for parameter, gradient in zip(theirs, gradients, strict=True):
        parameter.grad = gradient.clone()
    optimiser = torch.optim.Muon(theirs, lr=RATE, weight_decay=0.0, momentum=MOMENTUM)
    ours, buffers = [x.clone() for x in start], [torch.zeros_like(x) for x in start]

    def step() -> None:
        for matrix, gradient, buffer in zip(ours, gradients, buffers, strict=True):
            muon.step(matrix, gradient, buffer, rate=RATE, momentum=MOMENTUM)

    seconds = {"bfloat16": float("inf"), "float32": float("inf")}
    for i in range(repeats + 1):
        for name, call in (("bfloat16", optimiser.step), ("float32", step)):
            tick = time.perf_counter()
            call()
            if i:  # the first of anything is slow
                seconds[name] = min(seconds[name], time.perf_counter() - tick)
        if not i:
            both = list(zip(ours, theirs, start, strict=True))
            apart = max(
                float((a - b.detach()).abs().max() / (a - x).abs().max()) for a, b, x in both
            )
    times = seconds["bfloat16"] / seconds["float32"]
    return {"preset": preset, "seconds": seconds, "times": times, "apart": apart}


if __name__ == "__main__":
    main()
