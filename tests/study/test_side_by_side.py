"""Two studies side by side: designs, effects, and a difference only where nothing is shared."""

import json
import math

import numpy as np
import pytest
from scipy import stats
from typer.testing import CliRunner

from rankwise.cli import app
from rankwise.errors import RunError
from rankwise.study.side_by_side import lines_of, side_by_side, write_page
from rankwise.study.sketches import share_images, sketch
from study.made_results import make_results


def pictures(seed, n=50):
    return np.random.default_rng(seed).integers(0, 256, (n, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    one, other = (tmp_path_factory.mktemp(name) for name in ("one", "other"))
    first = make_results(one, data_sets=("mnist",))
    first["data_sets"][0]["marks"] = sketch(pictures(1))
    (one / "results.json").write_text(json.dumps(first))
    made = make_results(other, data_sets=("mnist", "fashion-mnist"), seeds=(1, 2), seed=3)
    made["study"]["name"] = "again"
    made["data_sets"][0] |= {
        "fingerprint": "b",
        "source": "elsewhere",
        "marks": sketch(pictures(2)),
    }
    (other / "results.json").write_text(json.dumps(made))
    return one, other


def test_what_differs_and_what_each_found(folders):
    found = side_by_side(*folders)
    assert found["names"] == ["experiment-1", "again"]
    assert found["differences"] == {"seeds": [[42], [1, 2]]}
    assert found["data"] == {"mnist": "other images"}
    results = [json.loads((folder / "results.json").read_text()) for folder in folders]
    first = {c["condition"] + c["baseline"]: c for c in results[0]["comparisons"]}
    assert len(found["rows"]) == 2 * len(first)
    row = found["rows"][0]
    items = [
        next(
            c
            for c in r["comparisons"]
            if (c["data_set"], c["arm"], c["baseline_arm"])
            == (row["data_set"], row["arm"], row["baseline_arm"])
        )
        for r in results
    ]
    assert row["verdicts"] == [item["verdict"] for item in items]
    assert [e["mean"] for e in row["effects"]] == [item["effect"]["mean"] for item in items]
    assert all("fashion-mnist" in label for label in found["only"][1])
    assert found["only"][0] == []
    tests = [item["corrected_t"] for item in items]
    errors = [test["standard_error"] for test in tests]
    freedoms = [test["degrees_of_freedom"] for test in tests]
    total = sum(e**2 for e in errors)
    freedom = total**2 / sum(e**4 / f for e, f in zip(errors, freedoms, strict=True))
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total)
    mean = items[1]["effect"]["mean"] - items[0]["effect"]["mean"]
    assert (row["difference"]["low"], row["difference"]["high"]) == pytest.approx(
        (mean - half, mean + half)
    )


def test_intervals_end_where_effects_do(folders, tmp_path):
    """Of a difference of two effects at 200 points, of one effect at 100."""
    both = []
    for folder, low in zip(folders, (-1.4, -0.2), strict=True):
        results = json.loads((folder / "results.json").read_text())
        for item in results["comparisons"]:
            item["effect"] |= {"low": low, "high": 0.3}
            item["corrected_t"] |= {"standard_error": 0.4, "degrees_of_freedom": 1}
        (tmp_path / folder.name).mkdir()
        (tmp_path / folder.name / "results.json").write_text(json.dumps(results))
        both.append(tmp_path / folder.name)
    found = side_by_side(*both)
    text = "\n".join(lines_of(found))
    assert "(−100 to +30.00)" in text
    assert "points (−200 to +200)" in text
    page = write_page(found, tmp_path / "two.html").read_text(encoding="utf-8")
    assert "(−100 to +30.00)" in page
    assert "points (−200 to +200)" in page


def test_studies_on_the_same_images_have_no_difference_with_an_interval(folders):
    found = side_by_side(folders[0], folders[0])
    assert found["differences"] == {}
    assert found["data"] == {"mnist": "the same images"}
    assert all(row["difference"] is None for row in found["rows"])
    assert "mnist: the same images" in lines_of(found)


@pytest.mark.parametrize(
    ("change", "relation"),
    [
        ({"source": "hub/mnist"}, "the same source, with another selection or another size"),
        ({"marks": sketch(pictures(1)[7:8])}, "some of the same images"),
        ({"marks": None}, "not known to be other images"),
        ({"marks": "no marks"}, "not known to be other images"),
        ({"source": None}, "not known to be other images"),
        ({"image_shape": [12, 12]}, "not known to be other images"),
    ],
)
def test_only_images_told_to_be_others_have_a_difference_with_an_interval(
    folders, tmp_path, change, relation
):
    results = json.loads((folders[1] / "results.json").read_text())
    results["data_sets"][0] |= change
    (tmp_path / "results.json").write_text(json.dumps(results))
    found = side_by_side(folders[0], tmp_path)
    assert found["data"] == {"mnist": relation}
    assert found["rows"]
    assert all(row["difference"] is None for row in found["rows"])
    assert f"mnist: {relation}" in lines_of(found)
    assert not any("B less A" in line for line in lines_of(found))


def test_a_folder_is_one_source_however_it_is_spelled(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, source in zip(folders, ("images", str(tmp_path / "images")), strict=True):
        results = json.loads((folder / "results.json").read_text())
        results["data_sets"][0]["source"] = source
        (tmp_path / folder.name).mkdir()
        (tmp_path / folder.name / "results.json").write_text(json.dumps(results))
    (tmp_path / "images").mkdir()
    found = side_by_side(*(tmp_path / folder.name for folder in folders))
    assert found["data"]["mnist"].startswith("the same source, ")


def test_every_choice_that_differs_is_named_by_its_place(folders, tmp_path):
    row = {"data": "mnist", "model": "simple-cnn", "arm": "low-rank"}
    common = {"models": {"simple-cnn": {"network": "simple-cnn"}}, "arms": {"low-rank": {}}}
    designs = [
        {"data": {"mnist": {"limit": 150}}, "conditions": [row | {"energy": 0.5}]},
        {"data": {"mnist": {"limit": 140}, "slides": {}}, "conditions": [row | {"energy": 0.7}]},
    ]
    for folder, name, design in zip(folders, "ab", designs, strict=True):
        results = json.loads((folder / "results.json").read_text())
        results["study"] |= common | design | {"seeds": list(range(40))}
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(results))
    found = side_by_side(tmp_path / "a", tmp_path / "b")
    assert set(found["differences"]) == {
        "data.mnist.limit", "data.slides", "conditions.mnist/simple-cnn/low-rank.energy",
    }  # fmt: skip
    lines = lines_of(found)
    assert "data.mnist.limit: 150 in A, 140 in B" in lines
    assert "data.slides: not given in A, given in B" in lines
    assert "conditions.mnist/simple-cnn/low-rank.energy: 0.5 in A, 0.7 in B" in lines
    page = write_page(found, tmp_path / "two.html").read_text(encoding="utf-8")
    assert "<dt>data.mnist.limit</dt><dd>A: 150<br>B: 140</dd>" in page


def test_sketches_of_sets_that_share_pictures(tmp_path):
    large = pictures(3, 6000)

    def described(images):
        return {"image_shape": [8, 8], "marks": sketch(images)}

    # A limit of one set: some of the pictures of both are among the smallest marks of each.
    assert share_images(described(large), described(large[::-1][:300])) is True
    assert share_images(described(large), described(pictures(4, 6000))) is False
    assert len(described(large)["marks"]) < 8 * 4096 * 1.4


def test_in_text_as_a_page_and_as_json(folders, tmp_path):
    page = tmp_path / "two.html"
    run = CliRunner().invoke(app, ["study", "compare", *map(str, folders), "--out", str(page)])
    assert run.exit_code == 0
    assert all(len(line) <= 80 for line in run.output.splitlines())
    assert "seeds: [42] in A, [1, 2] in B" in run.output
    assert "  B less A: " in run.output
    assert "only in B: fashion-mnist, simple-cnn: low-rank against none" in run.output
    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 2
    assert "Only in B" in html
    assert "Only in A" not in html
    # Without the colours' names no interval is drawn.
    assert "--ink:" in html
    shown = CliRunner().invoke(app, ["study", "compare", *map(str, folders), "--json"])
    assert json.loads(shown.output) == json.loads(json.dumps(side_by_side(*folders)))
    same = write_page(side_by_side(folders[0], folders[0]), tmp_path / "same.html")
    assert "The designs are the same." in same.read_text(encoding="utf-8")


def test_a_folder_without_a_study_is_one_sentence(folders, tmp_path):
    with pytest.raises(RunError, match=r"has no results.json: run the study first"):
        side_by_side(folders[0], tmp_path)
