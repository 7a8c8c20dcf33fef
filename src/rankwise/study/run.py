"""Running a study: cells in parallel, in a folder that an interrupted run goes on from.

A study's folder holds ``study.json`` (what was asked for, and the fingerprints of the data),
``record.json`` (what was read, by which command), ``cells/`` (see `rankwise.study.cells`),
``gallery/``, ``results.json`` and, on request, ``tensorboard/``. Several runs of one study may
share a folder, also from several machines that see it: each cell is locked by whoever works on it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rankwise._claims import LOCK, locked, refuse_foreign
from rankwise._files import sweep, write_json
from rankwise._progress import progress_bar
from rankwise.cluster import described, engine, on_workers
from rankwise.data import ImageSet, load_images, one_source_each
from rankwise.errors import DataError, RunError
from rankwise.study.arms import check_arm, with_pipelines
from rankwise.study.cells import (
    RESULT,
    Cell,
    cells_of,
    import_tensorboard,
    read_result,
    run_cell,
)
from rankwise.study.claim import STUDY, claim, weight_files
from rankwise.study.conditions import Condition, conditions_of
from rankwise.study.cuts import training_part
from rankwise.study.degrade import check_shape
from rankwise.study.degraded_sets import forget
from rankwise.study.design import Study, StudyError
from rankwise.study.gallery import write_gallery
from rankwise.study.imagenet_c import check_images
from rankwise.study.models import check_model
from rankwise.study.preregistration import (
    read_plan,
    refuse_other_files,
    refuse_other_images,
    refuse_unplanned,
)
from rankwise.study.protocols import cut_folds, protocol_of
from rankwise.study.reading import cross_check
from rankwise.study.remote import Files, keep, run_away
from rankwise.study.results import RECORD, describe_run, gather, write_results
from rankwise.study.searched import refuse_searched

_POLL_SECONDS = 1.0


def run_study(
    study: Study,
    out: Path | str,
    *,
    workers: int = -1,
    device: str = "auto",
    tensorboard: bool = False,
    progress: bool = False,
    command: str = "",
    extend: bool = False,
    plan: Path | str | None = None,
) -> dict[str, Any]:
    """Carry out a study, or what is left of it, and write ``results.json``.

    Parameters
    ----------
    study : Study
    out : Path
        Folder of the study: new, empty, or holding this very study.
    workers : int
        Cells at a time, one thread each; -1 for one a core, or one on a GPU. Doesn't change the
        numbers. A surrounding ``rankwise.cluster`` takes their place: its workers need not see
        `out`, which this process writes.
    device : str
        ``"auto"``, ``"cpu"`` or ``"cuda"``.
    tensorboard : bool
        Write events of every training to ``out/tensorboard``.
    progress : bool
        A bar over the cells on standard error.
    command : str
        What to name in ``results.json`` as the command.
    extend : bool
        The study may have more seeds than its folder; every cell that is there is used again.
    plan : path, optional
        File of a plan (`rankwise.study.plan`) that the study follows from its beginning.

    Returns
    -------
    dict
        As in ``results.json``.

    Raises
    ------
    StudyError
        If the study, an arm or a model can't be used, or the study or its images aren't planned.
    DataError
        If a source can't be read, or is too small for the folds.
    RunError
        If the folder holds another study, or was begun without the plan, or on another kind of
        device; if a cell failed (the others are done then), or if the system ended a worker:
        ``results.json`` has what is done.
    """
    from concurrent.futures.process import BrokenProcessPool

    out = Path(out)
    if workers == 0 or workers < -1:
        raise ValueError(f"workers must be a number from 1, or -1 for one a core, got {workers}")
    if tensorboard:
        import_tensorboard()
    study = with_pipelines(study)
    planned = None if plan is None else read_plan(plan)
    if planned is not None:
        refuse_unplanned(planned, study)
    mistakes = cross_check(study)
    if mistakes:
        raise StudyError("\n".join(text for _, text in mistakes))
    conditions = conditions_of(study)
    device, workers = _resources(device, workers)
    check_precision(study, device)
    check_sources(study, conditions)
    refuse_foreign(out, "study", own=(out / STUDY).exists())
    data_sets = load_data(study, conditions, progress=progress)
    check(study, conditions, data_sets)
    if planned is not None:
        refuse_other_files(planned, weight_files(study))
    refuse_searched(study, data_sets)
    if planned is not None:
        refuse_other_images(planned, data_sets)
    claimed = claim(study, data_sets, out, device, extend=extend, plan=planned)
    record = describe_run(
        study, conditions, data_sets,
        command=command, started=claimed.started, workers=workers, device=device,
        look=claimed.look, looks=claimed.looks, plan=claimed.plan,
        plan_written=claimed.plan_written, seeds_after_plan=list(claimed.seeds_after_plan),
    )  # fmt: skip
    with locked(out / LOCK, wait=True):
        write_json(out / RECORD, record)
    cells = cells_of(study, conditions)
    failed, lost_worker = {}, False
    taking = on_workers("cells", processes=True)
    with progress_bar(taking, len(cells), enabled=progress) as advance:
        try:
            failed = _run_cells(study, cells, data_sets, out, workers, device, tensorboard, advance)
        except BrokenProcessPool:
            lost_worker = True
    complete = not failed and not lost_worker
    pictures = write_gallery(conditions, data_sets, out, study.seeds[0]) if complete else []
    with locked(
        out / LOCK, wait=True
    ):  # A report may be gathering what there is at the same moment.
        results = (
            gather(study, conditions, cells, record, out) | {"gallery": pictures} | described()
        )
        write_results(results, out)
    if complete:
        forget(out)
    if lost_worker:
        raise RunError(
            f"one of {workers} workers was ended from outside, as the system does when memory runs "
            f"out; {len(results['cells'])} of {len(cells)} cells are done and kept, and the same "
            "command with fewer --workers goes on with the rest"
        )
    if failed:
        cell, reason = next(iter(failed.items()))
        raise RunError(
            f"{len(failed)} of {len(cells)} cells failed; the first is {cell.place}: {reason}; the "
            "same command runs them again"
        )
    return results


def check_precision(study: Study, device: str) -> None:
    """Refuse half precision on the CPU, where Lightning would take another one instead."""
    if study.precision == "16-mixed" and device.startswith("cpu"):
        raise StudyError(
            "precision '16-mixed' needs a GPU, and this study would run on the CPU; '32-true' and "
            "'bf16-mixed' are accepted there"
        )


def check_sources(study: Study, conditions: Sequence[Condition]) -> None:
    """Refuse a study whose data sets have no source, before anything is read."""
    for name in dict.fromkeys(c.data_set for c in conditions):
        if study.data[name].source is None:
            raise StudyError(
                f"data set {name!r} has no source; give --data {name}=SOURCE (a folder, a hub id "
                f"or an .npz file), or leave it out with --only"
            )


def load_data(
    study: Study, conditions: Sequence[Condition], *, progress: bool = False
) -> dict[str, ImageSet]:
    """Read the data sets that the conditions need, all splits of each.

    Raises
    ------
    DataError
        Naming the data set, if its source can't be read.
    """
    found = {}
    for name in dict.fromkeys(c.data_set for c in conditions):
        data = study.data[name]
        try:
            found[name] = load_images(
                str(data.source),
                "all",
                size=data.size,
                grey=data.grey,
                limit=data.limit,
                seed=study.split_seed,
                on_error=data.on_error,
                source_pattern=data.source_pattern,
                progress=progress,
            )
        except DataError as error:
            raise DataError(
                f"data set {name!r}: {error} Another source is given by --data {name}=SOURCE."
            ) from error
        if protocol_of(study.protocol).by_source:
            # The same picture under two names is one source: no split may separate them.
            found[name] = one_source_each(found[name])
    return found


def check(study: Study, conditions: Sequence[Condition], data_sets: dict[str, ImageSet]) -> None:
    """Try every model, arm and split before anything is trained."""
    protocol = protocol_of(study.protocol)
    for name, images in data_sets.items():
        if images.holds_copies and not protocol.by_source:
            raise DataError(
                f"data set {name!r} holds copies beside their originals, and protocol "
                f"{protocol.name!r} would part them; protocol 'sound' keeps them together, or give "
                "the originals alone"
            )
        if degrades(study):
            check_shape(name, images.image_shape)
        rest = training_part(study, images)
        for seed in study.seeds:
            try:
                cut_folds(protocol, images.labels[rest], images.source_ids[rest], study.folds, seed)
            except DataError as error:
                raise DataError(f"data set {name!r}: {error}") from error
    tried = set()
    for condition in conditions:
        images = data_sets[condition.data_set]
        pair = (condition.model, images.image_shape, images.n_classes)
        if pair not in tried:
            tried.add(pair)
            check_model(study.models[condition.model], images.image_shape, images.n_classes)
        check_arm(condition.options, images.image_shape)
        if study.corruptions == "imagenet-c" and degrades(study):
            check_images(images.image_shape)


def degrades(study: Study) -> bool:
    """Whether any cell is tested on degraded images."""
    return (study.degraded or protocol_of(study.protocol).degraded) != "none"


def _run_cells(
    study: Study,
    cells: Sequence[Cell],
    data_sets: dict[str, ImageSet],
    out: Path,
    workers: int,
    device: str,
    tensorboard: bool,
    advance: Callable[[int], None],
) -> dict[Cell, str]:
    """Run what isn't done, folds before re-trainings; give the cells that failed, and why."""
    executor = engine(workers)
    common = (study, data_sets, out.resolve(), device, tensorboard)
    failed: dict[Cell, str] = {}
    for stage in ("fold", "retrain"):
        left = [cell for cell in cells if cell.stage == stage]
        while left:
            tasks = []
            for cell in left:
                best = _best_epochs(study, cell, out)
                if best is None:
                    failed[cell] = "a fold of its condition failed"
                    continue
                if executor.remote and (out / cell.place / RESULT).exists():
                    sweep(out / cell.place)  # of a run that was killed right after its last word
                    advance(1)
                    continue
                tasks.append((cell, best))
            busy = []
            one = _run_there if executor.remote else _run_one
            for number, (outcome, files) in executor.completed(one, tasks, common):
                cell = tasks[number][0]
                if executor.remote:
                    keep(files, out, cell)
                if outcome == "done" and not (out / cell.place / RESULT).exists():
                    outcome = "it left no result"
                if outcome == "busy":
                    busy.append(cell)
                    continue
                if outcome != "done":
                    failed[cell] = outcome.removeprefix("failed: ")
                advance(1)
            left = busy
            if busy:
                # Another run works on them; if it dies, this one takes over.
                time.sleep(_POLL_SECONDS)
    return failed


