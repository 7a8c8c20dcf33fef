"""The folder of a run: what was asked for, whose it is, what an interruption has kept."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankwise._claims import checksum, refuse_foreign
from rankwise._files import expanded, write_json
from rankwise._reading import read_json
from rankwise._version import __version__
from rankwise.data import ImageSet
from rankwise.errors import RunError
from rankwise.estimators.files import DESCRIPTION, WEIGHTS
from rankwise.runs.reading import ORIGIN, origin_of
from rankwise.training.checkpoints import CHECKPOINT, TEACHER, known_of
from rankwise.training.presets import PRESETS

CONFIGURATION = "run.json"
REPORT = "report.json"
SUBNETS = "subnets"
EXPLORED = "explore.html"
FEATURES = "features"
"""Cache of ``rankwise head``."""
FEATURE_FILES = "features-*.npy"
EXPORTED = "rankwise_model"
"""How the names of ``rankwise export`` begin unless another is given."""

_MODEL_FILES = (
    REPORT,
    DESCRIPTION,
    WEIGHTS,
    "backbone.safetensors",
    "units.png",
    "confusion.png",
    "likely_wrong_labels.png",
    EXPLORED,
)


_NUMBER = (int, float)
_IN_WORDS = {"train_fingerprint": "the training images", "test_fingerprint": "the test images"}
_SHOWN: dict[str, tuple[type, ...]] = {
    "inductive_accuracy": _NUMBER,
    "train_accuracy": _NUMBER,
    "n_parameters_units": (int,),
    "n_parameters_total": (int,),
    "seconds": (dict,),
    "statuses": (dict,),
    "n_subnets": (int,),
    "n_units": (int,),
    "epochs": (int,),
    "history": (list,),
    "train": (dict,),
    "test": (dict,),
}
"""What is shown of a report, and its types."""


@dataclass(frozen=True)
class TrainingRun:
    """What is asked of a run; equal runs give equal models.

    Parameters
    ----------
    source : str
        Anything `rankwise.load_images` reads.
    preset : str or None
    parameters : dict
        Of the classifier, those that are set, as `classifier_of` takes them.
    reading : dict
        Options of `rankwise.load_images`: ``size``, ``grey``, ``channels``, ``on_error``,
        ``source_pattern``, ``image_column``, ``label_column``, ``without``.
    limit : int or None
        Training images, drawn with the seed; default the preset's.
    seed : int
        42, as in the first paper's section C.2.
    bootstrap : bool
        Bootstrap on the test images afterwards: transductive, kept apart.
    bootstrap_rounds : int
        Its passes, each with the guesses of the one before.
    """

    source: str
    preset: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    limit: int | None = None
    seed: int = 42
    bootstrap: bool = False
    bootstrap_rounds: int = 1


def refuse_inside(out: Path, source: str) -> None:
    """Raise `RunError` if a run's folder would lie in the source that it reads."""
    place = expanded(source)
    if place.is_dir() and out.resolve().is_relative_to(place.resolve()):
        raise RunError(f"{out} lies inside the source {place}; choose a folder outside it")


def limit_of(limit: int | None, preset: str | None) -> int | None:
    """How many training images a run reads at most: as asked, or as its preset says."""
    return PRESETS[preset].n_train if limit is None and preset in PRESETS else limit


def configuration_of(run: TrainingRun, train_set: ImageSet, test_set: ImageSet) -> dict[str, Any]:
    return {
        "run": described(run),
        "train_fingerprint": train_set.fingerprint,
        "test_fingerprint": test_set.fingerprint,
        "rankwise": __version__,
        **origin_of(run.source, train_set),
    }


def described(run: TrainingRun) -> dict[str, Any]:
    return {
        "source": run.source,
        "preset": run.preset,
        "parameters": _plain(run.parameters),
        "reading": _plain(run.reading),
        "limit": run.limit,
        "seed": run.seed,
    }


