"""``rankwise explore``, ``evaluate --mistakes`` and ``train --without``."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from cli_cases import FAST, call, class_folders
from rankwise.data import load_images
from rankwise.errors import DataError
from rankwise.explore.lists import COLUMNS, MISTAKE_COLUMNS, read_list, write_list


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def lines_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two classes with a copy of a training image, a blank image, a wrong label and a large one."""
    folder = tmp_path_factory.mktemp("planted") / "source"
    class_folders(folder, per_class=30)
    (folder / "b" / "copy.png").write_bytes((folder / "b" / "3-x.png").read_bytes())
    Image.fromarray(np.full((8, 8), 77, np.uint8)).save(folder / "a" / "blank.png")
    (folder / "a" / "wrong.png").write_bytes((folder / "b" / "5-x.png").read_bytes())
    with Image.open(folder / "a" / "7-x.png") as image:
        image.resize((16, 16)).save(folder / "a" / "large.png")
    return folder


@pytest.fixture(scope="module")
def planted(folders, tmp_path_factory):
    from cli_cases import run

    out = tmp_path_factory.mktemp("planted-run") / "run"
    run("train", folders, "--out", out, "--size", "8", *FAST, "--json")
    return out


def test_a_page_of_every_run(planted):
    report = json.loads((planted / "report.json").read_text())
    assert report["command"].startswith("rankwise train ")
    data = data_of(planted / "explore.html")
    assert data["classes"] == ["a", "b"]
    assert data["parts"] == ["train", "test"]
    assert data["score"]["accuracy"] == report["inductive_accuracy"]
    assert data["score"]["n"] == report["test"]["n_samples"]
    assert sum(map(sum, data["confusion"]["counts"])) == data["score"]["n"]
    text = (planted / "explore.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


def test_planted_faults_are_listed_and_left_out(planted, folders, tmp_path, monkeypatch, capsys):
    arguments = ["explore", planted, "--out", tmp_path / "p.html", "--list", tmp_path / "l.csv"]
    out, err = call(monkeypatch, capsys, *arguments)
    assert "the run's own images: " in err
    assert f"Page (0.1 MB): {tmp_path / 'p.html'}" in out.replace("\n", "")
    assert f"List, for rankwise train … --without: {tmp_path / 'l.csv'}" in out.replace("\n", "")
    held_out, _ = call(
        monkeypatch, capsys, "explore", planted, folders, "--out", tmp_path / "h.html",
        "--list", tmp_path / "h.csv", "--limit", "10",
    )  # fmt: skip
    assert f"List: {tmp_path / 'h.csv'}" in held_out.replace("\n", "")
    lines = lines_of(tmp_path / "l.csv")
    assert tuple(lines[0]) == COLUMNS
    found = {(line["image"], line["list"]) for line in lines}
    assert {("b/copy.png", "repeats"), ("b/3-x.png", "repeats")} <= found
    assert {("a/wrong.png", "repeats"), ("b/5-x.png", "repeats")} <= found
    assert {("a/wrong.png", "labels"), ("a/blank.png", "odd"), ("a/large.png", "odd")} <= found
    reasons = {(line["image"], line["list"]): line["reason"] for line in lines}
    assert reasons["a/wrong.png", "labels"] == "the others say b"
    assert reasons["a/blank.png", "odd"] == "blank: without contrast"
    assert reasons["a/large.png", "odd"] == "of 16×16 pixels, where nearly all have 8×8"
    assert "under two labels" in reasons["a/wrong.png", "repeats"]
    # One of a group stays, and the list itself can be given to a training.
    leave = {(line["image"], line["list"]) for line in lines if line["leave"] == "yes"}
    assert sum((name, "repeats") in leave for name in ("b/copy.png", "b/3-x.png")) <= 1
    assert set(read_list(tmp_path / "l.csv")) == {name for name, _ in leave}
    trained = load_images(folders, "train", size=8)
    left = tmp_path / "left.csv"
    write_list(left, ("image",), [["a/wrong.png"], [str(folders / "a" / "blank.png")]])
    again = ["train", folders, "--size", "8", *FAST, "--without", left, "--json"]
    out, err = call(monkeypatch, capsys, *again, "--out", tmp_path / "run")
    report = json.loads(out)
    gone = int(np.isin(["a/wrong.png", "a/blank.png"], trained.ids).sum())
    assert gone
    assert report["train"]["n_samples"] == len(trained) - gone
    assert report["test"]["n_samples"] == len(load_images(folders, "test", size=8))
    assert f"left out of training, as listed: {gone} image" in err
    # The page of such a run reads what the run read.
    out, _ = call(monkeypatch, capsys, "explore", tmp_path / "run", "--json")
    assert json.loads(out)["n_images"] == 64 - gone
    assert "have changed" not in (tmp_path / "run" / "explore.html").read_text(encoding="utf-8")


def test_mistakes_as_a_list_and_as_a_page(trained, tmp_path, monkeypatch, capsys):
    folder, report = trained
    listed = tmp_path / "m.csv"
    out, _ = call(monkeypatch, capsys, "evaluate", folder, "digits", "--mistakes", listed)
    assert f"Mistakes: {listed}" in out
    lines = lines_of(listed)
    assert tuple(lines[0]) == MISTAKE_COLUMNS
    wrong = round((1 - report["inductive_accuracy"]) * report["test"]["n_samples"])
    assert len(lines) == wrong
    assert all(line["true"] != line["predicted"] for line in lines)
    confidence = [float(line["confidence"]) for line in lines]
    assert confidence == sorted(confidence, reverse=True)
    test = load_images("digits", "test")
    labels = dict(zip(test.ids.tolist(), test.labels.astype(str).tolist(), strict=True))
    assert all(labels[line["image"]] == line["true"] for line in lines)
    page = tmp_path / "m.html"
    call(monkeypatch, capsys, "evaluate", folder, "digits", "--mistakes", page)
    assert data_of(page)["lists"]["mistakes"]["n"] == wrong
    assert data_of(page)["parts"] == ["test"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "RUN", "digits", "--mistakes", "m.txt"), "m.txt: a .csv or .html file is"),
        (("evaluate", "RUN", "digits", "--mistakes", "RUN/explore.html"), "belongs to the model"),
        (("explore", "RUN", "--out", "RUN/model.json"), "belongs to the model itself"),
        (("explore", "RUN", "--split", "all"), "name their source"),
        (("explore", "nowhere"), "nowhere"),
        (("train", "digits", "--out", "new", "--without", "none.csv"), "none.csv can't be read"),
        (("train", "digits", "--out", "new", "--without", "RUN/report.json"), "has no column"),
        (("train", "digits", "--out", "new", "--without", "bad.csv"), "no image 'train/zzz' (and"),
    ],
)
def test_what_cannot_be_is_one_sentence(trained, tmp_path, monkeypatch, capsys, arguments, message):
    write_list(tmp_path / "bad.csv", ("path",), [["train/zzz"], ["train/zzzz"]])
    monkeypatch.chdir(tmp_path)
    given = [str(a).replace("RUN", str(trained[0])) for a in arguments]
    usage = "--split" in arguments
    _, err = call(monkeypatch, capsys, *given, expect=2 if usage else 1)
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", err).split())
    assert not (tmp_path / "new").exists() or not list((tmp_path / "new").glob("model*"))


