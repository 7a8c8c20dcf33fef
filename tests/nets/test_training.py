"""Training: what an epoch is, determinism, kills and resumption, the best epoch, messages."""

import json
import logging
import math
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from nets.small import Tiny, assert_same_state, digits, without_seconds
from rankwise.errors import RunError
from rankwise.nets import (
    StopTraining,
    TrainingSettings,
    default_augmentation,
    make_network,
    predict_logits,
    train_network,
    updates_per_pass,
)
from rankwise.nets.augmentation import DefaultAugmentation
from rankwise.nets.batches import EpochBatches, kept_on, pass_order, scale
from rankwise.nets.losses import CrossEntropyLoss, Loss
from rankwise.nets.settings import at_plateau
from rankwise.nets.summary import summary
from rankwise.nets.transfer import transfer_network
from settings_cases import bfloat16, double

IMAGES, LABELS = digits(360)
TRAIN = (IMAGES[:240], LABELS[:240])
VALIDATION = (IMAGES[240:], LABELS[240:])
SETTINGS = TrainingSettings(epochs=4, batch_size=50, learning_rate=3e-3)


class KillError(Exception):
    pass


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(model=None, settings=SETTINGS, **options):
    options.setdefault("validation", VALIDATION)
    options.setdefault("augment", default_augmentation())
    return train_network(model or Tiny(), *TRAIN, settings, device="cpu", **options)


@pytest.fixture(scope="module")
def whole():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield train()
    torch.set_num_threads(before)


