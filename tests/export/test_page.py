"""The exported page in headless Chromium: what it computes, how it reads pictures, how it looks."""

import re
from base64 import b64encode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from browser import needs_browser, visit
from export_cases import digits_as
from rankwise.errors import MissingDependencyError, RankwiseError
from rankwise.estimators.options import classifier_of
from rankwise.export import export_model, to_graph
from rankwise.export.check import run_page
from rankwise.export.html import write_html
from rankwise.export.quantise import quantise
from rankwise.networks.graph import run
from rankwise.networks.probabilities import probabilities


@needs_browser
@pytest.mark.parametrize(("kind", "layout"), [("convolutional", "colour"), ("bilinear", "grey")])
def test_two_hundred_real_images_are_python_s(fitted, tmp_path, kind, layout):
    model = fitted(kind)[0]
    images = digits_as(layout)[0][600:800]
    export_model(model, "html", tmp_path / "m.html")
    found = run_page(tmp_path / "m.html", images)
    expected = model.predict_proba(images)
    assert len(found) == 200
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@needs_browser
@pytest.mark.parametrize(
    ("precision", "output", "scale"),
    [("float32", "softmax", 255.0), ("float16", "sigmoid", 255.0), ("int8", "sum-to-one", 1.0)],
)
def test_every_operation_in_the_page(all_operations, tmp_path, precision, output, scale):
    graph = all_operations(output, scale)
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (20, *graph.image_shape), dtype=np.uint8)
    if scale == 1.0:
        images = rng.random(images.shape, dtype=np.float32)
    write_html(graph, tmp_path / "m.html", precision=precision)
    reference = probabilities(run(quantise(graph, precision).rounded(), images), output)
    np.testing.assert_allclose(run_page(tmp_path / "m.html", images), reference, atol=1e-4)
    assert np.ptp(reference, axis=0).max() > 0.05


# Runs in the page; what it finds is posted to the frame around.
PROBE = """<script>
window.mistakes = [];
window.addEventListener("error", (e) => window.mistakes.push(String(e.message)));
window.addEventListener("load", async () => {
  const wide = () => Array.from(document.querySelectorAll("body *")).filter((element) => {
    const box = element.getBoundingClientRect();
    return box.right > window.innerWidth + 1 || box.left < -1;
  }).map((element) => element.tagName + "#" + element.id);
  const point = (kind, x, y) => {
    const box = board.getBoundingClientRect();
    board.dispatchEvent(new PointerEvent(kind, { pointerId: 1, bubbles: true,
      clientX: box.left + x * box.width, clientY: box.top + y * box.height }));
  };
  board.setPointerCapture = () => {};
  const found = { before: byId("label").textContent };
  point("pointerdown", 0.5, 0.2); point("pointermove", 0.5, 0.8); point("pointerup", 0.5, 0.8);
  Object.assign(found, {
    label: byId("label").textContent, bars: byId("bars").children.length,
    why: byId("units").children.length, wide: wide(), scroll: document.documentElement.scrollWidth,
    width: window.innerWidth, colour: getComputedStyle(document.body).backgroundColor,
  });
  byId("clear").click();
  const key = (key) => board.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
  [" ", "ArrowUp", "ArrowUp", "ArrowUp", "ArrowUp"].forEach(key);
  found.byKeys = byId("label").textContent;
  key("Delete");
  found.cleared = byId("label").textContent;
  try { rankwise.predict([1, 2]); } catch (error) { found.refused = error.message; }
  await open(new File(["no picture"], "a.txt"));
  found.unread = byId("error").textContent;
  const bytes = Uint8Array.from(atob("@PNG@"), (c) => c.charCodeAt(0));
  await open(new File([bytes], "photo.png", { type: "image/png" }));
  found.photo = Array.from(current());
  found.pictured = byId("label").textContent;
  byId("invert").click();
  found.inverted = Array.from(current());
  window.parent.postMessage(JSON.stringify({ ...found, mistakes: window.mistakes }), "*");
});
</script>"""