def _plain(options: dict[str, Any]) -> dict[str, Any]:
    """As JSON gives them back, so that a run equals itself after a stop."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}


def claim(out: Path, configuration: dict[str, Any], overwrite: bool) -> dict[str, Any] | None:
    """Make the folder this run's; give its report if it's complete already.

    Whoever calls holds the folder (`rankwise._claims.held`). The record of an earlier run is
    replaced last, so that a kill in between leaves a folder that is known.
    """
    path = out / CONFIGURATION
    refuse_foreign(out, "run", own=path.exists())
    if not path.exists():
        pass
    elif overwrite:
        for name in (SUBNETS, "bootstrap"):
            shutil.rmtree(out / name, ignore_errors=True)
        discard_model(out)
        discard_features(out)
    else:
        different = _differences(read_record(path), configuration)
        if different:
            raise RunError(
                f"{out} holds another run (different: {'; '.join(different)}); choose another "
                "folder, or discard it with --overwrite"
            )
        return _complete(out, configuration)
    write_json(path, configuration)
    return None


def _complete(out: Path, configuration: dict[str, Any]) -> dict[str, Any] | None:
    """The report of a folder, if it's of this run and of the model that lies there."""
    if not all((out / name).exists() for name in (REPORT, WEIGHTS, DESCRIPTION)):
        return None
    report = read_record(out / REPORT, needs=tuple(_SHOWN))
    wrong = [name for name, kinds in _SHOWN.items() if not isinstance(report[name], kinds)]
    if wrong:
        raise RunError(
            f"{out / REPORT} is damaged: its {', '.join(wrong)} can't be; remove it, and the same "
            "command makes it again"
        )
    same = not _differences({"run": report["run"]}, {"run": configuration["run"]})
    for part in ("train", "test"):
        found = report[part].get("fingerprint") if isinstance(report[part], dict) else None
        same &= found == configuration[f"{part}_fingerprint"]
    # Reports of earlier versions don't name their model.
    same &= report.get("model", "") in ("", checksum(out / WEIGHTS))
    return report if same else None


def discard_model(out: Path) -> None:
    """Remove a model, its report, and its exports under their usual names.

    The run's record stays: it's replaced by the next one's, so that the folder is always known.
    """
    for name in _MODEL_FILES:
        (out / name).unlink(missing_ok=True)
    for precision in ("", "_float16", "_int8", "_int4"):
        for ending in (".onnx", ".h", ".html", ".safetensors"):
            (out / f"{EXPORTED}{precision}{ending}").unlink(missing_ok=True)


def discard_features(out: Path) -> None:
    """Remove the cache of a head's folder, and nothing else that lies there."""
    for path in (out / FEATURES).glob(FEATURE_FILES):
        path.unlink()
    with suppress(OSError):
        (out / FEATURES).rmdir()


def refuse_model_file(path: Path, folder: Path) -> None:
    """Raise `RunError` if writing to `path` would replace a part of the model in `folder`."""
    if path.name in (*_MODEL_FILES, CONFIGURATION) and path.resolve().parent == folder.resolve():
        raise RunError(f"{path} belongs to the model itself; choose another file")


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    # The fingerprints say what these say too, and earlier records don't have them.
    apart = {"run", *ORIGIN}
    names = [_IN_WORDS.get(k, k) for k in wanted if k not in apart and found.get(k) != wanted[k]]
    # The source may be spelled differently: the fingerprints say whether it's the same.
    run = {k: v for k, v in wanted["run"].items() if k != "source"}
    return [*_values_apart({k: found.get("run", {}).get(k) for k in run}, run), *names]


def _values_apart(there: dict[str, Any], here: dict[str, Any]) -> list[str]:
    """Choices that differ, each with both values."""
    apart: list[str] = []
    for name in dict.fromkeys((*here, *there)):
        known, value = there.get(name), here.get(name)
        if isinstance(known, dict) and isinstance(value, dict):
            apart += _values_apart(known, value)
        elif known != value:
            apart.append(f"{name} {_shown(known)}, now {_shown(value)}")
    return apart


def _shown(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def read_record(path: Path, needs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A record of a run that holds what it `needs` to, or one sentence that names the file."""
    remedy = (
        f"; remove it to use the model alone, or train again with --overwrite into {path.parent}"
    )
    value = read_json(path, error=RunError, hint=remedy)
    if not isinstance(value, dict) or not isinstance(value.get("run"), dict):
        raise RunError(f"{path} is damaged or foreign: it describes no run{remedy}")
    lacks = [name for name in needs if name not in value]
    if lacks:
        raise RunError(f"{path} is damaged: it lacks {', '.join(lacks)}{remedy}")
    return value


def holds(run: TrainingRun, out: Path) -> bool:
    """Whether a folder holds this very run, complete or not."""
    path = out / CONFIGURATION
    return path.exists() and read_record(path)["run"] == described(run)


def finished_parts(out: Path) -> dict[str, int]:
    """What an interrupted run has kept: ``sub-networks``, a teacher's epochs, and ``epochs``."""
    folder = out / SUBNETS
    return {
        "sub-networks": len(list(folder.glob("[0-9]*.safetensors"))),
        "epochs of the teacher": int(known_of(folder / TEACHER / CHECKPOINT).get("epoch", 0)),
        "epochs": int(known_of(folder / CHECKPOINT).get("epoch", 0)),
    }
