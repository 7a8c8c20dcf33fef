"""The pages in headless Chromium: pixels are numpy's, sliders move them, names are text."""

import json
import re
from base64 import b64decode
from itertools import product

import numpy as np
import pytest

from browser import needs_browser, visit
from lowrank.photos import photo_crops
from rankwise.lowrank import NormalEnergy, OptionError, RandomLowRank, low_rank_approximation
from rankwise.lowrank.pages import PUBLISHED, write_image_page, write_set_page
from rankwise.lowrank.sets import augmented_set
from rankwise.lowrank.visibility import STRENGTHS, energy_for_change, mean_change

HOSTILE = "</script><b>&'\".png"
IMAGES = {"wide": photo_crops(48)[0][:26], "tall": photo_crops(48)[1][:, :19, :1]}
CHOICES = [
    {"energyOf": e, "rankRule": r, "channels": c}
    for e, r, c in product(
        ("sigma", "sigma_squared"),
        ("reach", "nearest"),
        ("own", "shared", "luma-chroma", "joint"),
    )
]
PAPER = CHOICES[0]

# Runs in the page; what it finds is posted to the frame around.
PROBE = """<script>
window.mistakes = [];
window.addEventListener("error", (e) => window.mistakes.push(String(e.message)));
window.addEventListener("load", async () => {
  const settled = async () => {
    do await new Promise((go) => setTimeout(go, 50));
    while (byId("strengths").textContent.includes("…"));
  };
  await settled();
  const coded = (pixels) => btoa(String.fromCharCode(...pixels));
  const told = (copy) => ({ ...copy, pixels: coded(copy.pixels) });
  const on = (id, kind, value) => {
    if (value !== undefined) byId(id).value = value;
    byId(id).dispatchEvent(new Event(kind, { bubbles: true }));
  };
  const seen = () => {
    const canvas = byId("picture");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return coded(data.filter((_, i) => i % 4 !== 3));
  };
  const found = { first: seen(), facts: byId("facts").textContent, title: document.title };
  const choices = @CHOICES@;
  found.copies = choices.flatMap((options) =>
    [0.35, 0.9, 0.975, 1].map((energy) =>
      [options, { energy }, told(rankwise.copy({ energy, ...options }))]));
  for (const rank of [1, 7, 1000]) {
    found.copies.push([choices[0], { rank }, told(rankwise.copy({ rank, ...choices[0] }))]);
  }
  found.energies = choices.map((options) => rankwise.energyFor(6, options));
  found.strengths = [...byId("strengths").children].map((button) => button.textContent);
  found.ranks = [...byId("rank-grid").children].map((button) => button.textContent);
  found.channels = byId("channel-grid").textContent;
  on("energy", "input", 0.5); found.moved = seen();
  on("rank", "input", 3); found.ranked = seen();
  on("energy-number", "input", 80); found.numbered = seen();
  byId("rank-grid").children[0].click(); found.clicked = seen();
  on("channels", "change", "joint"); found.joint = byId("facts").textContent;
  await settled();
  byId("strengths").children[0].click();
  const key = (key) =>
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  key("o"); found.original = seen();
  found.pressed = byId("view-original").getAttribute("aria-pressed");
  key("d"); found.difference = seen();
  found.wide = [...document.querySelectorAll("body *")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.right > window.innerWidth + 1 || box.left < -1;
  }).map((each) => each.tagName + "#" + each.id);
  found.scroll = document.documentElement.scrollWidth; found.width = window.innerWidth;
  found.bold = document.querySelectorAll("h1 b").length;
  window.parent.postMessage(JSON.stringify({ ...found, mistakes: window.mistakes }), "*");
});
</script>"""


@pytest.fixture(scope="module")
def visited(tmp_path_factory):
    """What two pages at two widths tell: {(image, width): found}."""
    folder = tmp_path_factory.mktemp("pages")
    probe = PROBE.replace("@CHOICES@", json.dumps(CHOICES))
    pages = []
    for name, image in IMAGES.items():
        write_image_page(image, folder / f"{name}.html", title=HOSTILE, energy=0.9)
        pages += [(folder / f"{name}.html", width) for width in (375, 1280)]
    told = visit(pages, probe, folder)
    return {(page.stem, width): found for (page, width), found in zip(pages, told, strict=True)}