# -- batches --------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 9), st.integers(0, 3))
def test_epochs_are_passes_cut_into_equal_numbers_of_updates(n, size, steps, seed):
    images = torch.arange(n, dtype=torch.uint8).view(n, 1, 1)
    epoch = [0]
    batches = EpochBatches(
        images, torch.arange(n), size, steps, seed, lambda: epoch[0], lambda: (0, 1)
    )
    seen = []
    for epoch[0] in range(3):
        rows = [y for _, y in batches]
        assert len(rows) == len(batches) == steps
        seen += rows
    per_pass = updates_per_pass(n, size)
    for number in range(3 * steps // per_pass):
        whole_pass = torch.cat(seen[number * per_pass : (number + 1) * per_pass])
        assert whole_pass.tolist() == pass_order(n, seed, number).tolist()
        assert sorted(whole_pass.tolist()) == list(range(n))
    if n > 1 and size > 1:
        assert min(map(len, seen)) > 1  # batch norm needs two


@given(st.integers(4, 40), st.integers(4, 16), st.integers(1, 4))
def test_devices_share_a_batch_evenly(n, size, n_devices):
    def rows(rank):
        images = torch.zeros(n, 1, 1, dtype=torch.uint8)
        steps = updates_per_pass(n, size)
        labels = torch.arange(n)
        parts = EpochBatches(images, labels, size, steps, 0, lambda: 0, lambda: (rank, n_devices))
        return [y.tolist() for _, y in parts]

    parts = [rows(rank) for rank in range(n_devices)]
    for shares in zip(*parts, strict=True):
        assert len({len(share) for share in shares}) == 1
    everything = [row for part in parts for share in part for row in share]
    assert len(everything) == len(set(everything))
    assert len(everything) > n - n_devices * updates_per_pass(n, size)


def test_scaling_is_min_max_of_the_type():
    grey = torch.tensor([[[0, 255], [51, 102]]], dtype=torch.uint8)
    expected = torch.tensor([[[[-1.0, 1.0], [-0.6, -0.2]]]])
    torch.testing.assert_close(scale(grey), expected)
    colour = torch.arange(2 * 3 * 4 * 3, dtype=torch.uint8).view(2, 3, 4, 3)
    found = scale(colour)
    assert found.shape == (2, 3, 3, 4)
    assert found.dtype == torch.float32
    assert found[1, 2, 0, 3] == pytest.approx(float(colour[1, 0, 3, 2]) / 127.5 - 1, abs=1e-6)


# -- results --------------------------------------------------------------------------------


def test_it_learns_digits_and_predicts_what_it_measured():
    images, labels = digits(1500)
    model = make_network("simple-cnn", (8, 8), 10)
    data = (images[:1200], labels[:1200])
    held = (images[1200:], labels[1200:])
    result = train_network(model, *data, TrainingSettings(8), validation=held, device="cpu")
    last = result.history[-1]
    assert last["validation_accuracy"] > 0.9
    assert last["train_loss"] < 0.3 < result.history[0]["train_loss"]
    logits = predict_logits(model, held[0], batch_size=77, device="cpu")
    assert logits.shape == (300, 10)
    assert logits.dtype == np.float32
    assert (logits.argmax(1) == held[1]).mean() == pytest.approx(last["validation_accuracy"])
    shifted = logits - logits.max(1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = -log_p[np.arange(300), held[1]].mean()
    assert loss == pytest.approx(last["validation_loss"], rel=1e-5)
    assert_same_state(result.last_state, model.state_dict())


def test_history_is_complete(whole):
    assert [e["epoch"] for e in whole.history] == [1, 2, 3, 4]
    assert [e["n_updates"] for e in whole.history] == [5, 10, 15, 20]
    assert whole.n_updates == 20
    assert whole.seconds == pytest.approx(sum(e["seconds"] for e in whole.history))
    assert all(e["learning_rate"] == 3e-3 for e in whole.history)
    assert all(0 <= e["train_accuracy"] <= 1 and e["train_loss"] > 0 for e in whole.history)
    assert not whole.stopped


def test_first_epoch_is_the_obvious_loop():
    model, own = Tiny(), Tiny()
    settings = TrainingSettings(1, batch_size=240, optimizer="sgd", learning_rate=0.1)
    model.dropout.p = own.dropout.p = 0.0
    result = train_network(model, *TRAIN, settings, device="cpu")
    x = torch.from_numpy(TRAIN[0]).float().unsqueeze(1) / 127.5 - 1
    own.train()
    loss = torch.nn.functional.cross_entropy(own(x), torch.from_numpy(TRAIN[1]))
    loss.backward()
    with torch.no_grad():
        for p in own.parameters():
            p -= 0.1 * p.grad
    assert result.history[0]["train_loss"] == pytest.approx(loss.item(), rel=1e-5)
    for name, value in own.state_dict().items():
        torch.testing.assert_close(result.last_state[name], value, rtol=1e-4, atol=1e-6)


def test_same_seed_same_numbers_whatever_came_before(whole):
    torch.manual_seed(99)
    before = torch.get_rng_state()
    again = train()
    assert torch.equal(torch.get_rng_state(), before)
    assert without_seconds(again.history) == without_seconds(whole.history)
    assert_same_state(again.last_state, whole.last_state)
    other = train(seed=43)
    assert other.history[0]["train_loss"] != whole.history[0]["train_loss"]


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, double, bfloat16])
def test_settings_around_it_change_nothing_and_stay(whole, around):
    model = Tiny()
    model.load_state_dict(whole.last_state)
    logits = predict_logits(model, VALIDATION[0], device="cpu")
    trained = Tiny()
    with around():
        before = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
        again = train(trained)
        found = predict_logits(model, VALIDATION[0], device="cpu")
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert_same_state(again.last_state, whole.last_state)
    np.testing.assert_array_equal(found, logits)


def test_networks_are_float32_whatever_the_default_type_is():
    with double():
        network = make_network("simple-cnn", (8, 8), 3)
        assert summary(network, (8, 8)).layers[-1].output_shape == (3,)
        transferred = transfer_network(network, 2)
        found = transfer_network(nn.Conv2d(1, 5, 3), 2, image_shape=(8, 8))
        assert predict_logits(transferred, TRAIN[0][:4], device="cpu").shape == (4, 2)
    assert found.n_features == 5
    for module in (network, transferred, found):
        assert {p.dtype for p in module.parameters()} == {torch.float32}


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "rmsprop", "sgd"])
def test_every_optimizer_trains(optimizer):
    rate = 0.05 if optimizer == "sgd" else 3e-3
    settings = TrainingSettings(3, batch_size=50, optimizer=optimizer, learning_rate=rate)
    result = train(settings=settings, augment=None)
    assert result.history[-1]["train_loss"] < 0.8 * result.history[0]["train_loss"]


