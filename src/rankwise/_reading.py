"""Files that anybody may have written, cut short or made to harm: what every reader checks.

A reader of the package goes through here for JSON and tensors, and asks `is_shortage` before it
calls a file damaged. What is wrong with a file is one sentence; nothing a file says is believed
before it has been checked: how deep it nests, how much it declares, whether its numbers are finite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from rankwise.errors import RankwiseError, is_shortage

JSON_DEPTH = 64
"""Levels of lists and objects inside each other; the package's own files have under ten."""

JSON_BYTES = 256 * 2**20
"""Size of a JSON file; the largest study so far has 30 MiB of results."""

LARGEST_SIZE = 2**31
"""Whole numbers in the description of a model; a count of parameters is the largest."""

LARGEST_IMAGE = 2**26
"""Values of an image that a model takes: 8192 × 8192 grey pixels."""

ARRAY_BYTES = 2**30
"""Size of an array in an archive of predictions: 130 million samples."""


class UnreadableError(ValueError):
    """What is wrong with a content, without the name of its file: ``"it isn't JSON"``."""


def parse_json(content: str | bytes, *, depth: int = JSON_DEPTH, finite: bool = False) -> Any:
    """The value of a JSON text.

    Parameters
    ----------
    content : str or bytes
        Bytes are UTF-8.
    depth : int
        Most levels of lists and objects inside each other.
    finite : bool
        Refuse NaN and infinities, which Python's JSON knows and no other's does.

    Raises
    ------
    UnreadableError
        What is wrong, as the end of a sentence: ``"it isn't JSON"``.
    """
    if len(content) > JSON_BYTES:
        raise UnreadableError(f"it is JSON of over {JSON_BYTES >> 20} MiB")
    try:
        value = json.loads(content)
    except RecursionError as error:
        raise UnreadableError(f"it nests over {depth} levels deep") from error
    except ValueError as error:  # not UTF-8, not JSON, or a number of thousands of digits
        raise UnreadableError("it isn't JSON") from error
    _check(value, depth, finite)
    return value


def _check(value: Any, depth: int, finite: bool) -> None:
    """Depth and finiteness, level by level: no recursion of ours."""
    level, below = [value], 0
    while level:
        deeper: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                deeper += item.values()
            elif isinstance(item, list):
                deeper += item
            elif finite and isinstance(item, float) and not math.isfinite(item):
                raise UnreadableError("it holds a number that isn't finite")
        if any(isinstance(item, (dict, list)) for item in level):
            below += 1
            if below > depth:
                raise UnreadableError(f"it nests over {depth} levels deep")
        level = deeper


def read_json(
    path: Path, *, error: type[RankwiseError], hint: str = "", finite: bool = False
) -> Any:
    """The value of a JSON file.

    Parameters
    ----------
    path : Path
    error : class
        What to raise: `DataError`, `ModelFileError` or `RunError`.
    hint : str
        Ends the sentence, such as ``"; choose another folder"``.
    finite : bool
        As for `parse_json`.

    Raises
    ------
    error
        Naming the file and what is wrong with it.
    OSError, MemoryError
        Where the machine lacks memory or open files: that is no damage.
    """
    check_regular(path, error, hint)
    try:
        if path.stat().st_size > JSON_BYTES:
            raise UnreadableError(f"it is JSON of over {JSON_BYTES >> 20} MiB")
        return parse_json(path.read_bytes(), finite=finite)
    except OSError as wrong:
        if is_shortage(wrong):
            raise
        raise error(f"{path} can't be read: {wrong.strerror or wrong}{hint}") from wrong
    except UnreadableError as wrong:
        raise error(f"{path} is damaged: {wrong}{hint}") from wrong


def read_json_object(
    path: Path,
    *,
    error: type[RankwiseError],
    hint: str = "",
    needs: tuple[str, ...] = (),
    finite: bool = False,
) -> dict[str, Any]:
    """The object of a JSON file, with all the keys that it `needs`; else as `read_json`."""
    value = read_json(path, error=error, hint=hint, finite=finite)
    if not isinstance(value, dict):
        raise error(f"{path} is damaged: it holds no JSON object{hint}")
    lacks = [name for name in needs if name not in value]
    if lacks:
        raise error(f"{path} is damaged: it lacks {', '.join(lacks)}{hint}")
    return value


@contextmanager
def blamed_on(
    path: Path, error: type[RankwiseError], hint: str = "", names: str = "is damaged"
) -> Iterator[None]:
    """Whatever goes wrong in a block that takes a file's content apart is that file's fault.

    Errors of the package pass as they are, and so does what the machine lacks.
    """
    try:
        yield
    except RankwiseError:
        raise
    except Exception as wrong:
        if is_shortage(wrong):
            raise
        reason = str(wrong).strip().splitlines()[0] if str(wrong).strip() else "no more is known"
        raise error(f"{path} {names}: {type(wrong).__name__}: {reason[:200]}{hint}") from wrong


def check_regular(path: Path, error: type[RankwiseError], hint: str = "") -> None:
    """Refuse what isn't there, or is no file: a folder, or a pipe that would be waited for."""
    if path.is_file():
        return
    state = "it's no file" if path.exists() else "No such file or directory"
    raise error(f"{path} can't be read: {state}{hint}")


