"""Repeated pictures: exact ones by pixels, near ones by what they look like."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from rankwise._arrays import pixel_marks
from rankwise.data import ImageSet, one_source_each, repeats_between
from rankwise.data.repeats import nearest, thumbnails


def photographs(n, side=48):
    """Crops of two photographs, none like another."""
    found = []
    for picture in load_sample_images().images:
        for y in range(0, picture.shape[0] - side, 2 * side):
            for x in range(0, picture.shape[1] - side, 2 * side):
                crop = picture[y : y + side, x : x + side]
                if crop.std() > 25:  # Not the sky.
                    found.append(crop)
    assert len(found) >= n
    return np.stack(found[:n])


def as_set(images, sources=None):
    n = len(images)
    names = [f"file-{i}" for i in range(n)] if sources is None else sources
    return ImageSet.from_arrays(images, np.arange(n) % 2, source_ids=np.array(names))


def jpeg(image, quality=70):
    data = io.BytesIO()
    Image.fromarray(image).save(data, "JPEG", quality=quality)
    return np.asarray(Image.open(data))


def test_the_same_picture_under_two_names_is_one_source():
    images = photographs(12)
    repeated = as_set(np.concatenate([images, images[3:5]]))
    joined = one_source_each(repeated)
    assert joined.source_ids[12] == joined.source_ids[3] == "file-3"
    assert joined.source_ids[13] == joined.source_ids[4]
    assert len(set(joined.source_ids)) == 12
    assert (joined.images == repeated.images).all()
    assert repeated.source_ids[12] == "file-12"
    assert one_source_each(as_set(images)).source_ids.tolist() == as_set(images).source_ids.tolist()


def test_sources_that_share_a_picture_become_one_with_all_they_have():
    images = photographs(6)
    # Slides a and b share a picture; so all of both belong together, and c stays.
    pictures = images[[0, 1, 1, 2, 3]]
    joined = one_source_each(as_set(pictures, ["a", "a", "b", "b", "c"]))
    assert len(set(joined.source_ids[:4])) == 1
    assert joined.source_ids[4] == "c"


def test_repeats_across_and_within_parts_are_counted():
    images = photographs(30)
    # Training: 0 to 19 and 0 again; test: 3 exact, 3 as JPEG, 2 brighter, 5 of their own.
    brighter = np.clip(images[6:8].astype(int) // 2 + 90, 0, 255).astype(np.uint8)
    test = [*images[:3], *(jpeg(image) for image in images[3:6]), *brighter, *images[20:25]]
    everything = as_set(np.stack([*images[:20], images[0], *test]))
    found = repeats_between(everything, np.arange(21), np.arange(21, len(everything)))
    assert (found.exact, found.near, found.exact_within) == (3, 5, 1)
    assert (found.checked, found.blank) == (len(everything), 0)


def test_blank_images_are_like_nothing():
    images = np.concatenate([photographs(4), np.full((3, 48, 48, 3), 200, np.uint8)])
    images[-1, 0, 0] = 201
    found = repeats_between(as_set(images), np.arange(5), np.arange(5, 7))
    assert found.blank == 3
    assert found.near == 0
    assert found.exact == 1


@pytest.mark.parametrize("shape", [(28, 28), (7, 9), (20, 33, 3), (16, 16)])
def test_thumbnails_are_means_of_areas(shape):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, *shape), np.uint8)
    found = thumbnails(images)
    assert found.shape == (5, 256)
    assert np.linalg.norm(found, axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    # The slow way: repeat every pixel 16 times along each axis and average blocks.
    grey = images.astype(float).mean(axis=3) if len(shape) == 3 else images.astype(float)
    large = grey.repeat(16, axis=1).repeat(16, axis=2)
    h, w = shape[:2]
    small = large.reshape(5, 16, h, 16, w).mean(axis=(2, 4)).reshape(5, -1)
    small -= small.mean(axis=1, keepdims=True)
    small /= np.linalg.norm(small, axis=1, keepdims=True)
    assert found == pytest.approx(small, abs=1e-4)


def test_nearest_in_blocks_is_that_of_all_pairs():
    rng = np.random.default_rng(1)
    first, second = (rng.standard_normal((n, 8)).astype(np.float32) for n in (5000, 4100))
    assert nearest(first, second) == pytest.approx((second @ first.T).max(axis=1), rel=1e-5)


def test_digests_tell_shapes_and_values_apart():
    images = photographs(5)
    found = pixel_marks(images)
    assert len(set(found.tolist())) == 5
    assert (pixel_marks(images[:, ::-1]) != found).all()
    assert (pixel_marks(np.asfortranarray(images)) == found).all()
    assert pixel_marks(images[:0]).shape == (0,)
