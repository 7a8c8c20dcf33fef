"""What the pages say is so: snippets run as a reader would run them, names and commands exist."""

import pkgutil
import re
import shlex
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.main import get_command

import rankwise
from cli_cases import call
from lowrank.photos import photo_crops
from rankwise.cli import app
from rankwise.export import export_model

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
RUN = [
    *(DOCS / f"{name}.md" for name in ("tutorial", "classifiers", "low-rank", "rankwise-and")),
    *sorted((DOCS / "how-to").glob("*.md")),
]
READ = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted(DOCS.rglob("*.md")),
]
FEWER = {
    "train": ["--limit", "120", "--max-iter", "2"],
    "evaluate": ["--limit", "40"],
    "export": ["--no-check"],
    "head": ["--backbone-size", "64"],
    "study run": ["--folds", "2", "--seeds", "1", "--limit", "60"],
}
"""Options that the test adds, since a reader has more time than a suite."""


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The current folder: a few photographs and a few scans, a folder of each class."""
    crops = photo_crops(96, count=12)
    for i, crop in enumerate(crops):
        path = tmp_path / "photos" / ("china", "flower")[i % 2] / f"{i // 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(crop).save(path)
    digits = load_digits()
    for i in range(120):
        path = tmp_path / "scans" / str(digits.target[i]) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((digits.images[i] * 15).astype(np.uint8)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", RUN, ids=name_of)
def test_every_snippet_runs(path, folders, monkeypatch, capsys):
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert blocks or path.name == "index.md"
    if path.name == "tutorial.md":
        few = load_digits()
        few.update(images=few.images[:200], target=few.target[:200])
        monkeypatch.setattr("sklearn.datasets.load_digits", lambda: few)
    namespace = {"__name__": "page"}
    for language, block in blocks:
        if language == "python":
            exec(compile(block, name_of(path), "exec"), namespace)
        elif language == "sh":
            for line in block.splitlines():
                program, *words = shlex.split(line, comments=True)
                assert program == "rankwise", f"{line} isn't run by this test"
                fewer = FEWER.get(words[0], FEWER.get(" ".join(words[:2]), []))
                call(monkeypatch, capsys, *words, *fewer)
        elif language == "toml":
            (folders / "study.toml").write_text(block, encoding="utf-8")
        elif language == "c":
            compile_c(folders, block)
        else:
            pytest.fail(f"{name_of(path)}: no test runs a block of {language}")


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_snippets_on_deploying_run_with_a_model_that_is_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "deploying.md").read_text(encoding="utf-8")
    digits = rankwise.load_images("digits", split="test", limit=20, size=28)
    namespace = {"images": digits.images, "test_images": digits}
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) == 3
    exec(compile(snippets[0], "deploying.md", "exec"), namespace)
    export_model(namespace["model"], "onnx", tmp_path / "rankwise_model.onnx")
    exec(compile(snippets[1], "deploying.md", "exec"), namespace)
    assert namespace["names"] == namespace["model"].predict(digits.images).tolist()
    exec(compile(snippets[2], "deploying.md", "exec"), namespace)
    assert "digits_predict" in (tmp_path / "digits.h").read_text()
    assert namespace["report"]["n_images"] == 20
    assert namespace["report"]["agreement"] > 0.8  # in int8, digits of 8 pixels made large
    (body,) = re.findall(r'```c\n#include "rankwise_model.h"\n(.*?)```', text, re.DOTALL)
    export_model(namespace["model"], "c", tmp_path / "rankwise_model.h")
    program = '#include <stdio.h>\n#include "rankwise_model.h"\n'
    program += "static const uint8_t image[rankwise_model_PIXELS];\nint main(void) {\n"
    compile_c(tmp_path, f"{program}{body}return 0;\n}}\n")
    (script,) = re.findall(r"```js\n(.*?)```", text, re.DOTALL)
    page = (ROOT / "src/rankwise/export/page/page.js").read_text(encoding="utf-8")
    for name, arguments in re.findall(r"^rankwise\.(\w+)\((.*?)\)", script, re.MULTILINE):
        given = re.search(rf"^  {name}\((.*?)\) {{", page, re.MULTILINE)[1]
        assert given.replace(" ", "") == arguments.replace(" ", ""), name


def test_pages_have_the_sizes_that_deploying_says(tmp_path):
    text = " ".join((DOCS / "deploying.md").read_text(encoding="utf-8").split())
    said = re.findall(r"(\d+)(?: kB)? for `([\w-]+)`", text.partition("`--format html` writes")[2])
    assert [name for _, name in said[:3]] == ["mnist-tiny", "mnist-small", "cifar10-accurate"]
    for kilobytes, name in said[:3]:
        page = tmp_path / f"{name}.html"
        export_model(rankwise.load(name), "html", page)
        assert abs(page.stat().st_size / 1000 - int(kilobytes)) < 3


def compile_c(folder, source):
    compiler = shutil.which("cc")
    if compiler is None:
        return
    (folder / "main.c").write_text(source, encoding="utf-8")
    command = [compiler, "-std=c99", "-Wall", "-Werror", "main.c", "-lm", "-o", "main"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    subprocess.run([folder / "main"], check=True, timeout=60)


# -- names ----------------------------------------------------------------------------------------


def indented(block):
    return "\n".join(f"    {line}" for line in block[1].splitlines())


def commands_in(text):
    """Commands of the program that a page has in blocks of code or between backticks."""
    text = re.sub(r"^```(?!sh\b|console\b)\w+\n.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^```\w+\n(.*?)^```", indented, text, flags=re.DOTALL | re.MULTILINE)
    lines = re.findall(r"^ {4}((?:python -m )?rankwise [a-z].*)$", text, re.MULTILINE)
    spans = re.findall(r"(?<!`)`((?:python -m )?rankwise [^`]*)`(?!`)", text)
    return [re.sub(r"\s+", " ", line.removeprefix("python -m ")) for line in lines + spans]


def wrong_with(line):
    """What a command names that the program hasn't; None if it has all."""
    command = get_command(app)
    words = shlex.split(line.replace("…", ""), comments=True)[1:]
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands:
            known = {name for parameter in command.params for name in parameter.opts}
            fine = words[0].isupper() or words[0] in {"--help", *known}
            return None if fine else f"no command {words[0]!r}"
        command = command.commands[words.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    unknown = {w.partition("=")[0] for w in words if w.startswith("-") and len(w) > 1} - options
    return f"no option {', '.join(sorted(unknown))}" if unknown else None


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_every_command_exists(path):
    found = {line: wrong_with(line) for line in commands_in(path.read_text(encoding="utf-8"))}
    assert {line: why for line, why in found.items() if why} == {}


def test_a_command_of_nothing_would_be_found():
    text = "    rankwise trian a\n\n`rankwise study run x --sound` and `rankwise head --out y`\n"
    assert [wrong_with(line) for line in commands_in(text)] == [
        "no command 'trian'",
        "no option --sound",
        None,
    ]


@cache
def words_of_the_project():
    """Every word of the sources, the tests and what surrounds them."""
    kinds = {".py", ".toml", ".js", ".html", ".c", ".txt", ".json", ".ino", ".h", ""}
    places = [ROOT / name for name in ("src", "tests", "benchmarks", "examples", "docs")]
    files = [p for place in places for p in place.rglob("*") if p.is_file() and p.suffix in kinds]
    files += [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "mkdocs.yml"]
    words = set()
    for file in files:
        if file.name != Path(__file__).name:
            words |= set(re.findall(r"[^\W\d]\w*", file.read_text(encoding="utf-8")))
    return words


@cache
def files_of_the_project():
    """Paths from each folder that a page may speak from."""
    places = [ROOT, ROOT / "src" / "rankwise", ROOT / "src", ROOT / "docs"]
    names = set()
    for place in places:
        for path in place.rglob("*"):
            parts = path.relative_to(place).parts
            if not parts[0].startswith(".") and parts[0] not in ("build", "dist", "site"):
                names |= {"/".join(parts), parts[-1]}
    return names


ENDINGS = "py|md|c|toml|yml|ino|h|sh"


def stale_names(text):
    """Between backticks: paths of files that aren't there, names that no source has."""
    spans = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)
    stale = set()
    for span in spans:
        paths = re.findall(rf"(?<![\w./-])((?:[\w-]+/)*[\w-]+\.(?:{ENDINGS}))\b", span)
        folder = re.fullmatch(r"((?:[\w-]+/)+)", span)
        stale |= {p for p in paths if p not in files_of_the_project() | READERS_OWN}
        if folder and folder[1].strip("/") not in files_of_the_project() | READERS_OWN:
            stale.add(span)
        if re.fullmatch(r"[^\W\d][\w.]*(\(.*\))?", span) and not paths:
            parts = span.partition("(")[0].split(".")
            stale |= {span for part in parts if part not in words_of_the_project() | ELSEWHERE}
    return stale


