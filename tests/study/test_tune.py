"""The search for energy and skip threshold."""

import json
import sys

import pytest

from rankwise.errors import MissingDependencyError, RunError
from rankwise.study import StudyError, tune_study
from rankwise.study.reading import study_from
from rankwise.study.tune import ENERGIES, SKIP_THRESHOLDS

N_TRAINED = 40  # of 100 images, less a fifth to test on, one of two folds
QUADRATIC = {"quadratic": {"parameters": {"n_units": 4, "n_subnets": 1, "max_iter": 1}}}


def study(**more):
    values = {
        "protocol": "paper",
        "data": {"digits": {"source": "digits", "limit": 100}},
        "models": QUADRATIC,
        "arms": ["none", "low-rank"],
        "folds": 2,
        "batch_size": 32,
    }
    return study_from(values | more)


@pytest.fixture
def log_level():
    from optuna import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.CRITICAL)
    yield logging.CRITICAL
    logging.set_verbosity(before)


def test_a_search_begins_with_the_study_s_own_values(tmp_path, log_level):
    from optuna.logging import get_verbosity

    found = tune_study(study(), tmp_path, trials=4, device="cpu")
    assert get_verbosity() == log_level
    (search,) = found["searches"]
    assert search["condition"] == "digits/quadratic/low-rank/1"
    assert len(search["trials"]) == 4
    assert (search["given"]["energy"], search["given"]["skip_threshold"]) == (0.975, 0.8)
    accuracies = [trial["validation_accuracy"] for trial in search["trials"]]
    assert search["best"]["validation_accuracy"] == max(accuracies)
    for trial in search["trials"]:
        assert ENERGIES[0] <= trial["energy"] <= ENERGIES[1]
        assert SKIP_THRESHOLDS[0] <= trial["skip_threshold"] <= SKIP_THRESHOLDS[1]
    assert len({trial["energy"] for trial in search["trials"]}) == 4
    assert json.loads((tmp_path / "tune.json").read_text())["searches"] == found["searches"]


def test_a_search_needs_a_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file is a file; give a folder to keep the search in"):
        tune_study(study(), tmp_path / "file", trials=1, device="cpu")


def test_a_search_goes_on_after_a_restart(tmp_path):
    import optuna

    whole = tune_study(study(), tmp_path / "whole", trials=4, device="cpu")
    tune_study(study(), tmp_path / "cut", trials=2, device="cpu")
    # What a kill leaves: a trial that was begun and never told.
    storage = f"sqlite:///{tmp_path / 'cut/tune.sqlite3'}"
    search = optuna.load_study(study_name="digits/quadratic/low-rank/1", storage=storage)
    trial = search.ask()
    trial.suggest_float("energy", *ENERGIES)
    found = tune_study(study(), tmp_path / "cut", trials=4, device="cpu")
    assert found["searches"] == whole["searches"]
    again = tune_study(study(), tmp_path / "cut", trials=4, device="cpu")
    assert again["searches"] == found["searches"]
    # As an earlier version stored it, which didn't have all keys yet.
    stored = search.user_attrs["study"]
    del stored["rope"], stored["files"]
    search.set_user_attr("study", stored)
    again = tune_study(study(), tmp_path / "cut", trials=4, device="cpu")
    assert again["searches"] == found["searches"]


def test_a_search_stopped_at_its_first_word_still_begins_with_the_study_s_own_values(tmp_path):
    import optuna

    storage = f"sqlite:///{tmp_path / 'tune.sqlite3'}"
    search = optuna.create_study(
        study_name="digits/quadratic/low-rank/1", storage=storage, direction="maximize"
    )
    search.enqueue_trial({"energy": 0.975, "skip_threshold": 0.8})
    search.ask()  # Begun, and stopped before it took up its energy.
    (found,) = tune_study(study(), tmp_path, trials=1, device="cpu")["searches"]
    assert (found["given"]["energy"], found["given"]["skip_threshold"]) == (0.975, 0.8)


