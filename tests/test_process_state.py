"""No call leaves anything changed: the process, the caller's arrays and modules, temporary files.

Everything that a process has one of is sampled before and after each public call, alone and from
four threads at once.
"""

import copy
import gc
import importlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import matplotlib
import numpy as np
import pytest
import scipy.linalg  # noqa: F401  its BLAS is sampled too
import sklearn.metrics
import torch
from sklearn.datasets import load_digits
from threadpoolctl import ThreadpoolController
from torch import nn

from nets.small import Tiny
from rankwise import (
    LowRankAugmenter,
    RandomLowRank,
    VarProHead,
    low_rank_approximation,
    spectrum,
)
from rankwise.data import ImageSet, hold_out_by_source, load_images, stratified_limit
from rankwise.estimators.models import load_model
from rankwise.estimators.options import classifier_of
from rankwise.export import export_model
from rankwise.heads.backbones import SmallResNet, load_backbone, save_backbone
from rankwise.heads.features import extract_features, iterate_features
from rankwise.heads.fine_tuning import fine_tune
from rankwise.heads.head import solve_head
from rankwise.nets import (
    TrainingSettings,
    make_network,
    predict_logits,
    summary,
    train_network,
    transfer_network,
)
from rankwise.plots import save_confusion, save_units

DIGITS = load_digits()
PIXELS = (DIGITS.images[:60] * 255 / 16).astype(np.uint8)
LABELS = DIGITS.target[:60].astype(np.int64)
FEATURES = DIGITS.data[:200].astype(np.float32)
NAMES = DIGITS.target[:200]


def fitted_head() -> VarProHead:
    return VarProHead().fit(FEATURES, NAMES)


