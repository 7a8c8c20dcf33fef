"""The hub's layout, whatever brings it: an image column and a label column, in arrow batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankwise.data.labels import check_range, names_of, positions
from rankwise.data.reader import Block, Encoded, Index, IntArray
from rankwise.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_LABEL_NAMES = ("label", "labels", "class", "category", "target", "y")
_SOURCE = "source_id"
_COPY_LOG = {"energy", "rank", "error", "psnr"}  # beside it in what ``rankwise augment`` writes
_BLOCK = 64


class ArrowSplit(Protocol):
    """One split as batches of arrow columns."""

    n_rows: int
    schema: pa.Schema
    features: dict[str, Any]
    """The columns' types as the hub writes them, ``{"label": {"_type": "ClassLabel", …}}``."""

    def batches(
        self, columns: list[str], rows: IntArray
    ) -> Iterator[tuple[int, pa.RecordBatch | pa.Table]]:
        """Batches that hold some of `rows`, each after the number of its first row.

        A column is named, or one field of it, as in ``"image.path"``.
        """
        ...

    def describe(self, row: int) -> str:
        """The file that holds a row, and the row."""
        ...


class ArrowReader:
    """Reader of splits in arrow: an image column and a label column, found by their types."""

    def __init__(self, name: str, where: str, parts: dict[str, ArrowSplit], base: Path) -> None:
        self.name = name
        self.splits = tuple(parts)
        self._parts = parts
        self._base = base
        first = next(iter(parts.values()))
        self._image = _image_column(first, where)
        self._label = _label_column(first, where, self._image)
        for split, part in parts.items():
            if not {self._image, self._label} <= set(part.schema.names):
                raise DataError(
                    f"Split {split!r} of {where} has the columns {', '.join(part.schema.names)}; "
                    f"{self._image} and {self._label} are needed, as in {self.splits[0]!r}."
                )
        kind = first.schema.field(self._image).type
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        self._path = f"{self._image}.path" if "path" in fields else None
        self._struct = bool(fields)
        self._index = self._read_labels(where)

    def index(self, split: str) -> Index:
        """Labels, and the image column's paths (empty where null)."""
        return self._index[split]

    def read(self, split: str, rows: IntArray) -> Iterator[Block]:
        """Give the encoded images of the rows asked for."""
        import pyarrow.compute as pc

        for first, batch in self._parts[split].batches([self._image], rows):
            column = batch.column(self._image)
            data = pc.struct_field(column, "bytes") if self._struct else column
            paths = pc.struct_field(column, "path") if self._path else None
            low, high = np.searchsorted(rows, [first, first + batch.num_rows])
            local = rows[low:high] - first
            for start in range(0, len(local), _BLOCK):
                chosen = local[start : start + _BLOCK]
                images: list[Encoded] = data.take(chosen).to_pylist()
                if paths is not None and None in images:
                    images = [
                        self._by_path(image, paths[int(row)].as_py())
                        for image, row in zip(images, chosen, strict=True)
                    ]
                yield images

    def describe(self, split: str, row: int) -> str:
        """File, row, and the image's own path where it has one."""
        paths = self._index[split].paths
        own = f" ({paths[row]})" if paths is not None and paths[row] else ""
        text = self._parts[split].describe(row)
        return text[0].upper() + text[1:] + own

    def _by_path(self, image: Encoded, path: str | None) -> Encoded:
        # The hub's layout may hold a path in place of bytes, when the file lies beside it.
        if image is None and path and (self._base / path).is_file():
            return self._base / path
        return image

    def _read_labels(self, where: str) -> dict[str, Index]:
        import pyarrow as pa

        named = [part.features.get(self._label, {}).get("names") for part in self._parts.values()]
        if any(names != named[0] for names in named):
            raise DataError(f"The splits of {where} give different class names to their labels.")
        names = named[0]
        for part in self._parts.values():
            kind = part.schema.field(self._label).type
            if names is not None and not pa.types.is_integer(kind):
                raise DataError(
                    f"Column {self._label} of {where} has class names, and values of type {kind}; "
                    "integers are accepted."
                )
        raw = {split: self._columns(part) for split, part in self._parts.items()}
        known = names_of(*(values[~null] for values, null, *_ in raw.values()))
        index = {}
        for split, (values, null, empty, paths, sources) in raw.items():
            unusable = {int(row): "it holds no image (null)" for row in np.flatnonzero(empty)}
            unusable |= {int(row): "it has no label (null)" for row in np.flatnonzero(null)}
            if names is None:
                labels = np.zeros(len(values), np.int64)
                labels[~null] = positions(values[~null], known)
            else:
                labels = values
                # The hub's mark for labels that are kept back, as in a contest's test split.
                hidden = np.flatnonzero(~null & (labels == -1))
                unusable |= {int(row): "its label is hidden (-1)" for row in hidden}
                check_range(labels, names, f"split {split!r} of {where}", list(unusable))
            class_names = tuple(map(str, known if names is None else names))
            logged = set(self._parts[split].schema.names) >= _COPY_LOG
            index[split] = Index(labels, class_names, paths, unusable, sources, logged)
        return index

    def _columns(
        self, part: ArrowSplit
    ) -> tuple[
        NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], list[str] | None, list[str] | None
    ]:
        """Label values (0 or "" where null), where labels and images are null, paths, sources."""
        import pyarrow as pa
        import pyarrow.compute as pc

        text = not pa.types.is_integer(part.schema.field(self._label).type)
        labels: list[Any] = []
        null: list[bool] = []
        empty: list[bool] = []
        paths: list[str] = []
        sources: list[str] = []
        has_sources = _holds_ids(part.schema)
        # Where an image is bytes alone, only reading them would tell the nulls among them.
        columns = [self._label, *([self._path] if self._path else [])]
        columns += [_SOURCE] if has_sources else []
        for _, batch in part.batches(columns, np.arange(part.n_rows)):
            column = batch.column(self._label).cast(pa.string() if text else pa.int64())
            null += column.is_null().to_pylist()
            labels += pc.fill_null(column, "" if text else 0).to_pylist()
            if self._path:
                images = batch.column(self._image)
                empty += images.is_null().to_pylist()
                paths += pc.fill_null(pc.struct_field(images, "path"), "").to_pylist()
            if has_sources:
                ids = batch.column(_SOURCE).cast(pa.string())
                sources += pc.fill_null(ids, "").to_pylist()
        return (
            np.array(labels, dtype=str if text else np.int64),
            np.array(null, dtype=bool),
            np.array(empty, dtype=bool),
            paths if any(paths) else None,
            sources if any(sources) else None,
        )


