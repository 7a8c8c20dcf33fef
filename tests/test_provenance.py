"""Result files: which code a figure comes from, and how a stale one is shown."""

import hashlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


@pytest.fixture
def provenance():
    return importlib.import_module("provenance")


@pytest.fixture
def render():
    return importlib.import_module("render")


def code_after(imports: str) -> dict[str, str]:
    script = f"{imports}\nimport json, provenance\nprint(json.dumps(provenance.code_of_run()))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join([str(ROOT / "benchmarks"), *sys.path])},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_a_run_s_code_is_what_it_imported_and_what_that_may_import():
    code = code_after("import common, rankwise.data, rankwise.estimators.quadratic")
    for name in (
        "src/rankwise/estimators/quadratic.py",
        "src/rankwise/varpro/functional.py",  # by what it imports
        "src/rankwise/training/joint.py",  # imported in a function
        "src/rankwise/varpro/solvers/scipy_solvers.py",  # in a worker
        "src/rankwise/data/split.py",
        "src/rankwise/_arrays.py",
        "benchmarks/common.py",
    ):
        assert len(code[name]) == 16, name
    assert "benchmarks/provenance.py" not in code  # it measures nothing
    assert not [name for name in code if "/study/" in name or "/cli/" in name or "render" in name]


def test_a_fit_of_curves_depends_on_no_other_room():
    code = code_after("import common; from rankwise import VariableProjection")
    rooms = {name.split("/")[2] for name in code if name.count("/") > 2}
    assert rooms == {"varpro"}
    assert "src/rankwise/__init__.py" not in code  # names of other rooms, and nothing that computes


def test_a_command_s_own_modules_are_named_by_the_benchmark(provenance):
    code = provenance.code_of_run(importlib.import_module("studies").RAN)
    for name in ("study/cells.py", "study/degrade.py", "nets/training.py", "data/split.py"):
        assert f"src/rankwise/{name}" in code


def test_a_module_whose_file_is_nowhere_counts_for_nothing(provenance, monkeypatch):
    """`torch.ops` says ``_ops.py``, which is in the folder of the benchmarks where that is here."""
    module = type(sys)("nowhere")
    module.__file__ = "_ops.py"
    monkeypatch.setitem(sys.modules, "nowhere", module)
    monkeypatch.chdir(provenance.HERE)
    assert "benchmarks/_ops.py" not in provenance.code_of_run()


def test_every_module_that_is_imported_has_a_file_that_counts(provenance):
    code = provenance.code_of_run()
    names = {n for n in sys.modules if n.startswith("rankwise.")} - {"rankwise._version"}
    for name in names:
        assert f"src/{name.replace('.', '/')}" in {
            path.removesuffix(".py").removesuffix("/__init__") for path in code
        }


def test_a_figure_is_stale_when_a_file_of_its_code_has_changed_or_gone(provenance):
    code = provenance.code_of_run()
    assert provenance.staleness({"code": code}) is None
    assert provenance.changed_since({"code": code}) == []
    other = {**code, "src/rankwise/_arrays.py": "0" * 16, "src/rankwise/gone.py": "1" * 16}
    assert provenance.staleness({"code": other}) == "changed since: `_arrays.py`, `gone.py`"
    many = {**code, **{f"src/rankwise/{i}.py": "" for i in range(5)}}
    assert provenance.staleness({"code": many}).endswith("`0.py`, `1.py`, `2.py` and 2 more")
    assert "recorded their code" in provenance.staleness({"code": "an old digest of some files"})


def test_what_computes_nothing_makes_no_figure_stale(provenance, tmp_path):
    source = '''"""What it is for."""

SIDE = 3  # pixels
"""Why so many."""


def area(side: int) -> str:
    """Of a square."""

    return f"{side}#{side * side}"


class Empty: "It stands on one line, and stays."
'''
    code = (
        'SIDE = 3\ndef area(side: int) -> str:\n    return f"{side}#{side * side}"\nclass Empty: '
    )
    code += '"It stands on one line, and stays."'
    assert provenance.code_in(source) == code
    path = tmp_path / "area.py"
    path.write_text(source, encoding="utf-8")
    before = provenance.digest_of(path)
    path.write_text(source.replace("Of a square.", "Of any.").replace("# pixels", "# of them"))
    assert provenance.digest_of(path) == before
    path.write_text(source.replace("#{", "×{"), encoding="utf-8")
    assert provenance.digest_of(path) != before


