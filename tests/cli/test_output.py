"""Text is text: what names hold steers no terminal and fails no output."""

import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest

from cli_cases import FAST, call
from rankwise._text import plain
from rankwise.cli._output import prepare_streams
from rankwise.data import ImageSet

NAMES = (
    "[red]a[/red]",
    "\x1b[31mb\x07",
    "c\td\ne",
    "*/ int x; /*",
    "</script><b>",
    "=1+1",
    "→ü",
    "??/",
)


@pytest.fixture
def odd(tmp_path):
    """Classes whose names hold what steers something."""
    rng = np.random.default_rng(0)
    labels = np.arange(12 * len(NAMES)) % len(NAMES)
    images = rng.integers(0, 20, (len(labels), 8, 8), dtype=np.uint8)
    images[np.arange(len(labels)), labels] = 255
    names = np.array(NAMES)
    np.savez(tmp_path / "odd.npz", images=images, labels=names[labels])
    return tmp_path / "odd.npz"


def test_control_characters_are_spelled():
    assert plain("a\x1b[31m\r\nb\tü\u202e") == "a\\x1b[31m\\r\\nb\\tü\\u202e"
    assert plain("a\n\tb\x00", lines=True) == "a\n\tb\\x00"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_never_fails_on_a_character(encoding, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", stream)
    prepare_streams()
    print("a → b – ü 語 \udcff")
    stream.flush()
    written = stream.buffer.getvalue().decode(encoding, "surrogateescape")
    expected = {"utf-8": "a → b – ü 語 \\udcff", "cp1252": "a -> b – ü \\u8a9e \\udcff"}
    assert written.rstrip() == expected.get(encoding, "a -> b - u \\u8a9e \\udcff")


def test_names_steer_neither_console_nor_files(odd, tmp_path, monkeypatch, capsys):
    out = tmp_path / "model"
    text, err = call(monkeypatch, capsys, "train", odd, "--out", out, *FAST)
    evaluated, more = call(monkeypatch, capsys, "evaluate", out, odd)
    steering = {"\x1b", "\x07", "\r"}
    assert not steering & set(text + err + evaluated + more)
    assert "\\x1b[31mb\\x07" in evaluated
    assert "[red]a[/red]" in evaluated
    assert "c\\td\\ne" in evaluated
    # A program in C, with the names in it.
    call(monkeypatch, capsys, "export", out, "--format", "c", "--no-check", "--json")
    compiler = shutil.which("cc")
    if compiler:
        flags = ["-std=c99", "-pedantic-errors", "-fsyntax-only", "-x", "c"]
        header = out / "rankwise_model.h"
        subprocess.run([compiler, *flags, header], check=True, capture_output=True)
        assert "int x;" not in _without_strings(header.read_text(encoding="utf-8"))


def _without_strings(source):
    return re.sub(r'"([^"\\]|\\.)*"', '""', source)


def test_an_image_with_an_odd_name_and_a_bad_one(trained, pictures, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "to label"
    folder.mkdir()
    shutil.copy(pictures / "zero.png", folder / "a\x1b[2J\nb.png")
    shutil.copy(pictures / "one.png", folder / "z.png")
    (folder / "Thumbs.db").write_bytes(b"x")
    text, err = call(monkeypatch, capsys, "predict", trained[0], folder, expect=1)
    assert "\x1b" not in text + err
    assert "a\\x1b[2J\\nb.png" in text.replace("\n", "").replace("│", "").replace(" ", "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert "Thumbs.db" in line
    text, err = call(
        monkeypatch, capsys, "predict", trained[0], folder, "--json", "--skip-bad", expect=0
    )
    found = json.loads(text)
    assert [os.path.basename(p["file"]) for p in found["predictions"]] == [
        "a\x1b[2J\nb.png",
        "z.png",
    ]
    assert [os.path.basename(f["file"]) for f in found["failed"]] == ["Thumbs.db"]
    assert "Thumbs.db" in found["failed"][0]["error"]
    assert err.startswith("skipped: ")
    # Nothing but bad ones is a failure, skipped or not; so is an empty folder.
    bad = folder / "Thumbs.db"
    call(monkeypatch, capsys, "predict", trained[0], bad, "--skip-bad", expect=1)
    (tmp_path / "empty").mkdir()
    _, err = call(monkeypatch, capsys, "predict", trained[0], tmp_path / "empty", expect=1)
    assert "empty holds no files that can be read; image files are accepted" in err


def test_predict_of_the_library_raises_unless_told(trained, tmp_path):
    from rankwise import runs
    from rankwise.errors import DataError

    (tmp_path / "x.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"x\.png can't be used"):
        runs.predict(trained[0], [tmp_path / "x.png"])
    (entry,) = runs.predict(trained[0], [tmp_path / "x.png"], on_error="record")
    assert set(entry) == {"file", "error"}
    with pytest.raises(ValueError, match="on_error is 'skip'; 'raise' or 'record' is accepted"):
        runs.predict(trained[0], [], on_error="skip")


def test_the_log_of_augment_keeps_names_exactly(odd, tmp_path, monkeypatch, capsys):
    for kind in ("parquet", "folder"):
        call(
            monkeypatch, capsys, "augment", odd, tmp_path / kind, "--skip-threshold", "0", "--json",
            "--split", "all", "--format", kind,
        )  # fmt: skip
    from rankwise import load_images

    assert load_images(tmp_path / "parquet", "all").class_names == tuple(sorted(NAMES))
    with (tmp_path / "folder" / "augment-log.csv").open(newline="", encoding="utf-8") as file:
        assert {row["label"] for row in csv.DictReader(file)} == set(NAMES)


@pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_ends_a_command_with_one_line(name, tmp_path):
    """The status is what a shell expects, and the temporary folder is empty."""
    number = getattr(signal, name)
    script = (
        "import os, signal, sys, rankwise.cli as cli, rankwise.runs as runs\n"
        "from rankwise._files import temporary_folder\n"
        # As from a terminal: under nohup a child is born deaf to SIGHUP, and stays so.
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "def predict(*a, **k):\n"
        "    with temporary_folder():\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "        import time; time.sleep(30)\n"
        "runs.predict = predict\n"
        "sys.argv = ['rankwise', 'predict', '.', 'x.png']\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (128 + number, "interrupted\n")
    assert not list(tmp_path.iterdir())


def test_images_of_a_killed_process_leave_nothing(tmp_path, monkeypatch):
    import tempfile

    from rankwise.data.storage import allocate

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    array = allocate((4, 8, 8), memory_limit=10)
    array[:] = 7
    if os.path.exists("/proc/self/fd"):
        assert not list(tmp_path.iterdir()), "the file has no name"
        # Other processes map it all the same, as joblib's workers do.
        again = np.memmap(array.filename, np.uint8, "r", shape=array.shape)
        assert (again == 7).all()
    images = ImageSet.from_arrays(array, np.arange(4) % 2)
    assert len(images) == 4
    del array, images
    assert not list(tmp_path.iterdir())
