"""The line of a TOML file on which a key stands: `tomllib` gives values without places."""

from __future__ import annotations

import re
import tomllib

Path = tuple[str | int, ...]

_HEADER = re.compile(r"^\s*(\[\[?)\s*(.+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(
    r"^\s*((?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|\"[^\"]*\"|'[^']*'))*)\s*="
)
_PART = re.compile(r"\"([^\"]*)\"|'([^']*)'|([A-Za-z0-9_-]+)")


def lines_of_keys(text: str) -> dict[Path, int]:
    """Where each table and each key of a TOML text stands.

    Parameters
    ----------
    text : str
        Valid TOML. What an inline table or an array holds counts as the key that holds it.

    Returns
    -------
    dict
        From path, such as ``("arms", "low-rank", "energy")``, to line, counted from 1. Items of
        ``[[name]]`` have paths ``("name", 0)``, ``("name", 1)`` …
    """
    places: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    rest: list[str] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if rest:
            rest.append(line)
            if _complete("\n".join(rest)):
                rest = []
            continue
        if header := _HEADER.match(line):
            table = _parts(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                places.setdefault(table, number)
                table = (*table, counts[table])
            else:
                table = _inside(table, counts)
            places.setdefault(table, number)
        elif key := _KEY.match(line):
            places.setdefault((*table, *_parts(key[1])), number)
            value = line[key.end() :]
            if not _complete(f"x ={value}"):
                rest = [f"x ={value}"]
    return places


def line_of(path: Path, places: dict[Path, int]) -> int:
    """The line of a path, or of the nearest thing around it; 1 where nothing is known."""
    for length in range(len(path), 0, -1):
        if path[:length] in places:
            return places[path[:length]]
    return 1


def _parts(dotted: str) -> Path:
    return tuple(a or b or c for a, b, c in _PART.findall(dotted))


def _inside(table: Path, counts: dict[Path, int]) -> Path:
    """``[rows.published]`` belongs to the latest item of ``[[rows]]``."""
    for length in range(len(table), 0, -1):
        if table[:length] in counts:
            return (*table[:length], counts[table[:length]], *table[length:])
    return table


def _complete(assignment: str) -> bool:
    """Whether a value ends here, or goes on in the next line."""
    try:
        tomllib.loads(assignment)
    except tomllib.TOMLDecodeError:
        return False
    return True
