"""Searching energy and skip threshold of the low-rank arm, on the training part only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankwise._claims import differences, held
from rankwise._files import full_disk, temporary_folder, write_json
from rankwise._progress import progress_bar
from rankwise._threads import SharedChange, Undo, one_thread
from rankwise.errors import DataError, MissingDependencyError, RunError
from rankwise.study.arms import batch_augmentation
from rankwise.study.claim import weight_files
from rankwise.study.conditions import Condition, conditions_of
from rankwise.study.cuts import Cut, cut_for_search
from rankwise.study.design import Study, StudyError
from rankwise.study.design_parts import Arm
from rankwise.study.fitted import Training
from rankwise.study.models import fit_model
from rankwise.study.protocols import protocol_of
from rankwise.study.reading import with_defaults
from rankwise.study.results import timestamp
from rankwise.study.run import check, check_precision, check_sources, load_data
from rankwise.study.searched import write_searched

if TYPE_CHECKING:
    import optuna

    from rankwise.data import ImageSet

ENERGIES = (0.8, 1.0)
SKIP_THRESHOLDS = (0.0, 0.95)
_RANGES = {"energy": ENERGIES, "skip_threshold": SKIP_THRESHOLDS}
TUNING = "tune.json"
_STORAGE = "tune.sqlite3"
_LOGGING = SharedChange()


def tune_study(
    study: Study,
    out: Path | str,
    *,
    trials: int = 20,
    device: str = "auto",
    progress: bool = False,
) -> dict[str, Any]:
    """Search the low-rank arms of a study with Optuna.

    For each data set and model with an arm of low-rank copies: the energy in [0.8, 1] and the skip
    threshold in [0, 0.95] whose training reaches the highest validation accuracy, on the images
    that the study reserves for it (`Study.reserve`), which none of its cells sees. Without a
    reserve it searches on the study's first fold; a study of the values found is then no test of
    them: the ``tuned`` table that has to go with them marks it, or has it refused. Marks of the
    searched images are in ``searched.json``, by which any other study knows them.
    Where the arm's own values lie outside, the search reaches out to them.
    Trials that fall behind the median of the others at the same epoch are pruned. The test part
    isn't read. The winner has the best of several noisy accuracies, so its own is an optimistic
    one: run a study with the values found to know what they are worth.

    Parameters
    ----------
    study : Study
    out : Path
        Keeps the trials in an SQLite file; a search that was stopped goes on from there.
    trials : int
        Of each data set and model, all calls together.
    device : str
    progress : bool
        A bar over the trials on standard error.

    Returns
    -------
    dict
        As in ``tune.json``: for each data set and model ``best`` (energy, skip threshold,
        validation accuracy), ``given`` (the study's own values and what they reach) and
        ``trials``; and ``tuned``, which goes with the values into a study's file.

    Raises
    ------
    StudyError
        If no arm makes low-rank copies.
    RunError
        If the folder is a file, or holds the search of another study, or another process
        searches in it.
    MissingDependencyError
        If Optuna isn't installed.
    """
    optuna = _optuna()
    from rankwise._device import resolve_device

    if trials < 1:
        raise ValueError(f"trials must be a number from 1, got {trials}")
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; give a folder to keep the search in")
    device = resolve_device(device)
    check_precision(study, device)
    conditions = [c for c in conditions_of(study) if c.options.copies == "low-rank"]
    if not conditions:
        raise StudyError(f"{study.name} has no arm of low-rank copies; there is nothing to tune")
    check_sources(study, conditions)
    data_sets = load_data(study, conditions, progress=progress)
    check(study, conditions, data_sets)
    _check_reserve(study, data_sets)
    found = []
    storage = f"sqlite:///{(out / _STORAGE).resolve()}"
    with (
        held(out, "search"),
        _LOGGING.holding("optuna", _quieten),
        _database(out / _STORAGE),
        progress_bar("trials", trials * len(conditions), enabled=progress) as advance,
    ):
        for condition in conditions:
            search = optuna.create_study(
                storage=storage,
                study_name=condition.id,
                direction="maximize",
                sampler=optuna.samplers.TPESampler(seed=study.seeds[0]),
                pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
                load_if_exists=True,
            )
            _claim(search, study, data_sets[condition.data_set], out)
            _take_up(search, condition)
            _search(
                search, study, condition, data_sets[condition.data_set], trials, device, advance
            )
            found.append(_describe(search, condition))
        result = {
            "study": study.to_json(),
            "finished": timestamp(),
            "searches": found,
            "tuned": {
                "fingerprints": {name: data.fingerprint for name, data in data_sets.items()},
                "reserve": study.reserve,
                "split_seed": study.split_seed,
                "images": str(write_searched(study, data_sets, out)),
            },
        }
        write_json(out / TUNING, result)
    return result


def _check_reserve(study: Study, data_sets: dict[str, ImageSet]) -> None:
    """Refuse a reserve that has too few images to search on, before a search is begun."""
    for name, images in data_sets.items():
        try:
            cut_for_search(study, Arm(kind="none"), images, study.seeds[0])
        except DataError as error:
            raise DataError(f"data set {name!r}, its reserve: {error}") from error


@contextmanager
def _database(path: Path) -> Iterator[None]:
    """What goes wrong with the trials' file is told of that file."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        full = full_disk(error, path)
        if full is not None:
            raise full from error
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise RunError(
            f"{path} is damaged or can't be used ({reason}); remove it to search anew, or choose "
            "another folder"
        ) from error


def score(
    study: Study,
    condition: Condition,
    images: ImageSet,
    options: Arm,
    device: str,
    trial: optuna.Trial | None = None,
) -> float:
    """Best validation accuracy on the images to search on, with other options of the arm.

    Raises
    ------
    optuna.TrialPruned
        If a trial falls behind.
    """
    parts: Cut = cut_for_search(study, options, images, study.seeds[0])
    model = study.models[condition.model]
    pruned = False

    def after_epoch(epoch: int, metrics: dict[str, Any]) -> None:
        nonlocal pruned
        from rankwise.nets import StopTraining

        if trial is None:
            return
        trial.report(float(metrics["validation_accuracy"]), epoch)
        if trial.should_prune():
            pruned = True
            raise StopTraining

    from rankwise.nets import updates_per_pass

    n_originals = len(parts.split.train.originals)
    equal = protocol_of(study.protocol).equal_updates
    training = Training(
        epochs=condition.epochs,
        frozen_epochs=max(1, round(model.frozen_epochs * study.epochs_factor)),
        batch_size=study.batch_size,
        steps_per_epoch=updates_per_pass(n_originals, study.batch_size) if equal else None,
        seed=study.seeds[0],
        device=device,
        best=True,
        precision=study.precision,
        patience=study.patience,
        n_originals=n_originals if equal and study.patience is None else None,
    )
    with temporary_folder() as folder, one_thread():
        fitted = fit_model(
            model,
            parts.train,
            parts.validation,
            images.n_classes,
            training,
            augment=batch_augmentation(options),
            sources=parts.sources,
            frozen_on=parts.whole,
            folder=folder,
            after_epoch=None if model.in_one_pass else after_epoch,
        )
    if pruned:
        raise _optuna().TrialPruned
    return max(float(entry["validation_accuracy"]) for entry in fitted.history)


def _search(
    search: optuna.Study,
    study: Study,
    condition: Condition,
    images: ImageSet,
    trials: int,
    device: str,
    advance: Any,
) -> None:
    finished = _finished(search)
    advance(min(trials, len(finished)))
    given = _given(condition)

    def objective(trial: optuna.Trial) -> float:
        changed = {
            name: trial.suggest_float(name, min(low, given[name]), max(high, given[name]))
            for name, (low, high) in _RANGES.items()
        }
        options = condition.options.model_copy(update=changed)
        return score(study, condition, images, options, device, trial)

    while len(_finished(search)) < trials or _reached(search, given) is None:
        # A sampler's numbers come from the number of finished trials: after a stop it suggests
        # again what was stopped, and the search is the one that it would have been.
        search.sampler = _optuna().samplers.TPESampler(
            seed=study.seeds[0] + len(_finished(search)), n_startup_trials=6
        )
        search.optimize(objective, n_trials=1)
        advance(1)


def _take_up(search: optuna.Study, condition: Condition) -> None:
    """Begin with the study's own values; leave out what an earlier run was stopped in.

    A kill leaves a trial running, an interrupt a failed one. Neither counts: `_search` makes the
    same one again.
    """
    from optuna.trial import TrialState

    for trial in search.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        search.tell(trial.number, state=TrialState.FAIL)
    given = _given(condition)
    tried = [_asked(t) for t in search.get_trials() if t.state != TrialState.FAIL]
    if not any(given.items() <= other.items() for other in tried):
        search.enqueue_trial(given)


def _given(condition: Condition) -> dict[str, float]:
    """The study's own values of what is searched."""
    return {name: float(getattr(condition.options, name)) for name in _RANGES}


def _asked(trial: Any) -> dict[str, float]:
    """The values of a trial: it may have been stopped before it took up all it was asked for."""
    return trial.system_attrs.get("fixed_params", {}) | trial.params


def _reached(search: optuna.Study, params: dict[str, float]) -> Any:
    """The first finished trial of these values, None if there is none."""
    return next((trial for trial in _finished(search) if trial.params == params), None)


def _finished(search: optuna.Study) -> Sequence[Any]:
    from optuna.trial import TrialState

    return search.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _claim(search: optuna.Study, study: Study, images: ImageSet, out: Path) -> None:
    """Refuse to mix trials of different studies, as their accuracies can't be compared."""

    def comparable(values: dict[str, Any]) -> dict[str, Any]:
        data = {
            name: {key: value for key, value in part.items() if key != "source"}
            for name, part in values["data"].items()
        }
        return values | {"data": data}

    inputs: dict[str, Any] = {"fingerprint": images.fingerprint, "files": weight_files(study)}
    facts = comparable(study.to_json()) | inputs
    stored = search.user_attrs.get("study")
    if stored is None:
        search.set_user_attr("study", facts)
        return
    # Searches of earlier versions have no digests of files.
    theirs = {key: stored.pop(key, value) for key, value in inputs.items()}
    found = comparable(with_defaults(stored)) | theirs
    if found != facts:
        different = differences(found, facts)
        raise RunError(
            f"{out} holds the search of another study (different: {', '.join(different)}); choose "
            "another folder"
        )


def _describe(search: optuna.Study, condition: Condition) -> dict[str, Any]:
    trials = [_record(trial) for trial in _finished(search)]
    complete = [trial for trial in trials if trial["state"] == "complete"]
    return {
        "condition": condition.id,
        "best": max(complete, key=lambda trial: trial["validation_accuracy"]),
        "given": _record(_reached(search, _given(condition))),
        "trials": trials,
    }


def _record(trial: Any) -> dict[str, Any]:
    return {
        "energy": trial.params["energy"],
        "skip_threshold": trial.params["skip_threshold"],
        "validation_accuracy": trial.value,
        "state": trial.state.name.lower(),
        "epochs": len(trial.intermediate_values),
    }


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise MissingDependencyError(
            "tuning needs a library: pip install 'rankwise[optuna]'"
        ) from error
    return optuna


def _quieten() -> Undo:
    """Leave optuna's log to errors: what a trial fails with ends the search, and is told there."""
    logging = _optuna().logging
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    return lambda: logging.set_verbosity(before)
