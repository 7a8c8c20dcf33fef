"""All recorded studies: what each comparison found, the paper's rows, and four sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rankwise.study.presets import TABLES
from rankwise.study.verdict import FEWEST_FOLDS, FEWEST_SEEDS, VERDICTS

Result = Mapping[str, Any]

WITHDRAWN = "withdrawn"
WHY_WITHDRAWN = (
    "Verdicts of earlier versions are withdrawn: the oldest compared the best validation "
    "accuracies, on the images that had chosen the epoch, and knew nothing of the images' spread; "
    "others rest on one seed. Accuracies of these studies stand."
)


NEVER_COMPUTED = (" More images would as well.", " More images would.")
"""What earlier versions said where no number of seeds would tell; by the package's own model it was
often false."""


def is_withdrawn(result: Result) -> bool:
    """Whether a study's verdicts are of a version that judged the score that chose the epoch.

    Or of one that judged by fewer folds or seeds than a verdict needs.
    """
    items = [*result["data"]["comparisons"], *result["data"].get("robustness", ())]
    known = result["provenance"]
    few = known["folds"] < FEWEST_FOLDS or len(known["seeds"]) < FEWEST_SEEDS
    return any(
        "outcome" not in item or (few and item["verdict"] != "cannot tell") for item in items
    )


def without_verdicts(result: Result) -> dict[str, Any]:
    """A study as its section shows it: of a withdrawn one, accuracies without verdicts.

    And without the advice of `NEVER_COMPUTED`.
    """
    notes = result["notes"]
    for advice in NEVER_COMPUTED:
        notes = [note.replace(advice, "") for note in notes]
    if not is_withdrawn(result):
        return {**result, "notes": notes}
    said = {item["sentence"] for item in result["data"]["comparisons"]}
    return {
        **result,
        "tables": [t for t in result["tables"] if not t["title"].startswith("Verdicts")],
        "notes": [WHY_WITHDRAWN, *(note for note in result["notes"] if note not in said)],
    }


# -- all comparisons ------------------------------------------------------------------------


def at_a_glance(studies: Mapping[str, Result]) -> tuple[list[str], list[list[str]], str]:
    """Columns and rows of the table, and a sentence that counts the verdicts on low-rank copies.

    Parameters
    ----------
    studies : mapping
        From a study's name to its result file.
    """
    columns = ["study", "comparison", "accuracy, points (95%)", "verdict"]
    columns += ["degraded images, points (95%)", "verdict on them"]
    rows, verdicts = [], Counter[str]()
    for name, result in studies.items():
        robust = {
            (item["condition"], item["baseline"]): item
            for item in result["data"].get("robustness", ())
        }
        for item in result["data"]["comparisons"]:
            verdict = WITHDRAWN if is_withdrawn(result) else item["verdict"]
            other = robust.get((item["condition"], item["baseline"]))
            rows.append([name, f"{item['arm']}, {item['model']} against {item['baseline_arm']}"])
            rows[-1] += [_effect(item), verdict]
            beside = WITHDRAWN if is_withdrawn(result) else (other or item)["verdict"]
            measured = other is not None and other["effect"]["mean"] is not None
            rows[-1] += [_effect(other), beside] if measured else ["–", "–"]
            if "low-rank" in item["arm"]:
                verdicts[verdict] += 1
    counted = ", ".join(f"{count} “{verdict}”" for verdict, count in verdicts.most_common())
    sentence = f"Of {verdicts.total()} comparisons of arms with low-rank copies: {counted}."
    return columns, rows, sentence


def _effect(item: Result) -> str:
    effect = item["effect"]
    if effect["mean"] is None:
        return "–"
    if effect["low"] is None:
        return _signed(effect["mean"])
    return f"{_signed(effect['mean'])} ({_signed(effect['low'])} to {_signed(effect['high'])})"


def _signed(fraction: float) -> str:
    return f"{100 * fraction + 0.0:+.2f}".replace("-", "−")


# -- the paper's rows -----------------------------------------------------------------------


def rows_of_the_paper(studies: Mapping[str, Result]) -> tuple[list[str], list[list[str]]]:
    """All rows of the paper's tables 1 to 3: measured in full, smaller, or not run.

    A row is *measured* by a study of the same data set, arm and network whose data set isn't
    reduced; a smaller or another one of the same data set and kind of arm is named as such.
    """
    columns = ["experiment", "data set", "arm", "paper's validation, %", "paper's test, %"]
    columns += ["here", "by"]
    rows = []
    for experiment, lines in TABLES.items():
        for data, arm, _, _, _, interval, test in lines:
            how, by = _how(studies, data, arm)
            rows.append(
                [
                    {"1": "I", "2": "II", "3": "III"}[experiment[-1]],
                    data,
                    arm,
                    f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f}",
                    f"{100 * test:.2f}",
                    how,
                    by,
                ]
            )
    return columns, rows


def _how(studies: Mapping[str, Result], data: str, arm: str) -> tuple[str, str]:
    whole, smaller = [], []
    for name, result in studies.items():
        for condition in result["data"]["conditions"]:
            if (condition["data_set"], condition["arm"]) != (data, arm):
                continue
            full = condition.get("published") is not None and not _is_reduced(result, data)
            seeds, folds = len(result["provenance"]["seeds"]), result["provenance"]["folds"]
            said = f"{name} ({folds} folds × {seeds} seed{'s' if seeds > 1 else ''})"
            (whole if full else smaller).append(said)
            break
    if whole:
        return "measured", ", ".join(whole)
    return ("smaller", ", ".join(smaller)) if smaller else ("not run", "–")


def _is_reduced(result: Result, data: str) -> bool:
    described = result["data"].get("data_sets")
    if described is not None:
        return any(d["name"] == data and d["reduced"] for d in described)
    # Earlier versions say it in notes alone.
    signs = ("may have more", "times the epochs", "the paper has")
    return any(
        note.startswith(f"{data}: ") and any(sign in note for sign in signs)
        for note in result["notes"]
    )


# -- four sentences -------------------------------------------------------------------------


def speaking(studies: Mapping[str, Result]) -> dict[str, Result]:
    """Studies that the sentences rest on: under ``sound``, of five folds and three seeds."""
    return {
        name: result
        for name, result in studies.items()
        if not is_withdrawn(result)
        and result["provenance"]["protocol"] == "sound"
        and result["provenance"]["folds"] >= FEWEST_FOLDS
        and len(result["provenance"]["seeds"]) >= FEWEST_SEEDS
    }


def marked(heard: Sequence[str], stale: Sequence[str], mark: str) -> list[str]:
    """A sentence on what the others rest on that was measured with earlier code; none if nothing.

    Parameters
    ----------
    heard, stale : sequence of str
        Names of the studies that the sentences rest on, and of those among them that are stale.
    mark : str
        How a page marks what is stale.
    """
    if not stale:
        return []
    which = f"{len(stale)} of these {len(heard)} studies ({', '.join(stale)})"
    if len(stale) == len(heard):
        which = f"All {len(heard)} of these studies" if len(heard) > 1 else "This study"
    are = "is" if len(stale) == 1 else "are"
    return [
        f"{which} {are} {mark}: the code has changed since, as `make stale` lists, and "
        "today's might give other verdicts."
    ]


def conclusion(studies: Mapping[str, Result]) -> list[str]:
    """Four sentences: accuracy, against what, robustness, on how much evidence.

    Only studies that are `speaking` do so in them.
    """
    heard = speaking(studies)
    rows = [row[5] for row in rows_of_the_paper(studies)[1]]
    counts = ", ".join(f"{rows.count(how)} {how}" for how in ("measured", "smaller", "not run"))
    listed = f"of the paper's {len(rows)} rows {counts}"
    if not heard:
        return [
            f"No study of {FEWEST_FOLDS} folds and {FEWEST_SEEDS} seeds is recorded with these "
            f"rules yet: nothing is concluded; {listed}."
        ]
    main = _low_rank(heard, "comparisons", "baseline")
    copies = _low_rank(heard, "comparisons", "control")
    robust = _low_rank(heard, "robustness", "baseline")
    robust_copies = _low_rank(heard, "robustness", "control")
    sizes = "; ".join(
        f"{name}: {' and '.join(f'{n:,} images' for n in r['provenance']['n'].values())}, "
        f"{' and '.join(sorted({c['model'] for c in r['data']['conditions']}))}"
        for name, r in heard.items()
    )
    return [
        f"Accuracy: against training without copies, low-rank copies {_told(main)}"
        f"{_practical(main)}.",
        f"Against unchanged copies of the same images, they {_told(copies)}{_practical(copies)}.",
        f"Robustness, on degraded test images: against training without copies they "
        f"{_told(robust)}, and against unchanged copies {_told(robust_copies)}"
        f"{_practical([*robust, *robust_copies])}.",
        f"Evidence: {len(heard)} "
        f"{'studies' if len(heard) > 1 else 'study'} of at least {FEWEST_FOLDS} folds × "
        f"{FEWEST_SEEDS} seeds ({sizes}); {listed}.",
    ]


def _low_rank(studies: Mapping[str, Result], which: str, role: str) -> list[Result]:
    return [
        item
        for result in studies.values()
        for item in result["data"].get(which, ())
        if item["role"] == role and _is_low_rank(result, item)
    ]


def _is_low_rank(result: Result, item: Result) -> bool:
    return any(
        c["id"] == item["condition"] and c["arm_kind"].removeprefix("default+") == "low-rank"
        for c in result["data"]["conditions"]
    )


def _practical(items: Sequence[Result]) -> str:
    """How large an effect must be to count, over the comparisons that a sentence is on."""
    widths = sorted(100 * item["bayes"]["rope"] for item in items)
    if not widths:
        return ""
    ends = dict.fromkeys(f"±{width:.2f}" for width in (widths[0], widths[-1]))
    return (
        f"; practical is more than {' to '.join(ends)} points, a tenth of the baseline's errors "
        "where a design names no width"
    )


_WORDS = {
    "helps": "helped in",
    "harms": "harmed in",
    "copies help": "helped no more than unchanged copies may in",
    "copies harm": "harmed no more than unchanged copies may in",
    "no practical difference": "made no practical difference in",
    "cannot tell": "left it open in",
}


def _told(items: Sequence[Result]) -> str:
    """Counts of verdicts in words, and from where to where the effects were."""
    if not items:
        return "weren't compared"
    counts = Counter(item["verdict"] for item in items)
    said = [f"{_WORDS[v]} {counts[v]}" for v in VERDICTS if counts[v]]
    means = [item["effect"]["mean"] for item in items]
    reach = _signed(min(means)) if len(means) == 1 else f"{_signed(min(means))} to "
    reach += "" if len(means) == 1 else _signed(max(means))
    words = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return f"{words} of {len(items)} comparisons ({reach} points)"
