"""Made-up results of a study, in the shape that a run writes: what inference and report read."""

import base64
import hashlib
import json
import shutil
from copy import deepcopy
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from rankwise.study.compare import compare_conditions
from rankwise.study.convergence import convergence
from rankwise.study.degrade import KINDS
from rankwise.study.outcomes import primary_outcome

PUBLISHED = {
    ("mnist", "none"): ([0.9890, 0.9914], 0.9919, None, None, 10),
    ("mnist", "low-rank"): ([0.9860, 0.9886], 0.9870, 0.975, 0.8, 20),
    ("fashion-mnist", "none"): ([0.9015, 0.9057], 0.9096, None, None, 30),
    ("fashion-mnist", "low-rank"): ([0.8858, 0.8890], 0.9039, 0.975, 0.8, 60),
}
# True accuracy of an arm above that of "none".
EFFECTS = {"none": 0.0, "low-rank": -0.012, "duplicate": 0.0003, "jpeg": 0.002}


def make_results(folder: Path, **options) -> dict:
    """Write ``results.json``, predictions and a gallery, as `_made` does; made once a process."""
    kept, results = _kept(**options)
    shutil.copytree(kept.name, folder, dirs_exist_ok=True)
    results = deepcopy(results)
    command = f"rankwise study run experiment-1 --out <script>alert('{folder.name}')</script>"
    results["command"] = command
    (folder / "results.json").write_text(json.dumps(results), encoding="utf-8")
    return results


@cache
def _kept(**options) -> tuple[TemporaryDirectory, dict]:
    folder = TemporaryDirectory(prefix="made-results-")
    return folder, _made(Path(folder.name), **options)


def _made(
    folder: Path,
    *,
    protocol: str = "sound",
    folds: int = 5,
    seeds: tuple[int, ...] = (42,),
    epochs: int = 10,
    finished: float = 1.0,
    data_sets: tuple[str, ...] = ("mnist", "fashion-mnist"),
    seed: int = 0,
) -> dict:
    """Made-up results and their files; `finished` is the share of cells done."""
    rng = np.random.default_rng(seed)
    arms = ["none", "low-rank", *(["duplicate", "jpeg"] if protocol == "sound" else [])]
    results = {
        "format": 1,
        "study": {
            "name": "experiment-1",
            "protocol": protocol,
            "seeds": list(seeds),
            "folds": folds,
            "epochs": epochs,
            "epochs_factor": 1.0,
            "test_fraction": 0.2,
            "batch_size": 128,
            "rope": 0.005,
        },
        "look": 1,
        "plan": None,
        "command": "",
        "environment": {
            "rankwise": "0.1.0",
            "python": "3.11.2",
            "numpy": "2.2.0",
            "torch": "2.13.0",
            "platform": "Linux-6.1-x86_64",
            "processor": "AMD EPYC (2 cores)",
            "cores": 2,
            "date": "2026-11-21",
        },
        "started": "2026-11-21T08:00:00+00:00",
        "finished": "2026-11-21T10:41:07+00:00",
        "data_sets": [_data_set(name, folds) for name in data_sets],
        "conditions": [_condition(d, a, protocol, epochs) for d in data_sets for a in arms],
        "cells": [],
        "leaks": [],
        "gallery": [],
    }
    for name in data_sets:
        base = 0.989 if name == "mnist" else 0.903
        fold_effect = rng.normal(0, 0.0012, (len(seeds), folds))
        labels = rng.integers(0, 10, 1200)
        difficulty = rng.random(len(labels))
        for condition in [c for c in results["conditions"] if c["data_set"] == name]:
            level = base + EFFECTS[condition["arm"]]
            for s, cell_seed in enumerate(seeds):
                for fold in range(folds):
                    accuracy = level + fold_effect[s, fold] + rng.normal(0, 0.0008)
                    cell = _cell(condition, "fold", fold, cell_seed, accuracy, rng, protocol)
                    if protocol == "sound":
                        _predict(folder, cell, labels, cell["test_accuracy"], rng, difficulty)
                    else:
                        cell["predictions"] = ""
                    results["cells"].append(cell)
                    results["leaks"].append(_leak(condition, cell_seed, fold, protocol))
                cell = _cell(condition, "retrain", None, cell_seed, level, rng, protocol)
                _predict(folder, cell, labels, level, rng)
                results["cells"].append(cell)
    kept = round(finished * len(results["cells"]))
    results["cells"] = results["cells"][:kept]
    results["leaks"] = results["leaks"][:kept]
    for name in data_sets:
        path = folder / "gallery" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (84, 224), np.uint8)).save(path)
        results["gallery"].append(
            {"data_set": name, "arm": "low-rank", "file": f"gallery/{name}.png"}
        )
    results["robustness"] = compare_conditions(results, folder, outcome="degraded")
    results["comparisons"] = compare_conditions(results, folder, beside=results["robustness"])
    results["convergence"] = convergence(results, primary_outcome(protocol))
    return results


def _data_set(name: str, folds: int) -> dict:
    return {
        "name": name,
        "source": f"hub/{name}",
        "image_shape": [28, 28],
        "class_names": [str(k) for k in range(10)],
        "n_train": [44800] * folds,
        "n_validation": [11200] * folds,
        "n_test": 14000,
        "most_folds": 5600,
        "largest_class": 0.11,
        "repeats": {"exact": 0, "near": 3, "exact_within": 1, "checked": 70000, "blank": 0},
        "fingerprint": hashlib.sha256(name.encode()).hexdigest(),
        "reduced": name != "mnist",
        "reductions": [] if name == "mnist" else ["limit 5000 of 70,000 images"],
        "notes": [] if name == "mnist" else ["limit 5000 of 70,000 images", "9 unreadable images"],
    }


