"""The README's sentences on curves and photographs, from results made up here."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
KNOWN = {
    "commit": "abcdef0",
    "code": {},
    "minutes": 2.0,
    "seeds": [42],
    "data": [{"name": "cifar10"}],
    "environment": {"date": "2026-01-01", "processor": "Intel(R) Xeon(R) Processor", "cores": 2},
}


@pytest.fixture
def lines(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("render_readme")


def photographs(*accuracies):
    runs = [
        {"row": row, "seed": 42 + i, "accuracy": value, "microseconds": time}
        for row, time, values in zip(("accurate", "plain-186k"), (30, 20), accuracies, strict=True)
        for i, value in enumerate(values)
    ]
    return {"title": "1600 photographs of 64 pixels", "provenance": KNOWN, "data": runs}


def test_gains_on_photographs_are_taken_seed_by_seed(lines):
    # The third seed has one of the two alone, so it doesn't count.
    (text, _) = lines.photographs_lines([photographs([0.84, 0.86, 0.5], [0.83, 0.83])])
    assert "85.00 (84.00–86.00) and 83.00 (83.00–83.00)% at 64 pixels" in text
    assert "2.00 (1.00–3.00) points apart, at 1.5 times the time an image" in text
    assert "(docs/results.md#1600-photographs-of-64-pixels)" in text


def test_what_a_shifted_rival_has_on_photographs_stands_beside(lines):
    (text, _) = lines.shifted_lines([photographs([0.84], [0.82, 0.84])])
    assert "(another run) 83.00 (82.00–84.00)% at 64 pixels ([measured](docs/results.md#" in text


def test_nothing_is_said_of_photographs_that_no_seed_has_both_rows_of(lines):
    assert lines.photographs_lines([photographs([0.84], [])]) == []


def test_a_curve_of_epochs_says_nothing_and_one_of_minutes_its_notes(lines):
    result = {"title": "Curve", "provenance": KNOWN, "notes": ["A rival.", "By bytes: alike."]}
    said = lines.curve_lines([result])
    assert "the same images of CIFAR-10, 2 minutes a run, 1 seed ([curve and tables]" in said[0]
    assert said[2:-1] == ["- By bytes: alike."]
    epochs = result | {"provenance": {k: v for k, v in KNOWN.items() if k != "minutes"}}
    assert lines.curve_lines([epochs]) == []
    assert lines.curve_lines([result | {"provenance": KNOWN | {"minutes": None}}]) == []
    assert lines.curve_lines([result, epochs, result]) == [*said, *said]


def test_what_is_alike_on_a_curve_is_by_its_seeds_and_by_its_test_images(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    interval = importlib.import_module("curve").interval
    runs = [{"row": row, "accuracy": 0.8} for row in "abc"]
    assert interval(runs) == pytest.approx(0.4)
    assert interval([*runs, {"row": "a", "accuracy": 0.81}]) == pytest.approx(2 * 0.5**0.5)


def test_rows_of_the_frontier_are_marked_where_their_file_is_stale(lines, tmp_path):
    asked = {"bar": 99.0, "goal": 99.5, "minutes": 15}
    run = {"seed": 42, "asked": asked, "n_parameters": 4912, "seconds": 900.0}
    run |= {"precision": "float32"}
    run |= {"accuracy": 0.994, "accuracy_of_copies": {}}
    codes = {"frontier": {"src/gone.py": "0"}, "frontier_epyc": {}}
    for name, row in (("frontier", "a"), ("frontier_epyc", "b")):
        known = KNOWN | {"code": codes[name]}
        result = {
            "title": "Bars",
            "provenance": known,
            "tables": [{}],
            "data": [run | {"row": row}],
        }
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    text = "\n".join(lines.readme_lines(tmp_path))
    assert "| [`a`](docs/results.md#bars) † |" in text
    assert "| [`b`](docs/results.md#bars) |" in text
    assert text.count("**stale**") == 1
    assert "† **stale**: code that the figure depends on has changed since" in text


def test_what_is_stale_has_a_mark_that_is_explained_once_below(lines, tmp_path):
    stale = KNOWN | {"code": {"src/gone.py": "0"}}
    curve = {"title": "Curve", "provenance": stale, "notes": ["By bytes: alike."]}
    (tmp_path / "curve.json").write_text(json.dumps(curve))
    found = photographs([0.84], [0.83])
    (tmp_path / "curve_photographs_64.json").write_text(json.dumps(found))
    text = lines.readme_lines(tmp_path)
    assert text[1].endswith("([curve and tables](docs/results.md#curve)) †:")
    assert sum("†" in line for line in text) == 2
    assert text[-2].startswith("† **stale**: code that the figure depends on has changed since")
    # Where everything is stale one sentence above says so, and nothing has a mark.
    (tmp_path / "curve_photographs_64.json").write_text(json.dumps(found | {"provenance": stale}))
    text = lines.readme_lines(tmp_path)
    assert text[1] == lines.ALL_STALE
    assert "†" not in "\n".join(text)


def test_times_to_accuracy_are_those_of_the_rows_that_are_shown(lines):
    asked = {"bar": 90.0, "goal": 95.0, "minutes": 15}
    run = {"asked": asked, "n_parameters": 9, "seconds": 1.0, "accuracy": 0.9}
    run |= {"precision": "float32"}
    columns = ["row", "seed", "85%"]

    def result(title, rows, timed):
        data = [run | {"row": r, "seed": 42, "accuracy_of_copies": {}} for r in rows]
        tables = [{}, *([{"title": "Times", "columns": columns, "rows": timed}] if timed else [])]
        return {"title": title, "provenance": KNOWN, "tables": tables, "data": data}

    first = result("One", "ab", [["a", "42", "first"], ["b", "42", "stays"], ["b", "43", "too"]])
    later = result("Two", "ac", [["a", "42", "again"], ["c", "42", "new"]])
    text = "\n".join(lines.frontier_lines([first, later]))
    assert text.count("Times:") == 1
    for said in (
        "| a | 42 | again |",
        "| b | 42 | stays |",
        "| b | 43 | too |",
        "| c | 42 | new |",
    ):
        assert said in text
    assert "first" not in text
    # Measured again without times: what it was before isn't shown either.
    assert "Times:" not in "\n".join(lines.frontier_lines([first, result("Two", "ab", [])]))


def test_the_frontier_is_one_table_of_all_its_files(lines, tmp_path):
    asked = {"bar": 99.0, "goal": 99.5, "minutes": 15}
    run = {"seed": 42, "asked": asked, "n_parameters": 4912, "seconds": 900.0}
    run |= {"precision": "float32"}
    slow = run | {"row": "b", "accuracy": 0.994, "accuracy_of_copies": {}}
    older = run | {"row": "a", "accuracy": 0.5, "accuracy_of_copies": {}}
    bfloat16 = older | {"accuracy": 0.97, "precision": "bfloat16"}
    runs = [
        run | {"row": "a", "accuracy": value, "accuracy_of_copies": {"shifts": value + 0.01}}
        for value in (0.980, 0.999)
    ]
    files = {"frontier": [older, slow], "frontier_epyc": [bfloat16], "frontier_epyc_b": runs}
    for name, data in files.items():
        result = {"title": "Bars", "provenance": KNOWN, "tables": [{}], "data": data}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    table = next(line for line in lines.readme_lines(tmp_path) if line.startswith("| row"))
    _, _, other, first, second = table.splitlines()
    assert first == (
        "| [`a`](docs/results.md#bars) | 2 | 98.95 (98.00–99.90) | 99.95 (99.00–100.90) "
        "| 99 / 99.5 | no | 4,912 | 15 of 15 | Intel Xeon, float32 |"
    )
    assert second == (
        "| [`b`](docs/results.md#bars) | 1 | 99.40 | – | 99 / 99.5 | bar | 4,912 | 15 of 15 "
        "| Intel Xeon, float32 |"
    )
    assert other == (
        "| [`a`](docs/results.md#bars) | 1 | 97.00 | – | 99 / 99.5 | no | 4,912 | 15 of 15 "
        "| Intel Xeon, bfloat16 |"
    )
