"""From a study to its conditions: data set × model × arm, each with its epochs and baseline."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rankwise.study.crossed import both_name, check_crossed
from rankwise.study.design import Study, StudyError
from rankwise.study.design_parts import ROW_OPTIONS, Arm, Both, Row
from rankwise.study.protocols import Protocol, protocol_of


class _RowOfBoth(Row):
    """A row of two arms at once, with the settings that the rows of each, `of`, have there."""

    options: Both
    of: tuple[Row, ...] = ()


@dataclass(frozen=True)
class Condition:
    """One data set, model and arm, trained in every fold with every seed.

    Attributes
    ----------
    id : str
        ``data/model/arm/epochs``.
    data_set, model, arm : str
        Names in the study.
    options : Arm
        The arm with what the condition set in its place.
    epochs : int
    baseline : str or None
        Id of the condition without the copies: what the paper compares it with.
    control : str or None
        Id of the condition with unchanged copies of the same images, so of the same skip
        threshold.
    published : dict or None
        The paper's row.
    """

    id: str
    data_set: str
    model: str
    arm: str
    options: Arm
    epochs: int
    baseline: str | None = None
    control: str | None = None
    published: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As ``results.json`` has it."""
        arm = self.options
        both = {"parts": [_dose(part) for part in arm.parts]} if isinstance(arm, Both) else {}
        return {
            "id": self.id,
            "data_set": self.data_set,
            "model": self.model,
            "arm": self.arm,
            "copies": arm.copies,
            "epochs": self.epochs,
            **_dose(arm),
            "baseline": self.baseline,
            "control": self.control,
            "published": self.published,
            **both,
        }


def _dose(arm: Arm) -> dict[str, Any]:
    """What an arm does to how many images, None where its kind doesn't read it."""
    low_rank = arm.copies == "low-rank"
    copies = arm.copies not in (None, "both") or arm.kind == "matched"
    return {
        "arm_kind": arm.kind,
        "energy": arm.energy if low_rank else None,
        "energy_std": arm.energy_std if low_rank else None,
        "skip_threshold": arm.skip_threshold if copies else None,
    }


def conditions_of(study: Study) -> tuple[Condition, ...]:
    """Every condition of a study, its protocol's controls included.

    Raises
    ------
    StudyError
        If two conditions are the same, or a factorial design doesn't compare like with like.
    """
    protocol = protocol_of(study.protocol)
    rows = list(study.conditions) or [
        Row(data=data, model=model, arm=arm)
        for data, value in study.data.items()
        for model in value.models or study.models
        for arm in study.arms
    ]
    arms = dict(study.arms)
    rows = _with_both(rows, arms, study.factorial)
    if protocol.controls:
        rows = _with_controls(rows, arms)
    found = [_condition(study, protocol, row, arms, rows) for row in rows]
    repeated = {c.id for c in found if sum(c.id == other.id for other in found) > 1}
    if repeated:
        raise StudyError(f"{study.name} has the condition {min(repeated)} twice; once is accepted")
    check_crossed([condition.to_json() for condition in found], study.factorial)
    return tuple(_linked(condition, found) for condition in found)


def _with_both(
    rows: list[Row], arms: dict[str, Arm], factorial: Sequence[tuple[str, str]]
) -> list[Row]:
    """Rows, with one of both arms where a data set and model have each of a pair.

    It has the settings of the two rows there, so that all four arms compare the same doses, and
    trains for the longer of their epochs.
    """
    result = list(rows)
    for pair in factorial:
        name = both_name(pair)
        for data, model in dict.fromkeys((row.data, row.model) for row in rows):
            own = [r for r in rows if (r.data, r.model) == (data, model) and r.arm in pair]
            if {row.arm for row in own} == set(pair):
                first, second = (_one_setting([r for r in own if r.arm == a], arms) for a in pair)
                both = Both(parts=(first, second))
                arms.setdefault(name, both)
                of = tuple(own)
                result.append(_RowOfBoth(data=data, model=model, arm=name, options=both, of=of))
    return result


