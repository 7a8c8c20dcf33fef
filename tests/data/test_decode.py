import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from rankwise.data import ImageSet, decode, load_images, read_image
from rankwise.data.source import Source
from rankwise.errors import DataError, DataWarning


def put(root, named):
    """Write {"class/name": bytes or array}."""
    for name, data in named.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def picture(mode, size=(5, 6)):
    random = np.random.default_rng(1)
    if mode == "I;16":
        return Image.fromarray(random.integers(0, 65536, size[::-1], dtype=np.uint16))
    image = Image.fromarray(random.integers(0, 256, (size[1], size[0], 4), dtype=np.uint8))
    return image.convert("RGB").convert(mode) if mode != "RGBA" else image


@pytest.mark.parametrize(
    ("mode", "kind", "shape"),
    [
        ("L", "PNG", (6, 5)),
        ("1", "PNG", (6, 5)),
        ("LA", "PNG", (6, 5)),
        ("I;16", "PNG", (6, 5)),
        ("RGB", "PNG", (6, 5, 3)),
        ("P", "GIF", (6, 5, 3)),
        ("CMYK", "JPEG", (6, 5, 3)),
        ("RGBA", "PNG", (6, 5, 3)),
    ],
)
def test_colour_is_that_of_the_whole_set(make, tmp_path, mode, kind, shape):
    """RGB unless all images are grey, wherever the odd one stands."""
    data = make.encode(picture(mode), kind)
    grey = make.encode(picture("L"))
    for place in ("a/0", "b/9"):
        root = tmp_path / place[0]
        put(root, {"a/1.png": grey, "a/2.png": grey, "b/0.png": grey, place: data})
        assert Source(root).read("all").image_shape == shape
        assert Source(root).read("all", grey=True).image_shape == (6, 5)
        assert Source(root).read("all", channels=4).image_shape == (6, 5, 4)


def test_kind_is_that_of_the_source_not_of_the_split(make, tmp_path):
    grey, colour = make.encode(picture("L")), make.encode(picture("RGB"))
    put(tmp_path, {"train/a/0.png": colour, "train/b/0.png": grey})
    put(tmp_path, {"test/a/0.png": grey, "test/b/0.png": grey})
    with pytest.warns(DataWarning, match="3 grey and 1 colour images: all are read as RGB"):
        assert load_images(tmp_path, "test").image_shape == (6, 5, 3)


def test_conversions_are_pillows(make, tmp_path):
    image = picture("RGB", (20, 30))
    put(tmp_path, {"a/0.png": make.encode(image), "b/0.png": make.encode(image)})
    loaded = load_images(tmp_path, "all", size=(8, 10), grey=True)
    expected = np.asarray(image.convert("L").resize((10, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(loaded.images[0], expected)
    assert load_images(tmp_path, "all", size=7).image_shape == (7, 7, 3)
    single = read_image(tmp_path / "a/0.png", image_shape=(8, 10))
    np.testing.assert_array_equal(single, expected)
    assert read_image(tmp_path / "a/0.png", image_shape=[6, 5, 3]).shape == (6, 5, 3)


def test_sixteen_bits_keep_the_upper_eight(make, tmp_path):
    deep = np.array([[0, 255, 256], [0x1234, 0xFF00, 0xFFFF]], np.uint16)
    data = make.encode(Image.fromarray(deep))
    put(tmp_path, {"a/0.png": data, "b/0.png": data})
    images = load_images(tmp_path, "all").images
    np.testing.assert_array_equal(images[0], [[0, 0, 1], [0x12, 0xFF, 0xFF]])


def test_floats_are_refused(make, tmp_path):
    path = tmp_path / "x.tiff"
    Image.fromarray(np.ones((3, 3), np.float32)).save(path)
    with pytest.raises(DataError, match=r"x\.tiff can't be used: its pixels are floats"):
        read_image(path, image_shape=(3, 3))


def test_photographs_are_turned_upright(make, tmp_path):
    image = picture("RGB", (8, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = make.encode(image, "PNG", exif=exif)
    put(tmp_path, {"a/0.png": data, "b/0.png": data})
    loaded = load_images(tmp_path, "all")
    assert loaded.image_shape == (8, 16, 3)
    np.testing.assert_array_equal(loaded.images[0], np.rot90(np.asarray(image), -1))


def chunk(kind, data):
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def exif_chunk(tiff):
    return chunk(b"eXIf", tiff)


def profile_chunk(tiff):
    digits = (b"Exif\0\0" + tiff).hex()
    lines = "\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    text = f"\nexif\n{len(digits) // 2:8d}\n{lines}\n".encode()
    return chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))


def xmp_chunk(tiff):
    return chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="6"/>')


@pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
@pytest.mark.parametrize("written", [exif_chunk, profile_chunk, xmp_chunk])
@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_png_is_turned_wherever_it_says_so(make, tmp_path, before, written, mode):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = make.encode(picture(mode, (8, 16)))
    at = data.rindex(before) - 4
    turned = data[:at] + written(exif.tobytes().removeprefix(b"Exif\0\0")) + data[at:]
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(turned)))
    assert upright.size == (16, 8)
    (tmp_path / "x.png").write_bytes(turned)
    for encoded in (turned, tmp_path / "x.png"):
        header = decode.header_of(encoded)
        assert (header.height, header.width) == (8, 16)
        np.testing.assert_array_equal(decode.open_image(encoded), upright)


def test_a_png_that_says_nothing_of_it_is_not_decoded_for_its_size(make, tmp_path, monkeypatch):
    (tmp_path / "x.png").write_bytes(make.encode(picture("RGB")))
    monkeypatch.setattr(Image.Image, "load", None)
    assert decode.header_of(tmp_path / "x.png").width == 5


def test_decoded_images_follow_the_same_rules(make, tmp_path):
    images = make.pixels(4, 9, 7, 3)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 0, 1])
    loaded = load_images(tmp_path / "x.npz", "all", size=(4, 5), grey=True)
    layout = decode.Layout(4, 5, None)
    expected = [decode.to_array(Image.fromarray(image), layout) for image in images]
    np.testing.assert_array_equal(loaded.images, expected)


