"""Whose folder it is: ``study.json``, which says what was asked for, of which data and files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankwise._claims import LOCK, checksum, locked
from rankwise._files import write_json
from rankwise._fingerprints import NoFingerprintError, code_of_package, fingerprint
from rankwise._reading import read_json
from rankwise._version import __version__
from rankwise.data import ImageSet
from rankwise.errors import RunError
from rankwise.study.arms import find_callable
from rankwise.study.design import Study, StudyError
from rankwise.study.library_arms import version_of
from rankwise.study.preregistration import Plan, plan_of, refuse_late_plan
from rankwise.study.reading import with_defaults
from rankwise.study.results import timestamp

STUDY = "study.json"
_FILES = ("weights", "backbone")
_COMPUTING = (
    "arms",
    "cells",
    "conditions",
    "cuts",
    "degrade",
    "degraded_sets",
    "design",
    "frozen",
    "imagenet_c",
    "library_arms",
    "models",
    "networks",
    "protocols",
)
"""Modules of this room that a cell's numbers follow from; the others compare and show them."""


@dataclass(frozen=True)
class Claim:
    """What a folder's ``study.json`` says of its runs.

    Attributes
    ----------
    started : str
        When it was first begun.
    looks : list of list of int
        The seeds that it was begun with, and those of each extension.
    plan, plan_written : str or None
        Digest of the plan that it was begun with, and when that was written.
    seeds_after_plan : tuple of int
        Those that extensions added to the planned ones.
    """

    started: str
    looks: list[list[int]]
    plan: str | None = None
    plan_written: str | None = None
    seeds_after_plan: tuple[int, ...] = ()

    @property
    def look(self) -> int:
        """How often its seeds were set: 1, and one more for each extension."""
        return len(self.looks)


def claim(
    study: Study,
    data_sets: dict[str, ImageSet],
    out: Path,
    device: str = "cpu",
    *,
    extend: bool = False,
    plan: Plan | None = None,
) -> Claim:
    """Make the folder this study's.

    Sources and files of weights may be spelled differently: fingerprints and digests say whether
    they are the same.

    Parameters
    ----------
    study, data_sets, out, device
    extend : bool
        Let the study have more seeds than it was begun with: another look at it, which is written
        down, since each has its part of the level (`rankwise.study.infer.spent_level`).
    plan : Plan, optional
        That the study follows: a new folder keeps its digest, and stays with it in runs and
        extensions that don't name it. A folder that was begun without it is refused.

    Raises
    ------
    RunError
        If it holds another study, with the choices that differ, or one begun on another kind of
        device, whose numbers would be mixed with this one's, or one begun without the plan.
    """
    wanted = {
        "study": study.to_json(),
        "fingerprints": {name: images.fingerprint for name, images in data_sets.items()},
        "files": weight_files(study),
        "device": re.sub(r":\d+$", "", device),
        "rankwise": __version__,
        "code": code_of_package(*(f"study/{name}.py" for name in _COMPUTING)),
        "started": timestamp(),
        "looks": [list(study.seeds)],
        "plan": None if plan is None else {"sha256": plan.digest, "written": plan.written},
    }
    path = out / STUDY
    with locked(out / LOCK, wait=True):  # Of two runs that begin at once, one writes and one reads.
        if not path.exists():
            write_json(path, wanted)
            return _claim(wanted)
        found = read_claim(out)
        if plan is not None:
            refuse_late_plan(out, found, plan)
        looks = looks_of(found)
        grown = set(study.seeds) > set(looks[-1])
        if extend and grown:
            found["study"] = found["study"] | {"seeds": list(study.seeds)}
        different = _differences(found, wanted)
        if different == ["seeds"]:
            _refuse_seeds(out, study, looks)
        if different:
            raise RunError(
                f"{out} holds another study (different: {', '.join(different)}); choose another "
                "folder"
            )
        if extend and grown:
            found["looks"] = [*looks, list(study.seeds)]
            write_json(path, found)
    kind, begun_on = wanted["device"], found.get("device", wanted["device"])
    if begun_on != kind:
        raise RunError(
            f"{out} was begun on {begun_on}, whose numbers differ from those of {kind}; go on with "
            f"--device {begun_on}, or choose another folder"
        )
    return _claim(found)


def _claim(found: dict[str, Any]) -> Claim:
    """What a ``study.json`` says of its runs."""
    looks, plan = looks_of(found), plan_of(found)
    if plan is None:
        return Claim(str(found["started"]), looks)
    added = tuple(seed for seed in looks[-1] if seed not in looks[0])
    return Claim(str(found["started"]), looks, plan["sha256"], plan["written"], added)


