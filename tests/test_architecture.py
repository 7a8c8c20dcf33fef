"""The house: imports go one way, and using little loads little."""

import ast
import builtins
import dis
import inspect
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import CodeType

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "rankwise"

# Each room may import those before it (CONTRIBUTING, "The house"). Rooms of one number don't know
# each other.
ORDER = {
    "_version": -1,
    "errors": -1,
    "_text": -1,
    "_files": 0,
    "_page": 1,
    "_arrays": 0,
    "_parameters": 0,
    "_device": 0,
    "_progress": 0,
    "_seeds": 0,
    "_machine": 1,
    "_refusals": 0,
    "_fingerprints": 0,
    "_process": 0,
    "_warnings": 0,
    "_threads": 0,
    "_memory": 0,
    "_reading": 0,
    "_claims": 1,
    "_model_files": 2,
    "_hub": 3,
    "cluster": 1.5,
    "data": 2,
    "lowrank": 3,
    "units": 3,
    "linear": 3,
    "varpro": 4,
    "networks": 5,
    "training": 6,
    "nets": 7,
    "heads": 8,
    "estimators": 9,
    "plots": 10,
    "explore": 10,
    "pretrained": 10,
    "runs": 11,
    "export": 11,
    "study": 12,
    "cli": 13,
    "__main__": 14,
}


def imports(path: Path) -> set[str]:
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "rankwise":
                names = [f"rankwise.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        rooms |= {n.split(".")[1] for n in names if n.startswith("rankwise.")}
    return rooms


FILES = [p for p in SOURCE.rglob("*.py") if p.parent != SOURCE or p.name != "__init__.py"]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_one_way(path):
    room = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    assert room in ORDER, f"{room} is a new room: give it a place in ORDER"
    for other in imports(path) - {room}:
        assert ORDER[other] < ORDER[room], f"{room} must not import {other}"


def names_of_nothing(source: str) -> set[str]:
    """Global names that code would look up and that no line of the file gives a meaning.

    Linter and type checker don't say: they would call the shapes of arrays such names. Annotations
    aren't code.
    """
    known = {*dir(builtins), "__file__", "__name__", "__path__", "__annotations__"}
    blocks: list[CodeType] = [compile(source, "file", "exec")]
    wanted: set[str] = set()
    for block in blocks:  # it grows meanwhile
        steps = [(step.opname, str(step.argval)) for step in dis.get_instructions(block)]
        stored = {name for kind, name in steps if kind in ("STORE_NAME", "STORE_GLOBAL")}
        # A function's own names are stored otherwise; a class body's are nobody else's.
        known |= stored if block is blocks[0] or block.co_flags & inspect.CO_OPTIMIZED else set()
        wanted |= {name for kind, name in steps if kind in ("LOAD_NAME", "LOAD_GLOBAL")} - (
            set() if block is blocks[0] else stored
        )
        blocks += [constant for constant in block.co_consts if isinstance(constant, CodeType)]
    return wanted - known


@pytest.mark.parametrize(
    "path", list(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE))
)
def test_every_name_means_something(path):
    assert not names_of_nothing(path.read_text(encoding="utf-8"))


def test_a_name_of_nothing_would_be_found():
    lines = (
        "import os\ndef f(a):\n    return os, a, {}, [b for b in a]\n"
        "class C:\n    x = 1\n    y = {}\n"
    )
    assert names_of_nothing(lines.format("len", "x")) == set()
    assert names_of_nothing(lines.format("nothing", "none")) == {"nothing", "none"}


def modules() -> dict[str, Path]:
    """Every file of the package by its dotted name."""
    names = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def files_imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Files that a file imports anywhere in it: lazily and for types as well."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in known else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(known)


def test_no_files_know_each_other_in_a_circle():
    known = modules()
    # The package itself knows its rooms' public names, and no file imports it for them.
    graph = {n: files_imported(p, known) - {n} for n, p in known.items() if n != "rankwise"}
    order = list(TopologicalSorter(graph).static_order())  # a CycleError names the circle
    assert set(order) >= set(graph)


def test_a_circle_would_be_found(tmp_path):
    (tmp_path / "a.py").write_text("def f():\n    from b import g\n    return g\n")
    (tmp_path / "b.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import a\n"
    )
    known = {"a": tmp_path / "a.py", "b": tmp_path / "b.py"}
    with pytest.raises(CycleError):
        TopologicalSorter({n: files_imported(p, known) for n, p in known.items()}).prepare()


def test_an_inner_room_and_the_one_around_it_know_each_other_one_way_only():
    known = modules()
    inside = {n: p.parent.relative_to(SOURCE).parts for n, p in known.items()}
    inner_rooms = {parts[:2] for parts in inside.values() if len(parts) > 1}
    for inner in sorted(inner_rooms):
        # The door of a room, its __init__, hands on what is behind it.
        own = {n for n in known if inside[n][:2] == inner}
        around = {n for n in known if inside[n][:1] == inner[:1]} - own - {f"rankwise.{inner[0]}"}
        uses = {o for n in own for o in files_imported(known[n], known)} & around
        used = {o for n in around for o in files_imported(known[n], known)} & own
        assert not (uses and used), f"{'/'.join(inner)} uses {uses}, and is used by its room"


def test_relative_imports_do_not_hide_from_this_test():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            assert not (isinstance(node, ast.ImportFrom) and node.level), path


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport sys\nprint(*sorted({{m.split('.')[0] for m in sys.modules}}))"
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=240
    )
    return set(result.stdout.splitlines()[-1].split())


HEAVY = {"torch", "sklearn", "scipy", "datasets", "pyarrow", "matplotlib", "pandas"}


def test_import_rankwise_is_light():
    assert not loaded_after("import rankwise") & (HEAVY | {"numpy"})


def test_the_command_line_s_help_is_light():
    code = (
        "import sys; sys.argv = ['rankwise', '--help']\n"
        "from rankwise.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass"
    )
    assert not loaded_after(code) & (HEAVY | {"numpy"})


def test_training_on_a_cpu_never_loads_torch():
    code = (
        "import numpy as np; from rankwise import QuadraticClassifier\n"
        "X = np.random.default_rng(0).random((40, 4, 4))\n"
        "QuadraticClassifier(n_units=4, max_iter=1).fit(X, np.arange(40) % 2).predict(X)"
    )
    assert not loaded_after(code) & {"torch", "matplotlib", "datasets"}


def test_training_with_torch_never_loads_its_compiler():
    """Which takes as long as torch itself, and a time budget pays for it."""
    code = (
        "import numpy as np; from rankwise import ConvolutionalClassifier\n"
        "X = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)\n"
        "ConvolutionalClassifier('nano', epochs=1).fit(X, np.arange(60) % 2).predict(X)"
    )
    found = loaded_after(code)
    assert "torch" in found
    assert not found & {"sympy", "onnx", "matplotlib", "datasets"}


def test_public_names_are_there():
    import rankwise

    for name in rankwise.__all__:
        assert getattr(rankwise, name) is not None
        assert name in dir(rankwise)
    with pytest.raises(AttributeError, match="module 'rankwise' has no attribute 'nonsense'"):
        _ = rankwise.nonsense