class World:
    """What calls are given: arrays that can't be written to, and modules in mixed states."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pixels, self.labels = PIXELS.copy(), LABELS.copy()
        self.features, self.names = FEATURES.copy(), NAMES.copy()
        for array in (self.pixels, self.labels, self.features, self.names):
            array.setflags(write=False)
        self.images = ImageSet.from_arrays(self.pixels, self.labels)
        self.colour = np.repeat(self.pixels[..., None], 3, axis=3)
        with torch.random.fork_rng(devices=[]):
            self.backbone = SmallResNet(10, width=4, n_features=12)
            self.tiny, self.fresh = Tiny(), Tiny()  # which seed themselves, not safely for threads
        # As a caller may have them: in training, one layer not, one parameter frozen.
        self.backbone.train()
        self.backbone.stages[1].eval()
        self.backbone.head.weight.requires_grad_(False)
        self.tiny.train()
        self.tiny.norm.eval()
        self.classifier = classifier_of(n_units=8, n_subnets=2, max_iter=2, n_jobs=2)
        self.classifier.fit(self.pixels, self.labels)
        self.head = fitted_head()
        self.head.outputs(self.features)
        record = {
            "architecture": "small-resnet",
            "n_classes": 10,
            "options": {"width": 4, "n_features": 12},
        }
        self.file = folder / "backbone.safetensors"
        save_backbone(self.backbone, self.file, record)
        # What libraries do once in a process, when they are first used, isn't a call's doing:
        # torch's compiler names a cache, Lightning sets a variable, onnxruntime makes a folder.
        importlib.import_module("torch._dynamo")
        importlib.import_module("lightning.pytorch")
        extract_features(self.backbone, self.colour, device="cpu")
        self.saved = folder / "saved"
        self.classifier.save(self.saved)

    def place(self) -> Path:
        """A new folder for outputs."""
        return Path(tempfile.mkdtemp(dir=self.folder))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"))


def abandoned(w):
    """A generator that nobody reads to its end."""
    next(iterate_features(w.backbone, w.colour, batch_size=20))


SMALL = {"n_units": 8, "n_subnets": 2, "max_iter": 2}
CALLS = {
    "fit, sub-networks": lambda w: classifier_of(**SMALL, n_jobs=1).fit(w.pixels, w.labels),
    "fit, all choices": lambda w: classifier_of(**SMALL, grow=2, prune=2, refine=1).fit(
        w.pixels, w.labels
    ),
    "fit, Gauss–Newton": lambda w: classifier_of(
        **SMALL, refine=1, refine_solver="gauss-newton"
    ).fit(w.pixels, w.labels),
    "fit, convolutional": lambda w: classifier_of(
        "tiny", max_iter=1, n_units=12, augmentation="moves+low-rank", n_jobs=2
    ).fit(w.pixels, w.labels),
    "fit, batched": lambda w: classifier_of(**SMALL, device="cpu:torch").fit(
        w.pixels, w.labels
    ),
    "fit, with a folder": lambda w: classifier_of(**SMALL).fit(
        w.pixels, w.labels, checkpoint_dir=w.place()
    ),
    "predict": lambda w: w.classifier.predict(w.pixels),
    "predict_proba": lambda w: w.classifier.predict_proba(w.pixels),
    "bootstrap": lambda w: w.classifier.bootstrap_transductive(w.pixels, w.labels),
    "save and load": lambda w: (w.classifier.save(w.place()), load_model(w.saved)),
    "load_images": lambda w: load_images("digits", limit=50),
    "hold_out_by_source": lambda w: hold_out_by_source(w.labels, w.labels // 2, 0.2, 42),
    "stratified_limit": lambda w: stratified_limit(w.labels, 30, 42),
    "low_rank_approximation": lambda w: low_rank_approximation(
        w.pixels, energy=0.9, channel_axis=None
    ),
    "of tensors": lambda w: low_rank_approximation(torch.from_numpy(w.colour[:2, 0]), rank=2),
    "spectrum": lambda w: spectrum(w.pixels, channel_axis=None),
    "RandomLowRank": lambda w: RandomLowRank(p=1, seed=1, channel_axis=None)(
        w.pixels, source_id=list(w.labels)
    ),
    "augment": lambda w: LowRankAugmenter(RandomLowRank(p=0.5, seed=1)).augment(w.images),
    "head": lambda w: fitted_head(),
    "head, logistic": lambda w: VarProHead(loss="logistic").fit(w.features, w.names),
    "head, in parts": lambda w: VarProHead()
    .partial_fit(w.features[:100], w.names[:100], classes=range(10))
    .merge(w.head)
    .unlearn(w.features[:50], w.names[:50]),
    "head, predict": lambda w: w.head.predict_proba(w.features),
    "head, wrong labels": lambda w: w.head.likely_wrong_labels(w.features, w.names),
    "head, on a backbone": lambda w: VarProHead(backbone=w.backbone).fit(w.colour, w.labels),
    "head, on its loader": lambda w: VarProHead(backbone=w.backbone).fit(
        [(torch.from_numpy(w.colour), torch.from_numpy(w.labels.copy()))]
    ),
    "to_linear": lambda w: w.head.to_linear(calibrated=True),
    "attach": lambda w: w.head.attach(nn.Identity()),
    "solve_head": lambda w: solve_head(copy.deepcopy(w.fresh), w.pixels, w.labels, device="cpu"),
    "fine_tune": lambda w: fine_tune(
        transfer_network(w.backbone, 10), w.colour, w.labels, TrainingSettings(1, batch_size=30),
        n_top=1, device="cpu",
    ),
    "extract_features": lambda w: extract_features(w.backbone, w.colour, device="cpu"),
    "with a cache": lambda w: extract_features(w.backbone, w.colour, cache=w.place()),
    "iterate_features": abandoned,
    "load_backbone": lambda w: load_backbone(w.file),
    "make_network": lambda w: make_network("resnet25", (16, 16), 3),
    "transfer_network": lambda w: transfer_network(w.backbone, 3),
    "predict_logits": lambda w: predict_logits(w.tiny, w.pixels, device="cpu"),
    "summary": lambda w: summary(w.tiny, (8, 8)),
    "train_network": lambda w: train_network(
        copy.deepcopy(w.fresh), w.pixels, w.labels, TrainingSettings(1, batch_size=30), device="cpu"
    ),
    "train_network, in a folder": lambda w: train_network(
        copy.deepcopy(w.fresh), w.pixels, w.labels, TrainingSettings(1, batch_size=30),
        device="cpu", folder=w.place(), validation=(w.pixels, w.labels),
    ),
    "export": lambda w: [
        export_model(w.classifier, kind, w.place() / "model") for kind in ("c", "safetensors")
    ],
    "pictures": lambda w: (
        save_units(w.classifier.network_, w.place() / "units.png"),
        save_confusion(
            sklearn.metrics.confusion_matrix(w.labels, w.labels), list("0123456789"),
            w.place() / "confusion.png",
        ),
    ),
    "refused": lambda w: refused(w),
}  # fmt: skip


def refused(w):
    for call in (
        lambda: classifier_of(**SMALL, ridge="x").fit(w.pixels, w.labels),
        lambda: w.classifier.predict(w.pixels[:, :3]),
        lambda: extract_features(w.backbone, w.pixels[..., None].repeat(2, 3), device="cpu"),
        lambda: VarProHead(alpha="x").fit(w.features, w.names),
    ):
        with pytest.raises(ValueError):
            call()


def of_the_process() -> dict:
    """What a process has one of."""
    blas = ThreadpoolController().select(user_api="blas").lib_controllers
    with ThreadPoolExecutor(1) as pool:
        of_new_threads = pool.submit(torch.get_num_threads).result()
    mask = os.umask(0o022)
    os.umask(mask)
    return {
        "BLAS threads": [(c.filepath, c.num_threads) for c in blas],
        "torch threads": torch.get_num_threads(),
        "torch threads of new threads": of_new_threads,
        "torch between operations": torch.get_num_interop_threads(),
        "torch generator": torch.get_rng_state().numpy().tobytes(),
        "numpy generator": repr(np.random.get_state()),  # noqa: NPY002  the global one
        "torch dtype": torch.get_default_dtype(),
        "deterministic": (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.backends.cudnn.benchmark,
            torch.backends.cudnn.deterministic,
            torch.get_float32_matmul_precision(),
        ),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "environment": dict(os.environ),
        "folder": Path.cwd(),
        "umask": mask,
        "numpy errors": np.geterr(),
        "matplotlib": (dict(matplotlib.rcParams), "matplotlib.pyplot" in sys.modules),
        "signals": [signal.getsignal(s) for s in signal.valid_signals()],
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
    }


def of_the_warnings() -> list:
    """Apart: libraries that a call uses guard them in ways that aren't safe for threads."""
    return list(warnings.filters)


