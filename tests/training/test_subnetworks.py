"""Sub-networks: the same model whatever the workers, the interruptions and the device."""

import json
from contextlib import suppress

import numpy as np
import pytest

from rankwise.errors import RunError
from rankwise.networks.probabilities import normalise
from rankwise.networks.quadratic import QuadraticNetwork, glue
from rankwise.training import subnetworks
from rankwise.training.checkpoints import earlier_seconds, timed_on_disk
from rankwise.training.groups import SubnetPlan, draw_samples, group_rng
from rankwise.training.subnetworks import read_subnet, stack, train_subnet, train_subnets
from rankwise.units.multilinear import make_units
from rankwise.units.starts import Start


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = (bunch.images[:400] * 255 / 16).astype(np.uint8)
    return images, np.eye(10)[bunch.target[:400]]


def plan(**options):
    defaults = {
        "units": make_units("bilinear", (8, 8)),
        "n_units": 6,
        "n_samples": 150,
        "start": Start((0.3, 0.6), 1),
        "max_iterations": 4,
    }
    return SubnetPlan(**(defaults | options))


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x.params, y.params)
        np.testing.assert_array_equal(x.active, y.active)
        assert x.report == y.report


def test_any_number_of_workers_gives_the_same(digits):
    one = train_subnets(*digits, plan(), 4, workers=1)
    same(one, train_subnets(*digits, plan(), 4, workers=2))


def test_a_group_depends_on_the_seed_and_its_number_alone(digits):
    alone = train_subnet(*digits, plan(), 42, 3)
    same([alone], train_subnets(*digits, plan(), 4, seed=42)[3:])
    other = train_subnet(*digits, plan(), 43, 3)
    assert not np.array_equal(alone.params, other.params)