def copy_by_svd(image, options, energy=None, rank=None):
    """Pixels and ranks by numpy's SVD in float64, from the definition."""
    matrices = np.moveaxis(image, -1, 0).astype(float)
    mix = np.array([[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5]])
    mix = np.vstack([mix, [0.5, -0.418687589, -0.081312411]])
    mixed = options["channels"] == "luma-chroma" and len(matrices) == 3
    if mixed:
        matrices = np.einsum("ij,jhw->ihw", mix, matrices)
    if options["channels"] == "joint":
        matrices = np.concatenate(list(matrices), axis=1)[None]
    decomposed = [np.linalg.svd(matrix, full_matrices=False) for matrix in matrices]
    power = 1 if options["energyOf"] == "sigma" else 2
    shares = [np.cumsum(s**power) / np.sum(s**power) for _, s, _ in decomposed]
    if options["channels"] == "shared":
        shares = [np.mean(shares, axis=0)] * len(shares)
    ranks = []
    for share in shares:
        if rank is not None:
            ranks.append(min(rank, len(share)))
        elif energy == 1:
            ranks.append(len(share))
        elif options["rankRule"] == "reach":
            ranks.append(int(np.flatnonzero(share >= energy)[0]) + 1)
        else:
            ranks.append(int(np.abs(share - energy).argmin()) + 1)
    parts = zip(decomposed, ranks, strict=True)
    rebuilt = np.stack([(u[:, :k] * s[:k]) @ v[:k] for (u, s, v), k in parts])
    if mixed:
        rebuilt = np.einsum("ij,jhw->ihw", np.linalg.inv(mix), rebuilt)
    if options["channels"] == "joint":
        rebuilt = np.stack(np.split(rebuilt[0], image.shape[-1], axis=1))
    return np.moveaxis(np.rint(rebuilt).clip(0, 255).astype(np.uint8), 0, -1), ranks


def bytes_of(text, shape):
    pixels = np.frombuffer(b64decode(text), np.uint8)
    if pixels.size == 3 * shape[0] * shape[1]:
        pixels = pixels.reshape(*shape[:2], 3)
        return pixels if shape[2] == 3 else pixels[..., :1]
    return pixels.reshape(shape)


@needs_browser
@pytest.mark.parametrize("name", IMAGES)
def test_every_copy_is_numpy_s_pixel_for_pixel(visited, name):
    image, found = IMAGES[name], visited[name, 1280]
    assert len(found["copies"]) == 4 * len(CHOICES) + 3
    for options, wanted, told in found["copies"]:
        expected, ranks = copy_by_svd(image, options, **wanted)
        assert told["ranks"] == ranks, (options, wanted)
        np.testing.assert_array_equal(bytes_of(told["pixels"], image.shape), expected)
        off = expected.astype(float) - image
        assert told["change"] == pytest.approx(np.abs(off).mean(), abs=1e-12)
        if off.any():
            assert told["psnr"] == pytest.approx(10 * np.log10(255**2 / (off**2).mean()))
        else:
            assert told["psnr"] is None  # infinity, as JSON has it
        relative = np.linalg.norm(off) / np.linalg.norm(image.astype(float))
        assert told["error"] == pytest.approx(relative)
        height, width, colours = image.shape
        wide = width * colours if options["channels"] == "joint" else width
        stored = sum(rank * (height + wide + 1) for rank in ranks)
        assert told["compression"] == pytest.approx(image.size / stored)


@needs_browser
@pytest.mark.parametrize("name", IMAGES)
def test_sliders_buttons_and_keys_move_the_picture(visited, name):
    image = IMAGES[name]
    for width in (375, 1280):
        found = visited[name, width]
        assert found["mistakes"] == []
        assert found["wide"] == []
        assert found["scroll"] <= found["width"] == width
        assert found["title"].startswith(HOSTILE)
        assert found["bold"] == 0
        for told, wanted in (
            ("first", {"energy": 0.9}),
            ("moved", {"energy": 0.5}),
            ("ranked", {"rank": 3}),
            ("numbered", {"energy": 0.8}),
            ("clicked", {"rank": 1}),
        ):
            expected = copy_by_svd(image, PAPER, **wanted)[0]
            np.testing.assert_array_equal(bytes_of(found[told], image.shape), expected, told)
        np.testing.assert_array_equal(bytes_of(found["original"], image.shape), image)
        assert found["pressed"] == "true"
        joint = {**PAPER, "channels": "joint"}
        copy = copy_by_svd(image, joint, energy=PUBLISHED[0][1])[0]
        difference = np.minimum(8 * np.abs(copy.astype(int) - image), 255)
        np.testing.assert_array_equal(bytes_of(found["difference"], image.shape), difference)
        assert "mean change" in found["facts"]
        assert f"of {min(image.shape[:2])}; " in found["facts"]
        assert found["facts"] != found["joint"]
        assert found["ranks"][0].startswith("rank 1: ")
        assert found["ranks"][-1].startswith(f"rank {min(image.shape[:2])}: 100.0%, equal")
        assert ("red" in found["channels"]) == (image.shape[-1] == 3)


