"""Joint training: gradients, moments, the running output layer, resumption."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from rankwise._arrays import blocks
from rankwise.errors import RunError
from rankwise.lowrank import RandomLowRank
from rankwise.networks.convolutional import as_maps
from rankwise.training import joint
from rankwise.training.affine import moved
from rankwise.training.augment import Augmentation, channel_statistics
from rankwise.training.joint import JointTraining
from rankwise.training.joint_plan import LONG, JointPlan
from rankwise.training.modules import ConvolutionalModule, UnitModule
from rankwise.training.steps import Clock, one_cycle, share_of_rate
from rankwise.units.convolutional import ConvolutionalUnits, Layer
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start, random_units

UNITS = ConvolutionalUnits((8, 8), (Layer(6, pool=2), Layer(8, pool=2)))


@pytest.fixture(scope="module")
def digits():
    bunch = load_digits()
    return (bunch.images * 255 / 16).astype(np.uint8), bunch.target.astype(np.int64)


def convolutional(images, seed=0, units=UNITS):
    center, scale = channel_statistics(images)
    return ConvolutionalModule(units, center, scale, torch.Generator().manual_seed(seed))


def windowed(images, n_units=12, activation="tanh"):
    units = make_units("bilinear", (8, 8), activation=activation)
    start = Start(window=(0.4, 0.8), smooth=1)
    rows = images[:100].astype(np.float64) / 255
    return UnitModule(units, *random_units(units, n_units, rows, start, np.random.default_rng(0)))


def training(images, *, workers=1, module=None, **plan):
    options = {"epochs": 3, "batch_size": 60, "augmentation": Augmentation()} | plan
    chosen = convolutional(images) if module is None else module
    return JointTraining(chosen, JointPlan(**options), 10, workers=workers)


# -- gradients --------------------------------------------------------------------------------


def difference_quotients(function, tensor, step=1e-6):
    result = torch.zeros_like(tensor)
    flat, out = tensor.data.view(-1), result.view(-1)
    for i in range(len(flat)):
        kept = float(flat[i])
        flat[i] = kept + step
        above = function()
        flat[i] = kept - step
        below = function()
        flat[i] = kept
        out[i] = (above - below) / (2 * step)
    return result


@pytest.mark.parametrize("activation", ["tanh", "silu"])
@pytest.mark.parametrize("normalised", [True, False])
def test_gradients_of_convolutional_units_equal_difference_quotients(activation, normalised):
    units = ConvolutionalUnits((6, 6), (Layer(3, pool=2), Layer(2)), activation=activation)
    rng = np.random.default_rng(0)
    images = rng.random((5, 6, 6))
    module = convolutional(images.astype(np.float32), units=units).double()
    maps = torch.from_numpy(images)[:, None]
    weights = torch.from_numpy(rng.standard_normal((5, 2)))

    def objective():
        return (module(maps, [] if normalised else None) * weights).sum()

    parameters = list(module.parameters())
    gradients = torch.autograd.grad(objective(), parameters)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        expected = difference_quotients(lambda: float(objective().detach()), parameter)
        np.testing.assert_allclose(gradient.numpy(), expected.numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("activation", ["tanh", "relu", "softplus", "silu", "gelu"])
def test_the_gradient_at_a_fixed_solved_layer_is_that_of_the_projected_functional(
    digits, activation
):
    images, labels = digits
    module = windowed(images, 5, activation)
    maps = torch.from_numpy(images[:40] / 255.0)[:, None]
    targets = torch.eye(10, dtype=torch.float64)[labels[:40]]
    ridge = 0.3

    def features():
        phi = module(maps)
        return torch.cat([phi, torch.ones_like(phi[:, :1])], dim=1)

    def solved(phi):
        damped = phi.T @ phi + ridge * torch.eye(phi.shape[1], dtype=phi.dtype)
        return torch.linalg.solve(damped, phi.T @ targets)

    def projected():
        phi = features()
        coef = solved(phi)
        return float(
            0.5 * (targets - phi @ coef).square().sum() + 0.5 * ridge * coef.square().sum()
        )

    phi = features()
    coef = solved(phi.detach())
    (0.5 * (targets - phi @ coef).square().sum()).backward()
    with torch.no_grad():
        expected = difference_quotients(projected, module.params)
    np.testing.assert_allclose(module.params.grad.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_shards_add_up_to_the_gradient_of_the_batch(digits):
    images, labels = digits
    whole = training(images, module=windowed(images).float(), n_shards=1, augmentation=None)
    parts = training(images, module=windowed(images).float(), n_shards=4, augmentation=None)
    for one in (whole, parts):
        with torch.no_grad():
            one.coef += torch.linspace(-1, 1, one.coef.numel()).reshape(one.coef.shape)
        with one.threads():
            one.update(images[:50], labels[:50], torch.Generator())
    for a, b in zip(whole.trained, parts.trained, strict=True):
        np.testing.assert_allclose(a.grad.numpy(), b.grad.numpy(), rtol=1e-4, atol=1e-6)


# -- moments ----------------------------------------------------------------------------------


def test_the_moments_fold_into_the_network(digits):
    images, labels = digits
    run = training(images)
    result = run.fit(images[:600], labels[:600])
    network = run.module.network(result.coef, softmax=True)
    np.testing.assert_allclose(
        network.outputs(images[:100]), run.outputs(images[:100]), rtol=1e-3, atol=1e-3
    )


def test_normalised_forms_have_unit_deviation_on_the_batch(digits):
    images, _ = digits
    units = ConvolutionalUnits((8, 8), (Layer(4),), activation="softplus", grid=8)
    module = convolutional(images, units=units)
    features = module(torch.from_numpy(images[:200] / 255.0).float()[:, None], [])
    q = torch.log(torch.expm1(features)).reshape(200, 4, 64)
    np.testing.assert_allclose(q.mean(dim=(0, 2)).detach(), 0, atol=1e-3)
    np.testing.assert_allclose(q.std(dim=(0, 2)).detach(), 1, atol=1e-2)


# -- the running output layer -------------------------------------------------------------------


def test_a_running_layer_begins_with_a_full_window(digits):
    """A solution on the first batch alone would fit its 30 samples, and nothing else."""
    images, labels = digits
    run = training(
        images, module=windowed(images, 60).float(), loss="squared", output_layer="running",
        batch_size=30, learning_rate=1e-12, augmentation=None, epochs=1, solve_every=1,
    )  # fmt: skip
    accuracies, solve = [], run.solve

    def note():
        solve()
        accuracies.append(run.accuracy(images, labels))

    run.solve = note
    run.fit(images[:900], labels[:900])
    assert len(accuracies) == 900 // 30 + 1
    assert min(accuracies) > 0.8


@pytest.mark.parametrize("erase", [0.0, 0.5])
def test_a_running_layer_begins_with_erased_images(digits, erase):
    images, labels = digits
    run = training(
        images, module=windowed(images).float(), loss="squared", output_layer="running",
        augmentation=Augmentation(erase=erase), epochs=1,
    )  # fmt: skip
    seen, module = [], run.module.forward
    run.module.forward = lambda maps, *given: (seen.append(maps), module(maps, *given))[1]
    run.solve_first(images[:60], labels[:60], torch.Generator().manual_seed(0))
    changed = Augmentation().draw(60, (8, 8), torch.Generator().manual_seed(0))
    same = torch.isclose(seen[0], moved(as_maps(images[:60]), changed), atol=1e-5)
    assert bool(same.all()) == (erase == 0)


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
    plan = {"epochs": 4} | plan
    validation = (images[600:800], labels[600:800])

    def fit(path=None, stop=None):
        run = training(images, **plan)

        def after(entry):
            if entry["epoch"] == stop:
                raise KeyboardInterrupt

        return run.fit(
            images[:500], labels[:500], validation=validation, checkpoint=path, key="a",
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


def test_alternating_mirror_images_show_each_image_both_ways_in_two_epochs(digits):
    images, labels = digits
    images = np.tile(np.arange(8, dtype=np.uint8) * 20, (90, 8, 1))  # brighter to the right
    seen = np.zeros((2, 90), dtype=bool)

    def note(maps, source_id, epoch):
        seen[epoch, source_id] = (maps[:, 0, 4, 2] > maps[:, 0, 4, 5]).numpy()
        return maps

    still = Augmentation(rotation=0.0, scale=0.0, shear=0.0, shift=0.0, mirror=True, alternate=True)
    run = training(images, epochs=2, augmentation=still, extra=note, batch_size=90)
    run.fit(images, labels[:90])
    assert 25 < seen[0].sum() < 65
    assert (seen[0] != seen[1]).all()


def moves_of_epochs(run, images, labels, **options):
    """The moves of each epoch of a training."""
    found, epoch = [], run._epoch
    run._epoch = lambda *given: (found.append(run.moves), epoch(*given))[1]
    run.fit(images[:120], labels[:120], **options)
    return found


@pytest.mark.parametrize("epochs", [LONG - 1, LONG])
def test_moves_of_a_long_training_are_those_of_all_its_epochs(digits, epochs):
    images, labels = digits
    usual, long = Augmentation(), Augmentation(shift=0.2, erase=0.5)
    run = training(images, epochs=epochs, augmentation=usual, long=long)
    assert moves_of_epochs(run, images, labels) == [long if epochs == LONG else usual] * epochs
    alone = training(images, epochs=epochs, augmentation=usual)
    assert moves_of_epochs(alone, images, labels) == [usual] * epochs


@pytest.mark.parametrize(("early", "late"), [(1.2, 0.8), (0.8, 1.2)])
def test_moves_change_no_more_behind_a_quarter_of_a_budget(digits, tmp_path, early, late):
    images, labels = digits
    usual, long = Augmentation(), Augmentation(shift=0.2, erase=0.5)
    passed, path = [0.0], tmp_path / "joint.safetensors"

    def begun():
        run = training(images, epochs=200, time_budget=1.0, augmentation=usual, long=long)
        update = run.update

        def timed(*given, **options):
            passed[0] += (early if passed[0] < LONG / 4 else late) / 2
            return update(*given, **options)

        run.update, run._clock = timed, Clock(float(LONG), now=lambda: passed[0])
        return run

    found = moves_of_epochs(begun(), images, labels)
    # Of epochs that take more time than a long training's at first, and less later.
    assert found[1:] == [usual if early > 1 else long] * (len(found) - 1)

    def stop(entry):
        if entry["epoch"] == LONG // 2:
            raise KeyboardInterrupt

    passed[0] = 0.0
    with pytest.raises(KeyboardInterrupt):
        moves_of_epochs(begun(), images, labels, checkpoint=path, after_epoch=stop)
    passed[0] = 0.0
    run = begun()
    start = run._clock.start
    run._clock.start = lambda: (start(), run._clock.add(LONG / 2))
    goes_on = moves_of_epochs(run, images, labels, checkpoint=path)
    assert set(goes_on) == {found[-1]}


@pytest.mark.parametrize(("expected", "is_long"), [(LONG - 5, False), (LONG + 5, True)])
def test_a_time_budget_is_long_by_the_time_that_epochs_take(digits, expected, is_long):
    images, labels = digits
    usual, long = Augmentation(), Augmentation(shift=0.2, erase=0.5)
    run = training(images, epochs=200, time_budget=1.0, augmentation=usual, long=long)
    passed, update = [0.0], run.update

    def timed(*given, **options):
        passed[0] += 0.5  # two updates an epoch
        return update(*given, **options)

    run.update, run._clock = timed, Clock(float(expected), now=lambda: passed[0])
    found = moves_of_epochs(run, images, labels)
    assert len(found) == expected
    # Nothing is known before the first epoch is over.
    assert found == [usual] + [long if is_long else usual] * (expected - 1)
    # No more epochs are to be expected than are planned, whatever the time.
    few = training(images, epochs=3, time_budget=1e6, augmentation=usual, long=long)
    assert moves_of_epochs(few, images, labels) == [usual] * 3


def test_squares_are_erased_in_the_images_that_are_trained_on(digits):
    images, labels = digits
    still = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}
    seen = []

    def note(maps, source_id, epoch):
        seen.append((maps.clone(), source_id))
        return maps

    whole = Augmentation(**still, erase=0.5)
    run = training(images, epochs=1, augmentation=whole, extra=note, batch_size=90)
    run.fit(images, labels)
    maps, rows = seen[0]
    before = as_maps(images[rows])
    kept = torch.isclose(maps, before, atol=1e-5)
    # A square of 4 of 8 pixels has its centre inside, so that at least 2 × 2 lie in the image.
    grey = torch.isclose(maps, before.mean(dim=(2, 3), keepdim=True), atol=1e-5)
    assert (kept | grey).all()
    erased = (grey & ~kept).sum(dim=(1, 2, 3))
    assert erased.float().mean() > 4
    assert erased.max() <= 16


def test_a_time_budget_ends_the_training_in_the_middle_of_an_epoch(digits):
    images, labels = digits
    seconds = iter(range(1000))
    run = training(images, epochs=50, batch_size=60, time_budget=1.0)
    rates, set_rate = [], run.set_rate
    run.set_rate = lambda done: rates.append(done) or set_rate(done)
    run._clock = Clock(40.0, now=lambda: float(next(seconds)))
    result = run.fit(images[:600], labels[:600], validation=(images[600:700], labels[600:700]))
    assert result.status == "finished"
    # Ten updates an epoch, a second each; what validation takes is kept of the forty.
    assert 3 <= len(result.history) <= 4
    assert 25 < len(rates) < 40
    assert rates == sorted(rates)
    assert rates[-1] > 0.9, "the schedule ends with the budget"


def counting(step=1.0):
    """A clock that moves on by as much each time it is read."""
    readings = itertools.count(0.0, step)
    return lambda: next(readings)


def test_what_is_kept_of_a_budget_shortens_the_end_of_the_schedule(digits):
    images, labels = digits
    rates = []
    for spent in (0.0, 20.0):
        run = training(images, epochs=50, time_budget=1.0)
        done, set_rate = [], run.set_rate
        run.set_rate = lambda share, done=done, kept=set_rate: done.append(share) or kept(share)
        run._clock = Clock(40.0, now=counting())
        run.fit(images[:600], labels[:600], spent=spent)
        rates.append(done)
    whole, half = rates
    assert max(whole[0], half[0]) < 0.1, "it begins at its beginning"
    assert min(whole[-1], half[-1]) > 0.9
    assert len(half) < 0.6 * len(whole)


def test_what_is_behind_is_timed_again_and_the_shorter_time_kept(digits):
    """Where others had the processor the first time, half of a budget was left unused."""
    images, labels = digits
    updates = []
    for times in ((0.0, 0.0), (30.0, 30.0), (30.0, 0.0), (0.0, 30.0)):
        run = training(images, epochs=50, time_budget=1.0)
        done, set_rate = [], run.set_rate
        run.set_rate = lambda share, done=done, kept=set_rate: done.append(share) or kept(share)
        run._clock = Clock(40.0, now=counting(0.5))
        told = iter(times)
        run.fit(images[:600], labels[:600], behind=lambda told=told: next(told))
        assert done[-1] > 0.9
        assert next(told, None) is None, "twice"
        updates.append(len(done))
    quiet, busy, busy_first, busy_later = updates
    assert busy < 0.4 * quiet
    assert busy_first > 0.8 * quiet
    assert busy_later == quiet
    # Without a budget nothing is timed.
    training(images, epochs=1).fit(images[:120], labels[:120], behind=lambda: 1 / 0)


def test_a_budget_that_is_over_stays_over(digits, tmp_path):
    """A finished fit is repeated from its checkpoint, not gone on with, however fast it is now."""
    images, labels = digits
    results = []
    for _ in range(2):
        run = training(images, epochs=50, time_budget=1.0)
        run._clock = Clock(30.0, now=counting(1.0 if not results else 0.001))
        path = tmp_path / "joint.safetensors"
        results.append(run.fit(images[:600], labels[:600], checkpoint=path))
    first, again = results
    assert 1 < len(first.history) == len(again.history) == again.resumed < 50
    np.testing.assert_array_equal(again.coef, first.coef)


def test_a_budget_that_is_over_after_a_stop_stays_over(digits, tmp_path):
    images, labels = digits
    path = tmp_path / "joint.safetensors"

    def stop(entry):
        if entry["epoch"] == 2:
            raise KeyboardInterrupt

    run = training(images, epochs=5, time_budget=1e6)
    with pytest.raises(KeyboardInterrupt):
        run.fit(images[:120], labels[:120], checkpoint=path, after_epoch=stop)
    for budget in (1e-9, 1e6):
        run = training(images, epochs=5, time_budget=budget)
        assert len(run.fit(images[:120], labels[:120], checkpoint=path).history) == 2


@pytest.mark.parametrize(("budget", "cut"), [(7.0, True), (2.0, True), (1000.0, False)])
def test_a_budget_under_one_epoch_says_what_one_takes(digits, monkeypatch, tmp_path, budget, cut):
    images, labels = digits
    run = training(images, epochs=2, time_budget=1.0)
    run._clock = Clock(budget, now=counting())
    shares, set_rate = [], run.set_rate
    run.set_rate = lambda done: shares.append(done) or set_rate(done)
    monkeypatch.setattr(joint, "time", SimpleNamespace(perf_counter=counting()))
    path = tmp_path / "joint.safetensors"
    result = run.fit(images[:600], labels[:600], checkpoint=path)
    # A second before, ten updates of a second, and a second around each of those there were.
    n = len(shares) if budget > 2 else 1
    assert result.needs == (1 + 10 + n + 1 if cut else None)
    assert (n < 10) == cut
    again = training(images, epochs=2, time_budget=1.0)
    again._clock = Clock(budget, now=counting())
    assert again.fit(images[:600], labels[:600], checkpoint=path).needs == result.needs


@pytest.mark.parametrize(("budget", "n"), [(13.5, 5), (5.0, 1)])
def test_the_first_update_is_slow_and_the_others_are_not(digits, monkeypatch, budget, n):
    images, labels = digits
    run, update, passed = training(images, epochs=2, time_budget=1.0), JointTraining.update, [0.0]
    monkeypatch.setattr(joint, "time", SimpleNamespace(perf_counter=lambda: passed[0]))
    run._clock = Clock(budget, now=lambda: passed[0])
    calls = []

    def slow(*given, **options):
        passed[0] += 1.0 if calls else 10.0
        calls.append(1)
        return update(run, *given, **options)

    run.update = slow
    # Ten updates, the first of ten seconds; where it is the only one, another is timed.
    assert run.fit(images[:600], labels[:600]).needs == 10 + 9
    assert len(calls) == n + (n == 1)


@pytest.mark.parametrize("plan", [{}, {"extra": RandomLowRank(seed=0)}], ids=["moves", "copies"])
def test_the_update_that_only_tells_the_time_changes_nothing(digits, plan):
    images, labels = digits
    results = []
    for timed in (True, False):
        run = training(images, epochs=5, time_budget=1e-9, **plan)
        if not timed:
            run._needed = lambda *_: 1.0
        results.append(run.fit(images[:300], labels[:300]))
        results.append(run.outputs(images[:40]))
    assert results[0].needs != results[2].needs == 1.0
    np.testing.assert_array_equal(results[0].coef, results[2].coef)
    np.testing.assert_array_equal(results[1], results[3])


def test_one_update_longer_than_the_budget_is_told_too(digits):
    images, labels = digits
    run = training(images, epochs=5, batch_size=300, time_budget=1e-9)
    assert run.fit(images[:300], labels[:300]).needs > 1e-9


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


@pytest.mark.parametrize(("budget", "spent"), [(1e-9, 0.0), (1e6, 1e6)])
def test_a_budget_that_is_used_up_gives_one_step(digits, budget, spent):
    images, labels = digits
    run = training(images, epochs=5, time_budget=budget)
    result = run.fit(images[:300], labels[:300], spent=spent)
    assert len(result.history) == 1
    assert np.isfinite(result.coef).all()


def test_time_that_went_by_before_counts(digits, tmp_path):
    images, labels = digits
    path = tmp_path / "joint.safetensors"
    run = training(images, epochs=2, time_budget=1e6)
    before = run.fit(images[:120], labels[:120], checkpoint=path)
    run = training(images, epochs=2, time_budget=1e6)
    run._clock = Clock(sum(e["seconds"] for e in before.history) / 2)
    again = run.fit(images[:120], labels[:120], checkpoint=path)
    assert len(again.history) == again.resumed == 2


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