def of_a_module(module: nn.Module) -> dict:
    parameters = dict(module.named_parameters())
    tensors = {**parameters, **dict(module.named_buffers())}
    return {
        "values": {k: v.detach().cpu().numpy().tobytes() for k, v in tensors.items()},
        "devices": {k: v.device for k, v in tensors.items()},
        "memory": {k: (v.data_ptr(), v.stride()) for k, v in tensors.items()},
        "training": {k: m.training for k, m in module.named_modules()},
        "requires_grad": {k: p.requires_grad for k, p in parameters.items()},
        "gradients": {k: p.grad is None for k, p in parameters.items()},
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()],
    }


def sampled(w: World, temporary: Path) -> dict:
    gc.collect()
    return {
        **of_the_process(),
        "backbone": of_a_module(w.backbone),
        "network": of_a_module(w.tiny),
        "arrays": [a.tobytes() for a in (w.pixels, w.labels, w.features, w.names, w.colour)],
        "temporary files": sorted(p.name for p in temporary.iterdir()),
    }


def differences(before: dict, after: dict) -> list[str]:
    return [name for name in before if before[name] != after[name]]


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files of its own, two threads, and generators anywhere."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    states = torch.get_rng_state(), random.getstate()
    torch.manual_seed(1)
    gc.collect()
    gc.freeze()  # what is there already isn't looked through again before and after each call
    with ThreadpoolController().limit(limits=2, user_api="blas"):
        yield folder
    gc.unfreeze()
    torch.set_num_threads(threads)
    torch.set_rng_state(states[0])
    random.setstate(states[1])