def test_many_channels(make, tmp_path):
    images = make.pixels(4, 9, 7, 5)
    np.savez(tmp_path / "x.npz", images=images, labels=[0, 1, 0, 1])
    whole = load_images(tmp_path / "x.npz", "all")
    assert whole.fingerprint == ImageSet.from_arrays(images, [0, 1, 0, 1]).fingerprint
    small = load_images(tmp_path / "x.npz", "all", size=3).images
    assert small.shape == (4, 3, 3, 5)
    layout = decode.Layout(3, 3, None)
    np.testing.assert_array_equal(small[..., 2], decode.convert_block(images[..., 2], layout))
    assert load_images(tmp_path / "x.npz", "all", channels=5).fingerprint == whole.fingerprint
    for options, channels in (({"grey": True}, 1), ({"channels": 3}, 3)):
        message = f"These images have 5 channels and can't become images of {channels}; between 1"
        with pytest.raises(DataError, match=message):
            load_images(tmp_path / "x.npz", "all", **options)
    with pytest.raises(DataError, match="The model's images have 5 channels"):
        read_image(tmp_path / "x.png", image_shape=(3, 3, 5))
    mixed = {"x_train": images, "y_train": [0, 1, 0, 1]}
    np.savez(tmp_path / "y.npz", **mixed, x_test=make.pixels(4, 9, 7), y_test=[0, 1, 0, 1])
    with pytest.raises(DataError, match="Images of 1 channels can't become images of 5"):
        load_images(tmp_path / "y.npz", "test")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_are_those_asked_for(make, tmp_path, channels):
    """Whatever the first image is: here grey, RGB and RGBA files, mixed."""
    for i, kind in enumerate([(), (3,), (4,), (3,)]):
        folder = tmp_path / "photos" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(make.pixels(1, 5, 6, *kind)[0]).save(folder / f"{i}.png")
    loaded = load_images(tmp_path / "photos", "all", channels=channels)
    layout = decode.layout_of((5, 6) if channels == 1 else (5, 6, channels))
    assert loaded.image_shape == layout.shape
    assert loaded.notes == ()
    for image, source in zip(loaded.images, loaded.source_ids, strict=True):
        file = next((tmp_path / "photos").rglob(Path(source).name))
        np.testing.assert_array_equal(image, decode.to_array(decode.open_image(file), layout))
    grey = load_images(tmp_path / "photos", "all", grey=True)
    assert (grey.fingerprint == loaded.fingerprint) == (channels == 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels is 0; 1 "),
        ({"channels": "3"}, "channels is '3'; 1 "),
        ({"channels": True}, "channels is True; 1 "),
        ({"channels": 3, "grey": True}, "channels is 3 beside grey=True; 1 "),
        ({"channels": 2}, "These images have 1 channels and can't become images of 2"),
    ],
)
def test_channels_are_checked(options, message):
    with pytest.raises(DataError, match=message):
        load_images("digits", **options)


@pytest.mark.parametrize("size", [0, -1, 2.5, (3,), (3, 0), (1, 2, 3), True, "28"])
def test_size_is_checked(size):
    with pytest.raises(DataError, match=r"size is .*; a number of pixels, a pair"):
        load_images("digits", size=size)


@pytest.mark.parametrize("size", [2**32, (10**5, 10**4), np.int64(2**32)])
def test_too_large_a_size(size):
    with pytest.raises(DataError, match=r"size is .*; an image of at most 178 million pixels is a"):
        load_images("digits", size=size)


@pytest.mark.parametrize("shape", [(8,), (), (0, 8), (8, -1), (8, 8, 3, 1), 8, "ab", (2**32, 8)])
def test_the_shape_of_an_image_is_checked(make, tmp_path, shape):
    (tmp_path / "x.png").write_bytes(make.encode(picture("RGB")))
    with pytest.raises(
        DataError, match=r"image_shape is .*; \(height, width\) or \(height, width, "
    ):
        read_image(tmp_path / "x.png", image_shape=shape)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data: b"", "it is empty"),
        (lambda data: b"just some text", "it isn't an image, or its beginning is damaged"),
        (lambda data: data[:200], "it is truncated"),
        (lambda data: data[:10], "it isn't an image, or its beginning is damaged"),
        (lambda data: data[:60] + b"\xff" * 40 + data[100:], "it is damaged"),
    ],
)
def test_read_image_says_what_is_wrong(make, tmp_path, spoil, reason):
    path = tmp_path / "x.png"
    path.write_bytes(spoil(make.encode(picture("RGB", (20, 20)))))
    with pytest.raises(DataError, match=rf"x\.png can't be used: {reason}"):
        read_image(path, image_shape=(20, 20, 3))
    with pytest.raises(DataError, match=r"none\.png can't be used: it can't be read \(No such"):
        read_image(tmp_path / "none.png", image_shape=(20, 20, 3))


def test_truncated_jpeg(make):
    data = make.encode(picture("RGB", (40, 40)), "JPEG")
    assert decode.open_image(data).size == (40, 40)
    with pytest.raises(decode.BadImageError, match="it is truncated"):
        decode.open_image(data[: len(data) // 2])
    assert Image.open(io.BytesIO(data)).format == "JPEG"
