"""What the pages say of the recorded studies: counted from result files, not typed."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def pages(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("render_studies")


def item(arm, baseline, verdict, mean, *, role="baseline", data="mnist", outcome="test"):
    found = {
        "condition": f"{data}/{arm}",
        "baseline": f"{data}/{baseline}",
        "role": role,
        "arm": arm,
        "baseline_arm": baseline,
        "model": "cnn",
        "effect": {"mean": mean, "low": mean - 0.01, "high": mean + 0.01},
        "bayes": {"rope": 0.02 if outcome == "degraded" else 0.005},
        "verdict": verdict,
        "sentence": f"{arm} {verdict}.",
    }
    return found | ({"outcome": outcome} if outcome else {})


def study(comparisons, *, data="mnist", seeds=(1, 2, 3), folds=5, reduced=False, published=True):
    conditions = [
        {
            "id": f"{data}/{arm}",
            "data_set": data,
            "arm": arm,
            "arm_kind": arm,
            "model": "cnn",
            "published": {} if published else None,
        }
        for arm in ("none", "low-rank", "duplicate")
    ]
    return {
        "title": "A study",
        "provenance": {
            "protocol": "sound", "folds": folds, "seeds": list(seeds), "n": {data: 1200},
        },
        "notes": ["low-rank helps.", "mnist: 0.2 times the epochs."] if reduced else [],
        "tables": [{"title": "Verdicts on accuracy"}, {"title": "Accuracy"}],
        "data": {
            "comparisons": comparisons,
            "robustness": [
                item("low-rank", "none", "harms", -0.02),
                item("low-rank", "duplicate", "cannot tell", 0.001, role="control"),
            ],
            "conditions": conditions,
            "data_sets": [{"name": data, "reduced": reduced}],
        },
    }  # fmt: skip


NEW = [
    item("low-rank", "none", "copies help", 0.01),
    item("low-rank", "duplicate", "cannot tell", 0.004, role="control"),
    item("duplicate", "none", "helps", 0.01),
]


def test_four_sentences_count_what_was_measured(pages):
    first = study(NEW)
    second = study([item("low-rank", "none", "cannot tell", -0.003)], reduced=True)
    accuracy, against, robust, evidence = pages.conclusion({"one": first, "two": second})
    assert accuracy == (
        "Accuracy: against training without copies, low-rank copies helped no more than unchanged "
        "copies may in 1 and left it open in 1 of 2 comparisons (−0.30 to +1.00 points); practical "
        "is more than ±0.50 points, a tenth of the baseline's errors where a design names no width."
    )
    assert against == (
        "Against unchanged copies of the same images, they left it open in 1 of 1 comparisons "
        "(+0.40 points); practical is more than ±0.50 points, a tenth of the baseline's errors "
        "where a design names no width."
    )
    assert "they harmed in 2 of 2 comparisons (−2.00 to −2.00 points)" in robust
    second["data"]["robustness"][0]["bayes"]["rope"] = 0.0234
    robust = pages.conclusion({"one": first, "two": second})[2]
    assert robust.endswith(
        "practical is more than ±0.50 to ±2.34 points, a tenth of the baseline's errors "
        "where a design names no width."
    )
    assert evidence.startswith("Evidence: 2 studies of at least 5 folds × 3 seeds (one: 1,200 im")
    assert evidence.endswith("of the paper's 14 rows 2 measured, 0 smaller, 12 not run.")


@pytest.mark.parametrize("more", [{"seeds": (1,)}, {"folds": 3}])
def test_few_folds_or_seeds_and_withdrawn_verdicts_say_nothing(pages, more):
    (only,) = pages.conclusion({"few": study(NEW, **more)})
    assert only.startswith("No study of 5 folds and 3 seeds is recorded with these rules yet")
    old = study([item("low-rank", "none", "helps", 0.0133, outcome=None)])
    (only,) = pages.conclusion({"old": old})
    assert "nothing is concluded" in only


def test_withdrawn_verdicts_stand_nowhere(pages):
    old = study([item("low-rank", "none", "helps", 0.0133, outcome=None)], reduced=True)
    _, rows, sentence = pages.at_a_glance({"old": old})
    assert rows[0][2:4] == ["+1.33 (+0.33 to +2.33)", "withdrawn"]
    assert sentence == "Of 1 comparisons of arms with low-rank copies: 1 “withdrawn”."
    shown = pages.without_verdicts(old)
    assert [t["title"] for t in shown["tables"]] == ["Accuracy"]
    assert "low-rank helps." not in shown["notes"]
    assert shown["notes"][0].startswith("Verdicts of earlier versions are withdrawn")
    assert pages.without_verdicts(study(NEW))["tables"] == study(NEW)["tables"]


def test_verdicts_of_one_seed_are_withdrawn_and_none_is_none(pages):
    _, rows, _ = pages.at_a_glance({"one": study(NEW, seeds=(1,))})
    assert {row[3] for row in rows} == {"withdrawn"}
    assert {row[5] for row in rows} <= {"withdrawn", "–"}
    open_ = study([item("low-rank", "none", "cannot tell", 0.001)], seeds=(1,))
    open_["data"]["robustness"] = []
    assert not pages.is_withdrawn(open_)


def test_what_was_not_measured_on_degraded_images_has_no_verdict(pages):
    paper = study(NEW)
    assert "harms" in {row[5] for row in pages.at_a_glance({"paper": paper})[1]}
    for one in paper["data"]["robustness"]:
        one["effect"] = {"mean": None, "low": None, "high": None}
    rows = pages.at_a_glance({"paper": paper})[1]
    assert {(row[4], row[5]) for row in rows} == {("–", "–")}


def test_advice_that_was_never_computed_is_not_shown(pages):
    old = study(NEW)
    old["notes"] = ["Cannot tell. No number of further seeds would tell. More images would."]
    shown = pages.without_verdicts(old)["notes"]
    assert shown == ["Cannot tell. No number of further seeds would tell."]


def test_every_row_of_the_paper_is_listed_with_how_it_was_measured(pages):
    _, none = pages.rows_of_the_paper({})
    assert len(none) == 14
    assert {row[5] for row in none} == {"not run"}
    small = study(NEW, reduced=True)
    other = study(NEW, published=False, seeds=(1,))
    rows = pages.rows_of_the_paper({"small": small, "other": other})[1]
    assert rows[1][1:3] == ["mnist", "low-rank"]
    assert rows[1][5:] == ["smaller", "small (5 folds × 3 seeds), other (5 folds × 1 seed)"]
    whole = pages.rows_of_the_paper({"small": small, "whole": study(NEW)})[1]
    assert whole[0][5:] == ["measured", "whole (5 folds × 3 seeds)"]
    assert rows[2][5:] == ["not run", "–"]


def test_results_of_earlier_versions_say_in_notes_that_they_are_smaller(pages):
    old = study(NEW, reduced=True)
    del old["data"]["data_sets"]
    assert pages.rows_of_the_paper({"old": old})[1][0][5] == "smaller"


def test_what_the_sentences_rest_on_is_told_to_be_stale(pages, monkeypatch):
    render = importlib.import_module("render")
    studies = {"one": study(NEW), "two": study(NEW), "few": study(NEW, folds=3)}
    for name, result in studies.items():
        result["provenance"]["name"] = name
    stale = {"two", "few"}
    monkeypatch.setattr(render, "staleness", lambda known: known["name"] in stale and "changed")
    (some,) = render.old(studies)
    assert some.startswith("1 of these 2 studies (two) is **stale**: the code has changed since")
    stale.add("one")
    (every,) = render.old(studies)
    assert every.startswith("All 2 of these studies are **stale**: the code has changed since")
    assert render.old({"one": studies["one"]})[0].startswith("This study is **stale**")
    stale.clear()
    assert render.old(studies) == []


def test_the_readme_s_lines_and_the_glance_tell_it(pages, monkeypatch, tmp_path):
    render = importlib.import_module("render")
    monkeypatch.setattr(render, "staleness", lambda known: "changed")
    monkeypatch.setattr(render, "is_uncommitted", lambda known: False)
    path = tmp_path / "study_one.json"
    path.write_text(json.dumps(study(NEW)), encoding="utf-8")
    assert render.study_lines(tmp_path)[-2].startswith("  - This study is **stale**:")
    assert "This study is **stale**:" in "".join(render.glance({"study_one": path}))
