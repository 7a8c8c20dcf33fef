"""The README: its Python runs, its figures are those of the measured results."""

import importlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

import rankwise
from rankwise.export import export_model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def render(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("render")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_python_in_it_runs(code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    known = {"image": images[0], "images": images, "labels": np.arange(12) % 2}
    if "network" in code:
        from rankwise.nets import make_network

        known["network"] = make_network("simple-cnn", (16, 16, 3), 5)
    exec(compile(code, "README.md", "exec"), {**known, "__name__": "readme"})
    if "print" in code:
        assert "test images" in capsys.readouterr().out


def without_marks(text: str) -> str:
    """What doesn't change with the code: `render.py` marks what is stale on the day it runs."""
    lines = [line for line in text.splitlines() if "**stale**" not in line]
    return re.sub(r"\n+", "\n", "\n".join(lines)).replace(" (stale)", "").replace(" †", "")


def test_its_figures_are_those_of_the_results(render):
    lines = render.readme_lines(ROOT / "benchmarks" / "results")
    assert without_marks(render.with_results(README, lines)) == without_marks(README)
    studies = render.study_lines(ROOT / "benchmarks" / "results")
    expected = render.with_results(README, studies, render.STUDY_MARKS)
    assert without_marks(expected) == without_marks(README)


def test_results_md_is_rendered_from_the_results(render):
    expected = "\n".join(render.render(ROOT / "benchmarks" / "results"))
    written = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert without_marks(written) == without_marks(expected)


def test_no_result_names_a_machine_s_folders():
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        assert not re.search(r'"/(work|tmp|home|root|Users)/', text), path.name


@pytest.mark.parametrize("name", sorted({*re.findall(r"\]\(((?!http)[^)#]+)", README)}))
def test_its_links_lead_somewhere(name):
    assert (ROOT / name).exists()


def test_the_figures_of_the_first_screen_are_among_the_results():
    first, results = README.split("## In Python")[0], README.split("## Results")[1]
    found = re.findall(r"(\d\d\.\d\d)%[^%]*? (\d+,\d{3})", first)
    assert len(found) == 5
    for accuracy, parameters in found:
        assert re.search(rf"{accuracy} .*\| {parameters} \|", results)


def test_figures_written_by_hand_stand_in_their_tables():
    """Accuracies and parameters of the paragraphs on size and time."""
    text = (ROOT / "docs/classifiers.md").read_text(encoding="utf-8")
    paragraphs = text.partition("## Size and time")[2].partition("\n## ")[0]
    runs: dict[tuple[str, str, int], list[float]] = {}
    for name in ("curve.json", "curve_cifar10.json", "curve_without_bfloat16_cifar10.json"):
        result = json.loads((ROOT / "benchmarks/results" / name).read_text(encoding="utf-8"))
        for row in result["data"]:
            key = (name, row["row"], row["n_parameters"])
            runs.setdefault(key, []).append(row["accuracy"])
    found = {(f"{100 * np.mean(a):.1f}", f"{n:,}") for (*_, n), a in runs.items()}
    said = re.findall(r"(\d\d\.\d)%\s+with\s+(\d+,\d{3})", paragraphs)
    assert said
    assert set(said) <= found
    assert set(re.findall(r"(\d\d\.\d)%", paragraphs)) <= {accuracy for accuracy, _ in found}


def test_microseconds_written_by_hand_stand_in_their_table():
    text = (ROOT / "docs/classifiers.md").read_text(encoding="utf-8")
    paragraph = text.partition("## Size and time")[2].partition("\n\n!")[0]
    result = json.loads((ROOT / "benchmarks/results/curve_cifar10.json").read_text("utf-8"))
    runs: dict[str, list[tuple[float, float]]] = {}
    for row in result["data"]:
        runs.setdefault(row["row"], []).append((row["microseconds"], row["accuracy"]))
    means = {name: np.mean(found, axis=0) for name, found in runs.items()}
    found = {(f"{micro:.0f}", f"{100 * accuracy:.1f}") for micro, accuracy in means.values()}
    said = re.findall(r"(\d+)(?: µs an image it has that| for its)\s+(\d\d\.\d)%", paragraph)
    assert len(said) == 3
    assert set(said) <= found
    (last,) = re.findall(r"only `accurate`, at\s+(\d+), is ahead", paragraph)
    assert last == f"{means['accurate'][0]:.0f}"


def test_how_much_longer_torch_s_muon_takes_stands_in_its_table():
    text = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"\[([\d.]+) to (\d+) times as long\]\(results.md#a-step-of-muon", text)
    result = json.loads((ROOT / "benchmarks/results/muon.json").read_text("utf-8"))
    times = [row["times"] for row in result["data"]]
    assert said == (f"{min(times):.1f}", f"{max(times):.0f}")


def test_what_int8_and_int4_keep_stands_in_the_table_of_boards():
    text = (ROOT / "docs/deploying.md").read_text(encoding="utf-8")
    table = dict[tuple[str, str], set[str]]()
    for name, precision, accuracy in re.findall(
        r"^\| `([a-z0-9-]+)` \| [^|]+ \| (float32|int8|int4) \| ([\d.]+)% \|", text, re.MULTILINE
    ):
        table.setdefault((name, precision), set()).add(accuracy)
    paragraph = text.partition("**Whole numbers.**")[2].partition("`cifar10-accurate`")[0]
    said = re.findall(
        r"`([a-z-]+)` \(([\d.]+)%(?: in float)?\)(?:\skeeps)?\s([\d.]+)%[^%;]*?\sand\s([\d.]+)%",
        paragraph,
    )
    assert len(said) == 3
    for name, *accuracies in said:
        for precision, accuracy in zip(("float32", "int8", "int4"), accuracies, strict=True):
            assert table[name, precision] == {accuracy}


def test_sizes_of_pages_written_by_hand_are_those_of_the_shipped_models(tmp_path):
    text = (ROOT / "docs/deploying.md").read_text(encoding="utf-8")
    paragraph = text.partition("## A page")[2].partition("\n##")[0]
    said = dict(re.findall(r"(\d+)(?: kB)? for\s+`([a-z0-9-]+)`", paragraph))
    assert len(said) == 3
    for kilobytes, name in said.items():
        path = tmp_path / f"{name}.html"
        export_model(rankwise.load(name), "html", path)
        assert kilobytes == f"{path.stat().st_size / 1000:.0f}"
