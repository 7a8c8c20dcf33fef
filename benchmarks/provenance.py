"""Which code a figure was measured with, and whether it is still the code there is.

A run's code is every module of the package that it imported and whatever those may import later,
in a worker process perhaps, beside the scripts of this folder that it loaded.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import subprocess
import sys
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import rankwise

HERE = Path(__file__).resolve().parent
PACKAGE = Path(rankwise.__file__).resolve().parent
_DIGITS = 16
# What holds versions and runs commands is loaded by much that computes nothing with it.
_NAMES_ONLY = {"rankwise", "rankwise._version"}
_RECORDS = "benchmarks/provenance.py"
"""This file measures nothing."""
_NOT_FOLLOWED = ("rankwise.cli", "rankwise.runs", "rankwise.__main__")


def code_of_run(also: Iterable[str] = ()) -> dict[str, str]:
    """Files that this run's figures come from, with a digest of what each computes.

    Parameters
    ----------
    also : iterable of str
        Modules that other processes ran: those of a command that the benchmark started.

    Returns
    -------
    dict
        ``src/rankwise/…`` and ``benchmarks/…``, sorted.
    """
    modules = {name for name in list(sys.modules) if name.split(".")[0] == "rankwise"}
    reached = _reached(modules | set(also)) - _NAMES_ONLY
    files = {path for name in reached if (path := _file_of(name))}
    loaded = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    # Some modules of torch name files that are nowhere, which would be in the current folder.
    own = (Path(file).resolve() for file in loaded if file)
    files |= {path for path in own if path.parent == HERE and path.is_file()}
    names = sorted(name for path in files if (name := _spelled(path)) != _RECORDS)
    return {name: _digests_now(name)[0] for name in names}


def digest_of(path: Path) -> str:
    """The beginning of the SHA-256 of a file's code: comments and docstrings compute nothing."""
    return _beginning(code_in(path.read_text(encoding="utf-8")).encode())


def code_in(source: str) -> str:
    """Python source without comments, docstrings, empty lines and what stands behind a line.

    By places in the text, so that every version of Python that can read it finds the same.
    """
    lines = source.splitlines()
    # Most files have no comment, and to look for one takes longer than all the rest.
    tokens = tokenize.generate_tokens(io.StringIO(source).readline) if "#" in source else ()
    for token in tokens:
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        for said in body if isinstance(body, list) else ():
            if _says_only(said) and not lines[said.lineno - 1][: said.col_offset].strip():
                rows = slice(said.lineno - 1, said.end_lineno)
                lines[rows] = [""] * len(lines[rows])
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _says_only(statement: ast.AST) -> bool:
    """Whether it is a docstring, or the text under an assignment that says what a name is for."""
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)


def _beginning(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]


def changed_since(known: Mapping[str, Any]) -> list[str] | None:
    """Files of a figure's code that have changed or gone; None if they weren't recorded.

    Parameters
    ----------
    known : dict
        The provenance of a result file.
    """
    code = known.get("code")
    if not isinstance(code, dict):
        return None
    changed = (name for name, digest in code.items() if digest not in _digests_now(name))
    return [name for name in changed if name != _RECORDS]


def staleness(known: Mapping[str, Any]) -> str | None:
    """Why a figure is stale, in a few words; None if it isn't."""
    changed = changed_since(known)
    if changed is None:
        return "measured before runs recorded their code, so that what changed can't be told"
    if not changed:
        return None
    named = ", ".join(f"`{name.removeprefix('src/rankwise/')}`" for name in changed[:3])
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return f"changed since: {named}{more}"


def is_uncommitted(known: Mapping[str, Any]) -> bool:
    """Whether a figure was measured from a tree that no commit holds; then it isn't rendered."""
    return not known.get("commit") or str(known["commit"]).endswith("-dirty")


def commit() -> str | None:
    """The commit that is measured, ``-dirty`` if code differs from it; None without git.

    A copy of a checkout on a lent machine is what the variable ``RANKWISE_COMMIT`` says; the
    digests of its files are recorded as ever.
    """
    code = [":(top)src", ":(top)benchmarks", ":(top)pyproject.toml", ":(top)constraints.txt"]
    outcomes = ":(top,exclude)benchmarks/results"
    found = _git("rev-parse", "--short", "HEAD")
    changes = _git("status", "--porcelain", "--untracked-files=normal", "--", *code, outcomes)
    told = os.environ.get("RANKWISE_COMMIT")
    return told or (f"{found}-dirty" if found and changes else found)


def list_stale(folder: Path) -> Iterator[str]:
    """One line for each result file that is stale or isn't rendered."""
    for path in sorted(folder.glob("*.json")):
        known = json.loads(path.read_text(encoding="utf-8"))["provenance"]
        reason = staleness(known)
        if is_uncommitted(known):
            yield f"{path.stem}: not shown, measured from an uncommitted tree"
        elif reason is not None:
            yield f"{path.stem}: {reason.replace('`', '')}"


def _spelled(path: Path) -> str:
    if path.is_relative_to(PACKAGE):
        return f"src/rankwise/{path.relative_to(PACKAGE).as_posix()}"
    return f"benchmarks/{path.name}"


@cache
def _digests_now(name: str) -> tuple[str, ...]:
    """Of a file's code and, as earlier figures have it, of all of it; none where there is none."""
    root, _, rest = name.partition("/")
    path = HERE / rest if root == "benchmarks" else PACKAGE / rest.removeprefix("rankwise/")
    return (digest_of(path), _beginning(path.read_bytes())) if path.is_file() else ()


def _reached(modules: set[str]) -> set[str]:
    """Modules of the package, and all that they import, at their top or within a function."""
    found: set[str] = set()
    left = set(modules)
    while left:
        name = left.pop()
        if name in found or _file_of(name) is None:
            continue
        found.add(name)
        parts = name.split(".")
        left |= {".".join(parts[:i]) for i in range(1, len(parts))}
        if not name.startswith(_NOT_FOLLOWED):
            left |= _imports_of(name)
    return found


def _file_of(name: str) -> Path | None:
    place = PACKAGE.joinpath(*name.split(".")[1:])
    files = (place / "__init__.py", place.with_suffix(".py"))
    return next((path for path in files if path.is_file()), None)


@cache
def _imports_of(name: str) -> set[str]:
    path = _file_of(name)
    if path is None:
        return set()
    found = set()
    for node in _run(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {module for module in found if module.split(".")[0] == "rankwise"}


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a module that can run: not those under ``if TYPE_CHECKING``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield other
                yield from _run(other)
            continue
        yield node
        yield from _run(node)


def _git(*arguments: str) -> str | None:
    """What git prints in this checkout; None without one."""
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=HERE, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()
