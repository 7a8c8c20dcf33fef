"""Pages of an image and of a set: low rank by hand, and the paper's figure 3.1."""

from __future__ import annotations

import os
from base64 import b64encode
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rankwise import _page
from rankwise._version import __version__
from rankwise.lowrank._colours import FROM_LUMA_CHROMA, LUMA_CHROMA, mix_colours
from rankwise.lowrank.options import OptionError
from rankwise.lowrank.ranks import check_energies
from rankwise.lowrank.sets import DrawnSet, colours_of, law_of
from rankwise.lowrank.visibility import STRENGTHS, energy_for_change, mean_change

MOST_PIXELS = 240
"""A side of an image on a page at most, unless another is asked for: what a slider rebuilds."""

LARGEST = 512
"""A side at most: a square colour image of it makes a page of 20 MB."""

PUBLISHED = (("the paper's mean", 0.975), ("its photographs", 0.9999))
"""Energies of section 3.3, and of malaria and cats vs dogs in the paper's first two tables."""

_ROOM = "rankwise.lowrank/page"


def write_image_page(
    image: NDArray[np.uint8],
    path: str | os.PathLike[str],
    *,
    title: str = "An image",
    energy: float = 0.975,
    facts: str = "",
) -> None:
    """Write a page on which an image is rebuilt from its singular vectors, at any energy or rank.

    It holds the pixels and, for each choice of channels, all singular values and the vectors of
    the shorter side in double precision: about ``56 n²`` bytes for a square colour image of side n.
    What it computes are the copies of a float64 SVD, pixel for pixel.

    Parameters
    ----------
    image : ndarray of uint8, (H, W) or (H, W, C)
        Grey or colour; transparency is left out.
    path : path
    title : str
        Whatever it holds is text.
    energy : float
        What the page begins with; the paper's mean, 0.975.
    facts : str
        A sentence below the title.

    Raises
    ------
    OptionError
        If the energy isn't in (0, 1], the image has neither one nor three colours, or a side
        above 512 pixels.
    """
    check_energies(energy)
    planes = colours_of(image)
    height, width, colours = planes.shape
    if max(height, width) > LARGEST:
        raise OptionError(
            f"a page rebuilds images of at most {LARGEST} pixels a side, not {height}×{width}; "
            "give it a smaller one (rankwise show --size)"
        )
    matrices = np.moveaxis(planes, -1, 0).astype(np.float64)
    groups = {"own": matrices, "joint": np.concatenate(list(matrices), axis=1)[None]}
    groups["luma-chroma"] = mix_colours(matrices, LUMA_CHROMA) if colours == 3 else matrices
    data = {
        "shape": [height, width, colours],
        "pixels": _encoded(planes),
        "groups": {name: [_factors(matrix) for matrix in found] for name, found in groups.items()},
        "luma_chroma": LUMA_CHROMA.tolist(),
        "from_luma_chroma": FROM_LUMA_CHROMA.tolist(),
        "energy": float(energy),
        "published": [list(pair) for pair in PUBLISHED],
        "strengths": [list(pair) for pair in STRENGTHS.items()],
    }
    page = _page.render(
        _ROOM,
        "image.html",
        title=title,
        facts=facts or f"{height} × {width} pixels. Made by rankwise {__version__}.",
        style=_style(),
        data=_page.markup(_page.for_script(data)),
        script=_page.markup(
            _page.shared("shared.js"),
            *(_page.part(_ROOM, name) for name in ("lowrank.js", "page.js")),
        ),
    )
    _page.write(os.fspath(path), page)


def write_set_page(
    drawn: DrawnSet, path: str | os.PathLike[str], *, title: str = "A set of images"
) -> None:
    """Write the paper's figure 3.1 as a page, with how visible the copies are.

    Parameters
    ----------
    drawn : DrawnSet
        Of `rankwise.lowrank.sets.augmented_set`.
    path : path
    title : str
        Whatever it holds is text.
    """
    changes = [
        mean_change(image, copy)
        for image, copy, how in zip(drawn.images, drawn.copies, drawn.drawn, strict=True)
        if how.energy is not None
    ]
    found = [(name, energy_for_change(drawn.images, c)) for name, c in STRENGTHS.items()]
    cells = [
        {
            "original": _picture(image),
            "made": None if how.energy is None else _picture(copy),
            "energy": how.energy,
            "ranks": "/".join(map(str, how.ranks or ())),
            "change": mean_change(image, copy),
        }
        for image, copy, how in zip(drawn.images, drawn.copies, drawn.drawn, strict=True)
    ]
    page = _page.render(
        _ROOM,
        "set.html",
        title=title,
        law=law_of(drawn.transform),
        cells=cells,
        n_copies=len(changes),
        change=float(np.mean(changes)) if changes else None,
        strengths=[(name, STRENGTHS[name], energy) for name, energy in found],
        version=__version__,
        style=_style(),
    )
    _page.write(os.fspath(path), page)


def _style() -> Any:
    own = _page.part(_ROOM, "page.css")
    return _page.markup(_page.shared("base.css"), _page.shared("controls.css"), own)


def _factors(matrix: NDArray[np.float64]) -> dict[str, Any]:
    left, sigma, right = np.linalg.svd(matrix, full_matrices=False)
    vectors = left.T if matrix.shape[0] <= matrix.shape[1] else right
    return {"sigma": sigma.tolist(), "vectors": _encoded(vectors.astype("<f8"))}


def _encoded(array: NDArray) -> str:
    return b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")


def _picture(pixels: NDArray[np.uint8]) -> str:
    file = BytesIO()
    Image.fromarray(pixels.squeeze(-1) if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return _page.data_uri(file.getvalue(), "image/png")
