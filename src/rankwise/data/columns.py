"""Which columns of a table in arrow hold images, labels and source ids, and what type they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from rankwise.data.decode import BadImageError, header_of
from rankwise.data.table import LABEL_NAMES
from rankwise.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_NAMES = ("image", "images", "img", "picture", "photo", "pixels", "png", "jpg", "jpeg")
"""Names of a column of images, the likeliest first."""
SOURCE = "source_id"

First = Callable[[str], Iterable[bytes | None]]
"""Gives some bytes of the first rows of a column."""


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of arrow's three of strings."""
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_bytes(kind: pa.DataType) -> bool:
    """Whether a type is one of arrow's four of bytes."""
    import pyarrow as pa

    return bool(
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def is_image_type(kind: pa.DataType) -> bool:
    """Whether values are bytes, or the hub's struct with a field of bytes."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        found = [
            kind.field(i).type for i in range(kind.num_fields) if kind.field(i).name == "bytes"
        ]
        return bool(found) and (is_bytes(found[0]) or pa.types.is_null(found[0]))
    return is_bytes(kind)


def is_label_type(kind: pa.DataType) -> bool:
    """Whether values can be kept exactly as labels; floats must then be whole numbers."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        is_text(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_floating(kind)
    )


def holds_ids(schema: pa.Schema) -> bool:
    """Whether there is a column ``source_id`` of strings or integers."""
    import pyarrow as pa

    if SOURCE not in schema.names:
        return False
    kind = schema.field(SOURCE).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(is_text(kind) or pa.types.is_integer(kind))


def image_column(
    schema: pa.Schema, features: dict[str, Any], where: str, first: First, wanted: str | None
) -> str:
    """The column of images: by the hub's metadata, else by content and name.

    Raises
    ------
    DataError
        If there is none, or several that could be meant.
    """
    names = _accepted(schema, wanted, "image", where)
    marked = [c for c in names if _hub_type(features, c) == "Image"]
    fitting = [c for c in names if is_image_type(schema.field(c).type)]
    candidates = marked or fitting
    if wanted is None and not marked:
        # A check sum or a mask is bytes too.
        pictures = [c for c in candidates if _shows_an_image(first(c))]
        usual = [c for c in candidates if c.lower() in IMAGE_NAMES]
        candidates = pictures or usual or candidates[:1]
    candidates = _usual(candidates, IMAGE_NAMES)
    if len(candidates) == 1 and is_image_type(schema.field(candidates[0]).type):
        return candidates[0]
    if len(candidates) > 1:
        raise DataError(
            f"{where} has images in the columns {', '.join(candidates)}; name the one with "
            "image_column (--image-column on the command line)."
        )
    raise DataError(
        f"{where} has no image column among {_typed(schema, names)}; a column of the hub's "
        "type Image, a struct of bytes and path, or binary is accepted."
    )


def label_column(
    schema: pa.Schema, features: dict[str, Any], where: str, image: str, wanted: str | None
) -> str:
    """The column of labels: by the hub's metadata, else by name and type.

    Raises
    ------
    DataError
        If there is none, or several that could be meant.
    """
    names = [c for c in _accepted(schema, wanted, "label", where) if c != image]
    marked = [c for c in names if _hub_type(features, c) == "ClassLabel"]
    named = [
        c
        for c in names
        if (wanted or c.lower() in LABEL_NAMES) and is_label_type(schema.field(c).type)
    ]
    candidates = _usual(marked, LABEL_NAMES) or named
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise DataError(
            f"{where} could hold labels in the columns {', '.join(candidates)}; name the one with "
            "label_column (--label-column on the command line)."
        )
    raise DataError(
        f"{where} has no label column among {_typed(schema, names)}; a column of the hub's "
        f"type ClassLabel, or integers or strings under the name {', '.join(LABEL_NAMES)}, is "
        "accepted, or one named with label_column (--label-column on the command line)."
    )


def _accepted(schema: pa.Schema, wanted: str | None, what: str, where: str) -> list[str]:
    twice = {name for name in schema.names if schema.names.count(name) > 1}
    if twice:
        raise DataError(f"{where} has two columns of the name {min(twice)!r}; one is accepted.")
    if wanted is None:
        return list(schema.names)
    if wanted not in schema.names:
        raise DataError(
            f"{where} has no column {wanted!r} for {what}_column; {', '.join(schema.names)} are "
            "there."
        )
    return [wanted]


def _usual(columns: list[str], names: tuple[str, ...]) -> list[str]:
    """Of several columns the one with a usual name, if only one has."""
    if len(columns) < 2:
        return columns
    found = [column for column in columns if column.lower() in names]
    return found if len(found) == 1 else columns


def _hub_type(features: dict[str, Any], column: str) -> Any:
    feature = features.get(column)
    return feature.get("_type") if isinstance(feature, dict) else None


def _shows_an_image(values: Iterable[bytes | None]) -> bool:
    for value in values:
        if value is not None:
            try:
                header_of(value)
            except BadImageError:
                continue
            return True
    return False


def _typed(schema: pa.Schema, names: list[str]) -> str:
    """Columns with their types; a type may be long."""
    return ", ".join(f"{name} ({str(schema.field(name).type)[:40]})" for name in names)
