"""Small image sets, written to a temporary folder in every layout that `load_images` reads."""

import gzip
import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def pixels(n=12, height=6, width=5, channels=None, seed=0):
    shape = (n, height, width) if channels is None else (n, height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(n=12, classes=3):
    return np.arange(n) % classes


def encode(image, kind="PNG", **options):
    stream = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(stream, kind, **options)
    return stream.getvalue()


def write_folder(root, images, values, names=("a", "b", "c")):
    """One sub-folder per class; file names keep the order within a class."""
    for i, (image, label) in enumerate(zip(images, values, strict=True)):
        folder = root / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"s{i // 2}_{i:03}.png").write_bytes(encode(image))
    return root


def write_parquet(
    path,
    blobs,
    values,
    names=("a", "b", "c"),
    paths=None,
    column="image",
    label="label",
    metadata=True,
    row_group_size=5,
):
    """The hub's layout: a struct of bytes and path, a ClassLabel, the features in the metadata."""
    paths = [f"s{i // 2}_{i:03}.png" for i in range(len(blobs))] if paths is None else paths
    rows = [
        None if blob is None else {"bytes": blob, "path": where}
        for blob, where in zip(blobs, paths, strict=True)
    ]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({column: pa.array(rows, kind), label: pa.array(list(values))})
    if metadata:
        features = {
            column: {"_type": "Image"},
            label: {"names": list(names), "_type": "ClassLabel"},
        }
        text = json.dumps({"info": {"features": features}})
        table = table.replace_schema_metadata({"huggingface": text})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=row_group_size)
    return path


def idx_bytes(array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, dtype=">u4").tobytes()
    return header + array.astype(np.uint8).tobytes()


def write_idx(root, images, values, split="train", packed=False):
    root.mkdir(parents=True, exist_ok=True)
    for kind, array in (("images-idx3", images), ("labels-idx1", values)):
        data = idx_bytes(np.asarray(array))
        name = f"{split}-{kind}-ubyte"
        if packed:
            (root / f"{name}.gz").write_bytes(gzip.compress(data))
        else:
            (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="session")
def make():
    """Makers of pixels, labels, image files, and of whole sources."""
    return SimpleNamespace(
        pixels=pixels,
        labels=labels,
        encode=encode,
        folder=write_folder,
        parquet=write_parquet,
        idx=write_idx,
        idx_bytes=idx_bytes,
    )
