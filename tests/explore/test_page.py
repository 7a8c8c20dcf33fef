"""The page in headless Chromium: what a reader sees, clicks and saves; names are text alone."""

import csv
import io
import json
import re

import numpy as np
import pytest

from browser import needs_browser, visit
from rankwise import QuadraticClassifier
from rankwise.data import ImageSet
from rankwise.explore.findings import find
from rankwise.explore.page import About, write_page
from rankwise.explore.seen import seen
from rankwise.explore.thumbs import as_rgb, pictures_of, sheets_of

HOSTILE = [
    "<img src=x onerror=window.mistakes.push('run')>",
    "</script><script>window.mistakes.push('run')</script>",
    "\x1b[31mred\x07",
    "\u202egpj.exe",
    'a "quoted", one',
    "{{ 7 * 7 }}",
    "=1+1",
    "$x^2$",
    "ünï 漢字",
    "n" * 60,
]


@pytest.fixture(scope="module")
def explored(digits, tmp_path_factory):
    """A page of digits whose classes and files have names that mean something elsewhere."""
    images, labels = digits[0].copy(), digits[1]
    images[5], images[900] = images[4], images[3]
    names = np.array([f"{HOSTILE[k % 10]}/{k}.png" for k in range(len(labels))])
    given = np.array(HOSTILE)[labels]
    wrong = np.arange(7, 500, 35)
    given[wrong] = np.array(HOSTILE)[(labels[wrong] + 1) % 10]
    model = QuadraticClassifier(n_units=100, n_subnets=2, max_iter=3, random_state=0)
    model.fit(images[:500], given[:500])
    parts = []
    for part, rows in (("train", slice(0, 500)), ("test", slice(500, 1000))):
        codes = np.searchsorted(np.sort(HOSTILE), given[rows])
        whole = ImageSet.from_arrays(images[rows], codes, sorted(HOSTILE))
        object.__setattr__(whole, "image_ids", names[rows])
        parts.append(seen(model, whole, part))
    found = find(model, parts)
    path = tmp_path_factory.mktemp("page") / "explore.html"
    facts = [("data", HOSTILE[0]), ("command", HOSTILE[1])]
    size = write_page(
        model, found, About(HOSTILE[1], facts, [HOSTILE[0]], "rankwise train x"), path
    )
    assert size == path.stat().st_size < 2_000_000
    return path, found


def data_of(path):
    text = path.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


# Runs in the page; what it finds is sent to the page around it.
PROBE = """<script>
window.mistakes = [];
window.addEventListener("error", (e) => window.mistakes.push(String(e.message)));
window.addEventListener("load", async () => {
  const frame = () => new Promise((go) => setTimeout(go, 60));
  const all = (selector) => Array.from(document.querySelectorAll(selector));
  const key = (key, to = document.activeElement) => to.dispatchEvent(
    new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  await frame();
  const aside = ".scroll, nav ul, .skip";
  const wide = () => all("body *").filter((e) => !e.closest(aside)).filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width && (box.right > window.innerWidth + 1 || box.left < -1);
  }).map((e) => e.tagName + "." + e.className);
  const look = getComputedStyle(document.body);
  const found = {
    width: window.innerWidth, scroll: document.documentElement.scrollWidth, wide: wide(),
    colours: [look.color, look.backgroundColor],
    title: document.querySelector("h1").textContent, images: document.images.length,
    findings: all("#findings li").length, cells: all("#matrix td").length,
    charts: all("svg.chart").length, heads: all("#matrix tbody th").map((e) => e.textContent),
    listed: Object.fromEntries(all("[data-list]").map(
      (e) => [e.dataset.list, e.querySelectorAll(".thumb").length])),
    groups: all(".group").length, classes: all("#by-class tbody tr").length,
  };
  // By keys alone: to the cell of the first mistake, its images, the first one's reasons.
  const first = document.querySelector("#matrix button");
  first.focus();
  key("ArrowRight");
  key("ArrowDown");
  found.at = all("#matrix button").indexOf(document.activeElement);
  const wrong = document.querySelector("#matrix .wrong");
  wrong.click();
  found.cell = byId("cell").textContent;
  found.opened = all("#cell .thumb").length;
  const start = document.querySelector('[data-list="mistakes"] .thumb');
  start.focus();
  start.click();
  await frame();
  found.dialog = byId("detail").open;
  found.name = byId("detail-title").textContent;
  found.shares = all(".shares li").length;
  found.maps = all(".maps canvas").length;
  found.sum = document.querySelector(".sum")?.textContent;
  key("ArrowRight", byId("detail"));
  await frame();
  found.next = byId("detail-title").textContent;
  const choice = document.querySelector(".why select");
  choice.selectedIndex = 3;
  choice.dispatchEvent(new Event("change"));
  found.other = document.querySelector(".sum").textContent;
  found.detailWide = wide();
  const closed = new Promise((go) => byId("detail").addEventListener("close", go));
  byId("detail").close();
  await closed;
  found.back = document.activeElement === start ? "there" : document.activeElement.outerHTML;
  const take = all("#labels .controls button").at(-1);
  take.click();
  found.basket = byId("basket-count").textContent;
  found.ticked = all("#labels input:checked").length;
  found.csv = basketAsCsv();
  const box = document.querySelector("#labels input:checked");
  box.click();
  found.less = byId("basket-count").textContent;
  await frame();
  const thumb = document.querySelector('[data-list="mistakes"] canvas');
  const { data } = thumb.getContext("2d").getImageData(0, 0, thumb.width, thumb.height);
  found.drawn = Array.from(data);
  window.parent.postMessage(JSON.stringify({ ...found, mistakes: window.mistakes }), "*");
});
</script>"""


