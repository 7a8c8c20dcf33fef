"""A study in sentences, tables and references."""

import csv

import pytest

from rankwise.study.methods import comparison_table, methods, write_tables
from study.made_results import make_results


def test_tables_hold_every_comparison(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3))
    paths = write_tables(results, tmp_path / "tables")
    assert [p.name for p in paths] == [
        "comparisons.csv",
        "comparisons.tex",
        "methods.txt",
        "references.bib",
    ]
    with paths[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    compared = results["comparisons"] + results["robustness"]
    assert [row["verdict"] for row in rows] == [c["verdict"] for c in compared]
    assert [float(row["effect"]) for row in rows] == pytest.approx(
        [100 * c["effect"]["mean"] for c in compared], abs=6e-4
    )
    latex = paths[1].read_text(encoding="utf-8")
    assert latex.count("\\\\") == 1 + len(rows)
    assert latex.count("&") == (1 + len(rows)) * (len(comparison_table(results)[0]) - 1)
    assert "@article{nadeau2003inference," in paths[3].read_text(encoding="utf-8")


def test_names_are_text_in_tables(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    results["comparisons"][0]["arm"] = "=SUM(A1)_50%"
    csv_path, tex_path, *_ = write_tables(results, tmp_path / "tables")
    assert "'=SUM(A1)_50%" in csv_path.read_text(encoding="utf-8")
    assert r"=SUM(A1)\_50\%" in tex_path.read_text(encoding="utf-8")


def test_the_paragraph_says_what_was_done(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3))
    text = methods(results)
    assert "in 5-fold cross-validation with 3 seeds, after 20% of the images" in text
    assert "all arms had the same number of updates" in text
    assert "The outcome is test accuracy." in text
    assert "at a level of 0.04 over all 5 planned comparisons" in text
    results |= {"look": 2, "plan": "abc"}
    results["study"]["patience"] = 4
    text = methods(results)
    assert "ended after 4 epochs without a lower validation loss" in text
    assert "The study was extended 1 time(s)" in text
    assert "It follows a plan written before, sha256 abc." in text