_Common = tuple[Study, dict[str, ImageSet], Path, str, bool]


def _run_one(common: _Common, item: tuple[Cell, tuple[int, ...]]) -> tuple[str, Files]:
    """A cell in its place in the study's folder, so that it goes on where it was interrupted."""
    (study, data_sets, out, device, tensorboard), (cell, best) = common, item
    outcome = run_cell(
        study,
        cell,
        data_sets[cell.condition.data_set],
        out,
        best_epochs=best,
        device=device,
        tensorboard=tensorboard,
    )
    return outcome, {}


def _run_there(common: _Common, item: tuple[Cell, tuple[int, ...]]) -> tuple[str, Files]:
    """A cell on a worker that may see no folder of this machine."""
    (study, data_sets, _, device, tensorboard), (cell, best) = common, item
    images = data_sets[cell.condition.data_set]
    return run_away(study, cell, images, best_epochs=best, device=device, tensorboard=tensorboard)


def _best_epochs(study: Study, cell: Cell, out: Path) -> tuple[int, ...] | None:
    """Best epochs of a re-training's folds, which must all be done."""
    if cell.fold is not None:
        return ()
    folds = [read_result(out, Cell(cell.condition, cell.seed, fold)) for fold in range(study.folds)]
    return tuple(r["best_epoch"] for r in folds if r) if all(folds) else None


def _resources(device: str, workers: int) -> tuple[str, int]:
    from joblib import cpu_count

    from rankwise._device import resolve_device

    device = resolve_device(device)
    if workers == -1:
        workers = cpu_count() if device == "cpu" else 1
    return device, workers
