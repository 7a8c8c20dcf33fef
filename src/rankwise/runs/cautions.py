"""What speaks against a run: before it trains, and in its figures."""

from __future__ import annotations

from typing import Any

import numpy as np

_FAR, _NEAR = 0.15, 0.05
_PHOTOGRAPH = 64
"""Side of colour images from which a network that has seen ImageNet is likely better."""


def pretrained_is_likely_better(image_shape: tuple[int, ...]) -> str | None:
    """What ``rankwise head`` would do with photographs, in one line; None for other images."""
    if len(image_shape) != 3 or image_shape[2] < 3 or min(image_shape[:2]) < _PHOTOGRAPH:
        return None
    return (
        "photographs? --backbone efficientnet-lite0 (rankwise head) fits the best last layer on a "
        "network that has seen a million photographs instead, and is likely better, since these "
        "images alone teach a network less"
    )


def warnings_of(report: dict[str, Any], truth: np.ndarray) -> list[str]:
    """What the figures of a run say against it, and what to do, a line each."""
    found = []
    train, test = report["train_accuracy"], report["inductive_accuracy"]
    # Beside a glue, joint training's validation accuracies are those of the layer that went.
    of_this_layer = report["n_subnets"] > 0 or report["output_layer"] == "trained"
    history = report["history"] if of_this_layer else []
    seen = [e["validation_accuracy"] for e in history if e.get("validation_accuracy")]
    held_out, name = (max(seen), "validation") if seen else (test, "test")
    if train - held_out > _FAR:
        found.append(
            f"training accuracy {100 * train:.1f}% is far above the {100 * held_out:.1f}% of the "
            f"{name} images: the training images are learned by heart; more images help, or "
            "--preset tiny, or a pre-trained backbone (rankwise head)"
        )
    chance = float(np.unique(truth, return_counts=True)[1].max() / len(truth))
    if test < chance + _NEAR:
        found.append(
            f"test accuracy {100 * test:.1f}% is near the {100 * chance:.1f}% of always naming the "
            "largest class: look whether labels and images belong together, and whether --size "
            "leaves enough to see"
        )
    return found