@pytest.mark.parametrize("name", CALLS)
def test_a_call_leaves_everything_as_it_was(name, world, temporary):
    before, filters = sampled(world, temporary), of_the_warnings()
    CALLS[name](world)
    assert differences(before, sampled(world, temporary)) == []
    assert of_the_warnings() == filters


TOGETHER = (
    "predict",
    "fit, sub-networks",
    "extract_features",
    "predict_logits",
    "make_network",
    "to_linear",
    "train_network",
    "with a cache",
)


def test_calls_from_four_threads_at_once_do_too(world, temporary):
    before = sampled(world, temporary)
    barrier = Barrier(4)

    def work(number):
        torch.get_num_threads()
        barrier.wait()
        for i in range(len(TOGETHER)):
            CALLS[TOGETHER[(i + 2 * number) % len(TOGETHER)]](world)
        return torch.get_num_threads()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(4))) == [2] * 4
    assert differences(before, sampled(world, temporary)) == []


def test_python_s_own_generator_is_left_alone():
    """In a process without beartype, which draws from it to check annotations under test."""
    code = (
        "import random, numpy as np\n"
        "from rankwise import QuadraticClassifier, RandomLowRank, VarProHead\n"
        "X, y = np.random.default_rng(0).random((40, 4, 4)), np.arange(40) % 2\n"
        "random.seed(1); before = random.getstate()\n"
        "QuadraticClassifier(n_units=4, max_iter=1).fit(X, y).predict(X)\n"
        "VarProHead().fit(X.reshape(40, 16), y).predict_proba(X.reshape(40, 16))\n"
        "RandomLowRank(p=1, channel_axis=None)(X)\n"
        "assert random.getstate() == before"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path)},
    )


def test_threads_that_share_a_model_get_what_one_gets(world):
    expected = predict_logits(world.tiny, world.pixels, device="cpu")
    expected_features = extract_features(world.backbone, world.colour, device="cpu")
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(
            lambda _: predict_logits(world.tiny, world.pixels, device="cpu"), range(12)
        ):
            np.testing.assert_allclose(found, expected, atol=1e-5)
        for found in pool.map(
            lambda _: extract_features(world.backbone, world.colour, device="cpu"), range(12)
        ):
            np.testing.assert_allclose(found, expected_features, atol=1e-5)


def test_trainings_in_several_threads_give_each_its_own_numbers():
    models = {seed: [Tiny(), Tiny()] for seed in range(3)}

    def train(seed):
        model = models[seed].pop()
        settings = TrainingSettings(2, batch_size=30)
        return train_network(model, PIXELS, LABELS, settings, seed=seed, device="cpu").history

    alone = [[e["train_loss"] for e in train(seed)] for seed in range(3)]
    with ThreadPoolExecutor(3) as pool:
        together = [[e["train_loss"] for e in h] for h in pool.map(train, range(3))]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_a_copy_goes_to_another_device_and_the_module_stays():
    from rankwise.nets.borrowing import given_back, on_device

    model = Tiny()
    assert on_device(model, "cpu") is model
    copied = on_device(model, "meta")
    assert {p.device.type for p in copied.parameters()} == {"meta"}
    assert {p.device.type for p in model.parameters()} == {"cpu"}
    model.train()
    with given_back(model):
        model.double().eval()
        next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    assert all(m.training for m in model.modules())
    assert all(p.grad is None for p in model.parameters())