def _holds_ids(schema: pa.Schema) -> bool:
    """Whether there is a column ``source_id`` of strings or integers."""
    import pyarrow as pa

    if _SOURCE not in schema.names:
        return False
    kind = schema.field(_SOURCE).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)
    )


def _image_column(part: ArrowSplit, where: str) -> str:
    import pyarrow as pa

    for column in part.schema.names:
        if part.features.get(column, {}).get("_type") == "Image":
            return column
    for field in part.schema:
        kind = field.type
        names = [kind.field(i).name for i in range(kind.num_fields)]
        if "bytes" in names or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
            return field.name
    raise DataError(
        f"{where} has no image column among {', '.join(part.schema.names)}; a column of the hub's "
        "type Image, a struct of bytes and path, or binary is accepted."
    )


def _label_column(part: ArrowSplit, where: str, image: str) -> str:
    import pyarrow as pa

    columns = [name for name in part.schema.names if name != image]
    # The usual names first; `sorted` keeps the file's order among the others.
    columns = sorted(
        columns, key=lambda c: _LABEL_NAMES.index(c) if c in _LABEL_NAMES else len(_LABEL_NAMES)
    )
    for column in columns:
        if part.features.get(column, {}).get("_type") == "ClassLabel":
            return column
    for column in columns:
        kind = part.schema.field(column).type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        # Strings that repeat are often stored as a dictionary of them.
        text = text or pa.types.is_dictionary(kind)
        if column in _LABEL_NAMES and (text or pa.types.is_integer(kind)):
            return column
    raise DataError(
        f"{where} has no label column among {', '.join(part.schema.names)}; a column of the hub's "
        f"type ClassLabel, or integers or strings under the name {', '.join(_LABEL_NAMES)}, is "
        "accepted."
    )
