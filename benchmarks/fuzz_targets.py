"""What `fuzz.py` feeds: small samples of everything that is read, and who reads them."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from fuzz_mutations import HOSTILE, spoiler

FAST = ["--units", "6", "--subnets", "1", "--max-iter", "1", "--workers", "1"]
STUDY = """
name = "small"
protocol = "paper"
epochs = 1
folds = 2
batch_size = 20
degraded = "none"
rope = 0.01
seeds = [42]
[data.digits]
source = "digits"
limit = 60
[models.quadratic]
parameters = { n_units = 4, n_subnets = 1, max_iter = 1 }
[arms.none]
[arms.low-rank]
energy = 0.9
skip_threshold = 0.5
"""


class WrongResultError(AssertionError):
    """A spoilt file was accepted and gave what can't be."""


@dataclass(frozen=True)
class Target:
    """A folder of files of which one is spoilt, and what is done with it then.

    Parameters
    ----------
    name : str
    use : callable
        Of the folder; whatever it raises is judged.
    files : tuple of str
        Patterns of the files that may be spoilt.
    weight : int
        How often it is drawn, against the others.
    """

    name: str
    use: Callable[[Path], Any]
    files: tuple[str, ...] = ("*",)
    weight: int = 4

    def spoil(self, folder: Path, random: Random) -> str:
        """Spoil one file of a folder; say what was done."""
        found = sorted({p for pattern in self.files for p in folder.glob(pattern) if p.is_file()})
        path = random.choice(found)
        content = path.read_bytes()
        path.write_bytes(spoiler(path.name)(content, random))
        vouched = path.with_name("model.json")
        if path.name == "model.safetensors" and vouched.exists() and random.random() < 0.8:
            _vouch(path.parent)
        return str(path.relative_to(folder))


@dataclass(frozen=True)
class Call:
    """A call with random arguments: an estimator, or a command; with all samples or without."""

    name: str
    make: Callable[[Random, Path], str] = field(repr=False)
    weight: int = 4
    reads: bool = False


def _vouch(folder: Path) -> None:
    """Let the description vouch for spoilt weights, so that they are looked into."""
    from rankwise._claims import checksum

    path = folder / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    description["weights_sha256"] = checksum(folder / "model.safetensors")
    path.write_text(json.dumps(description), encoding="utf-8")


# -- samples -----------------------------------------------------------------------------------


def make_samples(place: Path) -> None:
    """A folder for each target, named as it is."""
    import torch
    from PIL import Image

    from rankwise import LowRankAugmenter, RandomLowRank, VarProHead
    from rankwise.data import load_images
    from rankwise.estimators.options import classifier_of
    from rankwise.export import export_model
    from rankwise.heads.backbones import SmallResNet, load_backbone, save_backbone
    from rankwise.lowrank.export import augment_files
    from rankwise.runs import TrainingRun, train
    from rankwise.study import run_study
    from rankwise.study.reading import read_study

    digits = load_images("digits", limit=40)
    small = {"n_units": 6, "n_subnets": 1, "max_iter": 1}
    model = classifier_of(None, **small).fit(digits.images, digits.labels)
    model.save(place / "model")
    convolutional = classifier_of("tiny", max_iter=1)
    convolutional.fit(digits.images, digits.labels).save(place / "convolutional")
    torch.manual_seed(0)
    record = {
        "architecture": "small-resnet",
        "n_classes": 4,
        "options": {"width": 4, "n_features": 8},
    }
    (place / "backbone").mkdir()
    file = place / "backbone/small.safetensors"
    save_backbone(SmallResNet(4, width=4, n_features=8), file, record)
    backbone = load_backbone(file)
    head = VarProHead(0.1, backbone=backbone)
    head.fit(digits.images, digits.labels)
    head.image_shape_ = digits.image_shape
    head.save(place / "head")
    (place / "exported").mkdir()
    export_model(model, "safetensors", place / "exported/model_exported.safetensors")
    train(TrainingRun("digits", parameters=small, limit=60), place / "run", workers=1)
    (place / "study-file").mkdir()
    (place / "study-file/study.toml").write_text(STUDY, encoding="utf-8")
    study = read_study(place / "study-file/study.toml")
    run_study(study, place / "study", workers=1, device="cpu")
    augment_files(digits, LowRankAugmenter(RandomLowRank(p=0.5, seed=1)), place / "parquet")
    (place / "npz").mkdir()
    np.savez(place / "npz/set.npz", images=digits.images, labels=digits.labels)
    for name in ("a", "b"):
        (place / "images" / name).mkdir(parents=True)
        for i in range(3):
            ending = ("png", "jpg", "gif")[i]
            Image.fromarray(digits.images[i]).save(place / "images" / name / f"{i}.{ending}")
    (place / "idx").mkdir()
    for part in ("train", "t10k"):
        _write_idx(place / f"idx/{part}-images-idx3-ubyte", digits.images)
        _write_idx(place / f"idx/{part}-labels-idx1-ubyte", digits.labels.astype(np.uint8))
    (place / "features").mkdir()
    np.save(place / "features/features-0.npy", np.ones((40, 8), np.float32))
    (place / "checkpoints").mkdir()
    for path in (place / "run/subnets").iterdir():
        (place / "checkpoints" / path.name).write_bytes(path.read_bytes())


