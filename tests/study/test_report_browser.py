"""The report in headless Chromium: what a reader meets."""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from rankwise.study import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

# Runs in the page, before its own script; what it finds is left where --dump-dom shows it.
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
  const table = document.querySelector("table.sortable");
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
  const place = document.createElement("pre");
  place.id = "probe";
  place.textContent = JSON.stringify(found);
  document.body.append(place);
});
</script>
"""


def browse(page, folder, width, *options):
    # Headless Chromium's window isn't narrower than 500 pixels: a frame is.
    frame = folder / f"frame-{width}.html"
    probed = folder / "probed.html"
    html = page.read_text(encoding="utf-8")
    probed.write_text(html.replace("<style>", PROBE + "<style>", 1), encoding="utf-8")
    frame.write_text(
        # A frame takes its colour scheme from the page around it.
        '<!doctype html><meta name="color-scheme" content="light dark"><body style="margin:0">'
        f'<iframe id="f" src="probed.html" width="{width}" '
        'height="900" style="border:0"></iframe><script>window.addEventListener("load", () => {'
        'const inner = document.getElementById("f").contentDocument.getElementById("probe");'
        'document.title = "done"; const p = document.createElement("pre"); p.id = "result";'
        "p.textContent = inner.textContent; document.body.append(p); });</script>",
        encoding="utf-8",
    )
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--allow-file-access-from-files",
            "--enable-logging=stderr",
            "--virtual-time-budget=4000",
            "--window-size=1400,1000",
            f"--user-data-dir={folder / f'profile-{width}'}",
            *options,
            "--dump-dom",
            frame.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "HOME": str(folder)},
        check=True,
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)
    assert found, done.stdout[-2000:]
    return json.loads(unescape(found.group(1)))


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("protocol", ["sound", "notebook"])
@pytest.mark.parametrize("width", [375, 1280])
def test_in_a_browser(written, tmp_path, protocol, width):
    path, results = written[protocol]
    found = browse(path, tmp_path, width)
    assert found["mistakes"] == []
    assert found["width"] == width
    assert found["scroll"] <= found["client"]
    assert found["wide"] == []
    n_forests = 2 if protocol == "sound" else 1  # Only `sound` tests folds on degraded images.
    assert found["charts"] == n_forests + 2 * len(results["conditions"]) + 10
    assert found["hidden"] == 0
    assert found["pictures"] == [True, True]
    assert found["up"] == sorted(found["up"])
    assert found["down"] == sorted(found["up"], reverse=True)
    assert (found["first"], found["second"]) == ("ascending", "descending")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_dark_and_light_in_a_browser(written, tmp_path):
    path, _ = written["sound"]
    dark = browse(path, tmp_path, 1280, "--blink-settings=preferredColorScheme=0")
    shutil.rmtree(tmp_path / "profile-1280")
    light = browse(path, tmp_path, 1280, "--blink-settings=preferredColorScheme=1")
    assert dark["colours"] == ["rgb(231, 231, 227)", "rgb(20, 22, 26)"]
    assert light["colours"] == ["rgb(27, 29, 32)", "rgb(252, 252, 250)"]


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_the_script_is_valid():
    script = Path(report.__file__).parent / "templates" / "report.js"
    subprocess.run(["node", "--check", str(script)], check=True, timeout=60)
