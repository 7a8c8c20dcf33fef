"""Files of a tree by the names that tables and lists have for them."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


class Files:
    """Files of a tree by every way in which a table may name them.

    Parameters
    ----------
    images : iterable of Path
    folders : iterable of Path
        Folders that are there, beside those of the images.
    """

    def __init__(self, images: Iterable[Path], folders: Iterable[Path] = ()) -> None:
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        self._composed: dict[Path, Path] = {}
        there = set(folders)
        for path in images:
            if not str(path).isascii():
                self._composed[path] = Path(_composed(str(path)))
            form = self._composed.get(path, path)
            self._by_name[form.name].append(path)
            self._by_name[form.stem].append(path)
            there.add(path.parent)
        # Each folder by the last of its names, the last two, and so on.
        self._folders = {
            parts[i:]
            for parts in (Path(_composed(str(folder))).parts for folder in there)
            for i in range(len(parts))
        }

    def find(self, text: str) -> list[Path]:
        """All files that a text may mean, the longest common path deciding.

        Names are compared in Unicode's composed form; of files that this makes one, the one that
        is spelled as the text is meant.
        """
        parts = [p for p in text.strip().replace("\\", "/").split("/") if p not in ("", ".", "..")]
        if not parts:
            return []
        names = [_composed(part) for part in parts]
        found = self._inside(list(dict.fromkeys(self._by_name.get(names[-1], []))), names[:-1])
        found = _closest(found, names, self._parts_of)
        if len(found) > 1 and self._composed:
            found = _closest(found, parts, lambda path: path.parts)
        return found

    def _inside(self, found: list[Path], folders: Sequence[str]) -> list[Path]:
        """Those in the folder that a text names, or below it, as far as it is there."""
        tails = (tuple(folders[i:]) for i in range(len(folders)))
        place = next((tail for tail in tails if tail in self._folders), ())
        return [path for path in found if _holds(self._parts_of(path)[:-1], place)]

    def _parts_of(self, path: Path) -> tuple[str, ...]:
        return self._composed.get(path, path).parts


def _closest(
    found: list[Path], names: Sequence[str], parts_of: Callable[[Path], tuple[str, ...]]
) -> list[Path]:
    """Those with a text's whole name, if there are such, in as many of its folders as possible."""
    found = [path for path in found if parts_of(path)[-1] == names[-1]] or found
    # Folders before the name tell files of one name apart, as far as they are there.
    for n in range(2, len(names) + 1):
        closer = [path for path in found if parts_of(path)[-n:-1] == tuple(names[-n:-1])]
        if not closer:
            break
        found = closer
    return found


def _holds(parts: tuple[str, ...], some: tuple[str, ...]) -> bool:
    """Whether some folders are among those of a path, one after another."""
    return any(parts[i : i + len(some)] == some for i in range(len(parts) - len(some), -1, -1))


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)