def test_interrupted_and_resumed_equals_uninterrupted(digits, tmp_path, monkeypatch):
    whole = train_subnets(*digits, plan(), 4)
    original, calls = subnetworks.train_subnet, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(subnetworks, "train_subnet", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_subnets(*digits, plan(), 4, folder=tmp_path)
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert kept == ["00000.safetensors", "00001.safetensors", "seconds.json"]
    advanced = []
    resumed = train_subnets(*digits, plan(), 4, folder=tmp_path, advance=advanced.append)
    same(whole, resumed)
    assert len(calls) == 5, "finished groups were trained again"
    assert advanced == [2, 1, 1]


def test_files_of_subnets_round_trip(digits, tmp_path):
    (subnet,) = train_subnets(*digits, plan(), 1, folder=tmp_path)
    same([subnet], [read_subnet(tmp_path / "00000.safetensors")])


@pytest.mark.parametrize(
    "change",
    [
        lambda x, t, p: (x[::-1].copy(), t, p, 42),
        lambda x, t, p: (x, t[::-1].copy(), p, 42),
        lambda x, t, p: (x, t, plan(n_units=5), 42),
        lambda x, t, p: (x, t, p, 43),
    ],
    ids=["images", "labels", "plan", "seed"],
)
def test_a_folder_of_another_fit_is_refused(digits, tmp_path, change):
    train_subnets(*digits, plan(), 1, folder=tmp_path)
    images, targets, other, seed = change(*digits, plan())
    with pytest.raises(RunError, match="holds sub-networks of another fit"):
        train_subnets(images, targets, other, 1, seed=seed, folder=tmp_path)


@pytest.mark.parametrize("content", [b"", b"not safetensors", b"\x08" + 7 * b"\0" + b"{}      "])
def test_a_damaged_file_is_trained_again(digits, tmp_path, content):
    whole = train_subnets(*digits, plan(), 2, folder=tmp_path)
    (tmp_path / "00001.safetensors").write_bytes(content)
    same(whole, train_subnets(*digits, plan(), 2, folder=tmp_path))
    same(whole[1:], [read_subnet(tmp_path / "00001.safetensors")])


def test_training_lowers_the_objective_and_says_how_it_ended(digits):
    subnet = train_subnet(*digits, plan(max_iterations=8), 42, 0)
    history = [entry["objective"] for entry in subnet.report["history"]]
    assert history == sorted(history, reverse=True)
    assert history[-1] < 0.9 * history[0]
    assert subnet.report["status"] in ("converged", "max-iterations")
    assert 1 <= subnet.report["rank"] <= 7
    assert subnet.report["n_saturated"] == 0
    assert np.all(subnet.params[~subnet.active] == 0), "pixels outside the window got weight"


@pytest.mark.parametrize("solver", ["minpack", "lbfgs", "gradient-descent", "search"])
def test_every_solver_trains_a_subnet(digits, solver):
    budget = 60 if solver == "search" else 8
    subnet = train_subnet(*digits, plan(solver=solver, max_iterations=budget), 42, 0)
    history = [entry["objective"] for entry in subnet.report["history"]]
    assert subnet.report["objective"] <= history[0]
    assert subnet.report["objective"] < subnet_start_objective(digits)


def subnet_start_objective(digits):
    from rankwise.training.groups import draw_group, variable_projection
    from rankwise.units.basis import UnitBasis

    p = plan(max_iterations=0)
    rows, batch, params, active = draw_group(digits[0], p, 42, 0, None)
    basis = UnitBasis(p.units, batch, params, active)
    return (
        variable_projection(p, len(rows)).fit(basis, digits[1][rows], basis.pack(params)).objective
    )


@pytest.mark.parametrize("start", [Start(), Start((0.3, 0.6), 1)])
def test_the_batched_path_is_the_cpu_path(digits, start):
    """What a GPU runs, here on the CPU in float64: groups in step, inactive parameters masked."""
    options = plan(start=start, dtype="float64", max_iterations=5)
    loop = train_subnets(*digits, options, 3)
    batched = train_subnets(*digits, options, 3, device="cpu:torch")
    for a, b in zip(loop, batched, strict=True):
        np.testing.assert_allclose(a.params, b.params, rtol=1e-5, atol=1e-7)
        np.testing.assert_array_equal(a.active, b.active)
        assert a.report["status"] == b.report["status"]
        assert a.report["objective"] == pytest.approx(b.report["objective"], rel=1e-8)
        assert a.report["rank"] == b.report["rank"]


def test_the_batched_path_keeps_finished_groups(digits, tmp_path):
    train_subnets(*digits, plan(), 2, device="cpu:torch", folder=tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 2
    assert (tmp_path / "seconds.json").exists()


def test_the_batched_path_takes_levenberg_marquardt_only(digits):
    with pytest.raises(ValueError, match="solver 'lbfgs' runs on the CPU only"):
        train_subnets(*digits, plan(solver="lbfgs"), 1, device="cpu:torch")


@pytest.mark.parametrize(
    "images",
    [
        np.full((60, 8, 8), 128, dtype=np.uint8),
        np.repeat(np.random.default_rng(0).integers(0, 255, (2, 8, 8), np.uint8), 30, axis=0),
    ],
    ids=["constant images", "duplicate samples"],
)
@pytest.mark.parametrize("ridge", [0.0, 1e-4])
def test_degenerate_images_end_in_a_status_and_a_usable_model(images, ridge):
    targets = np.eye(2)[np.arange(60) // 30]
    subnet = train_subnet(images, targets, plan(ridge=ridge), 0, 0)
    assert subnet.report["status"] in ("converged", "stalled", "max-iterations")
    assert np.isfinite(subnet.params).all()
    network, _ = glue(plan().units, subnet.params, images, targets)
    assert np.isfinite(network.outputs(images)).all()
    if len(np.unique(images)) == 1:
        assert subnet.report["n_saturated"] == 6
        assert subnet.report["rank"] == 1
        np.testing.assert_allclose(network.outputs(images[:1]), [[0.5, 0.5]], atol=1e-2)


def test_draws_are_without_replacement_and_no_more_than_there_are():
    rows = draw_samples(30, 20, group_rng(0, 0))
    assert len(set(rows)) == 20
    assert len(draw_samples(5, 20, group_rng(0, 0))) == 5


@pytest.mark.parametrize("workers", [1, 2])
def test_outputs_are_features_times_coefficients(digits, workers):
    images, targets = digits
    subnets = train_subnets(images, targets, plan(dtype="float64"), 2)
    params, active = stack(subnets)
    network, _ = glue(
        plan().units, params, images, targets, dtype="float64", n_active=int(active.sum())
    )
    units = plan().units
    phi = units.features(units.flatten(images / 255.0), params)
    expected = np.hstack([phi, np.ones((len(phi), 1))]) @ network.coef
    np.testing.assert_allclose(network.outputs(images, workers=workers), expected, atol=1e-10)
    assert network.n_parameters_units == active.sum()
    assert network.n_parameters_total == active.sum() + 13 * 10
    assert network.outputs(images[:0]).shape == (0, 10)


def test_parameters_of_the_paper():
    """5200 × 29 = 150,800 in the hidden units; 202,810 with the output layer and its constant."""
    units = make_units("symmetric", (28, 28))
    network = QuadraticNetwork(units, np.zeros((29, 5200)), np.zeros((5201, 10)), 29 * 5200)
    assert network.n_parameters_units == 150_800
    assert network.n_parameters_total == 150_800 + 52_010


def test_normalised_outputs():
    outputs = np.array([[0.6, -0.1, 0.5], [0.9, 0.1, 0.3], [-1.0, -2.0, -0.5]])
    plain = normalise(outputs)
    shifted = outputs + (1 - outputs.sum(axis=1, keepdims=True)) / 3
    np.testing.assert_allclose(shifted[0], outputs[0])
    np.testing.assert_allclose(plain[0], [6 / 11, 0, 5 / 11], atol=0.01)
    np.testing.assert_allclose(plain[1], shifted[1], atol=0.01)
    np.testing.assert_allclose(plain.sum(axis=1), 1)
    assert plain.min() > 0
    np.testing.assert_array_equal(np.argsort(plain), np.argsort(outputs))
    squashed = normalise(outputs, squash=True)
    by_hand = 1 / (1 + np.exp(-shifted))
    np.testing.assert_allclose(squashed, by_hand / by_hand.sum(axis=1, keepdims=True))


def test_the_time_of_every_attempt_is_kept(tmp_path):
    with suppress(KeyboardInterrupt), timed_on_disk(tmp_path, "a"):
        raise KeyboardInterrupt
    first = json.loads((tmp_path / "seconds.json").read_text())
    assert first["now"] > 0 == first["earlier"]
    for _ in range(2):
        before = json.loads((tmp_path / "seconds.json").read_text())
        with timed_on_disk(tmp_path, "a"):
            pass
        assert earlier_seconds(tmp_path) == before["earlier"] + before["now"]
    with timed_on_disk(tmp_path, "another fit"):
        pass
    assert earlier_seconds(tmp_path) == 0
    for damage in ("", "[]", '{"key": "a"}', '{"key": "a", "now": "x", "earlier": 0}'):
        (tmp_path / "seconds.json").write_text(damage)
        assert earlier_seconds(tmp_path) == 0
        with timed_on_disk(tmp_path, "a"):
            pass
        assert earlier_seconds(tmp_path) == 0
