"""Learning from a larger network: the loss, the teacher's outputs, and whole fits."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.datasets import load_digits

from rankwise import ConvolutionalClassifier, TrainingOptions
from rankwise.errors import RunError
from rankwise.estimators.models import load_model
from rankwise.estimators.options import classifier_of
from rankwise.networks.convolutional import as_maps
from rankwise.training import convolutional_fitting, expectation, joint
from rankwise.training.joint import JointTraining
from rankwise.training.joint_plan import JointPlan
from rankwise.training.teaching import (
    TEMPERATURE,
    Teacher,
    divergence,
    read_teacher,
    write_teacher,
)


@pytest.fixture(scope="module")
def digits():
    bunch = load_digits()
    return (bunch.images * 255 / 16).astype(np.uint8), bunch.target.astype(np.int64)


@pytest.fixture(scope="module")
def taught(digits):
    images, labels = digits
    model = ConvolutionalClassifier("nano", training=TrainingOptions(teacher="tiny"), epochs=3)
    return model.fit(images[:600], labels[:600])


def random_outputs(seed, n=7, k=4):
    generator = torch.Generator().manual_seed(seed)
    return 6 * torch.randn(n, k, generator=generator, dtype=torch.float64)


def test_the_divergence_is_that_of_softened_probabilities():
    ours, wanted = random_outputs(0), random_outputs(1)
    p, q = (log_softmax(x.numpy() / TEMPERATURE, axis=1) for x in (wanted, ours))
    each = TEMPERATURE**2 * np.sum(np.exp(p) * (p - q), axis=1)
    assert float(divergence(ours, wanted)) == pytest.approx(each.mean(), rel=1e-12)
    assert float(divergence(wanted, wanted)) == pytest.approx(0, abs=1e-14)
    assert float(divergence(ours, wanted + 5.0)) == pytest.approx(each.mean(), rel=1e-12)
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 0.5, 1.0, 1.0], dtype=torch.float64)
    expected = np.mean(each * weights.numpy())
    assert float(divergence(ours, wanted, weights)) == pytest.approx(expected, rel=1e-12)


def test_its_gradient_is_the_difference_of_softened_probabilities():
    ours, wanted = random_outputs(2).requires_grad_(), random_outputs(3)
    (found,) = torch.autograd.grad(divergence(ours, wanted), ours)
    softened = [(x / TEMPERATURE).softmax(dim=1) for x in (ours.detach(), wanted)]
    expected = TEMPERATURE * (softened[0] - softened[1]) / len(ours)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: divergence(x, wanted), ours)


@pytest.mark.parametrize(("softmax", "factor"), [(True, 1.0), (False, 8.0)])
def test_a_teacher_says_logits_of_maps(taught, digits, softmax, factor):
    images, _ = digits
    network = replace(taught.network_, softmax=softmax)
    expected = factor * network.outputs(images[600:640])
    maps = as_maps(images[600:640])
    found = Teacher(network).on("cpu", None)(maps)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-4)
    rough = Teacher(network).on("cpu", torch.bfloat16)(maps)
    assert rough.dtype == torch.float32
    assert np.abs(rough.numpy() - expected).max() < 0.1 * np.abs(expected).max()


def test_a_fit_learns_from_the_teacher_and_tells_its_time(taught, digits):
    images, labels = digits
    assert taught.n_parameters_total_ == 831, "only the small one is kept"
    assert 0 < taught.seconds_["teacher"] < taught.seconds_["total"]
    parts = sum(taught.seconds_[name] for name in ("teacher", "joint", "glue"))
    assert taught.seconds_["total"] == pytest.approx(parts, rel=0.05)
    alone = ConvolutionalClassifier("nano", epochs=3).fit(images[:600], labels[:600])
    assert "teacher" not in alone.seconds_
    assert not np.array_equal(alone.outputs(images[:20]), taught.outputs(images[:20]))


def test_the_same_seed_gives_the_same_model_whatever_the_threads(taught, digits):
    images, labels = digits
    again = clone(taught).set_params(n_jobs=2).fit(images[:600], labels[:600])
    np.testing.assert_array_equal(again.outputs(images), taught.outputs(images))


def test_the_teacher_counts_in_a_fit(digits):
    """What is learned depends on whom it is learned from."""
    images, labels = digits
    found = [
        ConvolutionalClassifier("nano", training=TrainingOptions(teacher=teacher), epochs=2).fit(
            images[:400], labels[:400]
        )
        for teacher in ("tiny", "small")
    ]
    assert not np.array_equal(*(model.outputs(images[:20]) for model in found))


def test_an_interrupted_fit_goes_on_in_the_teacher_or_behind_it(taught, digits, tmp_path):
    images, labels = digits
    folder = tmp_path / "kept"
    model = clone(taught).fit(images[:600], labels[:600], checkpoint_dir=folder)
    np.testing.assert_array_equal(model.outputs(images), taught.outputs(images))
    (folder / "joint.safetensors").unlink()  # as if the teacher had just been finished
    kept = (folder / "teacher" / "network.safetensors").read_bytes()
    model = clone(taught).fit(images[:600], labels[:600], checkpoint_dir=folder)
    np.testing.assert_array_equal(model.outputs(images), taught.outputs(images))
    assert 0 < model.seconds_["teacher"] <= model.seconds_["earlier"] < model.seconds_["total"]
    (folder / "joint.safetensors").unlink()
    (folder / "teacher" / "network.safetensors").write_bytes(kept[:-9])  # as if damaged
    model = clone(taught).fit(images[:600], labels[:600], checkpoint_dir=folder)
    np.testing.assert_array_equal(model.outputs(images), taught.outputs(images))


def test_what_is_kept_of_a_teacher_is_all_of_it(digits, tmp_path):
    images, labels = digits
    model = ConvolutionalClassifier("accurate", epochs=1, n_units=20).fit(
        images[:250], labels[:250]
    )
    network, path = model.network_, tmp_path / "network.safetensors"
    assert network.whitening is not None
    write_teacher(path, "key", network, {"status": "finished"})
    again, known = read_teacher(path, "key", network.units)
    assert known["status"] == "finished"
    assert again.softmax == network.softmax
    np.testing.assert_array_equal(again.outputs(images), network.outputs(images))
    with pytest.raises(RunError, match="holds the training of another fit"):
        read_teacher(path, "another", network.units)
    assert read_teacher(tmp_path / "none", "key", network.units) is None


def test_another_fits_folder_is_refused_before_the_teacher_is_trained(digits, tmp_path):
    images, labels = digits
    alone = ConvolutionalClassifier("nano", epochs=1)
    alone.fit(images[:250], labels[:250], checkpoint_dir=tmp_path)
    model = ConvolutionalClassifier("nano", training=TrainingOptions(teacher="tiny"), epochs=1)
    with pytest.raises(RunError, match="holds the training of another fit"):
        model.fit(images[:250], labels[:250], checkpoint_dir=tmp_path)
    assert not (tmp_path / "teacher").exists()


def test_the_rest_of_a_budget_is_the_learners_own(digits, monkeypatch):
    """Its rates follow the share of its own minutes, so they begin at their beginning."""
    images, labels = digits
    plans = []

    class Recorded(joint.JointTraining):
        def __init__(self, module, plan, *given, **options):
            plans.append(plan)
            super().__init__(module, plan, *given, **options)

    monkeypatch.setattr(joint, "JointTraining", Recorded)
    model = ConvolutionalClassifier(
        "nano", training=TrainingOptions(teacher="tiny"), time_budget=0.03
    )
    model.fit(images[:300], labels[:300])
    of_teacher, own = plans
    assert of_teacher.time_budget == pytest.approx(0.72)
    # Less what reading the images took.
    assert 0 < 1.8 - model.seconds_["teacher"] - own.time_budget < 0.5
    assert own.teacher is not None


def test_a_teacher_that_failed_is_told_and_not_learned_from(digits, monkeypatch):
    images, labels = digits
    network = ConvolutionalClassifier("tiny", epochs=1).fit(images[:250], labels[:250]).network_
    known = {"status": "non-finite", "seconds": 0.0, "earlier": 0.0}
    monkeypatch.setattr(convolutional_fitting, "_teacher", lambda *_, **__: (network, known))
    model = ConvolutionalClassifier("nano", training=TrainingOptions(teacher="tiny"), epochs=2)
    model.fit(images[:250], labels[:250])
    assert model.statuses_ == {"finished": 1, "non-finite": 1}
    assert model.status_ == "non-finite"
    alone = ConvolutionalClassifier("nano", epochs=2).fit(images[:250], labels[:250])
    np.testing.assert_array_equal(model.outputs(images), alone.outputs(images))


def test_what_is_saved_knows_its_teachers_name(taught, digits, tmp_path):
    images, _ = digits
    taught.save(tmp_path)
    again = load_model(tmp_path)
    assert again.training.teacher == "tiny"
    np.testing.assert_array_equal(again.outputs(images), taught.outputs(images))


def test_a_teacher_has_two_fifths_of_the_minutes_or_as_many_epochs():
    plan = ConvolutionalClassifier(
        "small", training=TrainingOptions(teacher="wide"), time_budget=10
    ).plan_for((32, 32, 3), 100)
    assert plan.joint.time_budget == 600
    assert plan.teacher.joint.time_budget == 240
    assert plan.teacher.units.n_parameters > 300_000
    plan = ConvolutionalClassifier(
        "small", training=TrainingOptions(teacher="wide"), epochs=7
    ).plan_for((28, 28), 100)
    assert (plan.joint.epochs, plan.teacher.joint.epochs) == (7, 7)
    assert plan.teacher.teacher is None
    options = {"augmentation": "none", "precision": "bfloat16", "n_units": 30}
    plan = classifier_of("tiny", teacher="small", **options).plan_for((28, 28), 100)
    assert plan.teacher.joint.augmentation is None
    assert plan.teacher.joint.precision == "bfloat16"
    assert plan.teacher.units.n_units == 320, "the preset's own"
    both = ConvolutionalClassifier(
        "small", training=TrainingOptions(teacher="wide"), epochs=7, time_budget=10
    )
    found = both.plan_for((28, 28), 100).teacher.joint
    assert (found.epochs, found.time_budget) == (7, 240)


def test_minutes_are_kept_with_a_teacher(digits):
    images, labels = digits
    model = ConvolutionalClassifier(
        "nano", training=TrainingOptions(teacher="tiny"), time_budget=0.1
    )
    model.fit(images[:900], labels[:900])
    assert model.seconds_["total"] < 1.5 * 6, "the machine may be busy"
    assert model.seconds_["teacher"] < 0.7 * 6


def test_what_it_comes_to_counts_the_teacher(digits, monkeypatch):
    """By a clock of one second an update, and two seconds behind a teacher."""
    now = [0.0]

    def update(training, *told):
        now[0] += 1 if training.plan.teacher is None else 2

    monkeypatch.setattr(expectation, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(JointTraining, "update", update)
    models = [
        ConvolutionalClassifier("nano", training=TrainingOptions(teacher=teacher), epochs=5)
        for teacher in (None, "accurate")
    ]
    alone, both = (model.expect(*digits) for model in models)
    assert both.n_parameters == alone.n_parameters
    images, _ = digits
    plan = models[1].plan_for((8, 8), len(images))
    own, of_teacher = (
        5 * (len(images) // each.joint.batch_size) / 60 for each in (plan, plan.teacher)
    )
    assert alone.minutes == pytest.approx(own)
    assert both.minutes == pytest.approx(2 * own + of_teacher)
    assert "; behind a teacher of 93,780 parameters" in str(both)
    assert "teacher" not in str(alone)


def test_a_weight_of_two_is_the_same_as_two_images(digits):
    images, labels = digits
    few, names = images[:150], labels[:150]
    model = ConvolutionalClassifier("nano", training=TrainingOptions(teacher="tiny"), epochs=2)
    weighted = clone(model).fit(few, names, sample_weight=np.full(150, 2.0) - (np.arange(150) < 75))
    twice = np.r_[np.arange(150), np.arange(75, 150)]
    repeated = clone(model).fit(few[twice], names[twice])
    np.testing.assert_array_equal(weighted.outputs(images[:50]), repeated.outputs(images[:50]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"teacher": "large"},
            "unknown teacher 'large'; accepted: wide, accurate, small, tiny, nano",
        ),
        (
            {"preset": "nano", "teacher": "nano"},
            "the units of teacher 'nano' have 701 parameters and those that learn from it 701; a "
            "larger preset is accepted: wide, accurate, small, tiny",
        ),
        (
            {"preset": "accurate", "teacher": "tiny"},
            "that learn from it 92,010; a larger preset is accepted: wide",
        ),
        (
            {"preset": "wide", "teacher": "wide"},
            "those that learn from it 385,178; no preset is larger",
        ),
        (
            {"preset": "windowed", "teacher": "wide"},
            "teacher needs units that are trained together, and preset 'windowed' has sub-networks",
        ),
    ],
)
def test_what_is_refused(digits, options, message):
    images, labels = digits
    with pytest.raises(ValueError) as error:
        classifier_of(**({"preset": "tiny"} | options)).fit(images[:50], labels[:50])
    assert message in str(error.value)


def test_a_squared_loss_has_no_teacher(taught):
    with pytest.raises(ValueError, match="a teacher needs loss 'cross-entropy', got 'squared'"):
        JointPlan(loss="squared", teacher=Teacher(taught.network_))
