"""``rankwise head`` without its command line: read, extract, fit, evaluate, write.

The folder holds ``model.json``, ``model.safetensors`` and ``backbone.safetensors`` (see
`rankwise.heads.files`), ``run.json`` (what was asked for), ``features/`` (the cache),
``report.json`` (written last) and ``confusion.png``.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rankwise._claims import contents, held, refuse_foreign
from rankwise._device import resolve_device
from rankwise._files import expanded, write_json
from rankwise._machine import environment
from rankwise._memory import PeakMemory
from rankwise._version import __version__
from rankwise.cluster import described
from rankwise.data import ImageSet
from rankwise.estimators.models import is_head
from rankwise.explore.scores import reliability
from rankwise.heads.backbones import load_backbone
from rankwise.heads.features import extract_features
from rankwise.heads.head import VarProHead
from rankwise.networks.probabilities import expected_calibration_error
from rankwise.runs.exploring import write_explorer
from rankwise.runs.reading import describe_images, names_of, origin_of, read_parts
from rankwise.runs.records import (
    CONFIGURATION,
    EXPLORED,
    FEATURE_FILES,
    FEATURES,
    REPORT,
    discard_features,
    discard_model,
    read_record,
    refuse_inside,
)

SUSPECTS = "likely_wrong_labels.png"
SHEET = 40
"""Pictures on the sheet of likely wrong labels."""

SHOWN = 100
"""Likely wrong labels that the report lists."""


@dataclass(frozen=True)
class HeadRun:
    """What is asked for.

    Parameters
    ----------
    source : str
        Anything `rankwise.load_images` reads.
    backbone : str
        As `rankwise.heads.backbones.load_backbone` takes it.
    alpha : float, "loo" or "gcv"
    class_weight : "balanced" or None
    rank : int or None
    loss : {"squared", "logistic"}
    limit : int or None
        Training images, drawn with the seed.
    seed : int
    reading : dict
        Options of `rankwise.load_images`: ``size``, ``grey``, ``on_error``, ``source_pattern``.
    preparation : dict
        ``size``, ``mean``, ``std``, ``crop`` and ``power`` of `load_backbone`, where they aren't
        known or others are wanted.
    """

    source: str
    backbone: str
    alpha: float | str = "loo"
    class_weight: str | None = None
    rank: int | None = None
    loss: str = "squared"
    limit: int | None = None
    seed: int = 42
    reading: dict[str, Any] = field(default_factory=dict)
    preparation: dict[str, Any] = field(default_factory=dict)


def fit_head(
    run: HeadRun,
    out: Path,
    *,
    device: str = "auto",
    batch_size: int = 64,
    overwrite: bool = False,
    verbose: bool = False,
    command: str = "",
) -> dict[str, Any]:
    """Fit a head and evaluate it on the test images, which choose nothing.

    Features lie in the folder, so another `alpha` in the same folder only solves again.

    Returns
    -------
    dict
        The report, as in ``report.json``.

    Raises
    ------
    RunError
        If the folder holds something else.
    DataError, ModelFileError, MissingDependencyError, ValueError
        If the source or the backbone can't be read.
    """
    out = expanded(out)
    refuse_inside(out, run.source)
    model = VarProHead(
        run.alpha,
        class_weight=run.class_weight,
        rank=run.rank,
        loss=run.loss,
        device=device,
        batch_size=batch_size,
    )
    # Whatever can't be accepted is refused before anything is read, extracted or replaced.
    model._check_parameters()
    resolve_device(device)
    _check_folder(out)
    with held(out, "head"):
        return _fit(model, run, out, device, batch_size, overwrite, verbose, command)


def _fit(
    model: VarProHead,
    run: HeadRun,
    out: Path,
    device: str,
    batch_size: int,
    overwrite: bool,
    verbose: bool,
    command: str,
) -> dict[str, Any]:
    with PeakMemory() as memory:
        begin = time.perf_counter()
        backbone = load_backbone(run.backbone, **run.preparation)
        train, test = read_parts(
            run.source, limit=run.limit, seed=run.seed, longest=224, progress=verbose, **run.reading
        )
        if overwrite:
            discard_features(out)
        loaded = time.perf_counter()
        features = [
            extract_features(
                backbone,
                images,
                batch_size=batch_size,
                device=device,
                cache=out / FEATURES,
                progress=verbose,
            )
            for images in (train, test)
        ]
        extracted = time.perf_counter()
        model.fit(features[0], names_of(train))
        fitted = time.perf_counter()
        left_out = model.leave_one_out_predictions(features[0], names_of(train))
        rows, margins, others = _suspects(model, left_out, names_of(train))
        probabilities = model.predict_proba(features[1])
        model.backbone, model.image_shape_ = backbone, train.image_shape
        discard_model(out)
        write_json(out / CONFIGURATION, _configuration(run, train, test))
        model.save(out)
        predicted = model.classes_[probabilities.argmax(axis=1)]
        right = predicted == names_of(test)
        counts = _confusion(model, names_of(test), predicted)
        end = time.perf_counter()
    report = {
        "inductive_accuracy": float(right.mean()),
        "leave_one_out_accuracy": float(np.mean(margins > 0)),
        "accuracy_by_class": _by_class(counts, model),
        "calibration": [
            {"n_samples" if k == "n" else k: v for k, v in row.items() if k not in ("low", "high")}
            for row in reliability(probabilities.max(axis=1), right)
        ],
        "calibration_error": expected_calibration_error(
            probabilities, np.where(right, probabilities.argmax(axis=1), -1)
        ),
        "n_against_label": int(np.sum(margins < 0)),
        "likely_wrong_labels": [
            {
                "source_id": str(train.source_ids[row]),
                "label": train.class_names[train.labels[row]],
                "others_say": str(other),
                "margin": float(margin),
            }
            for row, margin, other in zip(rows[:SHOWN], margins[:SHOWN], others, strict=False)
            if margin < 0
        ],
        "loss": model.loss_,
        "alpha": model.alpha_,
        "alpha_chosen_by": model.chosen_by_,
        "criterion": model.criterion_,
        "temperature": model.temperature_,
        "n_features": model.n_features_in_,
        "images_per_second": _rate(train, test, extracted - loaded),
        "rank": model.rank_,
        "condition": model.condition_,
        "classes": [str(c) for c in model.classes_],
        "confusion": counts.tolist(),
        "backbone": {
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "record": backbone.record,
        },
        "seconds": {
            "load": loaded - begin,
            "features": extracted - loaded,
            "head": fitted - extracted,
            "total": end - begin,
        },
        "peak_memory_mb": memory.megabytes,
        "train": describe_images(train),
        "test": describe_images(test),
        "run": asdict(run),
        "environment": environment() | {"device": device} | described(),
        "command": command,
    }
    _draw(counts, report["classes"], out)
    wrong = int(np.sum(margins < 0))
    _draw_suspects(train, rows[: min(wrong, SHEET)], others, out)
    parts = [("train", train), ("test", test)]
    write_explorer(model, parts, report, out, out / EXPLORED, features=features)
    write_json(out / REPORT, report)
    return report


def _by_class(counts: np.ndarray, model: VarProHead) -> dict[str, dict[str, float | None]]:
    """Share of each class's test images that get its label, if any, and how many there are."""
    return {
        str(c): {
            "n_samples": int(row.sum()),
            "accuracy": float(row[i] / row.sum()) if row.sum() else None,
        }
        for i, (c, row) in enumerate(zip(model.classes_, counts, strict=True))
    }