@needs_browser
def test_a_reader_draws_opens_and_sees_why(fitted, tmp_path):
    model = fitted("bilinear")[0]
    export_model(model, "html", tmp_path / "m.html")
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (37, 50, 3), dtype=np.uint8))
    png = BytesIO()
    photo.save(png, "PNG")
    probe = PROBE.replace("@PNG@", b64encode(png.getvalue()).decode())
    pages = [(tmp_path / "m.html", width) for width in (375, 1280)]
    for found in visit(pages, probe, tmp_path / "visit"):
        assert found["mistakes"] == []
        assert found["wide"] == []
        assert found["scroll"] <= found["width"]
        assert found["before"] == found["cleared"] == "–"
        names = {str(c) for c in model.classes_}
        assert {found["label"], found["byKeys"], found["pictured"]} <= names
        assert found["bars"] == 10
        assert found["why"] == 6
        assert found["refused"] == "an image is 8 × 8 = 64 numbers, got 2"
        assert found["unread"].startswith("a.txt isn't a picture that this browser reads")
        # As load_images makes a photo grey and small, to a level of rounding.
        resized = photo.convert("L").resize((8, 8), Image.Resampling.BILINEAR)
        expected = np.asarray(resized, dtype=int).reshape(-1)
        assert np.abs(np.array(found["photo"]) - expected).max() <= 1
        np.testing.assert_array_equal(np.array(found["inverted"]), 255 - np.array(found["photo"]))


def test_a_page_needs_nothing_else(fitted, all_operations, tmp_path):
    graph = all_operations()
    write_html(graph, tmp_path / "m.html", title="<b> & @SCRIPT@", facts="</script>")
    text = (tmp_path / "m.html").read_text(encoding="utf-8")
    # No address to fetch anything from, and a policy that forbids it.
    assert not re.search(r"https?://|\bsrc=|\bimport\b|fetch\(|XMLHttpRequest", text)
    assert "default-src 'none'" in text
    assert "&lt;b&gt; &amp; @SCRIPT@" in text
    assert text.count("</script>") == 3
    write_html(to_graph(fitted("convolutional")[0]), tmp_path / "n.html")
    assert (tmp_path / "n.html").stat().st_size < 300_000


def test_a_missing_browser_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingDependencyError, match=r"needs a browser \(chromium, "):
        run_page(tmp_path / "m.html", np.zeros((1, 2, 2), np.uint8))


@needs_browser
def test_a_page_that_answers_nothing_is_said(tmp_path):
    (tmp_path / "m.html").write_text("<p>no network</p>")
    with pytest.raises(RankwiseError, match="ran the page, but it gave no answer"):
        run_page(tmp_path / "m.html", np.zeros((1, 2, 2), np.uint8))


def test_a_page_of_floats_has_their_black_and_white(tmp_path):
    """Digits from 0 to 16, as scikit-learn has them; a page's pixels are bytes."""
    bunch = load_digits()
    model = classifier_of(n_units=30, n_subnets=1, max_iter=2).fit(bunch.images, bunch.target)
    export_model(model, "html", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert '"levels": [0.0, 16.0]' in text or '"levels":[0.0,16.0]' in text
    assert "Black and white are the model&#x27;s 0 and 16." in text
    shifted = classifier_of(n_units=8, n_subnets=1, max_iter=1)
    shifted.fit(bunch.images[:100] / 8 - 1, bunch.target[:100])
    export_model(shifted, "html", tmp_path / "page.html")
    assert "Black and white are the model&#x27;s -1 and 1." in (tmp_path / "page.html").read_text()


@needs_browser
def test_a_picture_becomes_the_model_s_numbers(tmp_path):
    bunch = load_digits()
    model = classifier_of(n_units=30, n_subnets=1, max_iter=2).fit(bunch.images, bunch.target)
    export_model(model, "html", tmp_path / "page.html")
    probe = """<script>window.addEventListener("load", () => {
      const rgba = new Uint8ClampedArray(256).map((_, i) => (i % 4 === 3 ? 255 : 4 * (i >> 2)));
      const found = Array.from(rankwise.pixels(rgba, 8, 8));
      window.parent.postMessage(JSON.stringify(found), "*");
    });</script>"""
    (found,) = visit([(tmp_path / "page.html", 500)], probe, tmp_path / "visit")
    np.testing.assert_allclose(found, 16 * 4 * np.arange(64) / 255, atol=1e-5)
