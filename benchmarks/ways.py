r"""Forms slid in either of two ways: filters composed, or channels mixed first; what the rule says.

Forward, and forward and backward, on one thread, maps channels last, the two ways in turn; the
least of several runs. `rankwise.networks.sliding.mixes_first` holds the rule that follows, and each
row says whether the rule takes the faster way. Busy machines blur it: seconds are a processor's.

    python benchmarks/ways.py        # half a minute, where bfloat16 is emulated two
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from common import Table, argument_parser, say, write_result
from rankwise._threads import one_thread
from rankwise.networks.sliding import mixes_first, slid

TITLE = "Two ways to slide forms over maps"
CASES = (
    (5, 1, 3, 13), (8, 1, 3, 27), (12, 1, 3, 15), (16, 1, 3, 14), (24, 1, 3, 31), (24, 1, 3, 15),
    (28, 1, 3, 7), (32, 1, 3, 16), (40, 1, 3, 15), (48, 1, 3, 15), (64, 1, 3, 16), (128, 1, 3, 8),
    (256, 1, 3, 8), (64, 2, 3, 16), (128, 2, 3, 8), (256, 2, 3, 8), (256, 4, 3, 8), (64, 1, 5, 15),
)  # fmt: skip
"""Channels (and as many units), rank, side of a patch, side of the maps."""
ALIKE = 1.15


def main() -> None:
    """Measure all cases."""
    parser = argument_parser(__doc__, "ways", None)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    cases = CASES[:2] if args.quick else CASES
    repeats = 1 if args.quick else args.repeats
    rows = []
    with one_thread():
        for precision in ("float32", "bfloat16"):
            for case in cases:
                rows.append(measure(case, precision, repeats, args.batch))
                say(f"{precision} {case}: {rows[-1]['gain']:.2f} times")
    found = table(rows)
    write_result(args, TITLE, [found], rows, {"batch": args.batch, "repeats": repeats}, notes(rows))
    print(found.text())
    print(*notes(rows), sep="\n")


def measure(case: Any, precision: str, repeats: int, batch: int) -> dict[str, Any]:
    """One case in one precision."""
    channels, rank, side, size = case
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    dtype = getattr(torch, precision)
    x = draw(batch, channels, size, size).contiguous(memory_format=torch.channels_last)
    x = x.to(dtype).requires_grad_()
    vectors = [draw(channels, rank, n).requires_grad_() for n in (channels, side, side)]
    padding = (side // 2, side // 2)

    def forward(mixed: bool) -> torch.Tensor:
        return slid(x, *vectors, padding=padding, mixed=mixed)

    def both(mixed: bool) -> None:
        result = forward(mixed)
        torch.autograd.grad(result, [x, *vectors], torch.ones_like(result))

    def without(mixed: bool) -> None:
        with torch.no_grad():
            forward(mixed)

    seconds = {
        f"{name}, {'mixed' if mixed else 'composed'}": value
        for name, call in (("forward", without), ("both", both))
        for mixed, value in in_turn(call, repeats).items()
    }
    ruled = mixes_first(channels, rank, (side, side), precision)
    gain = seconds["both, composed"] / seconds["both, mixed"]
    return {
        "channels": channels,
        "rank": rank,
        "side": side,
        "size": size,
        "precision": precision,
        "seconds": seconds,
        "gain": gain,
        "mixes_first": ruled,
        "is_faster": (gain >= 1 / ALIKE) if ruled else (gain <= ALIKE),
    }


def in_turn(call: Callable[[bool], Any], repeats: int) -> dict[bool, float]:
    """Least processor seconds of each way, one after the other again and again."""
    least = {False: float("inf"), True: float("inf")}
    for mixed in least:
        call(mixed)
    for _ in range(repeats):
        for mixed in least:
            begin = time.process_time()
            call(mixed)
            least[mixed] = min(least[mixed], time.process_time() - begin)
    return least


def table(rows: list[dict[str, Any]]) -> Table:
    """How many times as fast mixing first is, and what the rule takes."""
    lines = []
    for r in rows:
        s = r["seconds"]
        lines.append(
            (
                f"{r['channels']}, rank {r['rank']}, {r['side']}×{r['side']}, {r['precision']}",
                f"{1e3 * s['both, composed']:.1f}",
                f"{1e3 * s['both, mixed']:.1f}",
                f"{r['gain']:.1f}",
                f"{s['forward, composed'] / s['forward, mixed']:.1f}",
                "mixed" if r["mixes_first"] else "composed",
            )
        )
    columns = ("channels", "composed, ms", "mixed, ms", "times", "forward", "rule")
    return Table(TITLE, columns, lines)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """Where the rule takes the slower way here."""
    wrong = [
        f"{r['channels']} channels, rank {r['rank']}, {r['side']}×{r['side']}, {r['precision']}"
        for r in rows
        if not r["is_faster"]
    ]
    said = f"slower here in {len(wrong)} of {len(rows)} cases: {'; '.join(wrong)}"
    alike = f"(times from {1 / ALIKE:.2f} to {ALIKE} count as alike)"
    return [f"The rule takes the way that is {said if wrong else 'faster or alike'} {alike}."]


if __name__ == "__main__":
    main()
