"""Every way to train learns, is repeated bit by bit, and goes on after a stop."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from joint_cases import convolutional, training
from rankwise._arrays import blocks
from rankwise.errors import RunError
from rankwise.lowrank import RandomLowRank
from rankwise.training.augment import Augmentation
from rankwise.training.joint_plan import LONG, JointPlan
from rankwise.training.steps import one_cycle, share_of_rate

# -- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"loss": "squared"},
        {"loss": "squared", "output_layer": "running", "solve_every": 2},
        {"augmentation": None},
        {"extra": lambda maps, **_: maps.flip(3).flip(3)},
        {"n_shards": 1},
        {"optimiser": "muon", "schedule": "triangle", "precision": "bfloat16"},
    ],
    ids=["trained", "squared", "running", "unmoved", "extra", "one-shard", "muon"],
)
def test_every_way_to_train_learns(digits, plan):
    images, labels = digits
    run = training(images, **({"epochs": 6} | plan))
    result = run.fit(images[:1200], labels[:1200], validation=(images[1200:], labels[1200:]))
    assert result.status == "finished"
    assert [e["epoch"] for e in result.history] == [1, 2, 3, 4, 5, 6]
    chosen = result.history[result.chosen_epoch - 1]["validation_accuracy"]
    assert chosen > 0.6
    assert run.accuracy(images[1200:], labels[1200:]) == chosen


def test_the_extra_augmentation_is_applied(digits):
    images, labels = digits
    seen = []

    def note(maps, source_id, epoch):
        seen.append((tuple(maps.shape), sorted(source_id), epoch))
        return maps

    training(images, epochs=2, extra=note, n_shards=2).fit(images[:120], labels[:120])
    assert [shape for shape, *_ in seen] == [(60, 1, 8, 8)] * 4
    assert [epoch for *_, epoch in seen] == [0, 0, 1, 1]
    for first, second in ((seen[0], seen[1]), (seen[2], seen[3])):
        assert sorted(first[1] + second[1]) == list(range(120))


def test_low_rank_copies_are_the_same_whatever_the_workers_and_after_a_stop(digits, tmp_path):
    images, labels = digits

    def fit(workers=1, stop=None, path=None, p=0.5):
        plan = {"epochs": 3, "extra": RandomLowRank(0.8, p=p, seed=3)}

        def after(entry):
            if entry["epoch"] == stop:
                raise KeyboardInterrupt

        run = training(images, workers=workers, **plan)
        return run.fit(images[:200], labels[:200], checkpoint=path, after_epoch=after).coef

    whole = fit()
    np.testing.assert_array_equal(fit(workers=3), whole)
    with pytest.raises(KeyboardInterrupt):
        fit(stop=1, path=tmp_path / "joint.safetensors")
    np.testing.assert_array_equal(fit(path=tmp_path / "joint.safetensors"), whole)
    assert not np.array_equal(fit(p=0), whole), "copies make a difference"


@given(st.integers(1, 700), st.integers(1, 9))
def test_shards_are_of_about_one_size(n, n_shards):
    size = JointPlan(n_shards=n_shards).shard_size(n)
    sizes = [block.stop - block.start for block in blocks(n, size)]
    assert len(sizes) <= n_shards
    assert len(sizes) == 1 or min(sizes) > 20
    assert max(sizes) - min(sizes) < max(n_shards, 2)


def test_moments_of_shards_count_by_their_size(digits):
    images, labels = digits
    kept = {}
    for name, n_shards in (("whole", 1), ("parts", 3)):
        run = training(images, n_shards=n_shards, augmentation=None, learning_rate=1e-12)
        with run.threads():
            run.update(images[:98], labels[:98], torch.Generator())
        kept[name] = run.module.mean0
    torch.testing.assert_close(kept["parts"], kept["whole"], rtol=1e-4, atol=1e-6)


SQUARED = {"loss": "squared"}
RUNNING = SQUARED | {"output_layer": "running"}
ALTERNATING = Augmentation(
    rotation=0.0, scale=0.0, shear=0.0, mirror=True, alternate=True, whole=True
)
MUON = {"optimiser": "muon", "precision": "bfloat16", "augmentation": ALTERNATING}


@pytest.mark.parametrize("plan", [SQUARED, RUNNING, MUON], ids=["trained", "running", "muon"])
def test_the_same_seed_gives_the_same_bits_whatever_the_workers(digits, plan):
    images, labels = digits
    plan = plan | {"epochs": 2}
    one, two = training(images, **plan), training(images, workers=3, **plan)
    results = [run.fit(images[:300], labels[:300]) for run in (one, two)]
    np.testing.assert_array_equal(results[0].coef, results[1].coef)
    for a, b in zip(one.module.parameters(), two.module.parameters(), strict=True):
        assert torch.equal(a, b)


LONGER = {"augmentation": Augmentation(), "long": Augmentation(erase=0.5), "epochs": LONG}


@pytest.mark.parametrize(
    "plan", [SQUARED, RUNNING, MUON, LONGER], ids=["trained", "running", "muon", "long"]
)
def test_an_interrupted_training_goes_on_to_the_same_numbers(digits, tmp_path, plan):
    images, labels = digits
    n = 120 if plan is LONGER else 500
    plan = {"epochs": 4} | plan
    validation = (images[600:800], labels[600:800])

    def fit(path=None, stop=None):
        run = training(images, **plan)

        def after(entry):
            if entry["epoch"] == stop:
                raise KeyboardInterrupt

        return run.fit(
            images[:n], labels[:n], validation=validation, checkpoint=path, key="a",
            after_epoch=after,
        )  # fmt: skip

    path = tmp_path / "joint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(path, stop=2)
    resumed, whole = fit(path), fit()
    assert resumed.resumed == 2
    np.testing.assert_array_equal(resumed.coef, whole.coef)
    assert resumed.chosen_epoch == whole.chosen_epoch
    for a, b in zip(resumed.history, whole.history, strict=True):
        assert {k: v for k, v in a.items() if k != "seconds"} == {
            k: v for k, v in b.items() if k != "seconds"
        }
    finished = fit(path)
    assert finished.resumed == plan["epochs"]
    np.testing.assert_array_equal(finished.coef, whole.coef)


def test_a_checkpoint_of_another_fit_is_refused_and_a_damaged_one_ignored(digits, tmp_path):
    images, labels = digits
    path = tmp_path / "joint.safetensors"
    run = training(images, epochs=1)
    run.fit(images[:120], labels[:120], checkpoint=path, key="a")
    with pytest.raises(RunError, match="holds the training of another fit"):
        training(images, epochs=1).fit(images[:120], labels[:120], checkpoint=path, key="b")
    path.write_bytes(path.read_bytes()[:100])
    again = training(images, epochs=1).fit(images[:120], labels[:120], checkpoint=path, key="b")
    assert again.resumed == 0


@pytest.mark.parametrize(
    ("n", "accuracies", "chosen"),
    [
        (100, [0.2, 0.7, 0.6, 0.61], 4),  # two standard errors are 0.095
        (100, [0.2, 0.7, 0.6, 0.6], 2),
        (1000, [0.2, 0.7, 0.6, 0.65], 2),
        (1000, [0.2, 0.7, 0.6, 0.68], 4),
        (100, [0.9, 1.0, 0.9, 0.99], 4),
        (100, [0.9, 1.0, 0.9, 0.95], 2),
        (100, [0.0, 0.0, 0.0, 0.0], 4),
    ],
)
def test_the_last_epoch_is_taken_unless_it_is_surely_worse(digits, n, accuracies, chosen, tmp_path):
    """Of many epochs the best on few images is the luckiest."""
    images, labels = digits
    found = []
    for _ in range(2):  # the second time from the checkpoint of the first, which had ended
        run, after = training(images, epochs=4), []
        following = iter(accuracies)
        run.accuracy = lambda *_, following=following: next(following)
        result = run.fit(
            images[:120], labels[:120], validation=(images[:n], labels[:n]),
            checkpoint=tmp_path / "joint.safetensors", key="a",
            after_epoch=lambda entry, run=run, after=after: after.append(run._tensors()),
        )  # fmt: skip
        assert (result.status, result.chosen_epoch) == ("finished", chosen)
        found.append((after, run._tensors()))
    (kept, first), (none, second) = found
    assert not none
    for name, tensor in kept[chosen - 1].items():
        np.testing.assert_array_equal(tensor, first[name])
        np.testing.assert_array_equal(tensor, second[name])


def test_training_stops_early(digits):
    images, labels = digits
    run = training(images, epochs=9)
    result = run.fit(images[:120], labels[:120], after_epoch=lambda e: e["epoch"] == 2)
    assert (result.status, len(result.history), result.chosen_epoch) == ("early-stop", 2, 2)
    # Validation labels that are all wrong never get better.
    run = training(images, epochs=9, patience=2, learning_rate=1e-9)
    wrong = (images[:50], np.full(50, 99))
    result = run.fit(images[:120], labels[:120], validation=wrong)
    assert result.status == "finished", "an equal accuracy counts as the best so far"
    accuracies = iter([0.9, 0.5, 0.4, 0.3])
    run = training(images, epochs=9, patience=2)
    run.accuracy = lambda *_: next(accuracies)
    result = run.fit(images[:120], labels[:120], validation=wrong)
    assert (result.status, len(result.history), result.chosen_epoch) == ("early-stop", 3, 1)


def test_a_training_that_stopped_early_stays_stopped(digits, tmp_path):
    images, labels = digits
    accuracies = iter([0.9, 0.5, 0.4])
    results = []
    for _ in range(2):
        run = training(images, epochs=9, patience=2)
        run.accuracy = lambda *_: next(accuracies)
        path = tmp_path / "joint.safetensors"
        held = (images[:50], labels[:50])
        results.append(run.fit(images[:120], labels[:120], validation=held, checkpoint=path))
    first, again = results
    assert again.status == first.status == "early-stop"
    assert (len(again.history), again.resumed) == (3, 3)
    np.testing.assert_array_equal(again.coef, first.coef)


@pytest.mark.parametrize("plan", [{}, {"loss": "squared", "output_layer": "running"}])
def test_a_loss_that_is_not_finite_ends_the_training(digits, plan):
    images, labels = digits
    broken = images.astype(np.float32)
    broken[3] = np.nan
    module = convolutional(images)
    result = training(images, module=module, **plan).fit(broken[:120], labels[:120])
    assert (result.status, result.chosen_epoch) == ("non-finite", 0)
    for parameter, start in zip(
        module.parameters(), convolutional(images).parameters(), strict=True
    ):
        assert torch.equal(parameter, start), "the start is kept"


def test_bfloat16_rounds_maps_and_filters_and_nothing_that_is_kept(digits):
    images, labels = digits
    exact, rounded = training(images), training(images, precision="bfloat16")
    maps = torch.from_numpy(images[:50] / 255.0).float()[:, None]
    features = [run.module(maps, [], run._dtype) for run in (exact, rounded)]
    assert features[1].dtype == torch.float32
    assert not torch.equal(*features)
    torch.testing.assert_close(features[1], features[0], rtol=0.05, atol=0.05)
    result = rounded.fit(images[:120], labels[:120])
    assert (result.precision, exact.precision) == ("bfloat16", "float32")
    assert {t.dtype for t in rounded._tensors().values()} == {torch.float32}
    # Predictions don't round: the network folds float32 parameters, and computes with them.
    network = rounded.module.network(result.coef, softmax=True)
    np.testing.assert_allclose(
        network.outputs(images[:100]), rounded.outputs(images[:100]), rtol=1e-3, atol=1e-3
    )


def test_a_training_goes_on_in_the_precision_that_it_began_in(digits, tmp_path):
    images, labels = digits
    path, few = tmp_path / "joint.safetensors", (images[:120], labels[:120])

    def stop(entry):
        raise KeyboardInterrupt

    whole = training(images, epochs=2, precision="bfloat16").fit(*few)
    with pytest.raises(KeyboardInterrupt):
        training(images, epochs=2, precision="bfloat16").fit(
            *few, checkpoint=path, after_epoch=stop
        )
    message = (
        f"{tmp_path} holds a training begun in bfloat16, and precision 'float32' was asked for; "
        "'bfloat16' or 'auto' go on with it, or use another folder"
    )
    with pytest.raises(RunError) as error:
        training(images, epochs=2).fit(*few, checkpoint=path)
    assert str(error.value) == message
    run = training(images, epochs=2, precision="auto")
    run._compute_in("float32")  # as on a processor without instructions for it
    result = run.fit(*few, checkpoint=path)
    assert (result.precision, result.resumed) == ("bfloat16", 1)
    np.testing.assert_array_equal(result.coef, whole.coef)


def test_the_schedules_rise_then_fall():
    straight = [share_of_rate("triangle", x, 0.25) for x in np.linspace(0, 1, 101)]
    assert straight[0] == pytest.approx(0.2)
    assert straight[25] == max(straight) == pytest.approx(1.0)
    assert straight[100] == pytest.approx(0.0)
    np.testing.assert_allclose(np.diff(straight[25:]), -1 / 75)
    rates = [one_cycle(x, 0.25) for x in np.linspace(0, 1, 101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[25] == max(rates) == pytest.approx(1.0)
    assert rates[100] == pytest.approx(1e-4)
    assert np.all(np.diff(rates[:26]) > 0)
    assert np.all(np.diff(rates[25:]) < 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"augmentation": None, "long": Augmentation()},
            "moves of long trainings need an augmentation in short ones, got none",
        ),
        ({"loss": "hinge"}, "unknown loss 'hinge'; accepted: cross-entropy, squared"),
        ({"output_layer": "fixed"}, "unknown output_layer 'fixed'; accepted: trained, running"),
        ({"output_layer": "running"}, "a running output layer needs loss 'squared'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"n_shards": 0}, "n_shards must be at least 1, got 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0.0"),
        ({"matrix_rate": -1.0}, "matrix_rate must be positive, got -1.0"),
        ({"time_budget": 0.0}, "time_budget must be positive, got 0.0"),
        ({"optimiser": "sgd"}, "unknown optimiser 'sgd'; accepted: adamw, muon"),
        ({"schedule": "flat"}, "unknown schedule 'flat'; accepted: one-cycle, triangle"),
        ({"precision": "int8"}, "unknown precision 'int8'; accepted: float32, bfloat16, auto"),
    ],
)
def test_what_is_not_accepted(options, message):
    with pytest.raises(ValueError) as error:
        JointPlan(**options)
    assert message in str(error.value)