def _one_setting(rows: Sequence[Row], arms: dict[str, Arm]) -> Arm:
    """The arm of rows of one data set and model, as all of them set it.

    Raises
    ------
    StudyError
        If they set it differently.
    """
    found = [_set(row, arms) for row in rows]
    for row, arm in zip(rows, found, strict=True):
        if arm != found[0]:
            first, other = (
                ", ".join(f"{key} {getattr(each, key):g}" for key in _changed(found[0], arm))
                for each in (found[0], arm)
            )
            raise StudyError(
                f"{row.data}/{row.model} has the arm {row.arm!r} with {first} and with {other}; a "
                "factorial design takes one setting of an arm there"
            )
    return found[0]


def _changed(first: Arm, second: Arm) -> list[str]:
    return [key for key in ROW_OPTIONS if getattr(first, key) != getattr(second, key)]


def _set(row: Row, arms: dict[str, Arm]) -> Arm:
    """The arm of a row, with what the row sets in its place."""
    if isinstance(row, _RowOfBoth):
        return row.options
    changed = {key: getattr(row, key) for key in ROW_OPTIONS if getattr(row, key) is not None}
    return arms[row.arm].model_copy(update=changed)


def _with_controls(rows: list[Row], arms: dict[str, Arm]) -> list[Row]:
    """Rows, and before each group of one data set and model the controls that it lacks.

    None and, where an arm adds copies, unchanged copies; where one adds them to the default
    augmentation, also that augmentation alone, and with unchanged copies. Unchanged copies are
    there for every skip threshold of the arms that they stand against, so that both copy the same
    images. `arms` gets the controls' arms.
    """
    result: list[Row] = []
    for data, model in dict.fromkeys((row.data, row.model) for row in rows):
        group = [row for row in rows if (row.data, row.model) == (data, model)]
        kinds = [arms[row.arm].kind for row in group]
        with_default = any(kind.startswith("default+") for kind in kinds)
        wanted = ["none", "default"] if with_default else ["none"]
        added = [
            Row(data=data, model=model, arm=_plain_arm(kind, arms))
            for kind in wanted
            if kind not in kinds
        ]
        if with_default:
            added += _duplicates("default+duplicate", data, model, group, arms)
        copying = any(_set(row, arms).copies for row in group)
        if copying and not all(kind.startswith("default") for kind in kinds):
            added += _duplicates("duplicate", data, model, group, arms)
        added += _copies_unchanged(data, model, group, arms)
        none_first = [row for row in added if arms[row.arm].kind == "none"]
        result += none_first + group + [row for row in added if row not in none_first]
    return result


def _copies_unchanged(
    data: str, model: str, group: Sequence[Row], arms: dict[str, Arm]
) -> list[Row]:
    """Of arms that are two at once: the same with unchanged copies in the place of theirs."""
    rows: list[Row] = []
    for row in group:
        arm = _set(row, arms)
        if isinstance(arm, Both) and arm.copies and unchanged(arm) != arm:
            plain, name = unchanged(arm), f"{row.arm}-unchanged"
            # Of another data set it may have other settings: one name stands for all.
            while not isinstance(arms.setdefault(name, plain), Both):
                name = f"{name}-control"
            rows.append(
                _RowOfBoth(data=data, model=model, arm=name, epochs=row.epochs, options=plain)
            )
    return rows


def unchanged(arm: Both) -> Both:
    """The same two arms, with unchanged copies in the place of changed ones."""

    def plain(part: Arm) -> Arm:
        if not part.copies:
            return part
        kind = "default+duplicate" if part.with_default else "duplicate"
        return Arm(kind=kind, skip_threshold=part.skip_threshold)

    return Both(parts=(plain(arm.parts[0]), plain(arm.parts[1])))


def _duplicates(
    kind: str, data: str, model: str, group: Sequence[Row], arms: dict[str, Arm]
) -> list[Row]:
    """The controls of unchanged copies that a group lacks, one for each skip threshold.

    The first has its kind for a name; further ones are called ``duplicate-0.5``.
    """
    there = [_threshold(row, arms) for row in group if arms[row.arm].kind == kind]
    against = [
        _threshold(row, arms)
        for row in group
        if arms[row.arm].copies not in (None, "both")
        and arms[row.arm].with_default == kind.startswith("default+")
    ]
    if not against and not there:
        # Arms of copies are of the other kind; then it shows what copies alone do.
        against = [
            _threshold(row, arms) for row in group if arms[row.arm].copies not in (None, "both")
        ][:1]
    rows = []
    for skip in dict.fromkeys(against):
        if skip in there:
            continue
        name = _plain_arm(kind, arms) if not there else _arm_of(kind, skip, arms)
        rows.append(Row(data=data, model=model, arm=name, skip_threshold=skip))
        there.append(skip)
    return rows