def read_tensors(
    path: Path, *, error: type[RankwiseError], hint: str = ""
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors and metadata of a safetensors file, whose numbers are all finite.

    Raises
    ------
    error
        Naming the file, and what is wrong with it.
    """
    from safetensors import safe_open

    check_regular(path, error, hint)
    with blamed_on(path, error, hint), safe_open(path, framework="numpy") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
    check_finite(path, tensors, error, hint)
    return tensors, metadata


def check_finite(
    path: Path, arrays: Mapping[str, np.ndarray], error: type[RankwiseError], hint: str = ""
) -> None:
    """Refuse NaN and infinities among numbers that a model is made of."""
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise error(f"{path} is damaged: {name} holds weights that aren't finite{hint}")


def check_numbers(path: Path, value: Any, error: type[RankwiseError], hint: str = "") -> None:
    """Refuse sizes that no model has, before anything is made as large: whole numbers past 2³¹."""
    level = [value]
    while level:
        item = level.pop()
        if isinstance(item, dict):
            level += item.values()
        elif isinstance(item, list):
            level += item
        elif isinstance(item, int) and abs(item) > LARGEST_SIZE:
            raise error(f"{path} is damaged: it holds the number {item:.3g}{hint}")


def image_shape_of(value: Any) -> tuple[int, ...]:
    """The shape of an image in a file: two or three sides from 1, or more for tensors.

    Raises
    ------
    ValueError
        If it's none, or the image would be larger than any model's.
    """
    whole = isinstance(value, list) and all(type(side) is int and side > 0 for side in value)
    if not whole or not value or math.prod(value) > LARGEST_IMAGE:
        raise ValueError(f"its images would have the shape {value!r:.80}")
    return tuple(value)


def classes_of(value: Any) -> np.ndarray:
    """The classes of a model file as `classes_json` gave them, each of them once.

    Raises
    ------
    ValueError
        If they are none.
    """
    if not isinstance(value, dict) or not isinstance(value.get("values"), list):
        raise ValueError("it has no classes")
    values, dtype = value["values"], np.dtype(value.get("dtype"))
    accepted = {
        "U": str,
        "O": str,
        "b": bool,
        "i": int,
        "u": int,
        "f": float,
        **dict.fromkeys("Mm", int),
    }
    kind = accepted.get(dtype.kind)
    if kind is None or not all(type(item) is kind for item in values):
        raise ValueError(f"its classes aren't of the type {dtype.str!r}")
    longest = max((len(item) for item in values), default=0) if kind is str else 0
    if dtype.itemsize > 4 * max(4096, longest):
        raise ValueError(f"its classes aren't of the type {dtype.str!r}")
    found = np.array(values, dtype=dtype)
    if found.ndim != 1 or not len(found) or classes_json(found)["values"] != values:
        raise ValueError(f"its classes don't fit the type {dtype.str!r}")
    if len(np.unique(found)) < len(found):
        raise ValueError("a class stands twice in it")
    if kind is float and not np.isfinite(found).all():
        raise ValueError("a class isn't a finite number")
    return found


def classes_json(classes: np.ndarray) -> dict[str, Any]:
    """Classes as JSON holds them; dates and times by the whole number that they are."""
    plain = classes.view(np.int64) if classes.dtype.kind in "Mm" else classes
    return {"dtype": classes.dtype.str, "values": plain.tolist()}


def npy_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of the array in a stream, as its header says; data follow.

    Raises
    ------
    UnreadableError
        Whatever numpy's parser of headers makes of it.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise UnreadableError(f"its version is {version}")
    except UnreadableError:
        raise
    except Exception as error:  # of tokens, syntax, types …
        if isinstance(error, OSError) and is_shortage(error):
            raise
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UnreadableError(f"its header can't be read ({reason[0][:120]})") from error
    if any(side < 0 for side in shape):
        raise UnreadableError(f"its shape is {shape}")
    return shape, bool(fortran), dtype


def read_arrays(
    path: Path, needs: Sequence[str] | None, *, error: type[RankwiseError], hint: str = ""
) -> dict[str, np.ndarray]:
    """Arrays of numbers in an ``.npz`` archive, no larger than the archive says that they are.

    None `needs` all that it holds.

    Raises
    ------
    error
        Naming the file, and what is wrong with it.
    """
    import io
    import zipfile

    check_regular(path, error, hint)
    found = {}
    with blamed_on(path, error, hint), zipfile.ZipFile(path) as archive:
        if needs is None:
            needs = [name.removesuffix(".npy") for name in archive.namelist()]
        for name in needs:
            member = archive.getinfo(f"{name}.npy")
            if member.file_size > ARRAY_BYTES:
                raise UnreadableError(f"{name} has over {ARRAY_BYTES >> 20} MiB")
            stream = io.BytesIO(archive.read(member))
            shape, fortran, dtype = npy_header(stream)
            data = bytearray(stream.read())  # an array of it can be written to
            if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize != len(data):
                raise UnreadableError(f"{name} isn't an array of numbers of the size it says")
            found[name] = np.ndarray(shape, dtype, data, order="F" if fortran else "C")
    return found
