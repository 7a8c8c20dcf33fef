"""One page of a run that opens offline: what went wrong, and what next.

Thumbnails, scores, lists and reasons lie in the file as data; `page/` holds the template, the
style and the scripts that show them. At most `MOST` images of the scored part are shown, and under
15 MB: where there are more, the wrong ones come first and the others are drawn.
"""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from rankwise import _page
from rankwise._text import plain
from rankwise.explore.findings import MOST_LISTED, Entry, Findings
from rankwise.explore.reasons import explains, occlusion, reasons
from rankwise.explore.thumbs import SHEET, pictures_of, sheets_of

MOST = 10_000
"""Images of the scored part in a page."""

_ROOM = "rankwise.explore/page"
_SCRIPTS = ("data.js", "charts.js", "gallery.js", "detail.js", "page.js")
_SHEET_BYTES = 5_500_000
_PICTURE_BYTES = 1_600_000
_REASON_BYTES = 1_200_000
_TOP = 10
"""Classes whose probabilities are shown of an image."""
_OCCLUDED = {"n": 48, "grid": 7}
_OCCLUDED_SLOW = {"n": 6, "grid": 5}  # by a head, whose backbone sees each covered image anew
_ALL_CELLS = 25
"""Classes of a confusion matrix that is shown whole."""


@dataclass(frozen=True)
class About:
    """What a page says of its model, beside what it measures.

    Parameters
    ----------
    title : str
    facts : list of (str, str)
        The model card: what, and what it is.
    limits : list of str
        A sentence each.
    train_command : str
        With which the list is used; shown to be copied.
    """

    title: str
    facts: list[tuple[str, str]]
    limits: list[str] = field(default_factory=list)
    train_command: str = ""


def write_page(model: Any, found: Findings, about: About, path: Path | str) -> int:
    """Write the page of what was found; its size in bytes is given back.

    Parameters
    ----------
    model
        As for `rankwise.explore.seen.seen`.
    found : Findings
    about : About
    path : path
    """
    rows = _shown(found)
    place = {int(row): i for i, row in enumerate(rows)}
    scored = found.score
    lists = _lists(found, place)
    sheets = sheets_of(found.images, rows, _SHEET_BYTES)
    near = _closer(lists)
    large = max(found.images.shape[1:3]) > max(sheets.height, sheets.width)
    pictures = pictures_of(found.images, rows[near], _PICTURE_BYTES) if large else []
    data = {
        "classes": list(found.classes),
        "score": {k: v for k, v in scored.items() if k != "confusion"},
        "confusion": _matrix(scored["confusion"]),
        "parts": [p.part for p in found.parts],
        "sampled": [int(np.sum(rows >= found.starts[-1])), len(found.scored)],
        "images": _images(found, rows),
        "sheets": {
            "per": SHEET,
            "across": sheets.across,
            "size": [sheets.height, sheets.width],
            "cell": list(sheets.cell),
            "files": [b64encode(s).decode("ascii") for s in sheets.sheets],
        },
        "pictures": {
            str(i): b64encode(p).decode("ascii") for i, p in zip(near, pictures, strict=False)
        },
        "lists": lists,
        "groups": [[place[r] for r in g["rows"] if r in place] for g in found.groups[:MOST_LISTED]],
        "nGroups": len(found.groups),
        "across": {
            "exact": sum(g["across"] and g["exact"] for g in found.groups),
            "near": sum(g["across"] and not g["exact"] for g in found.groups),
        },
        "pairs": found.pairs,
        "likely": found.labels.n_likely,
        "reasons": _reasons(model, found, rows, place, near),
        "command": about.train_command,
    }
    html = _page.render(
        _ROOM,
        "explore.html",
        title=plain(about.title),
        score=scored,
        percent=lambda v: f"{100 * v:.2f}%",
        facts=[(plain(k), plain(v)) for k, v in about.facts],
        limits=[plain(line) for line in about.limits],
        style=_page.markup(
            *map(_page.shared, ("base.css", "controls.css")), _page.part(_ROOM, "explore.css")
        ),
        script=_page.markup(
            _page.shared("shared.js"), *(_page.part(_ROOM, name) for name in _SCRIPTS)
        ),
        data=_page.markup(_page.for_script(data)),
    )
    _page.write(path, html)
    return Path(path).stat().st_size