def interrupted_at(numbers, monkeypatch, error=KeyboardInterrupt):
    """Searches in which somebody presses Ctrl-C at these trials, counted over all calls."""
    from rankwise.study import tune

    plain, calls = tune.score, []

    def score(*arguments):
        calls.append(arguments)
        if len(calls) - 1 in numbers:
            raise error
        return plain(*arguments)

    monkeypatch.setattr(tune, "score", score)


def test_an_interrupted_trial_is_tried_again(tmp_path, monkeypatch):
    whole = tune_study(study(), tmp_path / "whole", trials=3, device="cpu")["searches"][0]
    # The study's own values twice, then the first that the sampler chose.
    interrupted_at((0, 1, 3), monkeypatch)
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            tune_study(study(), tmp_path / "cut", trials=3, device="cpu")
    import optuna

    storage = f"sqlite:///{tmp_path / 'cut/tune.sqlite3'}"
    stored = optuna.load_study(study_name=whole["condition"], storage=storage).trials
    assert [trial.state.name for trial in stored] == ["FAIL", "FAIL", "COMPLETE", "FAIL"]
    (found,) = tune_study(study(), tmp_path / "cut", trials=3, device="cpu")["searches"]
    assert found == whole
    # What was tried again isn't tried a third time.
    again = tune_study(study(), tmp_path / "cut", trials=4, device="cpu")["searches"][0]
    assert again["trials"][:3] == found["trials"]
    assert len({trial["energy"] for trial in again["trials"]}) == 4


def test_a_failed_trial_is_tried_again_and_told_once(tmp_path, monkeypatch, capsys):
    whole = tune_study(study(), tmp_path / "whole", trials=3, device="cpu")["searches"]
    interrupted_at((2,), monkeypatch, OSError("the disk is full"))
    with pytest.raises(OSError, match="the disk is full"):
        tune_study(study(), tmp_path / "cut", trials=3, device="cpu")
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "cut/tune.json").exists()
    assert tune_study(study(), tmp_path / "cut", trials=3, device="cpu")["searches"] == whole


def test_a_search_that_lacks_the_study_s_own_values_gets_them(tmp_path):
    """As earlier versions left it that were interrupted in their first trial."""
    import optuna

    search = optuna.create_study(
        study_name="digits/quadratic/low-rank/1",
        storage=f"sqlite:///{tmp_path / 'tune.sqlite3'}",
        direction="maximize",
    )
    ranges = {
        "energy": optuna.distributions.FloatDistribution(*ENERGIES),
        "skip_threshold": optuna.distributions.FloatDistribution(*SKIP_THRESHOLDS),
    }
    other = {"energy": 0.9, "skip_threshold": 0.2}
    search.add_trial(optuna.trial.create_trial(params=other, distributions=ranges, value=0.4))
    (found,) = tune_study(study(), tmp_path, trials=1, device="cpu")["searches"]
    assert [trial["energy"] for trial in found["trials"]] == [0.9, 0.975]
    assert found["given"] == found["trials"][1]


def test_own_values_outside_the_usual_ranges_are_reached_as_they_are(tmp_path):
    arms = {"low-rank": {"energy": 0.5, "skip_threshold": 0.99}}
    (found,) = tune_study(study(arms=arms), tmp_path, trials=1, device="cpu")["searches"]
    assert (found["given"]["energy"], found["given"]["skip_threshold"]) == (0.5, 0.99)