def _threshold(row: Row, arms: dict[str, Arm]) -> float:
    """The skip threshold of a row: its own, or its arm's."""
    return _set(row, arms).skip_threshold


def _plain_arm(kind: str, arms: dict[str, Arm]) -> str:
    """The name of the first arm of a kind, made where there is none."""
    if all(arm.kind != kind for arm in arms.values()):
        arms[_free_name(kind, Arm(kind=kind), arms)] = Arm(kind=kind)
    return next(name for name, arm in arms.items() if arm.kind == kind)


def _arm_of(kind: str, skip: float, arms: dict[str, Arm]) -> str:
    """The name of an arm of unchanged copies with a skip threshold, made where there is none."""
    arm = Arm(kind=kind, skip_threshold=skip)
    name = _free_name(f"{kind}-{skip}", arm, arms)
    arms.setdefault(name, arm)
    return name


def _free_name(name: str, arm: Arm, arms: dict[str, Arm]) -> str:
    while arms.get(name, arm) != arm:
        name = f"{name}-control"
    return name


def _condition(
    study: Study, protocol: Protocol, row: Row, arms: dict[str, Arm], rows: Sequence[Row]
) -> Condition:
    options = _set(row, arms)
    epochs = _epochs(study, protocol, row, options, arms, rows)
    published = None
    if row.published is not None:
        published = row.published.model_dump(mode="json") | {
            "energy": row.energy,
            "skip_threshold": row.skip_threshold,
            "epochs": row.epochs,
        }
    return Condition(
        id=f"{row.data}/{row.model}/{row.arm}/{epochs}",
        data_set=row.data,
        model=row.model,
        arm=row.arm,
        options=options,
        epochs=epochs,
        published=published,
    )


def _epochs(
    study: Study,
    protocol: Protocol,
    row: Row,
    options: Arm,
    arms: dict[str, Arm],
    rows: Sequence[Row],
) -> int:
    """Epochs of a condition: the row's, the data set's, or the study's, times the factor.

    Under equal updates all arms of a data set and model share the fewest that a row states: those
    of its baseline. A row without epochs takes them too. Two arms at once train for the longer of
    the epochs that each has alone.
    """
    if study.models[row.model].in_one_pass:
        return 1
    if isinstance(row, _RowOfBoth) and row.of and not protocol.equal_updates:
        alone = ((each, _set(each, arms)) for each in row.of)
        return max(_epochs(study, protocol, each, own, arms, rows) for each, own in alone)
    group = [r.epochs for r in rows if (r.data, r.model) == (row.data, row.model) and r.epochs]
    base = study.data[row.data].epochs or study.epochs
    if group and (protocol.equal_updates or row.epochs is None):
        base = min(group)
    if protocol.equal_updates:
        epochs = base
    elif row.epochs is not None:
        epochs = row.epochs
    else:
        epochs = base * (2 if options.is_svd or options.kind == "matched" else 1)
    return max(1, round(epochs * study.epochs_factor))


def _linked(condition: Condition, found: Sequence[Condition]) -> Condition:
    """A condition with the ids of its baseline and of its control."""
    kind = condition.options.kind
    others = [
        other
        for other in found
        if (other.data_set, other.model) == (condition.data_set, condition.model)
        and other.id != condition.id
    ]

    def first(wanted: str, skip: float | None = None) -> str | None:
        return next(
            (
                other.id
                for other in others
                if other.options.kind == wanted and skip in (None, other.options.skip_threshold)
            ),
            None,
        )

    if kind == "none":
        return condition
    baseline = first("default") if kind.startswith("default+") else first("none")
    control = None
    if isinstance(condition.options, Both):
        same = unchanged(condition.options)
        control = next((o.id for o in others if o.options == same), None)
        return replace(condition, baseline=baseline, control=control)
    if condition.options.copies not in (None, "duplicate"):
        control = first(
            "default+duplicate" if kind.startswith("default+") else "duplicate",
            condition.options.skip_threshold,
        )
    return replace(condition, baseline=baseline, control=control)
