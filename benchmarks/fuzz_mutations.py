"""How `fuzz.py` spoils a file: bytes of any, values of JSON, tensors, arrays and text."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 7, 65536, 10**9, 10**18, -(10**18), 2**63, 0.0, -0.5, 1e-320,
    1e308, float("nan"), float("inf"), "", "x", "0", "-1", "nan", "é", "a\nb", "\x1b[31m", "../..",
    "*/", "</script>", "%s{0}", "\x00", "\ud800", "x" * 300, [], {}, [[]], [1], ["a"], {"a": 1},
    [1, "a", None], {"": []},
)  # fmt: skip


def spoil_bytes(content: bytes, random: Random) -> bytes:
    """Flip, cut, repeat, insert or empty."""
    data = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 5))):
        n = len(data)
        at = random.randrange(n + 1)
        length = random.choice((1, 2, 4, 8, 64, 512))
        kind = random.randrange(7)
        if kind == 0 and n:
            data[at % n] ^= 1 << random.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = random.randbytes(length)
        elif kind == 4:
            data[at:at] = data[at : at + length]
        elif kind == 5:
            data[at : at + length] = bytes(min(length, max(0, n - at)))
        elif n:
            data[at : at + length] = random.choice((b"\xff", b"\x80", b"\x7f")) * min(
                length, max(0, n - at)
            )
    return bytes(data)


def spoil_value(value: Any, random: Random) -> Any:
    """One place of a JSON value exchanged, left out, repeated or nested."""
    places: list[tuple[Any, Any]] = []

    def walk(container: Any) -> None:
        keys = container if isinstance(container, dict) else range(len(container))
        for key in keys:
            places.append((container, key))
            if isinstance(container[key], (dict, list)):
                walk(container[key])

    value = json.loads(json.dumps(value))
    if not isinstance(value, (dict, list)) or not value:
        return random.choice(HOSTILE)
    walk(value)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        container, key = random.choice(places)
        if isinstance(container, list) and key >= len(container):
            continue
        if isinstance(container, dict) and key not in container:
            continue
        kind = random.randrange(10)
        if kind == 0:
            del container[key]
        elif kind == 1:
            container[key] = nested(random.choice((3, 70, 400)))
        elif kind == 2 and isinstance(container, list):
            container += container[: 1 + key]
        elif kind == 3:
            container[key] = random.choice(places)[0]
            try:  # a value in itself can't be written
                json.dumps(value)
            except (ValueError, RecursionError):
                container[key] = None
        elif kind == 4 and isinstance(container[key], (int, float)):
            container[key] = container[key] * random.choice((-1, 2, 1000, 0.5)) + random.choice(
                (0, 1, -1)
            )
        elif kind == 5 and isinstance(container[key], str):
            container[key] += str(random.choice(HOSTILE))
        else:
            container[key] = random.choice(HOSTILE)
    return value


def nested(depth: int) -> Any:
    """A list in a list, and so on."""
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def spoil_json(content: bytes, random: Random) -> bytes:
    """A value exchanged, or deep nesting, or bytes."""
    kind = random.randrange(8)
    if kind == 0:
        return spoil_bytes(content, random)
    if kind == 1:
        begin, end = random.choice(((b"[", b"]"), (b'{"a":', b"}")))
        depth = random.choice((65, 900, 5000, 200_000))
        return begin * depth + b"1" + end * random.choice((depth, 0))
    return json.dumps(spoil_value(json.loads(content), random)).encode("utf-8", "surrogatepass")


def spoil_safetensors(content: bytes, random: Random) -> bytes:
    """Numbers, shapes, names and metadata of tensors; the header's own text; bytes."""
    length = struct.unpack("<Q", content[:8])[0]
    header, body = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    kind = random.randrange(8)
    names = [name for name in header if name != "__metadata__"]
    if kind == 0:
        return spoil_bytes(content, random)
    if kind <= 2:
        entry = header[random.choice(names)]
        begin, end = entry["data_offsets"]
        size = {"F64": 8, "I64": 8, "F32": 4, "F16": 2}.get(entry["dtype"], 1)
        packed = {
            8: struct.pack("<d", random.choice((float("nan"), float("inf"), 1e308, -1e300))),
            4: struct.pack("<f", random.choice((float("nan"), float("-inf"), 3e38))),
        }.get(size, b"\xff" * size)
        if end - begin >= size:
            at = begin + size * random.randrange((end - begin) // size)
            body[at : at + size] = packed
    elif kind == 3 and names:
        name = random.choice(names)
        shape = header[name]["shape"]
        header[name]["shape"] = random.choice(
            (shape[::-1], [*shape, 1], [1, *shape], shape[:-1], [10**9], [0], [-1])
        )
    elif kind == 4 and names:
        name = random.choice(names)
        header[random.choice((f"{name}x", "", "coef", name.upper()))] = header.pop(name)
    elif kind == 5 and "__metadata__" in header:
        metadata = header["__metadata__"]
        key = random.choice(list(metadata))
        try:
            inner = json.loads(metadata[key])
            metadata[key] = json.dumps(spoil_value(inner, random))
        except ValueError:
            metadata[key] = str(random.choice(HOSTILE))
    else:
        header = spoil_value(header, random)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    stated = len(text) if random.random() < 0.95 else random.choice((0, 2**40, 2**63))
    return struct.pack("<Q", stated) + text + bytes(body)


def spoil_npz(content: bytes, random: Random) -> bytes:
    """A member's header, type, size or bytes; the archive's own; bytes."""
    if random.randrange(4) == 0:
        return spoil_bytes(content, random)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = random.choice(list(members))
    kind = random.randrange(6)
    if kind == 0:
        del members[name]
    elif kind == 1:
        members[name] = spoil_bytes(members[name], random)
    elif kind == 2:
        members[random.choice(("x.npy", name + "x", "../y.npy"))] = members.pop(name)
    else:
        header = members[name].split(b"\n", 1)
        texts = (
            "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000,), }",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (-5,), }",
            "{'descr': '<U100000000', 'fortran_order': False, 'shape': (9,), }",
            "{'descr': " + "(" * 300 + ")" * 300 + ", 'fortran_order': False, 'shape': (3,), }",
            "{'descr': [('a', '<i8')], 'fortran_order': 1, 'shape': 3}",
            "{'descr': '<i8', 'fortran_order': False, 'shape': (3L,), }",
            "{'descr': '\n'",
        )
        text = random.choice(texts).encode() + b"\n"
        data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
        members[name] = data + (header[1] if len(header) > 1 else b"")
    stream = io.BytesIO()
    method = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(stream, "w", method) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return stream.getvalue()