def _write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


# -- readers -----------------------------------------------------------------------------------


def _use_model(folder: Path) -> None:
    from rankwise.estimators.models import load_model

    model = load_model(folder)
    shape = getattr(model, "image_shape_", (8, 8))
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    probabilities = model.predict_proba(images)
    _check_probabilities(probabilities, len(model.classes_))
    model.predict(images)


def _check_probabilities(found: np.ndarray, n_classes: int) -> None:
    if found.shape[1] != n_classes:
        raise WrongResultError(f"{found.shape[1]} probabilities of {n_classes} classes")
    if not np.isfinite(found).all() or found.min() < 0:
        raise WrongResultError("probabilities that are none")
    if np.abs(found.sum(axis=1) - 1).max() > 1e-3:
        raise WrongResultError("probabilities that don't sum to one")


def _use_backbone(folder: Path) -> None:
    from rankwise.heads.backbones import load_backbone
    from rankwise.heads.features import extract_features

    features = extract_features(
        load_backbone(folder / "small.safetensors"), np.zeros((2, 16, 16), np.uint8)
    )
    if not np.isfinite(features).all():
        raise WrongResultError("features that aren't finite")


def _use_exported(folder: Path) -> None:
    from rankwise.export.weights import read_weights

    read_weights(folder / "model_exported.safetensors")


def _use_study_file(folder: Path) -> None:
    from rankwise.study import conditions_of
    from rankwise.study.reading import read_study

    conditions_of(read_study(folder / "study.toml"))


def _use_study(folder: Path) -> None:
    from rankwise.study import study_status
    from rankwise.study.report import write_report

    study_status(folder)
    write_report(folder)


def _use_cells(folder: Path) -> None:
    (folder / "results.json").unlink(missing_ok=True)
    _use_study(folder)


def _use_run(folder: Path) -> None:
    _command("evaluate", str(folder), "digits", "--limit", "20")


def _use_run_again(folder: Path) -> None:
    arguments = ["--units", "6", "--subnets", "1", "--max-iter", "1", "--limit", "60"]
    _command("train", "digits", "--out", str(folder), *arguments, "--workers", "1")


def _use_data(folder: Path) -> None:
    from rankwise import load_images

    load_images(folder, "all")


def _use_npz(folder: Path) -> None:
    _use_data(folder / "set.npz")


def _use_features(folder: Path) -> None:
    from rankwise.heads.features import _kept

    _kept(folder / "features-0.npy", 40)


def _use_checkpoints(folder: Path) -> None:
    from rankwise.training.checkpoints import earlier_seconds, known_of
    from rankwise.training.subnetworks import _finished

    earlier_seconds(folder)
    known_of(folder / "00000.safetensors")
    _finished(folder, 1, None)


READERS = (
    Target("model", _use_model, weight=12),
    Target("convolutional", _use_model, weight=8),
    Target("head", _use_model, weight=10),
    Target("backbone", _use_backbone),
    Target("exported", _use_exported),
    Target("study-file", _use_study_file, weight=6),
    Target("study", _use_study, ("*.json",), weight=3),
    Target("study", _use_cells, ("*.json", "cells/**/*"), weight=3),
    Target("run", _use_run, ("run.json", "model.*"), weight=3),
    Target("run", _use_run_again, ("*.json", "subnets/*"), weight=2),
    Target("parquet", _use_data, weight=6),
    Target("npz", _use_npz, weight=6),
    Target("images", _use_data, ("*/*",), weight=6),
    Target("idx", _use_data, weight=4),
    Target("features", _use_features, weight=2),
    Target("checkpoints", _use_checkpoints, weight=3),
)