def test_earlier_figures_are_known_by_their_whole_files(provenance):
    path = ROOT / "src/rankwise/_arrays.py"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert digest != provenance.digest_of(path)
    assert provenance.staleness({"code": {"src/rankwise/_arrays.py": digest}}) is None


@pytest.fixture
def results(tmp_path, provenance):
    """Result files of the README: one fresh, one stale, one from an uncommitted tree."""
    for name, commit, code in (
        ("presets", "abc1234", provenance.code_of_run()),
        ("frontier", "abc1234", {"src/rankwise/_arrays.py": "0" * 16}),
        ("rivals", "abc1234-dirty", provenance.code_of_run()),
    ):
        result = json.loads((ROOT / f"benchmarks/results/{name}.json").read_text())
        result["provenance"] |= {"commit": commit, "code": code}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    return tmp_path


def test_stale_tables_say_so_where_they_stand_and_uncommitted_ones_are_not_shown(results, render):
    page = "\n".join(render.render(results))
    fresh, stale, hidden = (
        page.partition(f"### {json.loads((results / f'{name}.json').read_text())['title']}\n")[
            2
        ].partition("\n##")[0]
        for name in ("presets", "frontier", "rivals")
    )
    assert "stale" not in fresh
    assert "\n- **stale**: changed since: `_arrays.py`\n" in stale
    assert "mnist-small" in stale
    assert hidden.strip() == "Measured from an uncommitted tree, so not shown."


def test_the_readme_s_parts_too(results, render):
    text = "\n".join(render.readme_lines(results))
    assert "| [`mnist-small`](docs/results.md#" in text
    assert re.search(r"\| \[`mnist-small`\]\([^)]*\) † \|", text)
    assert "seeds; [command and all figures](docs/results.md#the-papers-scheme-on-mnist))." in text
    assert text.rstrip().rpartition("\n")[2].startswith("† **stale**: ")
    assert "MNIST error" not in text
    for name in ("presets", "frontier"):
        path = results / f"{name}.json"
        path.write_text(path.read_text().replace('"code": {', '"code": {"src/x.py": "0", '))
    once = "\n".join(render.readme_lines(results))
    assert once.count("**stale**") == 1
    assert once.startswith("\nAll figures below are **stale**")


def test_what_is_stale_is_listed(results):
    command = [sys.executable, str(ROOT / "benchmarks/render.py"), "--stale", "--results", results]
    done = subprocess.run(
        command, env={"PYTHONPATH": ":".join(sys.path)}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "frontier: changed since: _arrays.py",
        "rivals: not shown, measured from an uncommitted tree",
    ]


def test_a_commit_is_dirty_with_code_that_no_commit_holds(tmp_path, provenance, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(
            ["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True
        )

    for name in ("src/a.py", "benchmarks/b.py", "benchmarks/results/c.json", "docs/d.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(provenance, "HERE", tmp_path / "benchmarks")
    clean = provenance.commit()
    assert not provenance.is_uncommitted({"commit": clean})
    for name in ("benchmarks/results/c.json", "docs/d.md"):
        (tmp_path / name).write_text("2\n")
    assert provenance.commit() == clean
    (tmp_path / "src/new.py").write_text("1\n")
    assert provenance.commit() == f"{clean}-dirty"
    assert provenance.is_uncommitted({"commit": f"{clean}-dirty"})
    assert provenance.is_uncommitted({"commit": None})


def test_a_study_s_spread_and_convergence_can_be_seen_from_its_published_cells(tmp_path):
    from rankwise.study.compare import interval_of
    from study.made_results import make_results

    studies = importlib.import_module("studies")
    results = make_results(tmp_path, data_sets=("mnist",))
    written = json.loads(json.dumps([studies.published(cell) for cell in results["cells"]]))
    for condition in results["conditions"]:
        again = interval_of({**results, "cells": written}, condition["id"])
        assert again == interval_of(results, condition["id"])
    for cell in written:
        if cell["stage"] == "fold":
            best = cell["history"]["validation_accuracy"][cell["best_epoch"] - 1]
            assert best == max(cell["history"]["validation_accuracy"])
            assert best == pytest.approx(cell["validation_accuracy"])