def _condition(data_set: str, arm: str, protocol: str, epochs: int) -> dict:
    doubled = protocol != "sound" and arm != "none"
    epochs = 2 * epochs if doubled else epochs
    row = PUBLISHED.get((data_set, arm))
    prefix = f"{data_set}/simple-cnn"
    base_epochs = epochs // 2 if doubled else epochs
    return {
        "id": f"{prefix}/{arm}/{epochs}",
        "data_set": data_set,
        "model": "simple-cnn",
        "arm": arm,
        "arm_kind": arm,
        "copies": None if arm == "none" else arm,
        "epochs": epochs,
        "energy": 0.975 if arm == "low-rank" else None,
        "energy_std": 0.025 if arm == "low-rank" else None,
        "skip_threshold": None if arm == "none" else 0.8,
        "baseline": None if arm == "none" else f"{prefix}/none/{base_epochs}",
        "control": f"{prefix}/duplicate/{epochs}"
        if protocol == "sound" and arm in ("low-rank", "jpeg")
        else None,
        "published": row
        and dict(
            zip(
                ("interval", "test_accuracy", "energy", "skip_threshold", "epochs"),
                row,
                strict=True,
            )
        ),
        "n_parameters": 101_770,
    }


def _cell(condition, stage, fold, seed, accuracy, rng, protocol) -> dict:
    epochs = condition["epochs"]
    rise = 1 - np.exp(-np.arange(1, epochs + 1) / (epochs / 5))
    validation = accuracy - 0.06 * (1 - rise) + rng.normal(0, 0.0006, epochs)
    training = accuracy + 0.008 - 0.09 * (1 - rise) + rng.normal(0, 0.0003, epochs)
    # The best epoch is at three fifths: these arms are trained to the end.
    best = (3 * epochs) // 5
    validation -= 0.002 * (np.arange(epochs) > best)
    validation[best] = validation.max() + 1e-4
    validation += accuracy - validation[best]
    retrain = stage == "retrain"
    history = [
        {
            "epoch": e + 1,
            "train_loss": float(4 * (1.01 - training[e])),
            "train_accuracy": float(training[e]),
            "validation_loss": None if retrain else float(4 * (1.01 - validation[e])),
            "validation_accuracy": None if retrain else float(validation[e]),
            "learning_rate": 1e-3,
            "seconds": 3.1,
            "n_updates": 350 * (e + 1),
        }
        for e in range(epochs)
    ]
    seen = retrain or protocol == "sound"
    where = "retrain" if retrain else f"fold-{fold}"
    return {
        "condition": condition["id"],
        "stage": stage,
        "fold": fold,
        "seed": seed,
        "status": "done",
        "history": history,
        "best_epoch": best + 1,
        "validation_accuracy": None if retrain else float(accuracy),
        "test_accuracy": float(accuracy - 0.001) if seen else None,
        "test_loss": 0.04 if seen else None,
        "degraded": _degraded(accuracy, condition["arm"], rng) if seen else None,
        "n_train": 44800,
        "n_copies": 8960 if condition["arm"] != "none" else 0,
        "n_updates": 350 * epochs,
        "seconds": 3.1 * epochs,
        "predictions": f"cells/{condition['id']}/seed-{seed}/{where}/predictions.npz",
    }


def _degraded(accuracy, arm, rng) -> dict:
    gain = 0.03 if arm == "low-rank" else 0.0
    curves = {
        kind: [
            float(max(0.1, accuracy - (0.02 + 0.02 * k - gain / 2) * s**1.4 + rng.normal(0, 0.004)))
            for s in range(1, 6)
        ]
        for k, kind in enumerate(KINDS)
    }
    return {"clean": float(accuracy - 0.001), **curves}


def _leak(condition, seed, fold, protocol) -> dict:
    leaky = protocol == "notebook"
    copies = leaky and condition["arm"] != "none"
    return {
        "condition": condition["id"],
        "seed": seed,
        "fold": fold,
        "train_validation": 1790 if copies else 0,
        "train_test": 0,
        "validation_test": 0,
        "copies_of_validation_in_train": 1790 if copies else 0,
        "copies_of_test_in_train": 0,
    }


def _predict(folder, cell, labels, accuracy, rng, difficulty=None) -> None:
    """Predictions; with the images' difficulties, arms are wrong on much the same images."""
    drawn = rng.random(len(labels))
    if difficulty is not None:
        drawn = difficulty + 0.003 * rng.standard_normal(len(labels))
    wrong = drawn > accuracy
    predicted = np.where(wrong, (labels + 1) % 10, labels)
    path = folder / cell["predictions"]
    path.parent.mkdir(parents=True, exist_ok=True)
    empty = np.zeros(0, np.int64)
    np.savez(
        path,
        test_index=np.arange(len(labels)),
        test_labels=labels,
        test_predicted=predicted,
        validation_index=empty,
        validation_labels=empty,
        validation_predicted=empty,
    )


def png_uri(path: Path) -> str:
    """A PNG as the report holds it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
