"""The report in headless Chromium: what a reader meets."""

import shutil
import subprocess
from pathlib import Path

import pytest

from browser import needs_browser, visit
from rankwise.study import report
from rankwise.study.degrade import KINDS
from rankwise.study.imagenet_c import NAMES
from study.made_results import make_results

# Runs in the page, before its own script; what it finds is posted to the frame around.
PROBE = """
<script>
window.mistakes = [];
window.addEventListener("error", (e) => window.mistakes.push(String(e.message)));
window.addEventListener("load", () => {
  const root = document.documentElement;
  const wide = [];
  for (const element of document.querySelectorAll("body *")) {
    if (element.closest(".scroll > table")) continue;
    const box = element.getBoundingClientRect();
    if (box.right > window.innerWidth + 1 || box.left < -1) {
      wide.push(element.tagName + "." + (element.getAttribute("class") || ""));
    }
  }
  const table = document.querySelector("#evidence table.sortable");
  const column = 4;
  const head = table.tHead.rows[0].cells[column];
  const rows = () => Array.from(table.tBodies[0].rows);
  const values = () => rows().map((row) => Number(row.cells[column].dataset.value));
  head.querySelector("button").click();
  const up = values();
  const first = head.getAttribute("aria-sort");
  head.querySelector("button").click();
  const down = values();
  const drawn = Array.from(document.querySelectorAll("svg.chart"));
  const charts = drawn.map((chart) => chart.getBoundingClientRect());
  const look = getComputedStyle(document.body);
  const pictures = Array.from(document.images, (i) => i.complete && i.naturalWidth > 0);
  const found = {
    width: window.innerWidth, scroll: root.scrollWidth, client: root.clientWidth, wide, up, down,
    first, second: head.getAttribute("aria-sort"), charts: charts.length,
    hidden: charts.filter((b) => b.width < 200 || b.height < 20).length,
    pictures, mistakes: window.mistakes,
    colours: [look.color, look.backgroundColor],
  };
  window.parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""


@needs_browser
@pytest.mark.parametrize("protocol", ["sound", "notebook"])
def test_in_a_browser(written, tmp_path, protocol):
    path, results = written[protocol]
    pages = [(path, 375), (path, 1280)]
    for (_, width), found in zip(pages, visit(pages, PROBE, tmp_path), strict=True):
        assert found["mistakes"] == []
        assert found["width"] == width
        assert found["scroll"] <= found["client"]
        assert found["wide"] == []
        n_forests = 2 if protocol == "sound" else 1  # `sound` alone tests folds on degraded images
        assert found["charts"] == n_forests + 2 * len(results["conditions"]) + 10
        assert found["hidden"] == 0
        assert found["pictures"] == [True, True]
        assert found["up"] == sorted(found["up"])
        assert found["down"] == sorted(found["up"], reverse=True)
        assert (found["first"], found["second"]) == ("ascending", "descending")


# Opens all that is folded, and tells what is cut or stacked.
LAYOUT = """
<script>
window.addEventListener("load", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
  const regions = Array.from(document.querySelectorAll(".scroll"));
  const cut = regions.filter((r) => r.scrollWidth > r.clientWidth);
  const plots = Array.from(document.querySelectorAll(".forests > figure"));
  const said = Array.from(document.querySelectorAll(".words .scroll"));
  window.parent.postMessage(JSON.stringify({
    cut: cut.map((r) => r.getAttribute("aria-label")),
    tops: plots.map((p) => Math.round(p.getBoundingClientRect().top)),
    words: said.map((r) => [r.scrollWidth, r.clientWidth]),
    height: said.reduce((sum, r) => sum + r.getBoundingClientRect().height, 0),
  }), "*");
});
</script>
"""


def wide(folder, kinds):
    """A report with long names of arms, and as many kinds of degradation."""
    results = make_results(folder, data_sets=("mnist",), seeds=(1, 2))
    names = {"jpeg": "low-rank+blur", "duplicate": "low-rank+blur-unchanged"}
    every = [*results["conditions"], *results["comparisons"], *results["robustness"]]
    for item in every:
        for key in ("arm", "baseline_arm"):
            if item.get(key) in names:
                item[key] = names[item[key]]
    for cell in results["cells"]:
        known = list(cell["degraded"].values())
        cell["degraded"] = {"clean": known[0]} | dict.fromkeys(kinds, known[1])
    path = folder / "report.html"
    path.write_text(report.render(results, folder), encoding="utf-8")
    return path


@needs_browser
def test_no_table_is_cut_on_a_desktop_and_robustness_stands_beside_accuracy(written, tmp_path):
    folders = [tmp_path / name for name in ("own", "imagenet-c")]
    for folder in folders:
        folder.mkdir()
    own, many = wide(folders[0], KINDS), wide(folders[1], NAMES)
    pages = [(own, 1280), (many, 1280), (written["paper"][0], 1280), (own, 375)]
    *desktop, phone = visit(pages, LAYOUT, tmp_path / "visit")
    for found in desktop:
        assert found["cut"] == []
        assert len(set(found["tops"])) == 1
    assert len(desktop[0]["tops"]) == 2
    # What was a block for each of ten verdicts is a table of five rows.
    assert 0 < desktop[0]["height"] < 800
    # A phone stacks them; words aren't read by scrolling sideways.
    assert len(set(phone["tops"])) == 2
    assert all(scroll <= client for scroll, client in phone["words"])


@needs_browser
def test_dark_and_light_in_a_browser(written, tmp_path):
    path, _ = written["sound"]
    dark = visit([(path, 1280)], PROBE, tmp_path, "--blink-settings=preferredColorScheme=0")
    light = visit([(path, 1280)], PROBE, tmp_path, "--blink-settings=preferredColorScheme=1")
    assert dark[0]["colours"] == ["rgb(231, 231, 227)", "rgb(20, 22, 26)"]
    assert light[0]["colours"] == ["rgb(27, 29, 32)", "rgb(252, 252, 250)"]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_valid():
    script = Path(report.__file__).parent / "templates" / "report.js"
    subprocess.run(["node", "--check", str(script)], check=True, timeout=60)