def test_best_epoch_is_the_first_of_the_highest(whole):
    scores = [e["validation_accuracy"] for e in whole.history]
    assert whole.best_epoch == scores.index(max(scores)) + 1
    model = Tiny()
    model.load_state_dict(whole.best_state)
    hits = predict_logits(model, VALIDATION[0], device="cpu").argmax(1) == VALIDATION[1]
    assert hits.mean() == pytest.approx(max(scores))
    # With a rate of almost nothing all epochs tie; batch norm in the backbone must not differ.
    model.norm.momentum = 0.0
    tied = train(model, TrainingSettings(3, batch_size=50, learning_rate=1e-12))
    assert len({e["validation_accuracy"] for e in tied.history}) == 1
    assert tied.best_epoch == 1


def test_without_validation_the_last_epoch_is_best():
    result = train(settings=TrainingSettings(2, batch_size=80), validation=None)
    assert result.best_epoch == 2
    assert result.history[0]["validation_accuracy"] is None
    assert_same_state(result.best_state, result.last_state)


def test_steps_per_epoch_gives_equal_updates():
    settings = TrainingSettings(3, batch_size=50, steps_per_epoch=7)
    few = train_network(Tiny(), *TRAIN, settings, device="cpu")
    more = train_network(Tiny(), IMAGES, LABELS, settings, device="cpu")
    assert few.n_updates == more.n_updates == 21
    assert [e["n_updates"] for e in few.history] == [7, 14, 21]


# -- kills ----------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, 12])
def test_resumed_is_uninterrupted(whole, tmp_path, step, monkeypatch):
    """Killed after an epoch (in `after_epoch`, thus before its checkpoint), and in the middle."""
    calls = []

    def kill_after(epoch, metrics):
        if step is None and epoch == 3:
            raise KillError

    forward = DefaultAugmentation.forward

    def kill_in_the_middle(self, x):
        calls.append(1)
        if len(calls) == step:
            raise KillError
        return forward(self, x)

    with monkeypatch.context() as patched:
        patched.setattr(DefaultAugmentation, "forward", kill_in_the_middle)
        with pytest.raises(KillError):
            train(folder=tmp_path, after_epoch=kill_after)
    assert len(json.loads((tmp_path / "history.json").read_text())) == 2
    epochs = []
    resumed = train(folder=tmp_path, after_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == [3, 4]
    assert without_seconds(resumed.history) == without_seconds(whole.history)
    assert resumed.best_epoch == whole.best_epoch
    assert_same_state(resumed.last_state, whole.last_state)
    assert_same_state(resumed.best_state, whole.best_state)
    # Once more: read, not trained.
    again = train(folder=tmp_path, after_epoch=lambda epoch, _: epochs.append(epoch))
    assert epochs == [3, 4]
    assert again.history == resumed.history
    assert_same_state(again.best_state, whole.best_state)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.safetensors",
        "history.json",
        "last.ckpt",
        "training.json",
    ]


def test_keyboard_interrupt_stays_one(tmp_path):
    import signal

    def interrupt(epoch, metrics):
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(after_epoch=interrupt)
    assert signal.getsignal(signal.SIGINT) is before


def test_stop_training_returns_what_there_is(whole, tmp_path):
    def stop(epoch, metrics):
        assert metrics["epoch"] == epoch
        if epoch == 2:
            raise StopTraining

    result = train(folder=tmp_path, after_epoch=stop)
    assert result.stopped
    assert without_seconds(result.history) == without_seconds(whole.history[:2])
    again = train(folder=tmp_path)
    assert again.stopped
    assert again.history == result.history


@pytest.mark.parametrize(
    ("losses", "patience", "over"),
    [
        ([3.0, 2.0, 2.5], None, False),
        ([3.0, 2.0, 2.5], 1, True),
        ([3.0, 2.0, 2.5], 2, False),
        ([3.0, 2.0, 2.5, 2.0], 2, True),
        ([3.0, 2.0, 2.5, 1.9], 2, False),
        ([3.0, 2.0], 2, False),
        ([None, None, None], 1, False),
    ],
)
def test_a_plateau_is_no_lower_loss_for_so_many_epochs(losses, patience, over):
    assert at_plateau(losses, patience) is over


