"""The model card: what a model is, what it was made of, what it takes, and where it ends."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from rankwise._threads import one_thread
from rankwise.explore.findings import Findings
from rankwise.explore.seen import outputs_of

_TIMED = 15
_FEW = 30
"""Test images of a class under which its accuracy is hardly known."""
_OFF = 0.05


def card(
    model: Any,
    found: Findings,
    report: dict[str, Any],
    n_bytes: int | None,
    machine: dict[str, Any],
) -> tuple[list[tuple[str, str]], list[str]]:
    """Facts and limits of a model.

    Parameters
    ----------
    model
        As for `rankwise.explore.seen.seen`.
    found : Findings
    report : dict
        Of its run; empty where there is none.
    n_bytes : int or None
        Of its weights in a file.
    machine : dict
        Where times are measured now, as `rankwise._machine.environment` gives it.

    Returns
    -------
    facts : list of (str, str)
    limits : list of str
    """
    scored, score = found.scored, found.score
    shape = "×".join(map(str, scored.images.image_shape))
    run = report.get("run") or {}
    counts = {p.part: len(p) for p in found.parts}
    trained = counts.get("train", (report.get("train") or {}).get("n_samples"))
    facts = [
        ("data", f"{scored.images.name}: images of {shape}, {len(found.classes):,} classes"),
        (
            "images",
            (f"{trained:,} trained on, " if trained is not None else "")
            + f"{len(scored):,} scored ({_part(found)})",
        ),
        (
            "accuracy",
            f"{_percent(score['accuracy'])} ({_percent(score['low'])} to "
            f"{_percent(score['high'])}, Wilson, 95%)",
        ),
        ("expected calibration error", f"{score['ece']:.3f} (15 bins)"),
        ("model", _kind(model, report)),
        ("parameters", _parameters(model)),
    ]
    if n_bytes is not None:
        facts.append(("bytes", f"{n_bytes:,} as saved"))
    one, many = microseconds(model, scored.images.images)
    facts.append(("µs an image", f"{one:,.0f} alone, {many:,.0f} in a batch, one thread"))
    seconds = (report.get("seconds") or {}).get("total")
    if seconds is not None:
        facts.append(("minutes to train", f"{seconds / 60:.1f}"))
    if "seed" in run:
        facts.append(("seed", str(run["seed"])))
    known = report.get("environment") or machine
    facts.append(("made", f"{known.get('date', '–')}, rankwise {known.get('rankwise', '–')}"))
    facts.append(("timed on", f"{machine['processor']}, {machine['cores']} cores"))
    command = report.get("command")
    if command:
        facts.append(("command", command))
    return facts, limits(found, score, report)


def limits(found: Findings, score: dict[str, Any], report: dict[str, Any]) -> list[str]:
    """What the accuracy doesn't say, a sentence each."""
    scored = found.scored
    shape = "×".join(map(str, scored.images.image_shape))
    lines = [
        "It knows these classes only, and names one of them for any image.",
        f"Images are brought to {shape}; what is smaller than a pixel then is lost to it.",
        "The accuracy is of images like these. Of other cameras, places or times it says nothing.",
    ]
    few = [found.classes[k] for k, row in enumerate(score["by_class"]) if row["n"] < _FEW]
    if few:
        some = ", ".join(few[:5]) + (", …" if len(few) > 5 else "")
        lines.append(
            f"Fewer than {_FEW} images are scored of {some}: how it does on them is hardly known."
        )
    if score["ece"] > _OFF:
        lines.append(
            f"Its probabilities are off by {_percent(score['ece'])} on average; --calibrate fits "
            "them."
        )
    across = sum(g["across"] and g["exact"] for g in found.groups)
    if across:
        lines.append(
            f"{across:,} pictures are in both parts: on them the accuracy is of images that it was "
            "trained on."
        )
    named = report.get("warnings") or []
    notes = scored.images.notes
    return [*lines, *(f"{line[:1].upper()}{line[1:]}." for line in (*named, *notes))]


def microseconds(model: Any, images: np.ndarray) -> tuple[float, float]:
    """Microseconds an image takes alone and in a batch of 64, one thread; the median of some."""
    some = np.ascontiguousarray(images[: min(64, len(images))])
    with one_thread():
        outputs_of(model, some[:1])
        batch = [_seconds(model, some) / len(some)]
        alone = [_seconds(model, some[:1]) for _ in range(_TIMED)]
        if batch[0] < 0.002:
            batch += [_seconds(model, some) / len(some) for _ in range(2)]
    return 1e6 * median(alone), 1e6 * median(batch)


def _seconds(model: Any, images: np.ndarray) -> float:
    begin = time.perf_counter()
    outputs_of(model, images)
    return time.perf_counter() - begin


def _part(found: Findings) -> str:
    split = found.scored.images.split
    return {"test": "never seen in training", "all": "all of the source"}.get(split, split)


def _kind(model: Any, report: dict[str, Any]) -> str:
    network = getattr(model, "network_", None)
    if network is None:
        backbone = (report.get("backbone") or {}).get("name", "a backbone")
        return f"a last layer on {backbone}"
    preset = report.get("preset") or getattr(model, "preset_", None)
    kind = "convolutional units" if hasattr(network, "layers") else "quadratic units"
    return f"{network.n_units:,} {kind}" + (f", preset {preset}" if preset else "")


def _parameters(model: Any) -> str:
    if hasattr(model, "network_"):
        return f"{model.n_parameters_total_:,} ({model.n_parameters_units_:,} of units)"
    return f"{model.coef_.size + model.intercept_.size:,} of the last layer"


def _percent(value: float) -> str:
    return f"{100 * value:.2f}%"
