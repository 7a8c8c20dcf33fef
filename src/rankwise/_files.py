"""Outputs that are whole or absent: written beside their place, then moved into it."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path in the same folder; on success it takes the name `path`.

    If the block raises, or the process dies, nothing appears under `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _new_file(path)
    mode = temporary.stat().st_mode
    try:
        yield temporary
        temporary.chmod(mode)  # as any new file, whoever wrote it
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON, atomically; numpy scalars count as numbers."""
    text = json.dumps(value, indent=2, default=lambda scalar: scalar.item())
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def _new_file(path: Path) -> Path:
    """An empty file beside `path`, with the rights of any new file.

    `tempfile.mkstemp` gives it to its owner alone, and the usual rights can't be asked for without
    changing them for a moment in the whole process.
    """
    while True:
        name = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
        try:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            continue
        return name