def test_a_training_ends_at_its_plateau_also_after_a_kill(tmp_path):
    """On labels that mean nothing, the validation loss soon rises."""
    images, labels = digits(240)
    noise = np.random.default_rng(0).permutation(labels)
    settings = TrainingSettings(30, batch_size=48, learning_rate=1e-2, patience=2)

    def run(folder=None, after_epoch=None):
        return train_network(
            Tiny(), images, noise, settings, validation=(images[:80], noise[::-1][:80]),
            folder=folder, device="cpu", after_epoch=after_epoch,
        )  # fmt: skip

    result = run()
    losses = [entry["validation_loss"] for entry in result.history]
    assert result.stopped
    assert 3 <= len(losses) < 30
    assert min(losses[:-2]) <= min(losses[-2:])
    assert not at_plateau(losses[:-1], 2)

    def killed(epoch, metrics):
        if epoch == len(losses) - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, killed)
    again = run(tmp_path)
    assert without_seconds(again.history) == without_seconds(result.history)


def test_a_folder_of_another_training_is_refused(tmp_path):
    short = TrainingSettings(1, batch_size=80)
    train(settings=short, folder=tmp_path)
    with pytest.raises(RunError, match=r"holds another training \(different: settings\); choose"):
        train(folder=tmp_path)
    message = "different: augmentation, images, network, seed, validation"
    with pytest.raises(RunError, match=message):
        train_network(Tiny(n_classes=11), *VALIDATION, short, folder=tmp_path, seed=1, device="cpu")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(settings=TrainingSettings(1, batch_size=80), folder="~/run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_training_is_told_from_one_with_other_weights_code_or_augmentation(tmp_path):
    short = TrainingSettings(1, batch_size=80)
    train(settings=short, folder=tmp_path)

    class Other(Tiny):
        def forward(self, x):
            return super().forward(x) * 2

    frozen, marked = Tiny(), Tiny()
    frozen.conv.weight.requires_grad_(False)
    marked.dropout.p = 0.5
    for model in (Tiny(seed=5), Other(), frozen, marked):
        with pytest.raises(RunError, match=r"\(different: network\)"):
            train(model, short, folder=tmp_path)
    for augment in (None, default_augmentation(flip=0.1), lambda x: x):
        with pytest.raises(RunError, match=r"\(different: augmentation\)"):
            train(settings=short, folder=tmp_path, augment=augment)
    assert train(settings=short, folder=tmp_path).n_updates == 3


def test_what_cannot_be_told_from_others_needs_no_folder(tmp_path):
    short, lock = TrainingSettings(1, batch_size=80), threading.Lock()

    def locked(x):
        with lock:
            return x

    with pytest.raises(ValueError, match=r"the augmentation can't be: function's closure is a"):
        train(settings=short, folder=tmp_path, augment=locked)
    assert train(settings=short, augment=locked).n_updates == 3


def test_damaged_folders_are_refused(tmp_path):
    short = TrainingSettings(1, batch_size=80)
    train(settings=short, folder=tmp_path)
    for name in ("best.safetensors", "last.ckpt", "training.json"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[:40])
        with pytest.raises(RunError, match=rf"{name} is damaged"):
            train(settings=short, folder=tmp_path)


# -- options --------------------------------------------------------------------------------


def test_silence_and_the_bar(capfd, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    level = logging.getLogger("lightning.pytorch").level
    short = TrainingSettings(1, batch_size=80)
    train(settings=short)
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    assert not recwarn.list
    assert logging.getLogger("lightning.pytorch").level == level
    train(settings=short, progress=True)
    out, err = capfd.readouterr()
    assert out == ""
    assert "3/3" in err


def test_frozen_parts_stay_as_they_are():
    model = Tiny()
    model.norm.requires_grad_(False)
    before = {k: v.clone() for k, v in model.norm.state_dict().items()}
    conv = model.conv.weight.detach().clone()
    train(model, TrainingSettings(1, batch_size=80))
    for name, value in model.norm.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(model.conv.weight, conv)
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter to train: all of them are frozen"):
        train(model, TrainingSettings(1))


class SolvedHead(Loss):
    """A head that isn't trained but overwritten at the end of each epoch."""

    trains_head = False

    def __init__(self):
        super().__init__()
        self.register_buffer("finished", torch.zeros(()))
        self.seen = []

    def forward(self, model, x, y):
        return CrossEntropyLoss()(model, x, y)

    def finish(self, model, batches):
        assert not model.training
        assert not torch.is_grad_enabled()
        labels = [y for _, y in batches]
        assert torch.cat(labels).tolist() == TRAIN[1].tolist()
        assert sum(len(x) for x, _ in batches) == len(TRAIN[1])  # again, and unaugmented
        assert torch.equal(torch.cat([x for x, _ in batches]), scale(torch.from_numpy(TRAIN[0])))
        self.seen.append(model.head.weight.clone())
        self.finished += 1
        model.head.weight.fill_(float(self.finished))
        model.head.bias.zero_()


def test_a_loss_may_solve_for_the_head(monkeypatch, tmp_path):
    made = []

    def make(output, model):
        made.append(SolvedHead())
        return made[-1]

    monkeypatch.setattr("rankwise.nets.training.make_loss", make)
    model = Tiny()
    start = model.head.weight.detach().clone()

    def kill(epoch, metrics):
        if epoch == 2:
            raise KillError

    with pytest.raises(KillError):
        train(model, TrainingSettings(3, batch_size=80), folder=tmp_path, after_epoch=kill)
    assert torch.equal(made[0].seen[0], start)  # the optimiser left it alone
    result = train(Tiny(), TrainingSettings(3, batch_size=80), folder=tmp_path)
    # The loss's buffer went through the checkpoint; validation saw the head that was solved for.
    assert made[1].finished == 3
    assert result.last_state["head.weight"].unique().tolist() == [3.0]
    assert result.history[0]["validation_loss"] == pytest.approx(math.log(10), abs=1e-3)


def test_bfloat16_mixed_precision_trains():
    result = train(settings=TrainingSettings(2, batch_size=50, precision="bf16-mixed"))
    assert result.last_state["conv.weight"].dtype == torch.float32
    assert result.history[1]["train_loss"] < result.history[0]["train_loss"]


def test_layers_that_work_in_place_leave_the_images_alone():
    images = torch.from_numpy(TRAIN[0]).float().sub(128).div(128).unsqueeze(1)
    before = images.clone()
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 10))
    predict_logits(model, images, device="cpu")
    data = (images, TRAIN[1])
    settings = TrainingSettings(1, batch_size=240, output="varpro")
    train_network(model, *data, settings, validation=data, device="cpu")
    assert torch.equal(images, before)


