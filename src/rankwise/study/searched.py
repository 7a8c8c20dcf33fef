"""The images that energy and skip threshold were searched on, known again one by one.

What cuts a study (its limit, protocol, fraction, seeds) may differ from what cut the search, so
neither a fingerprint of the whole set nor a seed says where the searched images lie. A search
writes marks of each beside its results: of its pixels, and, since another size has other pixels,
of what its source calls it and what it was taken of. What was copied elsewhere *and* changed isn't
known again, nor are values that stand in a study's file without the table ``tuned``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankwise._arrays import pixel_marks
from rankwise._files import write_json
from rankwise._reading import blamed_on, read_json_object
from rankwise.data import ImageSet
from rankwise.study.cuts import test_part, training_part
from rankwise.study.design import Study, StudyError
from rankwise.study.outcomes import primary_outcome
from rankwise.study.protocols import Rows, protocol_of

SEARCHED = "searched.json"
_BYTES = 8
_MARKS = ("pixels", "names")

Marks = NDArray[np.uint64]


def write_searched(study: Study, data_sets: Mapping[str, ImageSet], out: Path) -> Path:
    """Write ``searched.json``: marks of the images that a search of a study looks at.

    Parameters
    ----------
    study : Study
    data_sets : dict of ImageSet
    out : Path
        The search's folder.
    """
    parts = {}
    for name, images in data_sets.items():
        rows = training_part(study, images, searched=bool(study.reserve))
        own = images.subset(rows)
        parts[name] = {
            "source": _source_mark(study.data[name].source),
            "pixels": _packed(pixel_marks(own.images)),
            "names": _packed(_names(own).ravel()),
        }
    write_json(out / SEARCHED, parts)
    return out / SEARCHED


def searched_rows(study: Study, name: str, images: ImageSet) -> Rows:
    """Rows of a data set that the values of a study were searched on.

    Where parts are cut by source, all that shares a source with such an image counts as searched.

    Raises
    ------
    StudyError
        If the file of marks can't be read.
    """
    tuned = study.tuned
    if tuned is None or tuned.images is None:
        return np.zeros(0, np.int64)
    pixels, names = pixel_marks(images.images), _names(images)
    by_source = protocol_of(study.protocol).by_source
    found = np.zeros(len(images), bool)
    for part in _read(Path(tuned.images)):
        same = part["source"] == _source_mark(study.data[name].source)
        if same:
            found |= np.isin(names, part["names"]).any(axis=1)
        # The same picture under another name may be anywhere where parts aren't cut by source.
        if by_source or not same:
            found |= np.isin(pixels, part["pixels"])
    if by_source:
        found = np.isin(images.source_ids, images.source_ids[found])
    return np.flatnonzero(found)


def refuse_searched(study: Study, data_sets: Mapping[str, ImageSet]) -> None:
    """Refuse values that were searched on images which judge the arms here.

    Those are the test images under ``sound``; where validation accuracy decides, they are all that
    the study has outside its reserve.

    Raises
    ------
    StudyError
    """
    if study.tuned is None:
        return
    if study.tuned.images is None:
        raise StudyError(
            "the table 'tuned' has no key images, which says on what energy and skip threshold "
            "were searched; 'rankwise study tune' with the folder of the search writes it, and "
            "trains nothing anew"
        )
    for name, images in data_sets.items():
        searched, test = searched_rows(study, name, images), test_part(study, images)
        if not len(searched) and images.fingerprint in study.tuned.fingerprints.values():
            raise StudyError(
                f"{study.tuned.images} has no image of {name!r}, which the table 'tuned' says was "
                "searched on; the file that lies beside that search's tune.json is accepted"
            )
        tested = np.intersect1d(searched, test)
        validated = np.zeros(0, np.int64)
        if primary_outcome(study.protocol) == "validation":
            validated = np.intersect1d(searched, training_part(study, images))
        if len(tested) or len(validated):
            part = "test" if len(tested) else "training"
            judged = tested if len(tested) else validated
            raise StudyError(
                f"energy and skip threshold were searched on {len(judged)} images of the {part} "
                f"part of {name!r}, by which this study judges; search on a reserve, and give this "
                "study what cut the search's images: its data, protocol, test_fraction, "
                "split_seed and reserve"
            )


def searched_note(study: Study, name: str, images: ImageSet) -> str | None:
    """A sentence where a study trains on images that its values were searched on."""
    searched = searched_rows(study, name, images)
    rows = training_part(study, images)
    trained = len(np.intersect1d(searched, rows))
    if not trained:
        return None
    return (
        f"energy and skip threshold were searched on {trained} of its {len(rows)} training images: "
        "its figures flatter them"
    )


def _names(images: ImageSet) -> Marks:
    """Two marks of each image, ``(n, 2)``: of its own name and of its source's."""
    own = [_mark(f"image {name}") for name in images.ids.tolist()]
    sources = [_mark(f"source {name}") for name in images.source_ids.tolist()]
    return np.array([own, sources], np.uint64).T


def _mark(text: str) -> int:
    known = text.encode("utf-8", "surrogatepass")  # a name of a file may be no UTF-8
    return int.from_bytes(hashlib.blake2b(known, digest_size=_BYTES).digest(), "little")


def _source_mark(source: str | None) -> str:
    """A mark of where images come from; of a folder or a file, however its path is spelled."""
    place = str(source)
    spelled = str(Path(place).resolve()) if Path(place).exists() else place
    return f"{_mark(spelled):016x}"


def _packed(marks: Marks | Iterable[int]) -> str:
    """Each mark once, ascending, as text."""
    return base64.b64encode(np.unique(np.asarray(marks, "<u8")).tobytes()).decode()


def _read(path: Path) -> list[dict[str, Any]]:
    hint = "; tuned.images of a study names what 'rankwise study tune' writes there"
    parts = read_json_object(path, error=StudyError, hint=hint)
    with blamed_on(path, StudyError, hint):
        return [
            {"source": str(part["source"])} | {kind: _unpacked(part[kind]) for kind in _MARKS}
            for part in parts.values()
        ]


def _unpacked(text: str) -> Marks:
    return np.frombuffer(base64.b64decode(text, validate=True), "<u8")
