"""A study with the choices of the command line in the place of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rankwise.study.design import Study, StudyError, plain_names
from rankwise.study.design_parts import ARM_KINDS, LIBRARIES, OF_LIBRARY
from rankwise.study.reading import study_from


def narrowed(
    study: Study,
    *,
    data: dict[str, str] | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    size: int | None = None,
    epochs_factor: float | None = None,
    folds: int | None = None,
    seeds: Sequence[int] | None = None,
    arms: Sequence[str] = (),
    protocol: str | None = None,
    rope: float | None = None,
    patience: int | None = None,
) -> Study:
    """A study with what the command line asked for in place of its own choices.

    Parameters
    ----------
    study : Study
    data : dict
        Sources by name of data set, in place of the study's own.
    only : sequence of str
        Data sets to keep.
    limit, size, epochs_factor, folds, seeds, protocol, rope, patience
        In place of the study's, where given.
    arms : sequence of str
        Arms to keep; a kind that the study lacks is added to every data set and model.

    Raises
    ------
    StudyError
        For a name that isn't there, or a value that isn't accepted.
    """
    values = study.model_dump(mode="json", exclude_unset=True)
    for name in (*(data or {}), *only):
        if name not in study.data:
            raise StudyError(f"{name!r} is no data set here; {_names(study.data)} are accepted")
    for name, source in (data or {}).items():
        values["data"][name]["source"] = source
    for part in values["data"].values():
        if limit is not None:
            part["limit"] = limit
        if size is not None:
            part["size"] = size
    if arms:
        _keep_arms(values, study, arms)
    if only:
        values["data"] = {name: values["data"][name] for name in study.data if name in only}
        rows = [row for row in values.get("conditions", []) if row["data"] in only]
        _put_rows(values, study, rows, f"the data sets {_names(only)}")
    changes = {
        "epochs_factor": epochs_factor,
        "folds": folds,
        "protocol": protocol,
        "rope": rope,
        "patience": patience,
    }
    values |= {key: value for key, value in changes.items() if value is not None}
    if seeds:
        values["seeds"] = list(seeds)
    return study_from(values, study.name)


def _keep_arms(values: dict[str, Any], study: Study, arms: Sequence[str]) -> None:
    # A kind that the study has under a name of its own is that arm.
    own = {arm.kind: name for name, arm in study.arms.items() if arm.library is not None}
    arms = [name if name in study.arms else own.get(name, name) for name in arms]
    kinds = [name for name in arms if name not in study.arms]
    incomplete = ("albumentations", "callable")
    for name in kinds:
        if (name not in ARM_KINDS and not OF_LIBRARY.fullmatch(name)) or name in incomplete:
            known = [*study.arms, *ARM_KINDS, *(f"{library}:NAME" for library in LIBRARIES)]
            accepted = _names([k for k in dict.fromkeys(known) if k not in incomplete])
            raise StudyError(f"{name!r} is no arm here; {accepted} are accepted")
    called = plain_names([*study.arms, *kinds])
    arms = [called[name] if name in kinds else name for name in arms]
    new = {called[kind]: kind for kind in kinds}
    values["arms"] = {
        name: {"kind": new[name]} if name in new else values["arms"][name] for name in arms
    }
    if study.conditions:
        rows = [row for row in values["conditions"] if row["arm"] in arms]
        pairs = dict.fromkeys((row.data, row.model) for row in study.conditions)
        rows += [
            {"data": data, "model": model, "arm": name} for data, model in pairs for name in new
        ]
        _put_rows(values, study, rows, f"the arms {_names(arms)}")


def _put_rows(values: dict[str, Any], study: Study, rows: list[dict[str, Any]], what: str) -> None:
    if study.conditions and not rows:
        raise StudyError(f"{study.name} has no condition with {what}")
    if study.conditions:
        values["conditions"] = rows


def _names(names: Any) -> str:
    return ", ".join(map(repr, names))
