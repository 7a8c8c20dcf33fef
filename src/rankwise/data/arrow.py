"""The hub's layout, whatever brings it: an image column and a label column, in arrow batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rankwise.data.columns import (
    SOURCE,
    holds_ids,
    image_column,
    is_label_type,
    is_text,
    label_column,
)
from rankwise.data.labels import check_range, check_text, check_twins, exact, names_of, positions
from rankwise.data.parts import in_order, part_of
from rankwise.data.reader import Block, Encoded, Index, IntArray
from rankwise.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

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

    def __init__(
        self,
        name: str,
        where: str,
        parts: dict[str, ArrowSplit],
        base: Path | None,
        image: str | None = None,
        label: str | None = None,
    ) -> None:
        import pyarrow as pa

        self.name = name
        self.own_names = canonical(list(parts))
        self._parts = {split: parts[own] for split, own in self.own_names.items()}
        self.splits = in_order(set(self._parts))
        self.notes: tuple[str, ...] = ()
        self._base = base
        first = self._parts[self.splits[0]]
        self.image_column = image_column(
            first.schema, first.features, where, _first_bytes(first), image
        )
        self._label = label_column(first.schema, first.features, where, self.image_column, label)
        for split, part in self._parts.items():
            if not {self.image_column, self._label} <= set(part.schema.names):
                raise DataError(
                    f"Split {split!r} of {where} has the columns {', '.join(part.schema.names)}; "
                    f"{self.image_column} and {self._label} are needed, as in {self.splits[0]!r}."
                )
            kind = part.schema.field(self._label).type
            if not is_label_type(kind) and not pa.types.is_null(kind):
                raise DataError(
                    f"Column {self._label} of {where} has values of type {str(kind)[:80]}; "
                    "integers or strings are accepted."
                )
        kind = first.schema.field(self.image_column).type
        fields = [kind.field(i).name for i in range(kind.num_fields)]
        paths = "path" in fields and is_text(kind.field("path").type)
        self._path = f"{self.image_column}.path" if paths else None
        self._index = self._read_labels(where)

    def index(self, split: str) -> Index:
        """Labels, and the image column's paths (empty where null)."""
        return self._index[split]

    def read(self, split: str, rows: IntArray) -> Iterator[Block]:
        """Give the encoded images of the rows asked for."""
        for first, batch in self._parts[split].batches([self.image_column], rows):
            low, high = np.searchsorted(rows, [first, first + batch.num_rows])
            column = batch.column(self.image_column)
            yield from encoded_images(column, rows[low:high] - first, self._base)

    def describe(self, split: str, row: int) -> str:
        """File, row, and the image's own path where it has one."""
        paths = self._index[split].paths
        own = f" ({paths[row]})" if paths is not None and paths[row] else ""
        text = self._parts[split].describe(row)
        return text[0].upper() + text[1:] + own

    def _read_labels(self, where: str) -> dict[str, Index]:
        import pyarrow as pa

        named = [_class_names(part, self._label, where) for part in self._parts.values()]
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
        raw = {
            split: self._columns(part, f"column {self._label}, split {split!r} of {where}")
            for split, part in self._parts.items()
        }
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
                if labels.dtype.kind == "U":
                    raise DataError(f"{where} has labels beyond its {len(names)} class names.")
                hidden = np.flatnonzero(~null & (labels == -1))
                unusable |= {int(row): "its label is hidden (-1)" for row in hidden}
                check_range(labels, names, f"split {split!r} of {where}", list(unusable))
            class_names = tuple(map(str, known if names is None else names))
            logged = set(self._parts[split].schema.names) >= _COPY_LOG
            index[split] = Index(labels, class_names, paths, unusable, sources, logged)
        check_twins(index[self.splits[0]].class_names, where)
        return index

    def _columns(
        self, part: ArrowSplit, where: str
    ) -> tuple[
        NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], list[str] | None, list[str] | None
    ]:
        """Label values (0 or "" where null), where labels and images are null, paths, sources."""
        import pyarrow as pa
        import pyarrow.compute as pc

        labels: list[Any] = []
        empty: list[bool] = []
        paths: list[str] = []
        sources: list[str] = []
        has_sources = holds_ids(part.schema)
        # Where an image is bytes alone, only reading them would tell the nulls among them.
        columns = [self._label, *([self._path] if self._path else [])]
        columns += [SOURCE] if has_sources else []
        for _, batch in part.batches(columns, np.arange(part.n_rows)):
            labels += batch.column(self._label).to_pylist()
            if self._path:
                images = batch.column(self.image_column)
                empty += images.is_null().to_pylist()
                paths += pc.fill_null(pc.struct_field(images, "path"), "").to_pylist()
            if has_sources:
                ids = batch.column(SOURCE).cast(pa.string())
                sources += pc.fill_null(ids, "").to_pylist()
        # NaN is none, and so is a name without a letter.
        null = np.array(
            [v is None or v != v or (isinstance(v, str) and not v.strip()) for v in labels],
            dtype=bool,
        )
        return (
            _kept(labels, null, where),
            null,
            np.array(empty, dtype=bool),
            paths if any(paths) else None,
            sources if any(sources) else None,
        )