# -- estimators and commands -------------------------------------------------------------------


def _arrays(random: Random) -> Any:
    rng = np.random.default_rng(random.randrange(2**32))
    n = random.choice((0, 1, 2, 12, 12, 12))
    shape = random.choice(
        ((n,), (n, 16), (n, 4, 4), (n, 4, 4), (n, 4, 4, 3), (n, 0, 4), (n, 1), (n, 3, 5), ())
    )
    array: Any = rng.random(shape)
    kind = random.randrange(12)
    if kind == 0 and array.size:
        array.flat[random.randrange(array.size)] = random.choice((np.nan, np.inf, 1e300))
    elif kind == 1:
        array = (array * 255).astype(random.choice(("u1", "i8", "f2", "f4", "?", "c16", "M8[s]")))
    elif kind == 2:
        array = array.astype(object)
        if array.size:
            array.flat[0] = random.choice(HOSTILE)
    elif kind == 3:
        array = array.tolist()
    elif kind == 4:
        array = random.choice(HOSTILE)
    elif kind == 5:
        array = array.astype(str)
    return array


def _labels(random: Random) -> Any:
    kind = random.randrange(8)
    if kind == 0:
        return random.choice(HOSTILE)
    n = random.choice((0, 1, 2, 11, 12, 12, 12, 12))
    labels: Any = [random.choice(("a", "b", "c")) for _ in range(n)]
    if kind == 1:
        return np.array([random.choice(HOSTILE[:24]) for _ in range(n)], dtype=object)
    if kind == 2:
        return np.array([random.random() for _ in range(n)])
    return np.array(labels) if kind < 6 else [ord(label) for label in labels]


