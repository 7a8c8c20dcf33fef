"""Files unlike the others of their source, by their headers alone: another size, grey or colour."""

from __future__ import annotations

from collections import Counter

import numpy as np

from rankwise.data import decode
from rankwise.data.decode import BadImageError, Header
from rankwise.data.reader import Reader
from rankwise.data.samples import Samples

USUAL = 0.9
"""A size or a kind is usual where at least this share of the images has it."""
_FAR = 4.0
"""Among mixed sizes, sides so many times shorter or longer than the median are odd."""


def odd_headers(reader: Reader) -> dict[str, str]:
    """Images whose file is of another size or kind than nearly all others.

    Parameters
    ----------
    reader : Reader
        One of decoded images has none.

    Returns
    -------
    dict of str to str
        Reasons by `ImageSet.image_ids`. Where `USUAL` of the images have one size, any other is
        odd; where sizes are mixed, one with a side far from the median of that side. Files that
        can't be read are left to the decoding.
    """
    names: list[str] = []
    headers: list[Header] = []
    with decode.without_pillows_warnings():
        for split in reader.splits:
            samples = Samples.of(reader, (split,))
            rows = np.arange(len(samples.labels))
            rows = rows[~np.isin(rows, list(samples.parts[0][1].unusable))]
            ids = samples.image_ids()
            done = 0
            for block in samples.read(rows):
                if isinstance(block, np.ndarray):
                    return {}
                for encoded in block:
                    try:
                        headers.append(decode.header_of(encoded))
                        names.append(str(ids[rows[done]]))
                    except BadImageError:
                        pass
                    done += 1
    reasons = _reasons(headers) if headers else []
    return {name: ", ".join(r) for name, r in zip(names, reasons, strict=True) if r}


def _reasons(headers: list[Header]) -> list[list[str]]:
    sizes = Counter((h.height, h.width) for h in headers)
    (usual, n_usual), *_ = sizes.most_common(1)
    middle = np.median([[h.height, h.width] for h in headers], axis=0)
    n_grey = sum(h.grey for h in headers)
    minority = {
        True: n_grey <= (1 - USUAL) * len(headers),
        False: n_grey >= USUAL * len(headers),
    }
    found: list[list[str]] = []
    for h in headers:
        reasons = []
        size = f"of {h.height}×{h.width} pixels"
        if n_usual >= USUAL * len(headers):
            if (h.height, h.width) != usual:
                reasons.append(f"{size}, where nearly all have {usual[0]}×{usual[1]}")
        elif np.max(np.abs(np.log(np.array([h.height, h.width]) / middle))) > np.log(_FAR):
            reasons.append(f"{size}, where the middle is {middle[0]:.0f}×{middle[1]:.0f}")
        if minority[h.grey]:
            reasons.append(
                "grey, nearly all others are coloured"
                if h.grey
                else "coloured, nearly all others are grey"
            )
        found.append(reasons)
    return found
