"""Pages in headless Chromium, in frames as wide as a phone and a desktop, in real time.

A script in each page looks around and posts what it found, as JSON, to the page that frames it,
which hands it on to a server of this process: a visit ends when every page has answered, however
fast the machine is. (A virtual clock, as of ``--dump-dom``, runs ahead of what decodes pictures.)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from rankwise.export.check import BROWSER_FLAGS

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

# A page's own frames take their colour scheme from here.
_FRAMES = """<!doctype html><meta name="color-scheme" content="light dark">
<body style="margin: 0; white-space: nowrap">@FRAMES@<script>
const frames = Array.from(document.querySelectorAll("iframe"));
window.onmessage = (event) => fetch("@SERVER@" + frames.findIndex((frame) =>
  frame.contentWindow === event.source), { method: "POST", mode: "no-cors", body: event.data });
</script>"""


class Answers:
    """What pages have posted, by the number of their frame."""

    def __init__(self, n_pages: int) -> None:
        self.found: dict[int, Any] = {}
        self.complete = threading.Event()
        self._n_pages = n_pages

    def take(self, index: int, body: bytes) -> None:
        """Keep one, and tell when all are there."""
        self.found[index] = json.loads(body)
        if len(self.found) == self._n_pages:
            self.complete.set()


@contextmanager
def served(answers: Answers) -> Iterator[str]:
    """The address of a server that takes answers."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answers.take(int(self.path.strip("/")), body)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def visit(
    pages: Sequence[tuple[Path, int]], probe: str, folder: Path, *options: str, timeout: float = 240
) -> list[Any]:
    """What each page, at a width in pixels, tells of itself by ``window.parent.postMessage``.

    `probe` is put before the page's style; `options` are Chromium's. A page that says anything on
    the console has failed.
    """
    assert CHROMIUM is not None
    folder.mkdir(exist_ok=True)
    frames = ""
    for number, (page, width) in enumerate(pages):
        text = page.read_text(encoding="utf-8").replace("<style>", probe + "<style>", 1)
        (folder / f"probed-{number}.html").write_text(text, encoding="utf-8")
        # Headless Chromium's window isn't narrower than 500 pixels: a frame is.
        frames += (
            f'<iframe src="probed-{number}.html" width="{width}" height="900" '
            'style="border: 0"></iframe>'
        )
    across = sum(width for _, width in pages)
    answers = Answers(len(pages))
    log = folder / "chromium.txt"
    with (
        served(answers) as address,
        log.open("wb") as stderr,
        # What an ended Chromium leaves; short, since a socket in it has at most 107 characters.
        TemporaryDirectory(prefix="visit-", ignore_cleanup_errors=True) as own,
    ):
        html = _FRAMES.replace("@FRAMES@", frames).replace("@SERVER@", address)
        (folder / "frames.html").write_text(html, encoding="utf-8")
        # A frame out of sight is given no events of drawing, and slow timers.
        command = [CHROMIUM, *BROWSER_FLAGS, f"--window-size={across + 100},1000"]
        command += ["--enable-logging=stderr", f"--user-data-dir={own}/profile", *options]
        command += ["--remote-debugging-port=0", (folder / "frames.html").as_uri()]
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=stderr, env=os.environ | {"TMPDIR": own}
        )
        try:
            answers.complete.wait(timeout)
        finally:
            process.terminate()
            process.wait(60)
    said = log.read_text(encoding="utf-8", errors="replace")
    # Chromium advises a probe that reads a canvas more than once.
    console = [line for line in said.splitlines() if "CONSOLE" in line and "Canvas2D" not in line]
    assert console == []
    assert answers.complete.is_set(), f"{len(answers.found)} of {len(pages)} pages: {said[-2000:]}"
    return [answers.found[number] for number in range(len(pages))]