def test_a_list_is_read_as_it_was_written(tmp_path):
    names = ["a,b.png", 'say "x".png', "é\n.png", "=1+1.png", "\x1b[31m.png", "lost\udcff.png"]
    rest = ["yes", *["x"] * (len(COLUMNS) - 2)]
    write_list(tmp_path / "l.csv", COLUMNS, [(n, *rest) for n in names])
    assert read_list(tmp_path / "l.csv") == names
    (tmp_path / "m.csv").write_bytes(b"\xef\xbb\xbfPath , other\r\na.png,1\r\na.png,2\r\n\r\n")
    assert read_list(tmp_path / "m.csv") == ["a.png"]
    (tmp_path / "n.csv").write_text("leave,image\nno,a.png\n Yes,b.png\nNO,c.png\n")
    assert read_list(tmp_path / "n.csv") == ["b.png"]


@pytest.mark.parametrize("said", ["false", "0", "n", "maybe", ""])
def test_what_a_list_says_is_yes_or_no(said, tmp_path):
    path = tmp_path / "l.csv"
    path.write_text(f'image,leave\n"a\nb.png",yes\nc.png,{said}\n')
    with pytest.raises(DataError, match="column leave; yes or no is accepted") as caught:
        read_list(path)
    assert str(caught.value).startswith(f"Line 4 of {path} says {said!r} in")


BRANCHING = """\
from torch import nn


class Branching(nn.Module):
    def forward(self, x):
        x = x.flatten(1)
        return x if x.sum() > 0 else -x


def network():
    return Branching()
"""


def test_a_head_without_its_backbone_is_explored_with_it(folders, tmp_path, monkeypatch, capsys):
    (tmp_path / "own_backbone.py").write_text(BRANCHING)
    monkeypatch.syspath_prepend(str(tmp_path))
    own = ("--backbone", "own_backbone:network")
    out, _ = call(
        monkeypatch, capsys, "head", folders, *own, "--backbone-size", "8", "--size", "8",
        "--out", tmp_path / "h",
    )  # fmt: skip
    assert "rankwise export" not in out, "no format takes such a backbone"
    _, err = call(monkeypatch, capsys, "explore", tmp_path / "h", expect=1)
    assert "--backbone takes it" in err.replace("\n", " ")
    page = ("--out", tmp_path / "p.html", "--json")
    out, _ = call(monkeypatch, capsys, "explore", tmp_path / "h", *own, *page)
    assert json.loads(out)["page"] == str(tmp_path / "p.html")


def test_a_preset_that_reads_some_of_the_images_is_explored_on_those(tmp_path, monkeypatch, capsys):
    from dataclasses import replace

    from rankwise.training import presets

    few = replace(presets.PRESETS["pereyra"], n_train=60, n_subnets=2)
    monkeypatch.setitem(presets.PRESETS, "pereyra", few)
    out = tmp_path / "a run"
    call(monkeypatch, capsys, "train", "digits", "--preset", "pereyra", "--max-iter", "1",
         "--units", "12", "--out", out, "--workers", "1")  # fmt: skip
    _, err = call(monkeypatch, capsys, "explore", out)
    assert "the run's own images: 60 trained on" in err
    assert "have changed since" not in (out / "explore.html").read_text(encoding="utf-8")


def test_a_command_to_copy_is_quoted(tmp_path, monkeypatch, capsys):
    class_folders(tmp_path / "my photos", per_class=20)
    call(monkeypatch, capsys, "train", tmp_path / "my photos", *FAST, "--out", tmp_path / "run")
    text = (tmp_path / "run" / "explore.html").read_text(encoding="utf-8")
    assert f"rankwise train '{tmp_path / 'my photos'}' --out NEW" in text.replace("&#x27;", "'")
