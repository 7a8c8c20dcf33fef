"""Figure 3.1 of the paper for any arm: originals, and what the arm makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import as_rgb
from rankwise._files import sweep
from rankwise._process import torch_seeded
from rankwise.data import ImageSet, stratified_limit
from rankwise.study.arms import batch_augmentation, make_copies
from rankwise.study.conditions import Condition
from rankwise.study.design_parts import Arm

COLUMNS = 8
_COPY = "#d95f02"


def write_gallery(
    conditions: Sequence[Condition], data_sets: Mapping[str, ImageSet], out: Path, seed: int
) -> list[dict[str, str]]:
    """Draw every arm that changes images, once a data set; pictures already there stay.

    Returns
    -------
    list of dict
        ``data_set``, ``arm``, ``file`` relative to `out`.
    """
    entries = []
    sweep(out / "gallery")  # of a run that was killed right after its last picture
    for condition in conditions:
        name = f"gallery/{condition.data_set}/{condition.arm}.png"
        entry = {"data_set": condition.data_set, "arm": condition.arm, "file": name}
        # Of two arms at once, each is drawn by itself.
        if condition.options.kind in ("none", "matched", "duplicate", "both") or entry in entries:
            continue
        if not (out / name).exists():
            draw_arm(condition.options, data_sets[condition.data_set], out / name, seed)
        entries.append(entry)
    return entries


def draw_arm(arm: Arm, images: ImageSet, path: Path, seed: int) -> None:
    """A row of originals over a row of what the arm makes of them; changed ones have a border."""
    from matplotlib.figure import Figure

    from rankwise.lowrank.pictures import save_picture

    shown = images.subset(stratified_limit(images.labels, COLUMNS, seed))
    changed = _changed(arm, shown, seed)
    figure = Figure(figsize=(COLUMNS * 0.95, 2.2), layout="constrained")
    axes = figure.subplots(2, len(shown), squeeze=False)
    for column in range(len(shown)):
        for row, pixels in enumerate((shown.images[column], changed[column])):
            axis = axes[row, column]
            shown_as = as_rgb(pixels) if pixels.ndim == 3 else pixels
            axis.imshow(shown_as, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            different = row == 1 and not np.array_equal(changed[column], shown.images[column])
            for spine in axis.spines.values():
                spine.set_visible(different)
                spine.set(color=_COPY, linewidth=2)
    for axis, text in zip(axes[:, 0], ("originals", _title(arm)), strict=True):
        # A long title mustn't widen its column: the layout makes room for an empty one's height.
        axis.set_title(text, fontsize=8, loc="left").set_in_layout(False)
        axis.set_title(" ", fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_picture(figure, path)


def _changed(arm: Arm, images: ImageSet, seed: int) -> NDArray[np.uint8]:
    """Every image as a copy, then as in a batch of the training."""
    pixels: Any = images.images
    if arm.copies is not None:
        _, pixels = make_copies(arm.model_copy(update={"skip_threshold": 0.0}), images, seed)
    augment = batch_augmentation(arm)
    if augment is None:
        return pixels
    from rankwise.study.arms import to_batch, to_images

    with torch_seeded(seed):
        return to_images(augment(to_batch(np.asarray(pixels))))


def _title(arm: Arm) -> str:
    if arm.copies == "low-rank":
        return f"{arm.kind}: energy N({arm.energy:g}, {arm.energy_std:g})"
    return arm.kind