def _rate(train: ImageSet, test: ImageSet, seconds: float) -> float:
    return (len(train) + len(test)) / max(seconds, 1e-9)


def _suspects(
    model: VarProHead, left_out: np.ndarray, names: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Training images, the most suspicious first: rows, margins, and what the others say."""
    codes = np.searchsorted(model.classes_, names)
    at = np.arange(len(codes))
    given = left_out[at, codes]
    rest = left_out.copy()
    rest[at, codes] = -np.inf
    margins = given - rest.max(axis=1)
    rows = np.argsort(margins, kind="stable")
    return rows, margins[rows], model.classes_[rest.argmax(axis=1)][rows]


def _draw_suspects(train: ImageSet, rows: np.ndarray, others: np.ndarray, out: Path) -> None:
    """The likely wrong labels as a sheet of pictures; none where there are none."""
    from rankwise.plots import save_labelled

    (out / SUSPECTS).unlink(missing_ok=True)
    if len(rows):
        given = names_of(train)[rows]
        titles = [f"{g}\nrather {o}?" for g, o in zip(given, others, strict=False)]
        save_labelled(train.images[rows], titles, out / SUSPECTS)


def _check_folder(out: Path) -> None:
    """The folder must be new, empty, or of an earlier head, which stays until the new one is."""
    features = [p for p in contents(out / FEATURES) if not p.match(FEATURE_FILES)]
    begun = () if features else (FEATURES,)
    refuse_foreign(out, "head", own=is_head(out) or _is_begun(out), begun=begun)


def _is_begun(out: Path) -> bool:
    """Whether the record is a head's, whose model may not have been written yet."""
    path = out / CONFIGURATION
    return path.exists() and "backbone" in read_record(path)["run"]


def _configuration(run: HeadRun, train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """In the form of a training run's, so that ``evaluate`` holds out what this run held out."""
    return {
        "run": asdict(run),
        "train_fingerprint": train.fingerprint,
        "test_fingerprint": test.fingerprint,
        "rankwise": __version__,
        **origin_of(run.source, train),
    }


def _confusion(model: VarProHead, true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    from sklearn.metrics import confusion_matrix

    return confusion_matrix(true, predicted, labels=model.classes_)


def _draw(counts: np.ndarray, names: list[str], out: Path) -> None:
    from rankwise.plots import save_confusion

    save_confusion(counts, names, out / "confusion.png")