@needs_browser
def test_a_reader_sees_clicks_and_saves(explored, tmp_path):
    path, found = explored
    pages = [(path, 375), (path, 1280)]
    visits = visit(pages, PROBE, tmp_path, "--blink-settings=preferredColorScheme=0")
    assert [v["width"] for v in visits] == [375, 1280]
    wrong = int((~found.scored.right).sum())
    for seen_there in visits:
        assert seen_there["mistakes"] == []
        assert seen_there["wide"] == seen_there["detailWide"] == []
        assert seen_there["scroll"] <= seen_there["width"]
        assert seen_there["colours"] == ["rgb(231, 231, 227)", "rgb(20, 22, 26)"]
        assert seen_there["images"] == 0  # none came of a name
        assert seen_there["title"] == HOSTILE[1]
        assert seen_there["findings"] >= 4
        assert (seen_there["cells"], seen_there["classes"], seen_there["charts"]) == (100, 10, 2)
        assert "\\x1b[31mred\\x07" in seen_there["heads"]
        assert "\\u202egpj.exe" in seen_there["heads"]
        assert HOSTILE[0] in seen_there["heads"]
        assert seen_there["listed"]["mistakes"] == min(wrong, 24)
        assert seen_there["groups"] == min(12, len(found.groups))
        assert seen_there["at"] == 11
        assert seen_there["opened"] >= 1
        assert seen_there["dialog"]
        assert seen_there["name"] != seen_there["next"]
        assert seen_there["maps"] == 6  # all units, four of them, and what covering takes
        assert seen_there["back"] == "there"
        assert any(seen_there["drawn"])
        # The sum that the page shows is the model's output, to the digits shown.
        for text in (seen_there["sum"], seen_there["other"]):
            for total, output in re.findall(
                r"together (.[\d.]+); the model's output is (.[\d.]+)\.", text
            ):
                assert float(total.replace("−", "-")) == pytest.approx(
                    float(output.replace("−", "-")), abs=2e-3
                )
        lines = list(csv.DictReader(io.StringIO(seen_there["csv"], newline="")))
        suggested = [e for e in found.lists["labels"][:200] if e.leave]
        assert len(suggested) > 1
        assert [line["image"] for line in lines] == [found.name(e.row) for e in suggested]
        assert all(line["label"] in HOSTILE and line["part"] == "train" for line in lines)
        assert seen_there["basket"] == f"{len(suggested)} images"
        assert seen_there["less"] == f"{len(suggested) - 1} images"


def test_a_page_needs_nothing_else_and_holds_names_as_data(explored):
    path, found = explored
    text = path.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.count("</script>") == 2
    data = data_of(path)
    assert data["classes"] == sorted(HOSTILE)
    assert data["images"]["names"][-1] == found.name(found.n - 1)
    assert [g for g in data["groups"] if len(g) > 1]


def test_more_images_than_a_page_holds_are_drawn_and_that_is_said(digits, tmp_path, monkeypatch):
    from rankwise.explore import page

    monkeypatch.setattr(page, "MOST", 200)
    model = QuadraticClassifier(n_units=20, n_subnets=2, max_iter=1, random_state=0)
    model.fit(digits[0][:300], digits[1][:300].astype(str))
    part = seen(model, ImageSet.from_arrays(*digits), "test")
    found = find(model, [part])
    write_page(model, found, About("many", []), tmp_path / "p.html")
    data = data_of(tmp_path / "p.html")
    listed = {e.row for entries in found.lists.values() for e in entries[:200]}
    assert data["score"]["n"] == data["sampled"][1] == len(digits[0])
    assert 200 <= data["sampled"][0] == data["images"]["n"] <= 200 + len(listed) + 400
    assert data["images"]["n"] < len(digits[0])
    assert sum(map(sum, data["confusion"]["counts"])) == len(digits[0])
    # The wrong ones come first: half the room at most, the most confident of them.
    names = set(data["images"]["names"])
    assert {found.name(e.row) for e in found.lists["mistakes"][:100]} <= names


@pytest.mark.parametrize("shape", [(28, 28), (20, 40, 3), (150, 90, 4), (9, 7, 13)])
def test_thumbnails_are_the_images(shape):
    images = np.zeros((300, *shape), np.uint8)
    images[:] = (np.arange(300) % 256).astype(np.uint8).reshape(-1, *[1] * len(shape))
    sheets = sheets_of(images, np.arange(300), 400_000)
    assert len(sheets.sheets) == 2
    assert sum(map(len, sheets.sheets)) < 400_000
    from PIL import Image

    for number, sheet in enumerate(sheets.sheets):
        array = np.asarray(Image.open(io.BytesIO(sheet)).convert("L")).astype(int)
        for i in (0, 17, 43):
            y, x = i // sheets.across * sheets.cell[0], i % sheets.across * sheets.cell[1]
            middle = array[y + sheets.height // 2, x + sheets.width // 2]
            assert abs(middle - (256 * number + i) % 256) <= 4
    assert as_rgb(images[0]).shape == (*shape[:2], 3)
    one, two = (len(p) for p in pictures_of(images, np.array([0, 1]), 10**6))
    assert len(pictures_of(images, np.array([0, 1]), one + two - 1)) == 1
