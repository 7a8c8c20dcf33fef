"""Rank-one forms in C: what lies inside the windows, and the loops over them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rankwise.export.quantise import Encoded


def packed_windows(encoded: Sequence[Encoded]) -> tuple[np.ndarray, np.ndarray]:
    """Windows ``(units, r, vectors, 2)`` as first and length, and all numbers inside, in order."""
    rank, n_units, _ = encoded[0].values.shape
    windows = np.zeros((n_units, rank, len(encoded), 2), dtype=np.int64)
    inside, owner, place = [], [], []
    for j, one in enumerate(encoded):
        values = np.moveaxis(one.values, 0, 1)
        side = values.shape[2]
        filled = values != 0
        any_filled = filled.any(axis=2)
        first = np.where(any_filled, filled.argmax(axis=2), 0)
        last = np.where(any_filled, side - filled[..., ::-1].argmax(axis=2), 0)
        windows[:, :, j, 0], windows[:, :, j, 1] = first, last - first
        positions = np.arange(side)
        kept = (positions >= first[..., None]) & (positions < last[..., None])
        form = np.broadcast_to(np.arange(n_units * rank).reshape(n_units, rank, 1), kept.shape)
        inside.append(values[kept])
        owner.append(form[kept])
        place.append(np.full(int(kept.sum()), j))
    order = np.lexsort((np.concatenate(place), np.concatenate(owner)))
    numbers = np.concatenate(inside)[order]
    # C has no empty arrays.
    return windows, numbers if len(numbers) else np.zeros(1, encoded[0].values.dtype)


def contraction(strides: Sequence[int], vector_of_axis: Sequence[int], pixel: str) -> list[str]:
    """Nested loops, one an axis: ``t_a = Σ_j v_a[j]·t_{a+1}``, innermost the pixels.

    Parameters
    ----------
    strides : sequence of int
        Numbers from one position of an axis to the next.
    vector_of_axis : sequence of int
        Which of the vectors ``v0``, ``v1``, … with window ``s0`` and length ``n0``, … contracts
        each axis.
    pixel : str
        The C expression of one number of the image, with an ``{index}``.

    Returns
    -------
    list of str
        Lines after which ``t0`` holds the form's value.
    """
    d, vector = len(strides), vector_of_axis
    index = " + ".join(
        f"(s{vector[a]} + j{a})" + (f" * {strides[a]}" if strides[a] > 1 else "") for a in range(d)
    )
    lines = ["float t0 = 0.0f;"]
    for a in range(d):
        pad = "    " * a
        lines.append(f"{pad}for (int j{a} = 0; j{a} < n{vector[a]}; ++j{a}) {{")
        if a + 1 < d:
            lines.append(f"{pad}    float t{a + 1} = 0.0f;")
    summand = f"v{vector[d - 1]}[j{d - 1}] * {pixel.format(index=index)}"
    lines.append("    " * d + f"t{d - 1} += {summand};")
    for a in reversed(range(d)):
        pad = "    " * a
        lines.append(f"{pad}}}")
        if a:
            lines.append(f"{pad}t{a - 1} += v{vector[a - 1]}[j{a - 1}] * t{a};")
    return lines
