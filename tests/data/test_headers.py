"""Files unlike the others of their source, by their headers."""

import numpy as np
import pytest
from PIL import Image

from rankwise.data.source import Source


def folder_of(tmp_path, sizes, coloured=()):
    rng = np.random.default_rng(0)
    for i, (height, width) in enumerate(sizes):
        shape = (height, width, 3) if i in coloured else (height, width)
        place = tmp_path / "ab"[i % 2]
        place.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, shape, dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return Source(tmp_path)


@pytest.mark.parametrize(
    ("sizes", "coloured", "expected"),
    [
        (
            [(8, 8)] * 19 + [(8, 9)],
            (4,),
            {
                "b/19.png": "of 8×9 pixels, where nearly all have 8×8",
                "a/4.png": "coloured, nearly all others are grey",
            },
        ),
        (
            [(8, 8)] * 20,
            set(range(20)) - {7},
            {"b/7.png": "grey, nearly all others are coloured"},
        ),
        (
            [(20 + i, 30 + i) for i in range(19)] + [(4, 30)],
            (),
            {"b/19.png": "of 4×30 pixels, where the middle is 28×38"},
        ),
        ([(8, 8), (16, 16)] * 8, range(8), {}),
    ],
)
def test_a_size_or_a_kind_of_few_is_odd(tmp_path, sizes, coloured, expected):
    source = folder_of(tmp_path, sizes, coloured)
    assert source.odd_headers() == expected
    (tmp_path / "a" / "0.png").write_bytes(b"no image")
    assert set(source.odd_headers()) <= set(expected) | {"a/0.png"}


def test_decoded_images_have_no_headers():
    assert Source("digits").odd_headers() == {}