def test_one_search_at_a_time_in_a_folder(tmp_path, monkeypatch):
    from rankwise.study import tune

    plain, refused = tune.score, []

    def while_it_runs(*arguments):
        # A lock is held by a file, not a process: this stands for a search of another process.
        with pytest.raises(RunError) as caught:
            tune_study(study(), tmp_path, trials=1, device="cpu")
        refused.append(str(caught.value))
        return plain(*arguments)

    monkeypatch.setattr(tune, "score", while_it_runs)
    found = tune_study(study(), tmp_path, trials=1, device="cpu")
    assert refused == [
        f"another search is running in {tmp_path}; wait until it ends, or choose another folder"
    ]
    assert [trial["state"] for trial in found["searches"][0]["trials"]] == ["complete"]
    again = tune_study(study(), tmp_path, trials=1, device="cpu")
    assert again["searches"] == found["searches"]


def test_networks_are_pruned_by_their_epochs(tmp_path, monkeypatch):
    from rankwise.study import tune

    told = []

    class Trial:
        def report(self, value, epoch):
            told.append((epoch, value))

        def should_prune(self):
            return len(told) == 2

    import optuna

    from rankwise.study import conditions_of
    from rankwise.study.run import load_data

    design = study(models=["simple-cnn"], epochs=2)
    condition = next(c for c in conditions_of(design) if c.arm == "low-rank")
    images = load_data(design, [condition])["digits"]
    with pytest.raises(optuna.TrialPruned):
        tune.score(design, condition, images, condition.options, "cpu", Trial())
    assert [epoch for epoch, _ in told] == [1, 2]
    assert condition.epochs == 4


def test_the_test_part_is_never_predicted(tmp_path, monkeypatch):
    """Whatever the test images hold, the search is the same."""
    import numpy as np

    from rankwise.data import ImageSet
    from rankwise.study import conditions_of, tune
    from rankwise.study.protocols import hold_out, protocol_of
    from rankwise.study.run import load_data

    design = study()
    condition = next(c for c in conditions_of(design) if c.arm == "low-rank")
    images = load_data(design, [condition])["digits"]
    _, test = hold_out(protocol_of("paper"), images.labels, images.source_ids, 0.2, 42)
    pixels = images.images.copy()
    pixels[test] = np.random.default_rng(0).integers(0, 256, pixels[test].shape, dtype=np.uint8)
    changed = ImageSet.from_arrays(pixels, images.labels, images.class_names, images.source_ids)
    scores = [
        tune.score(design, condition, each, condition.options, "cpu") for each in (images, changed)
    ]
    assert scores[0] == scores[1]


def test_searches_that_are_refused(tmp_path, monkeypatch):
    with pytest.raises(StudyError, match="has no arm of low-rank copies; there is nothing to tune"):
        tune_study(study(arms=["none"]), tmp_path)
    with pytest.raises(ValueError, match="trials must be a number from 1, got 0"):
        tune_study(study(), tmp_path, trials=0)
    tune_study(study(), tmp_path, trials=1, device="cpu")
    with pytest.raises(RunError, match=r"the search of another study \(different: folds\)"):
        tune_study(study(folds=3), tmp_path, trials=1, device="cpu")
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'rankwise\[optuna\]'"):
        tune_study(study(), tmp_path)


def test_a_damaged_file_of_trials_is_named(tmp_path):
    (tmp_path / "tune.sqlite3").write_bytes(b"no database" * 100)
    with pytest.raises(RunError, match=r"tune\.sqlite3 is damaged or can't be used \(.*database"):
        tune_study(study(), tmp_path, trials=1, device="cpu")


@pytest.mark.parametrize(("patience", "given"), [(None, N_TRAINED), (2, None)])
def test_a_search_trains_by_the_rule_of_the_cells(
    tmp_path, log_level, monkeypatch, patience, given
):
    seen = []

    def fit(model, train, validation, n_classes, training, **options):
        seen.append((training.n_originals, training.patience))
        raise KeyboardInterrupt

    monkeypatch.setattr("rankwise.study.tune.fit_model", fit)
    with pytest.raises(KeyboardInterrupt):
        tune_study(study(protocol="sound", patience=patience), tmp_path, trials=1, device="cpu")
    assert seen == [(given, patience)]