READERS_OWN = {
    *("own_parts.py", "mine.toml", "study.toml", "model.h", "rankwise_model.h"),
    *("DIR/tables", "tables", "gallery", "tensorboard"),
}
"""Files and folders that a page has the reader write."""

ELSEWHERE = {
    *("vision_learner", "fine_tune", "image_dataset_from_directory", "check_estimator"),
    *("model_predict_with", "rankwise_model_SCRATCH", "training_set", "scans"),  # the reader's own
    "lmdr",  # a slip of the paper
}
"""Names that no source of the project has."""


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_every_name_is_somebody_s(path):
    assert stale_names(path.read_text(encoding="utf-8")) == set()


def unresolved(text):
    """Dotted names of the package, between single backticks, that lead to nothing."""
    names = re.findall(r"(?<!`)`(rankwise(?:\.[A-Za-z_]\w*)+)(?:\([^`\n]*\))?`(?!`)", text)
    return {name for name in names if not leads_somewhere(name)}


@cache
def leads_somewhere(name):
    try:
        pkgutil.resolve_name(name)
    except (ImportError, AttributeError):
        return False
    return True


@pytest.mark.parametrize("path", READ, ids=name_of)
def test_every_dotted_name_of_a_page_leads_somewhere(path):
    # The exported page's script has an object of that name; Keras wants its back end set first.
    elsewhere = {
        *("rankwise.predict", "rankwise.pixels"),
        "rankwise.lowrank.adapters.keras.RandomLowRank",
    }
    assert unresolved(path.read_text(encoding="utf-8")) <= elsewhere


def test_every_dotted_name_of_the_sources_leads_somewhere():
    files = (ROOT / "src").rglob("*.py")
    found = {name_of(path): unresolved(path.read_text(encoding="utf-8")) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_stale_name_would_be_found():
    assert unresolved("`rankwise.lowrank.shards`, `rankwise.lowrank.spectrum(x)`") == {
        "rankwise.lowrank.shards"
    }
    text = "`varpro/batched.py`, `units/multilinear.py`, `QuadraticNetz`, `load_images(x)`, `old/`"
    assert stale_names(text) == {"varpro/batched.py", "QuadraticNetz", "old/"}


def test_every_target_of_make_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in READ:
        text = path.read_text(encoding="utf-8")
        named = re.findall(r"(?:`|^ {4})make ([a-z-]+)", text, re.MULTILINE)
        assert set(named) <= targets, path