def encoded_images(
    column: pa.Array | pa.ChunkedArray, rows: IntArray, base: Path | None = None
) -> Iterator[list[Encoded]]:
    """Some images of a column, in blocks: bytes, or a struct of bytes and path.

    The hub's layout may hold a path in place of bytes, when the file lies beside it, in `base`.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    struct = pa.types.is_struct(kind)
    data = pc.struct_field(column, "bytes") if struct else column
    if pa.types.is_binary_view(data.type):  # which arrow can't take rows of
        data = data.cast(pa.large_binary())
    fields = [kind.field(i).name for i in range(kind.num_fields)] if struct else []
    with_paths = base is not None and "path" in fields and is_text(kind.field("path").type)
    for start in range(0, len(rows), _BLOCK):
        chosen = rows[start : start + _BLOCK]
        images: list[Encoded] = data.take(chosen).to_pylist()
        if with_paths and None in images:
            paths = pc.struct_field(column, "path").take(chosen).to_pylist()
            images = [
                base / path if image is None and path and (base / path).is_file() else image
                for image, path in zip(images, paths, strict=True)
            ]
        yield images


def canonical(names: list[str]) -> dict[str, str]:
    """Names of splits by the part that they are: ``{"validation": "valid"}``; others as they are.

    A name that means a part which another one has or means stays as it is. What all names say
    besides, as ``mnist_train`` and ``mnist_test`` do, says nothing.
    """
    found: dict[str, str] = {}
    meant = [part_of(name) for name in names]
    if len(names) > 1 and len({part.rest if part else None for part in meant}) == 1:
        meant = [part and replace(part, rest=()) for part in meant]
    for name, part in zip(names, meant, strict=True):
        alone = sum(other is not None and other.part == part.part for other in meant) if part else 0
        found[part.part if part and not part.rest and alone == 1 else name] = name
    return found


def _kept(values: list[Any], null: NDArray[np.bool_], where: str) -> NDArray[Any]:
    """Label values of one column as int64 or text, exactly; 0 or "" where null."""
    given = [value for value, none in zip(values, null.tolist(), strict=True) if not none]
    if given and isinstance(given[0], str):
        check_text(given, where)
        return np.array(
            ["" if none else v for v, none in zip(values, null, strict=True)], dtype=str
        )
    if given and isinstance(given[0], float):
        for row, (value, none) in enumerate(zip(values, null.tolist(), strict=True)):
            if not none and not (value.is_integer() and abs(value) <= 2**53):
                raise DataError(
                    f"Label {value} of row {row} of {where} isn't an integer; integers or class "
                    "names are accepted."
                )
        values = [None if none else int(v) for v, none in zip(values, null, strict=True)]
    filled = [0 if none else value for value, none in zip(values, null.tolist(), strict=True)]
    truth = bool(given) and isinstance(given[0], bool)
    if truth:
        filled = [bool(value) for value in filled]
    large = any(not truth and abs(value) >= 2**63 for value in filled)
    return exact(np.array(filled, dtype=bool if truth else np.uint64 if large else np.int64))


def _class_names(part: ArrowSplit, label: str, where: str) -> list[str] | None:
    """What the hub's metadata call the classes."""
    feature = part.features.get(label)
    names = feature.get("names") if isinstance(feature, dict) else None
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"The hub's metadata of {where} give class names that are no list of text.")
    if len(set(names)) < len(names):
        raise DataError(f"The hub's metadata of {where} give two classes one name.")
    return names


def _first_bytes(part: ArrowSplit, rows: int = 8) -> Callable[[str], list[bytes | None]]:
    def first(column: str) -> list[bytes | None]:
        wanted = np.arange(min(rows, part.n_rows))
        values: list[Any] = []
        for first_row, batch in part.batches([column], wanted):
            values += batch.column(column).slice(0, max(0, len(wanted) - first_row)).to_pylist()
        return [value.get("bytes") if isinstance(value, dict) else value for value in values]

    return first