def spoil_npy(content: bytes, random: Random) -> bytes:
    """The header's text, or bytes."""
    if random.randrange(2):
        return spoil_bytes(content, random)
    text = random.choice(
        (
            b"{'descr': '<f4', 'fortran_order': False, 'shape': (9999999999, 8), }\n",
            b"{'descr': '|O', 'fortran_order': False, 'shape': (2,), }\n",
            b"{" * 400 + b"\n",
        )
    )
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + content[128:]


def spoil_text(content: bytes, random: Random) -> bytes:
    """A line left out, repeated or with another value; deep nesting; bytes."""
    kind = random.randrange(6)
    if kind == 0:
        return spoil_bytes(content, random)
    lines = content.decode().splitlines()
    at = random.randrange(len(lines))
    if kind == 1:
        del lines[at]
    elif kind == 2:
        lines.insert(at, lines[random.randrange(len(lines))])
    elif kind == 3:
        depth = random.choice((70, 3000))
        lines.append("deep = " + "[" * depth + "]" * random.choice((depth, 0)))
    else:
        name = lines[at].partition("=")[0]
        value = random.choice(HOSTILE)
        lines[at] = f"{name}= {json.dumps(value)}"
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def spoiler(name: str) -> Callable[[bytes, Random], bytes]:
    """How a file of this name is spoilt."""
    endings = {
        ".json": spoil_json,
        ".safetensors": spoil_safetensors,
        ".npz": spoil_npz,
        ".npy": spoil_npy,
        ".toml": spoil_text,
        ".csv": spoil_text,
    }
    return next((s for ending, s in endings.items() if name.endswith(ending)), spoil_bytes)
