"""The report's leak check: a headline that says what was found, and what was looked at.

Three things are looked at: declared source ids (and copies, by whose they are), pixels, and what
pictures look like in small. Only where none of them found anything does the headline say so.
"""

from __future__ import annotations

from typing import Any

from rankwise.study import tables as plain
from rankwise.study.protocols import protocol_of

Record = dict[str, Any]


def leak_check(results: Record) -> Record:
    """Counts of each condition, summed over its cells, and the headline over them.

    Returns
    -------
    dict
        As `rankwise.study.tables.leaks`, with each row's condition itself; ``heads`` of the
        counts; ``headline``, ``clean`` (whether nothing was found by any of the three), ``then``
        (what follows from it, "" for nothing) and ``looked`` (sentences: what was looked at).
    """
    counted = plain.leaks(results)
    known = {condition["id"]: condition for condition in results["conditions"]}
    protocol = results["study"]["protocol"]
    by_source = protocol_of(protocol).by_source
    found = []
    if counted["total"]:
        found.append(
            f"{counted['total']:,} shared sources and copies over {_cells(counted['checked'])}"
        )
    several = len(results["data_sets"]) > 1
    for data in results["data_sets"]:
        shared = repeated(data.get("repeats") or {}, by_source=by_source)
        if shared:
            found.append(f"{data['name']}: {shared}" if several else shared)
    exact = [(data.get("repeats") or {}).get("exact", 0) for data in results["data_sets"]]
    surely = bool(counted["total"] or any(exact))
    compared = all(data.get("repeats") for data in results["data_sets"])
    return counted | {
        "rows": [row | {"condition": known[row["condition"]]} for row in counted["rows"]],
        "heads": [text for _, text in plain.LEAKS],
        "headline": _headline(found, counted["checked"], compared=compared),
        "clean": not found and compared and counted["checked"] > 0,
        "found": bool(found),
        "then": _then(found, protocol, surely=surely),
        "looked": _looked(results, counted["checked"], by_source=by_source),
    }


def repeated(repeats: Record, *, by_source: bool) -> str:
    """What one data set's parts share by pixels and looks, in words; "" for nothing.

    Parameters
    ----------
    repeats : dict
        As `rankwise.data.Repeats`; empty where nobody looked.
    by_source : bool
        Whether equal pixels count as one source, so that no fold parts them.
    """
    exact, near = repeats.get("exact", 0), repeats.get("near", 0)
    said = []
    if exact:
        said.append(f"{_images(exact, 'test')} {_have(exact)} the pixels of a training image")
    if near:
        look = "looks nearly like" if near == 1 else "look nearly like"
        said.append(
            f"{near:,} more {look} one"
            if exact
            else f"{_images(near, 'test')} {look} a training image"
        )
    within = repeats.get("exact_within", 0)
    if within and not by_source:
        said.append(
            f"{_images(within, 'training')} repeat{'s' if within == 1 else ''} another, and folds "
            "cut by image may part them"
        )
    return ", ".join(said)


def _images(number: int, part: str) -> str:
    return f"{number:,} {part} image{'' if number == 1 else 's'}"


def _cells(number: int) -> str:
    return f"{number:,} cell{'' if number == 1 else 's'}"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"


def _headline(found: list[str], checked: int, *, compared: bool) -> str:
    if found:
        return f"✗ {'; '.join(found)}."
    if not checked:
        return "No cell has been checked yet."
    if not compared:
        return "No declared source or copy is shared. Pixels and looks weren’t compared."
    return "✓ Nothing is shared, by source ids, by pixels or by looks."


def _then(found: list[str], protocol: str, *, surely: bool) -> str:
    """What follows; pictures that only look alike may do so by chance."""
    if not found:
        return ""
    if protocol == "notebook":
        return "Leaks are this protocol’s purpose."
    return f"Accuracies above {'are' if surely else 'may be'} flattered by what is shared."


def _looked(results: Record, checked: int, *, by_source: bool) -> list[str]:
    """What was looked at, of every kind."""
    said = []
    if checked:
        said.append(
            f"Source ids and copies: over the rows that {_cells(checked)} trained, validated and "
            "tested on."
        )
    for data in results["data_sets"]:
        repeats = data.get("repeats")
        if not repeats:
            said.append(f"{data['name']}: pixels and looks weren’t compared when this study ran.")
            continue
        blank = repeats.get("blank", 0)
        said.append(
            f"{data['name']}: pixels and looks of {repeats['checked']:,} images, test part against "
            f"training part. {repeats['exact']:,} of the test part have the pixels of a training "
            f"image, {repeats['near']:,} look nearly like one (16 × 16 grey values that correlate "
            "to 0.99 or more: simple pictures, such as digits, can by chance; crops, mirrors and "
            "rotations aren’t found"
            + (f"; {blank:,} blank images look like nothing" if blank else "")
            + f"). {repeats['exact_within']:,} training images repeat another"
            + ("; equal pixels count as one source, so no split parts them." if by_source else ".")
        )
    return said
