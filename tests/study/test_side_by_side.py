"""Two studies side by side: designs, effects, and a difference only where nothing is shared."""

import json
import math

import pytest
from scipy import stats
from typer.testing import CliRunner

from rankwise.cli import app
from rankwise.errors import RunError
from rankwise.study.side_by_side import lines_of, side_by_side, write_page
from study.made_results import make_results


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    one, other = (tmp_path_factory.mktemp(name) for name in ("one", "other"))
    make_results(one, data_sets=("mnist",))
    made = make_results(other, data_sets=("mnist", "fashion-mnist"), seeds=(1, 2), seed=3)
    made["study"]["name"] = "again"
    made["data_sets"][0]["fingerprint"] = "other images"
    (other / "results.json").write_text(json.dumps(made))
    return one, other


def test_what_differs_and_what_each_found(folders):
    found = side_by_side(*folders)
    assert found["names"] == ["experiment-1", "again"]
    assert found["differences"] == {"seeds": [[42], [1, 2]]}
    assert found["data"] == {"mnist": False}
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


def test_studies_on_the_same_images_have_no_difference_with_an_interval(folders):
    found = side_by_side(folders[0], folders[0])
    assert found["differences"] == {}
    assert found["data"] == {"mnist": True}
    assert all(row["difference"] is None for row in found["rows"])
    assert "mnist: the same images" in lines_of(found)


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