def _refuse_seeds(out: Path, study: Study, looks: list[list[int]]) -> None:
    """Say how to go on with a folder whose study has more seeds, or fewer; others are another."""
    given, there = set(study.seeds), set(looks[-1])
    if given > there:
        raise RunError(
            f"{out} holds this study with fewer seeds; 'rankwise study extend' adds seeds and "
            "counts it as another look at the study"
        )
    if given < there and len(looks) > 1:
        added = ",".join(str(seed) for seed in looks[-1] if seed not in looks[0])
        raise RunError(
            f"{out} holds this study extended by the seeds {added}; 'rankwise study extend {out} "
            f"--seeds {added}' goes on with it"
        )
    if given < there:
        raise RunError(
            f"{out} holds this study with more seeds ({','.join(map(str, looks[-1]))}); give all "
            "of them, or choose another folder"
        )


def looks_of(found: dict[str, Any]) -> list[list[int]]:
    """The seeds of every look at a study; one look where an earlier version wrote the claim."""
    return found.get("looks") or [list(found["study"].get("seeds", ()))]


def weight_files(study: Study) -> dict[str, str]:
    """What a study has from elsewhere: SHA-256 of files and of functions, libraries' versions.

    Names of what lies in no file are as they are.

    Raises
    ------
    StudyError
        If a function can't be imported, or not be seen into.
    """
    found = {}
    functions = {f"arms.{name}.function": arm.function for name, arm in study.arms.items()}
    functions |= {
        f"models.{name}.network": model.network
        for name, model in study.models.items()
        if ":" in model.network and not model.network.startswith("timm:")
    }
    for name, arm in study.arms.items():
        if arm.library is not None:
            found[f"arms.{name}.library"] = f"{arm.library} {version_of(arm.library)}"
    for place, spelled in functions.items():
        if spelled is None:
            continue
        try:
            found[place] = fingerprint(find_callable(spelled), package=False)
        except NoFingerprintError as error:
            raise StudyError(
                f"{spelled} can't be told from other code, and a study that goes on must know: "
                f"{error}; a method fingerprint_parts() of it may say what there is to tell"
            ) from error
    for name, model in study.models.items():
        for key in _FILES:
            value = getattr(model, key)
            if value is not None and Path(value).is_file():
                value = checksum(Path(value))
            if value is not None:
                found[f"models.{name}.{key}"] = value
    if study.tuned is not None and study.tuned.images is not None:
        marks = Path(study.tuned.images)
        found["tuned.images"] = checksum(marks) if marks.is_file() else str(marks)
    return found


def read_claim(out: Path) -> dict[str, Any]:
    """``study.json`` of a folder.

    Raises
    ------
    RunError
        If there is none, or it's damaged.
    """
    path = out / STUDY
    if not path.exists():
        raise RunError(f"{out} holds no study; 'rankwise study run' makes one")
    found = read_json(path, error=RunError, hint="; choose another folder")
    if not isinstance(found, dict) or not isinstance(found.get("study"), dict):
        raise RunError(f"{path} is damaged or foreign: it describes no study")
    plan = plan_of(found)
    if plan is not None and not (isinstance(plan, dict) and {"sha256", "written"} <= set(plan)):
        raise RunError(f"{path} is damaged: it has a plan without a digest")
    return found


def claimed_study(out: Path) -> Study:
    """The study of a folder, without what it only spells out: its defaults.

    Raises
    ------
    RunError
        If the folder holds none, or one of another version.
    """
    written = study_of(out, read_claim(out))
    return Study.model_validate(written.model_dump(mode="json", exclude_defaults=True))


def study_of(out: Path, found: dict[str, Any]) -> Study:
    """The study that a folder's ``study.json`` holds.

    Raises
    ------
    RunError
        If this version knows no such study.
    """
    try:
        return Study.model_validate(found["study"])
    except (ValueError, RecursionError) as error:
        raise RunError(
            f"{out / STUDY} is damaged: it describes no study of this version"
        ) from error


def _what(place: str) -> str:
    """What a study has from elsewhere, in a word."""
    if place.endswith(".library"):
        return "version"
    return "code" if place.endswith((".function", ".network")) else "file"


def _differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    # Claims of earlier versions have no digests: then the names of files count.
    files = found.get("files", wanted["files"])
    left_out = {"data": ("source",), "models": _FILES if "files" in found else ()}

    def plain(study: dict[str, Any]) -> dict[str, Any]:
        tables = {
            table: {
                name: {k: v for k, v in part.items() if k not in keys}
                for name, part in study.get(table, {}).items()
            }
            for table, keys in left_out.items()
        }
        tuned = {k: v for k, v in (study.get("tuned") or {}).items() if k != "images"}
        seeds = sorted(study.get("seeds") or ())  # in another order they are the same
        return study | tables | {"tuned": tuned, "seeds": seeds}

    theirs, ours = plain(with_defaults(found["study"])), plain(wanted["study"])
    names = [key for key in ours if theirs.get(key) != ours[key]]
    names += [
        f"the {_what(place)} of {place}"
        for place, digest in wanted["files"].items()
        if files.get(place) != digest
    ]
    # Nor have they a digest of the code.
    known = {"code": wanted["code"], **found}
    kinds = ("fingerprints", "rankwise", "code")
    return names + [key for key in kinds if known.get(key) != wanted[key]]
