"""What every reader checks: depth, size, finiteness, and that a lack of memory is no damage."""

from __future__ import annotations

import errno
import json
from contextlib import suppress

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankwise._reading import (
    JSON_DEPTH,
    UnreadableError,
    parse_json,
    read_json,
    read_json_object,
)
from rankwise.errors import DataError, ModelFileError, RunError, is_shortage


@pytest.mark.parametrize("depth", [JSON_DEPTH + 1, 900, 100_000])
@pytest.mark.parametrize("pair", ["[]", ('{"a":', "}")])
def test_deep_nesting_is_one_sentence(depth: int, pair: str | tuple[str, str]) -> None:
    begin, end = pair
    with pytest.raises(UnreadableError, match=f"nests over {JSON_DEPTH} levels deep"):
        parse_json(begin * depth + "0" * (begin != "[") + end * depth)


def test_own_depth_is_accepted() -> None:
    assert parse_json("[" * JSON_DEPTH + "]" * JSON_DEPTH)


@given(st.binary(max_size=40))
def test_any_bytes_give_a_value_or_unreadable(content: bytes) -> None:
    with suppress(UnreadableError):
        json.dumps(parse_json(content))


@pytest.mark.parametrize("content", ["", "{", "9" * 5000, b"\xff\xfe\x00", b"[1,]", "nul"])
def test_what_is_no_json(content: str | bytes) -> None:
    with pytest.raises(UnreadableError, match=r"^it isn't JSON$"):
        parse_json(content)


def test_finite_numbers_can_be_asked_for() -> None:
    assert parse_json("[Infinity]") == [float("inf")]
    for text in ("NaN", '{"a": [1, -Infinity]}', "[1e999]"):
        with pytest.raises(UnreadableError, match="isn't finite"):
            parse_json(text, finite=True)


def test_files_are_named(tmp_path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(DataError, match=r"a\.json can't be read: No such file.*; do so$"):
        read_json(path, error=DataError, hint="; do so")
    path.write_text("[" * 5000, encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"a\.json is damaged: it (nests|isn't JSON)"):
        read_json(path, error=ModelFileError)
    path.write_text("[1]", encoding="utf-8")
    with pytest.raises(RunError, match=r"a\.json is damaged: it holds no JSON object"):
        read_json_object(path, error=RunError)
    path.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(RunError, match=r"a\.json is damaged: it lacks b, c"):
        read_json_object(path, error=RunError, needs=("a", "b", "c"))
    assert read_json_object(path, error=RunError, needs=("a",)) == {"a": 1}


def test_shortages_are_told_from_damage() -> None:
    behind = ValueError("can't be read")
    behind.__cause__ = OSError(errno.EMFILE, "Too many open files")
    for error in (
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("can't start new thread"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        behind,
        ImportError("a.so: failed to map segment from shared object"),
        pa.ArrowException("Failed to launch worker thread: Resource temporarily unavailable"),
    ):
        assert is_shortage(error), error
    for error in (
        None,
        ValueError("out of memory"),  # words in a file's content, say
        OSError(errno.ENOENT, "No such file"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    ):
        assert not is_shortage(error), error


def test_a_lack_of_open_files_is_no_damage(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}", encoding="utf-8")

    def starved(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files", str(path))

    monkeypatch.setattr(type(path), "read_bytes", starved)
    with pytest.raises(OSError, match="Too many open files"):
        read_json(path, error=DataError)
