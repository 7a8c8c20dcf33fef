"""Pictures and the two commands."""

import json
import re
import warnings

import matplotlib.image
import numpy as np
import pytest
import typer
from matplotlib.figure import Figure
from PIL import Image
from typer.testing import CliRunner

from lowrank.photos import photo_crops
from rankwise.cli.lowrank import _read, augment, show
from rankwise.data import load_images
from rankwise.errors import DataError, RunError
from rankwise.lowrank import (
    NormalEnergy,
    OptionError,
    RandomLowRank,
    low_rank_approximation,
    rank_for_energy,
    spectrum,
)
from rankwise.lowrank.pictures import (
    draw_channels,
    draw_copies,
    draw_image,
    draw_ranks,
    draw_scree,
    draw_set,
    save_picture,
)
from rankwise.lowrank.sets import augmented_set


def titles(figure):
    return [axis.get_title() for axis in figure.axes]


@pytest.fixture
def commands():
    app = typer.Typer()
    app.command()(augment)
    app.command()(show)

    def run(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    return run


def test_channels_name_their_ranks():
    image = photo_crops(48)[0]
    figure = Figure()
    draw_channels(figure, image, energy=0.9)
    ranks = rank_for_energy(spectrum(image), 0.9)
    assert titles(figure)[:4] == ["image", "red", "green", "blue"]
    assert titles(figure)[5:] == [f"rank {rank} of 48" for rank in ranks]
    grey = Figure()
    draw_channels(grey, image[..., 0])
    assert titles(grey)[0] == "grey"


def test_ranks_end_at_the_image():
    figure = Figure()
    draw_ranks(figure, photo_crops(48)[0])
    assert titles(figure)[0].startswith("rank 1\n")
    assert titles(figure)[-1] == "rank 48\n100% of Σσ\nequal"


def test_copies_stand_out_from_images_left_alone():
    figure = Figure()
    draw_copies(figure, photo_crops(32)[:3], transform=RandomLowRank(0.8, p=0.5, seed=1))
    framed = [axis for axis in figure.axes if axis.axison]
    assert 0 < len(framed) < 21
    assert all(axis.get_title().startswith("80.0%") for axis in framed)
    assert titles(figure).count("left alone") == 21 - len(framed)
    assert titles(figure).count("original") == 3


def test_scree_marks_the_ranks_that_reach_an_energy():
    image = photo_crops(48)[0]
    figure = Figure()
    draw_scree(figure, image)
    texts = [text.get_text() for text in figure.axes[1].texts]
    expected = "/".join(map(str, rank_for_energy(spectrum(image), 0.975)))
    assert f"97.5%: rank {expected}" in texts


def test_one_sheet_is_written_whole(tmp_path):
    image = np.dstack([photo_crops(32)[0], np.full((32, 32), 9, np.uint8)])
    save_picture(draw_image(image), tmp_path / "sheet.png")
    pixels = matplotlib.image.imread(tmp_path / "sheet.png")
    assert pixels.shape[0] > 1000
    assert pixels[..., :3].std() > 0.1
    with pytest.raises(OptionError, match=r"doesn't end in"):
        save_picture(Figure(), tmp_path / "sheet.doc")
    with pytest.raises(OptionError, match="grey or RGB"):
        draw_image(np.zeros((8, 8, 5), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
    save_picture(Figure(), tmp_path / "page.html", title="a\udce9")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert r"<title>a\udce9</title>" in page


@pytest.mark.parametrize(
    "image",
    [
        np.random.default_rng(0).integers(0, 256, (900, 9, 3), np.uint8),
        np.random.default_rng(0).integers(0, 256, (9, 900), np.uint8),
        np.full((1, 1, 3), 7, np.uint8),
        np.full((40, 40), 120, np.uint8),
        np.zeros((40, 30, 3), np.uint8),
    ],
    ids=["tall", "wide", "one pixel", "constant", "black"],
)
def test_odd_images_warn_of_nothing_and_no_text_is_over_another(image, tmp_path):
    sheet = draw_image(image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_picture(sheet, tmp_path / "sheet.png")
    texts = [part._suptitle for part in sheet.subfigs if part._suptitle]
    for axis in sheet.axes:
        if axis.get_visible():
            texts += [axis.title, *axis.texts]
    texts = [text for text in texts if text.get_text()]
    assert len(texts) > 30
    boxes = [(text.get_text(), text.get_window_extent().padded(-2)) for text in texts]
    for place, (text, box) in enumerate(boxes):
        for other, another in boxes[:place]:
            assert not box.overlaps(another), (text, other)
    for axis in sheet.axes[-2:]:
        assert axis.get_position().height > 0
    stretched = not 0.25 <= image.shape[0] / image.shape[1] <= 2.5
    assert sheet.subfigs[0]._suptitle.get_text().endswith("pixels, stretched") == stretched


def test_show(commands, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(photo_crops(40)[0]).save(path)
    done = commands("show", path, "--out", tmp_path / "a.png", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["ranks"] == rank_for_energy(spectrum(photo_crops(40)[0]), 0.975).tolist()
    assert (tmp_path / "a.png").stat().st_size > 10_000
    grey = commands("show", path, "--out", tmp_path / "b.svg", "--size", "20")
    assert "of 20" in grey.stdout
    (tmp_path / "bad.png").write_bytes(b"no image")
    broken = commands("show", tmp_path / "bad.png", "--out", tmp_path / "c.png")
    assert isinstance(broken.exception, DataError)
    wrong = commands("show", path, "--out", tmp_path / "c.png", "--energy", "1.5")
    assert isinstance(wrong.exception, OptionError)


def test_augment(commands, tmp_path):
    out = tmp_path / "out"
    arguments = ("augment", "digits", out, "--limit", 60, "--skip-threshold", 0.5, "--seed", 7)
    done = commands(*arguments, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["originals"] == 60
    assert result["copies"] > 15
    assert len(load_images(out, "all")) == 60 + result["copies"]
    again = commands(*arguments)
    assert f"60 originals and {result['copies']} copies" in again.stdout
    other = commands(*arguments, "--energy", 0.8)
    assert isinstance(other.exception, RunError)
    folder = commands(*(*arguments[:2], tmp_path / "f"), *arguments[3:], "--format", "folder")
    assert folder.exit_code == 0
    assert len(list((tmp_path / "f").rglob("*.png"))) == 60 + result["copies"]
    contradiction = commands("augment", "digits", tmp_path / "g", "--skip-threshold", 2)
    assert isinstance(contradiction.exception, OptionError)


@pytest.mark.parametrize("channels", [2, 13])
def test_augment_refuses_channels_that_its_files_cannot_hold(commands, tmp_path, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 8, 8, channels), np.uint8)
    np.savez(tmp_path / "s.npz", images=pixels, labels=np.arange(20) % 2)
    for file_format in ("parquet", "folder"):
        arguments = ("augment", tmp_path / "s.npz", tmp_path / "out", "--format", file_format)
        refused = commands(*arguments)
        assert isinstance(refused.exception, DataError)
        assert str(refused.exception) == (
            f"images of {channels} channels can't be written as PNG files, which either format "
            "holds; 1, 3 or 4 channels are accepted"
        )
        assert not (tmp_path / "out").exists()


def test_nothing_that_was_read_is_written_over(commands, tmp_path):
    pixels = photo_crops(24)
    for i, image in enumerate(pixels):
        place = tmp_path / "set" / "ab"[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image if i < 20 else image[:20]).save(place)
    before = sorted(tmp_path.rglob("*"))
    inside = commands("augment", tmp_path / "set", tmp_path / "set" / "out")
    assert isinstance(inside.exception, RunError)
    assert "which would hold its own copies; choose another" in str(inside.exception)
    itself = commands("show", before[-1], "--out", before[-1])
    assert isinstance(itself.exception, RunError)
    assert str(itself.exception).endswith(
        "is the image itself; choose another file for the picture"
    )
    zipped = commands("augment", tmp_path / "nowhere", tmp_path / "out", "--format", "zip")
    assert str(zipped.exception) == "format must be one of parquet, folder, not 'zip'"
    assert sorted(tmp_path.rglob("*")) == before
    mixed = commands("augment", tmp_path / "set", tmp_path / "mixed")
    assert mixed.exit_code == 0, mixed.output
    assert sorted(path for path in before if path.is_file()) == sorted(
        (tmp_path / "set").rglob("*.png")
    )
    done = commands("augment", tmp_path / "set", tmp_path / "out", "--size", "12", "--grey")
    assert done.exit_code == 0, done.output
    assert load_images(tmp_path / "out", "all").image_shape == (12, 12)


def test_deep_and_turned_images_are_read_as_they_look(tmp_path):
    deep = np.linspace(0, 65535, 48, dtype=np.uint16).reshape(6, 8)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    pixels = _read(tmp_path / "deep.png", None)
    assert pixels.shape == (6, 8, 1)
    np.testing.assert_array_equal(pixels[..., 0], deep >> 8)  # as training reads them
    turned = Image.new("RGB", (20, 10))
    exif = turned.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert _read(tmp_path / "turned.jpg", None).shape == (20, 10, 3)


def test_a_set_is_drawn_as_figure_3_1():
    images = [*photo_crops(32)[:9], photo_crops(24)[0][..., 0]]
    drawn = augmented_set(images, seed=3)
    sheet, copies = draw_set(drawn), drawn.drawn
    left, right = (part.axes for part in sheet.subfigs)
    assert len(copies) == len(images)
    assert 0 < sum(copy.energy is not None for copy in copies) < len(images)
    expected = RandomLowRank(NormalEnergy(0.9, 0.1), skip_threshold=0.8, seed=3)
    energies = expected.draw(len(images), list(range(len(images))))
    for i, (image, copy) in enumerate(zip(images, copies, strict=True)):
        assert np.array_equal(left[i].images[0].get_array(), image)
        shown = right[i].images[0].get_array()
        assert right[i].axison == (copy.energy is not None)
        if copy.energy is None:
            assert np.isnan(energies[i])
            assert np.array_equal(shown, image)
            continue
        assert copy.energy == energies[i]
        sigma = np.linalg.svd(np.moveaxis(np.atleast_3d(image), -1, 0).astype(float))[1]
        for rank, values in zip(copy.ranks, sigma, strict=True):
            share = np.cumsum(values) / values.sum()
            assert share[rank - 1] >= copy.energy - 1e-9
            assert rank == 1 or share[rank - 2] < copy.energy
    assert sheet._suptitle.get_text() == "As in figure 3.1: energy N(0.9, 0.1), skip threshold 80%"
    with pytest.raises(OptionError, match="at least one image"):
        augmented_set([])


def test_the_energy_given_holds_for_every_copy_of_an_image(commands, tmp_path):
    image = photo_crops(32)[0]
    sheet = draw_image(image, energy=0.6, energy_std=0.001)
    framed = [axis.get_title() for axis in sheet.subfigs[2].axes if axis.axison]
    assert framed
    assert all(59 < float(text.split("%")[0]) < 61 for text in framed)
    assert "energy N(0.6, 0.001)" in sheet.subfigs[2]._suptitle.get_text()
    assert "energy N(0.975, 0.025)" in draw_image(image).subfigs[2]._suptitle.get_text()


def test_show_writes_a_page_of_an_image(commands, tmp_path):
    Image.fromarray(photo_crops(40)[0]).resize((300, 90)).save(tmp_path / "photo.png")
    done = commands("show", tmp_path / "photo.png", "--out", tmp_path / "a.html", "--energy", 0.8)
    assert done.exit_code == 0, done.output
    found = re.search(r"at 72×240 pixels; a copy differs by (\d+\.\d\d) of 255", done.stdout)
    text = (tmp_path / "a.html").read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert '"shape":[72,240,3]' in text
    arguments = ("show", tmp_path / "photo.png", "--out", tmp_path / "b.html", "--size", 30)
    small = json.loads(commands(*arguments, "--json").stdout)
    assert small["shape"] == [9, 30, 3]
    copy = low_rank_approximation(_read(tmp_path / "photo.png", 30), energy=0.975)
    off = np.abs(copy.astype(int) - _read(tmp_path / "photo.png", 30)).mean()
    assert small["mean_change"] == pytest.approx(off)
    assert float(found[1]) > small["mean_change"] > 0


def test_show_draws_a_folder_of_images_labelled_or_not(commands, tmp_path):
    for i, image in enumerate(photo_crops(24)[:6]):
        place = tmp_path / "set" / ("more" if i % 2 else ".") / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[: 24 - i]).save(place)
    (tmp_path / "set" / "read.me").write_text("no image")
    arguments = ("show", tmp_path / "set", "--skip-threshold", 0.5, "--energy", 0.8)
    arguments += ("--energy-std", 0.01, "--out")
    done = commands(*arguments, tmp_path / "a.png", "--json", "--seed", 1)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert len(result["images"]) == 6
    energies = [image["energy"] for image in result["images"] if image["energy"] is not None]
    assert 0 < len(energies) < 6
    assert all(0.75 < energy < 0.85 for energy in energies)
    assert result["energy"] == {"distribution": "normal", "mean": 0.8, "std": 0.01}
    assert (tmp_path / "a.png").stat().st_size > 10_000
    few = commands(*arguments, tmp_path / "b.html", "--limit", 3, "--size", 12)
    assert ": 3 images, of which " in few.stdout
    assert "energy N(0.8, 0.01), skip threshold 50%" in few.stdout
    itself = commands(*arguments, tmp_path / "set" / "0.png")
    assert str(itself.exception).endswith(
        "0.png is one of the images; choose another file for the picture"
    )


def test_show_draws_whatever_is_read_as_a_set(commands, tmp_path):
    done = commands("show", "digits", "--out", tmp_path / "a.png", "--size", 4)
    assert ": 36 images, of which " in done.stdout
    assert "energy N(0.9, 0.1), skip threshold 80%" in done.stdout
    missing = commands("show", tmp_path / "nowhere", "--out", tmp_path / "b.png")
    assert isinstance(missing.exception, DataError)


def test_options_of_a_set_are_refused_with_one_image(commands, tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(photo_crops(24)[0]).save(path)
    done = commands("show", path, "--out", tmp_path / "a.png", "--limit", 2)
    assert str(done.exception).startswith("--limit is for a set of images, and ")
    assert not (tmp_path / "a.png").exists()
