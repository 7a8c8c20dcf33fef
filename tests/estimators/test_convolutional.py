"""`QuadraticClassifier` with convolutional presets, refined together, and with groups."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning

from rankwise import ConvolutionalClassifier, QuadraticClassifier, TrainingOptions, load_model
from rankwise.errors import RunError
from rankwise.estimators import convolutional as estimator
from rankwise.estimators.options import classifier_of
from rankwise.networks.copies import views
from rankwise.networks.graph import run
from rankwise.training import augment, convolutional_presets, joint, precision
from rankwise.training.augment import NEARER, SHIFTS, Augmentation
from rankwise.training.joint import JointTraining
from rankwise.training.presets import recommended

NEWTON = {"refine": 1, "refine_solver": "gauss-newton", "ridge": 1e-3}
SMALL = {"n_units": 10, "n_subnets": 1, "max_iter": 4}
CONVOLUTIONAL = {"preset": "tiny", "max_iter": 3}


@pytest.fixture(scope="module")
def convolutional(digits):
    images, labels = digits
    return classifier_of("tiny", max_iter=12).fit(images[:900], labels[:900])


def test_a_convolutional_preset_learns_and_says_how_it_ended(convolutional, digits):
    images, labels = digits
    assert convolutional.score(images[900:], labels[900:]) > 0.85
    assert convolutional.preset_ == "tiny"
    assert convolutional.status_ == "finished"
    assert convolutional.statuses_ == {"finished": 1}
    assert convolutional.n_iter_ == len(convolutional.history_) == 12
    assert convolutional.output_layer_ in ("glue", "trained")
    assert convolutional.subnet_reports_ == []
    assert set(convolutional.seconds_) == {"joint", "glue", "total", "earlier"}
    assert convolutional.n_parameters_total_ == 4276
    assert convolutional.history_[0]["validation_accuracy"] < 0.9
    probabilities = convolutional.predict_proba(images[900:950])
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_array_equal(
        convolutional.classes_[probabilities.argmax(axis=1)],
        convolutional.predict(images[900:950]),
    )


def test_too_few_images_to_validate_get_the_glue(digits):
    images, labels = digits
    model = classifier_of("small", max_iter=5).fit(images[:150], labels[:150])
    assert model.output_layer_ == "glue"
    assert [e["validation_accuracy"] for e in model.history_] == [None] * 5
    # The trained output layer has seen 20 batches: it guesses.
    assert model.score(images[1000:], labels[1000:]) > 0.5


@pytest.mark.parametrize("preset", ["accurate", "small", "tiny", "nano"])
@pytest.mark.parametrize("shape", [(8, 8), (5, 9), (9, 7, 3), (4, 4, 1), (70, 66), (16, 1100)])
def test_convolutional_presets_take_images_of_any_shape(preset, shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, *shape), dtype=np.uint8)
    labels = np.array(["b", "a"])[np.arange(40) % 2]
    model = classifier_of(preset, max_iter=1).fit(images, labels)
    assert model.predict(images).shape == (40,)
    assert model.image_shape_ == shape
    assert model.history_[0]["validation_accuracy"] is None, "under 200 images none is held out"


@pytest.fixture(scope="module")
def plain(digits):
    """Outputs without an option."""
    images, labels = digits
    return classifier_of(**CONVOLUTIONAL).fit(images[:250], labels[:250]).outputs(images[:10])


@pytest.mark.parametrize(
    "options",
    [
        {"activation": "silu"},
        {"rank": 1},
        {"n_units": 20},
        {"ridge": 1e-3},
        {"ridge": "loo"},
        {"augmentation": "low-rank"},
        {"augmentation": "moves+low-rank"},
        {"augmentation": "none"},
        {"precision": "bfloat16"},
        {"time_budget": 5},
        {"teacher": "small"},
        {"verbose": 1},
        {"n_jobs": 2},
    ],
    ids=str,
)
def test_every_option_of_convolutional_presets(digits, plain, options, capsys):
    images, labels = digits
    model = classifier_of(**CONVOLUTIONAL, **options).fit(images[:250], labels[:250])
    assert model.predict(images[:10]).shape == (10,)
    alike = np.array_equal(model.outputs(images[:10]), plain)
    # Rank 1 is the preset's own; a budget's rates follow the clock.
    if "time_budget" not in options:
        assert alike == bool({"verbose", "n_jobs", "rank"} & options.keys())
    if "n_units" in options:
        assert model.network_.n_units == 20
    assert ("epochs" in capsys.readouterr().err) == ("verbose" in options)


def test_the_precision_of_training_is_said_and_kept(digits, tmp_path):
    images, labels = digits
    plain = classifier_of(**CONVOLUTIONAL).fit(images[:250], labels[:250])
    model = classifier_of(**CONVOLUTIONAL, precision="bfloat16").fit(images[:250], labels[:250])
    assert (plain.precision_, model.precision_) == ("float32", "bfloat16")
    assert not np.array_equal(model.outputs(images), plain.outputs(images))
    model.save(tmp_path)
    again = load_model(tmp_path)
    assert again.precision_ == "bfloat16"
    np.testing.assert_array_equal(again.outputs(images), model.outputs(images))


def test_copies_at_prediction_are_averaged_and_kept_and_no_export_has_them(
    convolutional, digits, tmp_path
):
    images, _ = digits
    plain = convolutional.outputs(images[:40])
    model = copy.deepcopy(convolutional).set_params(tta="shifts")
    assert model.mirror_ is False, "digits are not their mirror images"
    chosen = views("shifts", mirror=False)
    expected = sum(v.weight * convolutional.outputs(v.of(images[:40])) for v in chosen)
    np.testing.assert_allclose(model.outputs(images[:40]), expected, rtol=1e-6, atol=1e-6)
    assert not np.array_equal(expected, plain)
    model.save(tmp_path)
    np.testing.assert_array_equal(
        load_model(tmp_path).outputs(images[:40]), model.outputs(images[:40])
    )
    with pytest.raises(ValueError, match="tta='shifts' averages over copies of an image, and an"):
        model.as_graph()
    with pytest.raises(ValueError, match="tta='mirror' needs classes that mirror images keep"):
        model.set_params(tta="mirror").outputs(images[:4])


@pytest.mark.parametrize(
    ("options", "n", "message"),
    [
        (
            {"augmentation": "none"},
            300,
            "no probe of the training images has asked whether they do: images aren't moved at "
            "random here, as augmentation 'moves' does; 'shifts' is accepted",
        ),
        (
            {"training": TrainingOptions(teacher="tiny")},
            215,
            "has asked whether they do: 194 images are trained on, fewer than 200; 'shifts' is",
        ),
        (
            {"training": TrainingOptions(teacher="tiny")},
            300,
            "and the probe of the training images found that they don't; 'shifts' is accepted",
        ),
    ],
)
def test_mirror_images_that_may_mean_something_else_are_refused_before_any_training(
    digits, monkeypatch, options, n, message
):
    from rankwise.training.joint import JointTraining

    def trained(*args, **kwargs):
        raise AssertionError("nothing is trained")

    monkeypatch.setattr(JointTraining, "fit", trained)
    model = ConvolutionalClassifier("nano", epochs=1, tta="mirror", **options)
    with pytest.raises(ValueError) as error:
        model.fit(digits[0][:n], digits[1][:n])
    assert str(error.value).startswith("tta='mirror' needs classes that mirror images keep, and ")
    assert message in str(error.value)


def test_few_images_that_are_mirrored_are_moved_nearer(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (240, 8, 8), dtype=np.uint8)
    labels = np.arange(240) % 2
    images[labels == 1] //= 2
    plans = []
    start = JointTraining.__init__
    monkeypatch.setattr(
        JointTraining,
        "__init__",
        lambda self, *a, **k: (plans.append(a[1]), start(self, *a, **k))[1],
    )
    ConvolutionalClassifier("nano", epochs=1).fit(images, labels)
    ConvolutionalClassifier("nano", epochs=1).fit(images[:150], labels[:150])  # too few to be asked
    mirrored, plain = (plan.augmentation for plan in plans)
    assert (mirrored.mirror, replace(mirrored, mirror=False, flip=False)) == (True, NEARER)
    assert plain == Augmentation()


def test_what_a_probe_found_of_mirror_images_is_kept_and_none_where_there_was_none(digits):
    images = np.random.default_rng(0).integers(0, 256, (240, 8, 8), dtype=np.uint8)
    labels = np.arange(240) % 2
    images[labels == 1] //= 2
    model = ConvolutionalClassifier("nano", epochs=1, tta="mirror").fit(images, labels)
    assert model.mirror_ is True
    both = [model.set_params(tta=None).outputs(x) for x in (images[:9], images[:9, :, ::-1])]
    np.testing.assert_allclose(model.set_params(tta="mirror").outputs(images[:9]), sum(both) / 2)
    few = ConvolutionalClassifier("nano", epochs=1).fit(images[:150], labels[:150])
    assert few.mirror_ is None
    with pytest.raises(ValueError, match="no probe of the training images has asked"):
        few.set_params(tta="mirror").predict(images[:3])


@pytest.mark.parametrize("probabilities", ["sum-to-one", "sigmoid"])
def test_probabilities_of_least_squares_need_an_output_layer_of_least_squares(
    convolutional, digits, probabilities
):
    images, _ = digits
    network = replace(convolutional.network_, softmax=True)
    model = copy.deepcopy(convolutional).set_params(probabilities=probabilities)
    model.network_ = network
    with pytest.raises(ValueError) as error:
        model.predict_proba(images[:2])
    assert str(error.value) == (
        f"probabilities={probabilities!r} needs a fit with it: this output layer was trained for a "
        "softmax, and the closed-form one is kept then"
    )
    with pytest.raises(ValueError, match="needs a fit with it: this output layer was trained"):
        model.as_graph()
    model.network_ = replace(network, softmax=False)
    np.testing.assert_allclose(model.predict_proba(images[:2]).sum(axis=1), 1)


def test_what_a_fit_comes_to_is_said_before(convolutional, digits):
    images, labels = digits
    found = ConvolutionalClassifier("tiny", epochs=12).expect(images[:900], labels[:900])
    assert found.n_parameters == convolutional.n_parameters_total_
    assert found.epochs == convolutional.n_iter_
    spent = convolutional.seconds_["total"] / 60
    assert spent / 30 < found.minutes < 30 * spent, "the machine may be busier now, or then"
    assert str(found).startswith("4,276 parameters, 16.7 KiB in float32, 4.2 KiB in int8; 12 epoch")
    for minutes, told in ((1e-4, "1 second"), (0.05, "3 seconds"), (0.999, "1.0 minutes")):
        assert f"; 12 epochs in about {told} on this" in str(replace(found, minutes=minutes))
    model = ConvolutionalClassifier("tiny", time_budget=0.5)
    assert "as many epochs as fit into 0.5 minutes, at most 200" in str(model.expect(*digits))
    assert not hasattr(model, "classes_")


def planned(monkeypatch, model, images, labels, **options):
    """The plan of a fit that trains nothing."""
    plans = []

    def note(images, encoded, n_classes, plan, **_):
        plans.append(plan)
        raise KeyboardInterrupt

    monkeypatch.setattr(estimator, "fit_convolutional", note)
    with pytest.raises(KeyboardInterrupt):
        model.fit(images, labels, **options)
    return plans[0]


@pytest.mark.parametrize(("preset", "enough"), [("accurate", 200), ("accurate", 900), ("tiny", 9)])
def test_moves_of_long_trainings_reach_the_training(monkeypatch, digits, preset, enough):
    images, labels = (a[:600] for a in digits)
    plans = []

    def note(module, plan, *given, **options):
        plans.append(plan)
        raise KeyboardInterrupt

    def with_mirrors(*given, mirrored):
        return replace(mirrored, mirror=True, flip=True)

    monkeypatch.setattr(convolutional_presets, "_ENOUGH_FOR_SHIFTS", enough)
    monkeypatch.setattr(augment, "with_mirrors", with_mirrors)
    monkeypatch.setattr(joint, "JointTraining", note)
    with pytest.raises(KeyboardInterrupt):
        ConvolutionalClassifier(preset).fit(images, labels)
    far = replace(augment.FARTHER, mirror=True, flip=True)
    assert plans[0].long == (far if preset == "accurate" and enough <= 600 else None)
    assert plans[0].augmentation.mirror


def test_a_given_validation_part_counts_for_no_epoch(monkeypatch, digits):
    """It is never trained on: 300 images have as many epochs with 300 others beside them."""
    images, labels = (a[:600] for a in digits)
    model, validates = ConvolutionalClassifier("nano"), np.arange(600) >= 300
    alone = model.plan_for((8, 8), 300)
    plan = planned(monkeypatch, model, images, labels, validation=validates)
    assert plan.joint == alone.joint
    assert plan.joint.epochs * (300 // plan.joint.batch_size) >= 0.95 * 800
    said = model.expect(images, labels, validation=validates)
    assert said.epochs == plan.joint.epochs == model.expect(images[:300], labels[:300]).epochs
    grouped = model.expect(images, labels, groups=np.arange(600), validation=validates)
    assert grouped.epochs == plan.joint.epochs
    assert planned(monkeypatch, model, images, labels).joint.epochs < plan.joint.epochs


def test_a_given_validation_part_counts_for_no_shifts(monkeypatch):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (12_000, 4, 4), dtype=np.uint8), np.arange(12_000) % 2
    model, validates = ConvolutionalClassifier("accurate"), np.arange(12_000) >= 6000
    assert planned(monkeypatch, model, images, labels).mirrored == SHIFTS
    assert planned(monkeypatch, model, images, labels, validation=validates).mirrored == NEARER


def test_repeats_are_one_image_in_what_is_said_and_in_the_fit(monkeypatch, digits):
    images, labels = np.tile(digits[0][:100], (10, 1, 1)), np.tile(digits[1][:100], 10)
    model = ConvolutionalClassifier("nano")
    plan = planned(monkeypatch, model, images, labels)
    assert model.expect(images, labels).epochs == plan.joint.epochs == 100


def test_sub_networks_are_sized_without_the_given_validation_part(monkeypatch, digits):
    images, labels = digits
    plans = []

    def note(self, *_, **__):
        plans.append(self._recipe)
        raise KeyboardInterrupt

    monkeypatch.setattr(QuadraticClassifier, "_fit_recipe", note)
    validates = np.arange(len(images)) >= 300
    model = QuadraticClassifier(refine=1)
    with pytest.raises(KeyboardInterrupt):
        model.fit(images, labels, validation=validates)
    wanted, whole = (model.plan_for((8, 8), n) for n in (300, len(images)))
    assert plans[0].n_subnets == wanted.n_subnets
    assert plans[0].subnet.n_samples == wanted.subnet.n_samples
    assert (wanted.n_subnets, wanted.subnet.n_samples) != (whole.n_subnets, whole.subnet.n_samples)


def test_minutes_decide_how_many_epochs_there_are():
    plan = ConvolutionalClassifier("tiny", time_budget=2).plan_for((8, 8), 1000)
    assert (plan.joint.time_budget, plan.joint.epochs) == (120.0, 200)
    plan = ConvolutionalClassifier("tiny", time_budget=2, epochs=3).plan_for((8, 8), 1000)
    assert (plan.joint.time_budget, plan.joint.epochs) == (120.0, 3)


def test_a_fit_without_patience_stops_early(digits):
    images, labels = digits
    rng = np.random.default_rng(0)
    options = {"augmentation": "none", "patience": 1}
    model = classifier_of("tiny", max_iter=30, **options)
    model.fit(images[:250], rng.permutation(labels[:250]))  # nothing to be learned
    assert model.status_ == "early-stop"
    assert len(model.history_) < 30


def test_a_fit_in_no_time_is_a_model(digits):
    """One step, and the closed-form output layer: seconds are kept for both."""
    images, labels = digits
    model = classifier_of("tiny", time_budget=1e-6)
    told = r"the time budget is 6e-05 seconds, and a fit of one epoch takes about [\d.]+ seconds?"
    with pytest.warns(ConvergenceWarning, match=told) as warned:
        model.fit(images[:900], labels[:900])
    assert [w.filename for w in warned] == [__file__]
    assert len(model.history_) == 1
    assert model.score(images[900:], labels[900:]) > 0.4


def test_a_teacher_that_leaves_no_time_is_told(digits):
    images, labels = digits
    model = classifier_of("nano", teacher="tiny", time_budget=1e-6)
    with pytest.warns(ConvergenceWarning) as warned:
        model.fit(images[:400], labels[:400])
    of_teacher, own = (str(w.message) for w in warned)
    assert of_teacher.startswith("the teacher's share of the time budget is 2.4e-05 seconds, and")
    assert own.startswith("the time budget is 6e-05 seconds, of which the teacher took ")
    assert [w.filename for w in warned] == [__file__] * 2


def test_patience_without_a_validation_part_is_told(digits):
    images, labels = (a[:150] for a in digits)
    options = {"epochs": 2, "training": TrainingOptions(patience=1, teacher="tiny")}
    told = (
        "patience=1 has no effect, since it looks at a validation part, and none is cut off these "
        "150 images; fit takes one as its validation"
    )
    with pytest.warns(UserWarning, match="patience=1 has no effect") as warned:
        model = ConvolutionalClassifier("nano", **options).fit(images, labels)
    assert [(str(w.message), w.filename) for w in warned] == [(told, __file__)]
    assert model.n_iter_ == 2


def test_an_interrupted_fit_goes_on_in_the_precision_that_it_began_in(
    digits, tmp_path, monkeypatch
):
    """Whatever ``"auto"`` means on the processor that it goes on with."""
    images, labels = (a[:250] for a in digits)
    model = classifier_of("nano", max_iter=2, precision="auto", teacher="tiny")
    fits = []
    for native in (True, False):
        monkeypatch.setattr(precision, "_is_native", lambda device, native=native: native)
        fits.append(copy.deepcopy(model).fit(images, labels, checkpoint_dir=tmp_path))
        assert fits[-1].precision_ == "bfloat16"
        (tmp_path / "joint.safetensors").unlink()  # as if the teacher had just been finished
    np.testing.assert_array_equal(fits[0].outputs(images), fits[1].outputs(images))
    exact = classifier_of("nano", max_iter=2, teacher="tiny")
    with pytest.raises(RunError, match="holds a training begun in bfloat16, and precision 'float3"):
        exact.fit(images, labels, checkpoint_dir=tmp_path)
    alone = classifier_of("nano", max_iter=2, precision="auto").fit(
        images, labels, checkpoint_dir=tmp_path / "alone"
    )
    assert alone.precision_ == "float32"
    monkeypatch.setattr(precision, "_is_native", lambda device: True)
    again = copy.deepcopy(alone).fit(images, labels, checkpoint_dir=tmp_path / "alone")
    assert again.precision_ == "float32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patience": 0}, "patience must be a whole number"),
        ({"time_budget": 0}, "time_budget must be minutes above 0, got 0"),
        ({"time_budget": "long"}, "time_budget must be minutes above 0, got 'long'"),
        ({"tta": "crops"}, "unknown tta 'crops'; accepted: mirror, shifts, or None"),
        ({"preset": None, "tta": "shifts"}, "tta='shifts' is for convolutional units; presets"),
        ({"precision": "half"}, "unknown precision 'half'; accepted: float32, bfloat16, auto"),
        (
            {"preset": "windowed", "precision": "auto", "time_budget": 3},
            "precision and time_budget need units that are trained together, and preset 'windowed' "
            "has sub-networks; presets wide, accurate, small, tiny, nano are accepted",
        ),
        (
            {"preset": None, "time_budget": 3},
            "time_budget needs units that are trained together, and QuadraticClassifier has",
        ),
    ],
)
def test_what_the_options_of_training_together_refuse(digits, options, message):
    images, labels = digits
    with pytest.raises(ValueError) as error:
        classifier_of(**({"preset": "tiny"} | options)).fit(images[:50], labels[:50])
    assert message in str(error.value)


def test_every_augmentation_is_another_training(digits):
    images, labels = digits[0][:100], digits[1][:100]
    outputs = {}
    for augmentation in (None, "moves", "low-rank", "moves+low-rank", "none"):
        model = classifier_of(**CONVOLUTIONAL, augmentation=augmentation)
        outputs[augmentation] = model.fit(images, labels).outputs(images)
        two = classifier_of(**CONVOLUTIONAL, augmentation=augmentation, n_jobs=2)
        np.testing.assert_array_equal(
            two.fit(images, labels).outputs(images), outputs[augmentation]
        )
    np.testing.assert_array_equal(outputs[None], outputs.pop("moves"))
    distinct = {values.tobytes() for values in outputs.values()}
    assert len(distinct) == 4


@pytest.mark.parametrize("augmentation", ["low-rank", "none"])
def test_a_refinement_has_an_augmentation_too(digits, augmentation):
    images, labels = digits[0][:300], digits[1][:300]
    usual = classifier_of(**SMALL, refine=1).fit(images, labels)
    other = classifier_of(**SMALL, refine=1, augmentation=augmentation).fit(images, labels)
    assert usual.history_[0]["train_loss"] != other.history_[0]["train_loss"]


def test_the_same_seed_gives_the_same_convolutional_model(digits):
    images, labels = digits
    one = classifier_of(**CONVOLUTIONAL).fit(images[:250], labels[:250])
    two = classifier_of(**CONVOLUTIONAL, n_jobs=2).fit(images[:250], labels[:250])
    other = classifier_of(**CONVOLUTIONAL, random_state=1).fit(images[:250], labels[:250])
    np.testing.assert_array_equal(
        one.outputs(images),
        two.outputs(
            images,
        ),
    )
    assert not np.array_equal(one.outputs(images), other.outputs(images))


def test_flat_rows_of_square_images_and_scales(convolutional, digits):
    images, _ = digits
    expected = convolutional.outputs(images[:20])
    np.testing.assert_array_equal(convolutional.outputs(images[:20].reshape(20, 64)), expected)
    np.testing.assert_allclose(
        convolutional.outputs(images[:20].astype(float)), expected, rtol=1e-3, atol=1e-3
    )


def test_an_interrupted_convolutional_fit_goes_on(digits, tmp_path, monkeypatch):
    from rankwise.training.joint import JointTraining

    images, labels = digits
    options = {"preset": "tiny", "max_iter": 4}
    whole = classifier_of(**options).fit(images[:250], labels[:250])
    original, calls = JointTraining._epoch, []

    def stops(self, *arguments):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return original(self, *arguments)

    monkeypatch.setattr(JointTraining, "_epoch", stops)
    with pytest.raises(KeyboardInterrupt):
        classifier_of(**options).fit(images[:250], labels[:250], checkpoint_dir=tmp_path)
    monkeypatch.setattr(JointTraining, "_epoch", original)
    resumed = classifier_of(**options)
    resumed.fit(images[:250], labels[:250], checkpoint_dir=tmp_path)
    np.testing.assert_array_equal(resumed.outputs(images), whole.outputs(images))
    with pytest.raises(RunError, match="holds the training of another fit"):
        classifier_of(**options, random_state=1).fit(
            images[:250], labels[:250], checkpoint_dir=tmp_path
        )


def test_refinement_goes_on_from_the_glue(digits, tmp_path):
    images, labels = digits
    options = {"n_units": 40, "n_subnets": 2, "max_iter": 2, "activation": "relu", "refine": 6}
    kept = {"checkpoint_dir": tmp_path}
    model = classifier_of(**options).fit(images[:900], labels[:900], **kept)
    assert set(model.seconds_) == {"subnets", "glue", "joint", "total", "earlier"}
    assert len(model.history_) == 6
    assert model.score(images[900:], labels[900:]) > 0.85
    unrefined = classifier_of(**(options | {"refine": 0})).fit(images[:900], labels[:900])
    assert not np.array_equal(unrefined.network_.params, model.network_.params)
    assert unrefined.network_.n_units == model.network_.n_units
    again = classifier_of(**options).fit(images[:900], labels[:900], **kept)
    np.testing.assert_array_equal(again.outputs(images), model.outputs(images))


def test_refinement_is_judged_on_images_that_nothing_before_it_saw(digits, monkeypatch):
    from rankwise.training import fitting, refinement

    images, labels = digits
    train, refine, seen = fitting.train_subnets, refinement.refine, {}

    def noted(images, *arguments, **options):
        seen["trained on"] = images[: len(images)]
        return train(images, *arguments, **options)

    def spoilt(*arguments, validation, **options):
        seen["validated on"] = validation[0][: len(validation[0])]
        network, layer, result = refine(*arguments, validation=validation, **options)
        return replace(network, coef=0 * network.coef), layer, result

    monkeypatch.setattr(fitting, "train_subnets", noted)
    monkeypatch.setattr(refinement, "refine", spoilt)
    model = classifier_of(**SMALL, refine=1).fit(images[:600], labels[:600])
    assert (len(seen["trained on"]), len(seen["validated on"])) == (540, 60)
    both = {image.tobytes() for image in seen["trained on"]} & {
        image.tobytes() for image in seen["validated on"]
    }
    assert not both
    assert model.statuses_ == {"max-iterations": 1, "start-kept": 1}
    assert model.score(images[600:], labels[600:]) > 0.5, "the start, not the spoilt network"
    assert len(model.history_) == 1


def test_the_refinement_has_a_status(digits):
    images, labels = digits
    for options, status in (({"refine": 1}, "finished"), (NEWTON, "max-iterations")):
        model = classifier_of(**SMALL, **options).fit(images[:300], labels[:300])
        assert sum(model.statuses_.values()) == 2
        assert status in model.statuses_


def test_refinement_needs_images():
    rng = np.random.default_rng(0)
    x, y = rng.random((60, 3, 3, 3, 3)), np.arange(60) % 2
    model = classifier_of(**SMALL, unit="multilinear", refine=1)
    with pytest.raises(ValueError, match="joint refinement needs images"):
        model.fit(x, y)


@pytest.mark.parametrize(
    ("shape", "given", "expected"),
    [
        ((28, 28), {}, "small"),
        ((32, 32, 3), {"n_units": 40, "time_budget": 3}, "small"),
        ((3, 28), {}, None),
        ((1, 784), {}, None),
        ((28, 28), {"n_subnets": 4}, None),
        ((28, 28), {"activation": "tanh"}, None),
        ((16, 16, 16, 2), {}, None),
    ],
)
def test_the_default_fits_the_data(shape, given, expected):
    assert recommended(given, shape)[0] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "lbfgs"}, "preset 'tiny' has convolutional units and takes no solver"),
        ({"window": False, "unit": "bilinear"}, "takes no window, unit"),
        (
            {"max_iter": 0},
            "max_iter must be a whole number of epochs, at least 1, for preset 'tiny', got 0",
        ),
        ({"max_iter": 1.5}, "a whole number of epochs, at least 1, for preset 'tiny', got 1.5"),
        ({"max_iter": "3"}, "a whole number of epochs, at least 1, for preset 'tiny', got '3'"),
        ({"max_iter": True}, "a whole number of epochs, at least 1, for preset 'tiny', got True"),
        ({"n_units": 2}, "n_units must be at least 6, one a layer of the preset, got 2"),
        ({"refine": 2}, "takes no refine"),
        ({"augmentation": "blur"}, "unknown augmentation 'blur'; accepted: moves, low-rank, moves"),
        (
            {"preset": None, "augmentation": "none"},
            "augmentation 'none' needs training on batches, and preset 'windowed' has none without "
            "refine; give refine epochs, or use preset 'wide', 'accurate', 'small', "
            "'tiny', 'nano'",
        ),
        ({"preset": "pereyra", "augmentation": "moves"}, "'pereyra' has none without refine"),
        (
            {**NEWTON, "preset": "windowed", "augmentation": "moves"},
            "augmentation 'moves' needs training on batches",
        ),
        ({"image_shape": (4, 4, 2, 2)}, "needs images (height, width) or (height, width, chan"),
    ],
)  # fmt: skip
def test_what_convolutional_presets_do_not_accept(digits, options, message):
    images, labels = digits
    with pytest.raises(ValueError) as error:
        classifier_of(**({"preset": "tiny"} | options)).fit(images[:100], labels[:100])
    assert message in str(error.value)


def test_training_that_fails_ends_in_a_status_and_a_finite_network(digits, monkeypatch):
    from rankwise.training import convolutional_presets as presets

    images, labels = digits
    monkeypatch.setitem(presets._STEPS, "learning_rate", 1e30)
    model = classifier_of("tiny", max_iter=2).fit(images[:250], labels[:250])
    assert (model.status_, model.output_layer_) == ("non-finite", "glue")
    assert model.score(images[:250], labels[:250]) > 0.5, "the glue of untrained units"


@pytest.mark.parametrize("preset", ["tiny", "windowed"])
def test_a_network_says_what_it_computes(digits, preset):
    images, labels = digits
    options = {"max_iter": 2} if preset == "tiny" else SMALL
    model = classifier_of(preset, **options).fit(images[:250], labels[:250])
    graph = model.network_.as_graph(model.classes_, scale=255.0)
    np.testing.assert_allclose(
        run(graph, images[:30]), model.outputs(images[:30]), rtol=1e-3, atol=1e-3
    )
    assert graph.classes == tuple("0123456789")


def test_groups_stay_on_one_side_of_the_validation_part():
    from rankwise.training.validation import validation_split

    labels = np.arange(900) % 3
    groups = np.arange(900) // 4 % 150
    fit, held = validation_split(labels, 7, groups)
    assert not set(groups[fit]) & set(groups[held])
    assert 80 <= len(held) <= 90
    assert sorted([*fit, *held]) == list(range(900))
    alone = validation_split(labels, 7, np.arange(900))
    for one, other in zip(alone, validation_split(labels, 7), strict=True):
        assert np.array_equal(one, other)
    # One group too large for the part doesn't keep the others out.
    sizes = np.r_[np.zeros(500, int), 1 + np.arange(400) // 10]
    assert 80 <= len(validation_split(labels, 7, sizes)[1]) <= 90
    # Where all are too large it's the smallest, unless that is more than a third.
    for counts, expected in (((300, 400, 200), 200), ((440, 460), 0)):
        few = np.repeat(np.arange(len(counts)), counts)
        assert len(validation_split(labels, 7, few)[1]) == expected
    # A class in one group is trained on.
    fit, _ = validation_split(
        np.r_[np.zeros(890, int), np.ones(10, int)], 0, np.r_[:890, [999] * 10]
    )
    assert {890, 899} <= set(fit)


def test_groups_of_another_length_are_refused():
    images = np.zeros((6, 8, 8), np.uint8)
    with pytest.raises(ValueError, match=r"groups have shape \(3,\); one for each sample, \(6,\)"):
        classifier_of().fit(images, [0, 1] * 3, groups=[1, 2, 3])


def test_a_checkpoint_of_fewer_classes_is_another_fit_s(tmp_path):
    X, y = np.random.default_rng(0).random((60, 8, 8)), np.repeat(["a", "b", "c"], 20)
    model = ConvolutionalClassifier("nano", epochs=1)
    two = y != "c"
    model.fit(X[two], y[two], checkpoint_dir=tmp_path)
    with pytest.raises(RunError, match="another fit"):
        model.fit(X, y, sample_weight=two.astype(float), checkpoint_dir=tmp_path)