def _shown(found: Findings) -> np.ndarray:
    """Rows of the images in the page: those listed first, and of the scored part `MOST`.

    What is listed together lies on few sheets, so that a browser shows it at once.
    """
    scored = np.arange(found.starts[-1], found.n)
    if len(scored) > MOST:
        wrong = scored[~found.scored.right]
        rng = np.random.default_rng(0)
        if len(wrong) > MOST // 2:
            sure = np.argsort(-found.scored.confidence[~found.scored.right], kind="stable")
            wrong = wrong[sure[: MOST // 2]]
        rest = np.setdiff1d(scored, wrong)
        scored = np.concatenate([wrong, rng.choice(rest, MOST - len(wrong), replace=False)])
    listed = [e.row for entries in found.lists.values() for e in entries[:MOST_LISTED]]
    listed += [r for g in found.groups[:MOST_LISTED] for r in g["rows"][:8]]
    first = np.array(list(dict.fromkeys(listed)), dtype=np.int64)
    return np.concatenate([first, np.setdiff1d(scored, first)])


def _lists(found: Findings, place: dict[int, int]) -> dict[str, Any]:
    return {
        name: {
            "n": len(entries),
            "entries": [
                [place[e.row], plain(e.reason), round(e.score, 4), e.suggested, int(e.leave)]
                for e in entries[:MOST_LISTED]
                if e.row in place
            ],
        }
        for name, entries in found.lists.items()
    }


def _closer(lists: dict[str, Any]) -> list[int]:
    """Images of all lists by turns: those of which the page has more than a thumbnail."""
    columns = [[e[0] for e in entries["entries"]] for entries in lists.values()]
    turns = [i for turn in zip_longest(*columns) for i in turn if i is not None]
    return list(dict.fromkeys(turns))


def _matrix(counts: np.ndarray) -> dict[str, Any]:
    """The confusion matrix, whole or of the classes with the most errors, and the worst pairs."""
    errors = counts.copy()
    np.fill_diagonal(errors, 0)
    order = np.arange(len(counts))
    if len(counts) > _ALL_CELLS:
        order = np.sort(np.argsort(-(errors.sum(0) + errors.sum(1)), kind="stable")[:_ALL_CELLS])
    worst = np.argsort(-errors, axis=None, kind="stable")[:9]
    pairs = [[int(i // len(counts)), int(i % len(counts))] for i in worst if errors.flat[i]]
    return {
        "classes": order.tolist(),
        "counts": counts[np.ix_(order, order)].tolist(),
        "totals": counts.sum(axis=1)[order].tolist(),
        "pairs": [[*p, int(counts[p[0], p[1]])] for p in pairs],
    }


def _images(found: Findings, rows: np.ndarray) -> dict[str, Any]:
    n, top = len(rows), min(_TOP, len(found.classes))
    names = np.empty(n, dtype=object)
    number = np.searchsorted(found.starts, rows, side="right") - 1
    truth, predicted = np.zeros(n, np.uint16), np.zeros(n, np.uint16)
    classes, shares = np.zeros((n, top), np.uint16), np.zeros((n, top), np.uint16)
    for k, (part, start) in enumerate(zip(found.parts, found.starts, strict=True)):
        here = number == k
        at = rows[here] - start
        order = np.argsort(-part.probabilities[at], axis=1, kind="stable")[:, :top]
        best = np.take_along_axis(part.probabilities[at], order, axis=1)
        names[here] = part.images.ids[at]
        truth[here], predicted[here] = part.truth[at], part.predicted[at]
        classes[here], shares[here] = order, np.round(best * 65535)
    packed = {"truth": truth, "predicted": predicted, "top": classes, "shares": shares}
    return {
        "n": n,
        "per": top,
        "names": [str(name) for name in names],
        "part": _packed(number.astype(np.uint8)),
        **{name: _packed(array) for name, array in packed.items()},
    }


def _reasons(
    model: Any, found: Findings, rows: np.ndarray, place: dict[int, int], near: list[int]
) -> dict[str, Any]:
    """Why some of the images get their outputs, as far as the page has room."""
    k = len(found.classes)
    kept = min(k, _TOP)
    wanted = _with_right_ones(found, place, near)
    pairs = np.array([_two_classes(found, int(rows[i])) for i in wanted]).reshape(-1, 2)
    result: dict[str, Any] = {"exact": explains(model), "occluded": {}}
    how = _OCCLUDED if hasattr(model, "network_") else _OCCLUDED_SLOW
    some = wanted[: how["n"]]
    if some and hasattr(model, "image_shape_"):
        maps = occlusion(model, _pixels(found, rows[some]), pairs[: len(some)], grid=how["grid"])
        result["occluded"] = {
            "rows": some,
            "pairs": pairs[: len(some)].tolist(),
            "grid": list(maps.shape[1:]),
            "maps": _packed(maps.astype(np.float32)),
        }
    if not result["exact"] or not wanted:
        return result
    one = reasons(model, _pixels(found, rows[wanted[:1]]), pairs[:1])
    size = 4 * (kept * one.maps[0, 0].size + one.unit_maps.size + 4 * kept)
    wanted = wanted[: max(1, min(_REASON_BYTES // size, _affordable(model, found)))]
    pairs = pairs[: len(wanted)]
    why = reasons(model, _pixels(found, rows[wanted]), pairs)
    outputs = why.bias + why.maps.sum(axis=(2, 3))
    order = np.argsort(-outputs, axis=1, kind="stable")
    for i, (row, (a, b)) in enumerate(zip(wanted, pairs, strict=True)):
        part, here = found.place(int(rows[row]))
        must = list(dict.fromkeys([int(a), int(b), int(part.truth[here])]))
        order[i] = [*must, *(c for c in order[i] if c not in must)]
    classes = order[:, :kept]
    at = np.arange(len(wanted))[:, None]
    own = np.stack([_outputs(found, int(rows[i])) for i in wanted])
    return result | {
        "rows": [int(i) for i in wanted],
        "pairs": pairs.tolist(),
        "grid": list(why.maps.shape[2:]),
        "kept": kept,
        "bias": why.bias.tolist(),
        "classes": _packed(classes.astype(np.uint16)),
        "outputs": _packed(own[at, classes].astype(np.float32)),
        "maps": _packed(why.maps[at, classes].astype(np.float32)),
        "units": why.units.tolist(),
        "parts": np.round(why.unit_parts, 5).tolist(),
        "unitMaps": _packed(why.unit_maps.astype(np.float32)),
    }


def _affordable(model: Any, found: Findings) -> int:
    """Images whose maps take about a second."""
    network = model.network_
    pixels = int(np.prod(found.images.shape[1:]))
    return max(8, int(2e10 / (pixels * network.n_units * (len(found.classes) + 1))))


def _with_right_ones(found: Findings, place: dict[int, int], near: list[int]) -> list[int]:
    """Listed images, and after the first of these one right image of each class."""
    scored = found.scored
    right = []
    for c in range(min(len(found.classes), 20)):
        of_class = np.flatnonzero(scored.right & (scored.truth == c)) + found.starts[-1]
        right += [place[r] for r in of_class.tolist() if r in place][:1]
    return list(dict.fromkeys([*near[:24], *right, *near[24:]]))


def _two_classes(found: Findings, row: int) -> tuple[int, int]:
    """The predicted class, and the given one; the runner-up where these are one."""
    part, at = found.place(row)
    order = np.argsort(-part.outputs[at], kind="stable")
    first, truth = int(order[0]), int(part.truth[at])
    return first, truth if truth != first else int(order[1])


def _outputs(found: Findings, row: int) -> np.ndarray:
    part, at = found.place(row)
    return part.outputs[at]


def _pixels(found: Findings, rows: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(found.images[rows])


def _packed(array: np.ndarray) -> str:
    """Numbers as they lie in memory, little-endian, in base64."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return b64encode(np.ascontiguousarray(little).tobytes()).decode("ascii")


def entries_as_rows(found: Findings, lists: dict[str, list[Entry]]) -> list[tuple[Any, ...]]:
    """Lines of a CSV file with `rankwise.explore.lists.COLUMNS`."""
    lines = []
    for name, entries in lists.items():
        for e in entries:
            part, at = found.place(e.row)
            lines.append(
                (
                    found.name(e.row),
                    "yes" if e.leave else "no",
                    part.part,
                    found.classes[part.truth[at]],
                    name,
                    e.reason,
                    e.suggested,
                    f"{e.score:.4f}",
                )
            )
    return lines