@needs_browser
@pytest.mark.parametrize("name", IMAGES)
def test_proposed_strengths_are_python_s(visited, name):
    image, found = IMAGES[name], visited[name, 1280]
    shown = found["strengths"]
    assert [text.split("9")[0] for text in shown[:2]] == [label for label, _ in PUBLISHED]
    for text, (label, change) in zip(shown[2:], STRENGTHS.items(), strict=True):
        assert text.startswith(label)
        if energy_for_change([image], change) is None:
            assert text == f"{label}no energy changes it so much"
        else:
            assert float(text.rsplit(" ", 1)[1]) >= change - 0.005
    for options, energy in zip(CHOICES[:4], found["energies"], strict=False):
        ours = energy_for_change(
            [image],
            6.0,
            energy_of=options["energyOf"],
            rank_rule=options["rankRule"],
            channels=options["channels"],
        )
        assert energy == pytest.approx(ours, abs=2**-13)


def test_an_energy_for_a_change_is_the_largest_that_gives_it():
    images = [photo_crops(48)[0], photo_crops(32)[1][..., 0]]

    def changed(energy):
        copies = [low_rank_approximation(image, energy=energy) for image in images]
        return np.mean([mean_change(a, b) for a, b in zip(images, copies, strict=True)])

    for change in (0.5, 2.0, 5.0):
        energy = energy_for_change(images, change)
        assert changed(energy) >= change > changed(energy + 2**-13)
    constant = np.full((9, 9), 7, np.uint8)
    assert energy_for_change([constant], 1.0) is None
    with pytest.raises(OptionError, match="at least one image"):
        energy_for_change([], 1.0)
    with pytest.raises(OptionError, match="change must be positive, not 0"):
        energy_for_change(images, 0)
    with pytest.raises(OptionError, match=r"shapes differ: \(9, 9\) and \(3, 3\)"):
        mean_change(constant, constant[:3, :3])
    with pytest.raises(OptionError, match="of 8-bit images, arrays of uint8, not float64"):
        mean_change(constant / 255, constant / 255)
    with pytest.raises(OptionError, match="of 8-bit images, arrays of uint8, not int16"):
        mean_change(constant, constant.astype(np.int16))
    with pytest.raises(OptionError, match="of 8-bit images, arrays of uint8, not float64"):
        energy_for_change([images[0], images[1] / 255], 1.0)


def test_a_set_is_a_page_with_its_copies_and_how_visible_they_are(tmp_path):
    images = [*photo_crops(24)[:6], photo_crops(20)[0][..., 0]]
    drawn = augmented_set(images, transform=RandomLowRank(NormalEnergy(0.8, 0.01), p=0.5, seed=1))
    write_set_page(drawn, tmp_path / "set.html", title=HOSTILE)
    text = (tmp_path / "set.html").read_text("utf-8")
    made = [how for how in drawn.drawn if how.energy is not None]
    assert 0 < len(made) < len(images)
    assert text.count("<img ") == 2 * len(images)
    assert text.count('<figure class="copy">') == len(made)
    assert all(how.text in text for how in made)
    assert f"{len(made)} of 7 images are copies" in text
    assert "energy N(0.8, 0.01), skip threshold 50%" in text
    assert "<b>" not in text
    assert all(label in text for label in STRENGTHS)
    assert not re.search(r"(src|href)=\"(?!data:)", text)


@pytest.mark.parametrize(("energy", "channels"), [(1.5, 3), (0.0, 3), (0.9, 5)])
def test_a_page_of_nothing_is_refused(tmp_path, energy, channels):
    with pytest.raises(OptionError, match=r"energy must lie in \(0, 1\]|grey or RGB images"):
        write_image_page(np.zeros((4, 4, channels), np.uint8), tmp_path / "a.html", energy=energy)
    with pytest.raises(OptionError, match=r"at most 512 pixels a side, not 2×513; give it a smal"):
        write_image_page(np.zeros((2, 513), np.uint8), tmp_path / "a.html")
    assert not any(tmp_path.iterdir())