def test_prediction_leaves_modes_alone():
    model = Tiny().train()
    model.norm.eval()
    predict_logits(model, TRAIN[0], device="cpu")
    assert model.training
    assert not model.norm.training


def test_everything_that_training_adds_up_lies_on_its_device(monkeypatch):
    # The meta device computes nothing, and refuses what lies elsewhere, as a GPU does.
    from rankwise.nets._lightning import TrainingModule

    images, labels = digits(40)
    pair = torch.from_numpy(images), torch.from_numpy(labels)
    settings = TrainingSettings(epochs=1)
    module = TrainingModule(
        Tiny(), CrossEntropyLoss(), pair, pair, 1, settings, 0, augment=None, after_epoch=None
    ).to("meta")
    module.on_train_epoch_start()
    loss = module.training_step((pair[0].to("meta"), pair[1].to("meta")), 0)
    assert loss.device.type == "meta"
    added = []
    monkeypatch.setattr(module, "_share", lambda: (0, 1))
    monkeypatch.setattr(
        module, "_summed", lambda sums, count: added.append(sums) or [0.0, 0.0, 1.0]
    )
    assert module._evaluate() == (0.0, 0.0)
    assert added[0].device.type == "meta"


def test_images_are_kept_on_a_gpu_that_has_room_for_four_times_as_much(monkeypatch):
    class Image:
        nbytes = 100

        def to(self, device):
            return ("there", device)

    free = [800]
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free[0], 10**9))
    gpu, pair = torch.device("cuda"), (Image(), Image())
    assert kept_on(pair, gpu) == (("there", gpu), ("there", gpu))
    assert kept_on(pair, torch.device("cpu")) == pair
    free[0] = 799
    assert kept_on(pair, gpu) == pair

    class Unlucky(Image):
        def to(self, device):
            raise torch.OutOfMemoryError

    free[0] = 800
    unlucky = (Image(), Unlucky())
    assert kept_on(unlucky, gpu) == unlucky, "another process took the room"


def test_batches_are_cut_where_the_images_are():
    images, labels = torch.zeros(10, 4, 4, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64)
    batches = EpochBatches(
        images.to("meta"), labels.to("meta"), 4, 3, 0, epoch=lambda: 0, share=lambda: (0, 1)
    )
    found = list(batches)
    assert [len(y) for _, y in found] == [4, 4, 2]
    assert {x.device.type for x, _ in found} == {"meta"}
