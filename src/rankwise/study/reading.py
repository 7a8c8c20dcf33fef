"""Study files: read, checked, and refused with the line of each mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from glob import glob
from pathlib import Path
from typing import Any

from rankwise._reading import check_regular
from rankwise.errors import is_shortage
from rankwise.study.design import Study, StudyError
from rankwise.study.design_parts import (
    ARM_OPTIONS,
    MODEL_OPTIONS,
    OWN_OPTIONS,
    ROW_OPTIONS,
    TRANSFER_OPTIONS,
    Arm,
    DataSet,
    Model,
    Published,
    Row,
)


def cross_check(study: Study) -> list[tuple[tuple[str | int, ...], str]]:
    """What is wrong between parts that are each right: place and sentence of each mistake."""
    wrong: list[tuple[tuple[str | int, ...], str]] = []
    for table, names in (("data", study.data), ("models", study.models), ("arms", study.arms)):
        if not names:
            wrong.append(((table,), f"{table} is empty; at least one is needed"))
    for name, data in study.data.items():
        for model in data.models or ():
            if model not in study.models:
                wrong.append(
                    (("data", name, "models"), _unknown(f"data.{name}.models", model, study.models))
                )
    for name, model_ in study.models.items():
        wrong += [(("models", name, key), text) for key, text in _model_mistakes(name, model_)]
    for name, arm in study.arms.items():
        wrong += [(("arms", name, key), text) for key, text in _arm_mistakes(name, arm)]
    for i, row in enumerate(study.conditions):
        for key, known in (("data", study.data), ("model", study.models), ("arm", study.arms)):
            if getattr(row, key) not in known:
                text = _unknown(f"conditions[{i}].{key}", getattr(row, key), known)
                wrong.append((("conditions", i, key), text))
        if row.arm in study.arms:
            given = {key for key in ROW_OPTIONS if getattr(row, key) is not None}
            found = _not_taken(f"conditions[{i}]", study.arms[row.arm], given)
            wrong += [(("conditions", i, key), text) for key, text in found]
    for i, pair in enumerate(study.factorial):
        mistake = _factorial_mistake(f"factorial[{i}]", pair, study)
        if mistake is not None:
            wrong.append((("factorial",), mistake))
    return wrong + _mistakes_of_one_pass(study)


def _factorial_mistake(where: str, pair: tuple[str, str], study: Study) -> str | None:
    """What is wrong with a pair of arms; None where nothing is."""
    for name in pair:
        if name not in study.arms:
            return _unknown(where, name, study.arms)
        if study.arms[name].kind in ("none", "matched"):
            return f"{where} names {name!r}, which changes no image; other arms are accepted"
    if pair[0] == pair[1]:
        return f"{where} names {pair[0]!r} twice; two arms are accepted"
    if f"{pair[0]}+{pair[1]}" in study.arms:
        return f"{where} makes an arm {pair[0]}+{pair[1]}, and there is one; another name for it"
    return None


def _unknown(where: str, name: str, known: Any) -> str:
    return f"{where} names {name!r}; {', '.join(map(repr, known))} are there"


def _model_mistakes(name: str, model: Model) -> list[tuple[str, str]]:
    taken = MODEL_OPTIONS.get(model.network, OWN_OPTIONS)
    tunable = "transfer" in taken
    if tunable and model.is_transfer:
        taken = taken | TRANSFER_OPTIONS
    wrong = []
    for key in sorted(model.model_fields_set - {"network", "backbone"} - taken):
        if tunable and key in TRANSFER_OPTIONS:
            text = f"models.{name}.{key} needs transfer = true"
        else:
            accepted = ", ".join(sorted(taken))
            text = f"models.{name}.{key}: {model.network!r} has none; it takes {accepted}"
        wrong.append((key, text))
    if (model.network == "backbone") != (model.backbone is not None):
        text = f"models.{name}: network = 'backbone' and backbone = FILE go together"
        wrong.append(("backbone", text))
    if model.is_transfer and model.unfreeze == 0 and model.frozen_stage == "epochs":
        text = (
            f"models.{name}.unfreeze = 0 trains the head alone, in one pass: it needs "
            "frozen_stage = 'closed-form'"
        )
        wrong.append(("unfreeze", text))
    if model.network == "vgg16" and model.transfer and model.weights is None:
        text = (
            f"models.{name}.transfer would freeze features that learned nothing: 'vgg16' needs "
            f"weights for it; {Model.model_fields['weights'].description} is accepted"
        )
        wrong.append(("transfer", text))
    if model.network == "backbone" and "transfer" in model.model_fields_set and not model.transfer:
        text = f"models.{name}.transfer is false, but a backbone is always fine-tuned; leave it out"
        wrong.append(("transfer", text))
    return wrong


def _arm_mistakes(name: str, arm: Arm) -> list[tuple[str, str]]:
    wrong = _not_taken(f"arms.{name}", arm, arm.model_fields_set - {"kind"})
    for kind, key in (("albumentations", "pipeline"), ("callable", "function")):
        if arm.kind == kind and getattr(arm, key) is None:
            description = Arm.model_fields[key].description
            wrong.append((key, f"arms.{name} has no {key}; {description} is accepted"))
    return wrong


def _not_taken(where: str, arm: Arm, keys: Iterable[str]) -> list[tuple[str, str]]:
    """Those of an arm's options that its kind doesn't read."""
    family = "library:NAME" if arm.library else arm.kind.removeprefix("default+")
    taken = ARM_OPTIONS.get(family, set())
    accepted = f"it takes {', '.join(sorted(taken))}" if taken else "it takes no option"
    return [
        (key, f"{where}.{key}: an arm of kind {arm.kind!r} has none; {accepted}")
        for key in sorted(set(keys) - taken)
    ]


def _mistakes_of_one_pass(study: Study) -> list[tuple[tuple[str | int, ...], str]]:
    """What is trained in one pass sees no batches, so it takes arms of copies only."""
    if not any(model.in_one_pass for model in study.models.values()):
        return []
    pairs = {(row.model, row.arm) for row in study.conditions}
    if not pairs:
        pairs = {(model, arm) for model in study.models for arm in study.arms}
    wrong: list[tuple[tuple[str | int, ...], str]] = []
    for model, arm in sorted(pairs):
        if model not in study.models or arm not in study.arms:
            continue
        kind = study.arms[arm]
        if study.models[model].in_one_pass and (
            kind.kind == "matched" or (kind.kind != "none" and (kind.in_batches or not kind.copies))
        ):
            text = (
                f"arms.{arm} works on batches of a training in epochs, which model {model!r} "
                "doesn't have; arms of copies and 'none' are accepted with it"
            )
            wrong.append((("arms", arm), text))
    return wrong


def study_from(values: dict[str, Any], where: str = "the study", text: str | None = None) -> Study:
    """Check plain values and make a study of them.

    Parameters
    ----------
    values : dict
        As TOML gives them.
    where : str
        What to call the place of the values in messages.
    text : str, optional
        The TOML text that they come from: then every message has its line.

    Raises
    ------
    StudyError
        With one line for each mistake: its place, what was found, what is accepted.
    """
    from pydantic import ValidationError

    from rankwise.study.toml_lines import line_of, lines_of_keys

    try:
        study = Study.model_validate(_with_batches(values))
        mistakes = cross_check(study)
    except ValidationError as error:
        mistakes = [_sentence(entry) for entry in _one_a_union(error.errors())]
    if not mistakes:
        return study
    places = {} if text is None else lines_of_keys(text)
    lines = []
    for path, sentence in mistakes:
        prefix = where if text is None else f"{where}, line {line_of(path, places)}"
        lines.append((line_of(path, places), f"{prefix}: {sentence}"))
    unique = dict.fromkeys(line for _, line in sorted(lines, key=lambda pair: pair[0]))
    raise StudyError("\n".join(unique))


def _with_batches(values: dict[str, Any]) -> dict[str, Any]:
    """Values with a data set for every folder and .npz file that a source with a ``*`` matches.

    Each is named after its folder or file; rows of conditions that name the table stand for all.

    Raises
    ------
    StudyError
        If nothing matches, or two would have one name.
    """
    data = values.get("data")
    if not isinstance(data, dict):
        return values
    found: dict[str, Any] = {}
    made: dict[str, list[str]] = {}
    for name, table in data.items():
        source = table.get("source") if isinstance(table, dict) else None
        if not isinstance(source, str) or "*" not in source:
            found[name] = table
            continue
        places = [p for p in sorted(map(Path, glob(source))) if p.is_dir() or p.suffix == ".npz"]
        if not places:
            raise StudyError(
                f"data.{name}.source is {source!r}, which matches no folder and no .npz file"
            )
        for place in places:
            own = re.sub(r"[^A-Za-z0-9_.+-]", "-", place.stem if place.is_file() else place.name)
            if own in found or own in data:
                raise StudyError(
                    f"data.{name}.source matches {place}, and there is a data set {own!r} already"
                )
            found[own] = table | {"source": str(place)}
            made.setdefault(name, []).append(own)
    if not made:
        return values
    rows = values.get("conditions")
    if isinstance(rows, list | tuple):
        values = values | {"conditions": [one for row in rows for one in _for_each(row, made)]}
    return values | {"data": found}


def _for_each(row: Any, made: dict[str, list[str]]) -> list[Any]:
    """A row of conditions, once for each data set that its own was made into."""
    name = row.get("data") if isinstance(row, dict) else None
    if not isinstance(name, str) or name not in made:
        return [row]  # what is no row is refused with the rest
    return [row | {"data": own} for own in made[name]]


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """A study that an earlier version stored, with the defaults of the keys that it didn't have.

    Returned as it is where this version can't read it.
    """
    from pydantic import ValidationError

    try:
        return Study.model_validate(values).to_json()
    except ValidationError:
        return values


def read_study(path: str | Path) -> Study:
    """Read a study file.

    Raises
    ------
    StudyError
        If the file isn't there, isn't TOML, or holds a wrong key or value; the message names
        lines and accepted values.
    """
    import tomllib

    path = Path(path)
    check_regular(path, StudyError)
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors put a mark before it
    except OSError as error:
        if is_shortage(error):
            raise
        raise StudyError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise StudyError(f"{path} isn't a text file in UTF-8; a TOML file is accepted") from error
    try:
        values = tomllib.loads(text)
    except ValueError as error:
        raise StudyError(f"{path} isn't TOML: {error}") from error
    except RecursionError as error:
        raise StudyError(f"{path} isn't a study: it nests too deep") from error
    return study_from(values, str(path), text)


def _one_a_union(entries: Iterable[Any]) -> Iterator[Any]:
    """Leave out that a union's other branches don't take the value either."""
    seen = set()
    for entry in entries:
        path = _walk(entry["loc"])[0]
        if any(isinstance(part, str) for part in entry["loc"][len(path) :]):
            if path in seen:
                continue
            seen.add(path)
        yield entry


def _sentence(entry: Any) -> tuple[tuple[str | int, ...], str]:
    """One of pydantic's errors as a place and a sentence."""
    path, owner, field = _walk(entry["loc"])
    spelled = _spelled(path)
    if entry["type"] == "extra_forbidden":
        accepted = ", ".join(owner.model_fields) if owner is not None else ""
        return path, f"unknown key {spelled}; {accepted} are accepted"
    accepted = field.description if field is not None else "a table"
    if entry["type"] == "missing":
        return path, f"{spelled} is missing; {accepted} is accepted"
    if entry["loc"] and entry["loc"][-1] == "[key]":
        return path, f"{spelled} is no name; letters, digits, _ . + - are accepted"
    return path, f"{spelled} is {entry['input']!r}; {accepted} is accepted"


def _walk(loc: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any, Any]:
    """Follow pydantic's location through the models: the plain path, the last model, the field."""
    tables = {"data": DataSet, "models": Model, "arms": Arm}
    owner: Any = Study
    field: Any = None
    path: list[Any] = []
    for part in loc:
        if len(path) == 1 and path[0] in tables and owner is Study:
            path.append(part)
            owner, field = tables[path[0]], None
        elif path == ["conditions"] and isinstance(part, int):
            path.append(part)
            owner, field = Row, None
        elif field is None or (owner is Row and field is Row.model_fields["published"]):
            if owner is Row and field is not None:
                owner = Published
            path.append(part)
            field = owner.model_fields.get(part)
        else:
            # Deeper parts name an item of a list, or a branch of a union.
            continue
    return tuple(path), owner, field


def _spelled(path: tuple[Any, ...]) -> str:
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or "the study"