def _choices(random: Random, accepted: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
    """Some arguments, of good values and of hostile ones."""
    names = random.sample(list(accepted), random.choice((0, 1, 1, 2)))
    return {
        name: random.choice(accepted[name] if random.random() < 0.5 else HOSTILE) for name in names
    }


def _classifier(random: Random, folder: Path) -> str:
    from rankwise.estimators.options import classifier_of

    X, y = _arrays(random), _labels(random)
    given = {"n_units": 4, "n_subnets": 1, "max_iter": 1} | _choices(
        random,
        {
            "unit": ("symmetric", "bilinear"),
            "rank": (1, 2),
            "activation": ("tanh", "relu"),
            "window": ((2, 4), False),
            "solver": ("lbfgs", "minpack"),
            "ridge": ("gcv", 1e-3),
            "image_shape": ((4, 4), (2, 8)),
            "dtype": ("float64",),
            "random_state": (1,),
            "prune": (1,),
            "grow": (1,),
            "squash": (True,),
            "n_jobs": (1,),
            "n_units": (2,),
            "samples_per_subnet": (8,),
            "preset": (None, "windowed"),
        },
    )
    given = {k: v for k, v in given.items() if not _is_much(v)}
    model = classifier_of(given.pop("preset", None), **given).fit(X, y)
    _check_probabilities(model.predict_proba(_arrays(random)), len(model.classes_))
    return ""


def _is_much(value: Any) -> bool:
    """A number that asks for that much work, which is then done."""
    return isinstance(value, int) and not isinstance(value, bool) and 100 < value < 2**40


def _head(random: Random, folder: Path) -> str:
    from rankwise import VarProHead

    given = _choices(
        random,
        {
            "alpha": ("gcv", 0.1),
            "class_weight": ("balanced",),
            "rank": (1, 2),
            "loss": ("logistic",),
            "fit_intercept": (False,),
            "standardise": (False,),
            "alphas": ([0.1, 1.0],),
        },
    )
    X = _arrays(random)
    head = VarProHead(**given).fit(X, _labels(random))
    _check_probabilities(head.predict_proba(X), len(head.classes_))
    return ""


def _low_rank(random: Random, folder: Path) -> str:
    from rankwise import RandomLowRank, low_rank_approximation, spectrum

    X = _arrays(random)
    kind = random.randrange(3)
    if kind == 0:
        spectrum(X)
    elif kind == 1:
        low_rank_approximation(X, **_choices(random, {"energy": (0.9,), "rank": (1,)}))
    else:
        RandomLowRank(**_choices(random, {"p": (0.5,), "seed": (1,), "skip_threshold": (0.5,)}))(X)
    return ""


def _projection(random: Random, folder: Path) -> str:
    from rankwise import VariableProjection
    from rankwise.varpro.problem import FunctionBasis

    t = np.linspace(0, 1, 12)

    def phi(theta: Any) -> Any:
        return np.stack([np.exp(-theta[0] * t), np.ones(12)], axis=1)

    def dphi(theta: Any) -> Any:
        return (-t * np.exp(-theta[0] * t))[:, None]

    owner: Any = np.array([0])
    if random.random() < 0.3:
        owner = random.choice((None, [0], np.array([0.5]), np.array([7]), [], "x", [[0]], [-1]))
    basis = FunctionBasis(phi, dphi, owner)
    given = _choices(random, {"ridge": (0.1,), "jacobian": ("kaufman",), "solver": ("lbfgs",)})
    VariableProjection(**{"max_iterations": 3, **given}).fit(
        basis, _arrays(random), random.choice(([1.0], [0.5], *HOSTILE[:40]))
    )
    return ""


def _images(random: Random, folder: Path) -> str:
    from rankwise import load_images

    given = _choices(
        random,
        {
            "size": (4, (4, 6)),
            "grey": (True,),
            "channels": (1, 3),
            "limit": (10,),
            "seed": (1,),
            "on_error": ("skip",),
            "source_pattern": ("^(.)",),
            "memory_limit": (10,),
            "split": ("all", "test"),
        },
    )
    if _is_much(given.get("size")):
        given["size"] = -5
    load_images(random.choice(("digits", folder / "images", folder / "npz/set.npz")), **given)
    return ""


def _some_command(random: Random, folder: Path) -> str:
    model, out = str(folder / "model"), str(folder / "out")
    images = str(folder / "images")
    options = {
        "train": [images, "--out", out, *FAST, "--size", "6"],
        "evaluate": [str(folder / "run"), "digits", "--limit", "20"],
        "predict": [model, f"{images}/a/0.png"],
        "export": [model, "--format", "safetensors", "--no-check", "--out", f"{out}.safetensors"],
        "augment": [images, out, "--size", "6"],
        "show": [f"{images}/a/0.png", "--out", f"{out}.csv"],
        "nets": ["--out", f"{out}.csv"],
        "head": [images, "--backbone", f"{folder}/backbone/small.safetensors", "--out", out],
        "study": [random.choice(("status", "report", "tune", "run", "x")), str(folder / "study")],
    }
    name = random.choice(list(options))
    arguments = list(options[name])
    for _ in range(random.choice((1, 1, 2))):
        kind = random.randrange(4)
        at = random.randrange(len(arguments))
        value = str(random.choice(HOSTILE)).replace("\x00", "").encode("utf-8", "replace").decode()
        if _is_much(_number(value)):
            value = "-7"
        if kind == 0:
            del arguments[at]
        elif kind == 1:
            arguments[at] = value
        elif kind == 2:
            arguments += [random.choice(("--seed", "--limit", "--size", "--json", "--nope")), value]
        else:
            arguments.insert(at, value)
        if not arguments:
            break
    # Nothing is looked up anywhere else than here.
    arguments = [a for a in arguments if a.count("/") != 1 or a.startswith(str(folder))]
    if name == "train":
        arguments += FAST
    _command(name, *arguments)
    return " ".join([name, *arguments])


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return None


CALLS = (
    Call("QuadraticClassifier", _classifier, 4),
    Call("VarProHead", _head, 4),
    Call("low-rank", _low_rank, 3),
    Call("VariableProjection", _projection, 3),
    Call("load_images", _images, 3, reads=True),
    Call("command", _some_command, 6, reads=True),
)


class CommandError(AssertionError):
    """A command that ended otherwise than well or with a sentence."""


def _command(*arguments: str) -> None:
    """Run a command here; whatever isn't a success or one sentence is a `CommandError`."""
    from rankwise.cli import main

    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["rankwise", *arguments]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code: Any = 0
    except SystemExit as stop:
        code = stop.code or 0
    finally:
        sys.argv = before
    said = err.getvalue()
    if code not in (0, 1, 2):
        raise CommandError(f"ends with {code}")
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    # Of several files that can't be used each has its sentence.
    if code == 1 and (not lines or min(map(len, lines)) < 12):
        raise CommandError(f"ends with 1 and says {said[-300:]!r}")
    if code == 2 and not said.strip():
        raise CommandError("ends with 2 and says nothing")
