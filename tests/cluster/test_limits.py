"""What a machine's limits do: blocks are bounded by bytes, and a lack of threads is no damage."""

import io
import os
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from rankwise import ConvolutionalClassifier, _arrays
from rankwise._arrays import PART_BYTES, OneHot, Referred, pixel_marks
from rankwise.linear.gram import accumulate_gram
from rankwise.networks.quadratic import network_features, outputs_in_blocks
from rankwise.training.augment import Augmentation, channel_statistics, with_mirrors
from rankwise.training.whitening import whitening
from rankwise.units.multilinear import make_units


class Photographs(Referred):
    """Images, square and in colour, made when they are asked for: how many, is noted."""

    def __init__(self, n, side=512):
        self.shape, self.dtype, self.asked = (n, side, side, 3), np.dtype(np.uint8), []

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, key):
        rows = np.arange(len(self))[key]
        self.asked.append(len(rows))
        images = np.zeros((len(rows), *self.shape[1:]), np.uint8)
        images[:, 0, 0, 0] = rows
        return images


def test_blocks_of_large_images_are_bounded_by_bytes():
    images = Photographs(30)
    units = make_units("symmetric", images.shape[1:])
    params = np.random.default_rng(0).normal(size=(units.n_params, 2)).astype(np.float32)
    features = network_features(units, params, images)
    codes = np.arange(len(images)) % 2
    statistics = accumulate_gram(features, OneHot.of(codes, 2))
    outputs = outputs_in_blocks(features, np.ones((3, 2), np.float32), len(images), 1024, 1, int)
    assert (statistics.n, outputs.shape) == (30, (30, 2))
    assert sum(images.asked) == 2 * len(images)
    row = 4 * 512 * 512 * 3  # bytes in floating point
    assert 1 < max(images.asked) <= PART_BYTES / row


MEGABYTE = 2**20
CENTER, SCALE = np.zeros(3, np.float32), np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("read", "bytes_a_number"),
    [
        (pixel_marks, 1),
        (channel_statistics, 8),
        (lambda images: whitening(images, CENTER, SCALE, shrink=1, side=2), 8),
        (lambda images: with_mirrors(Augmentation(), images, np.arange(len(images)) % 2, 0), 1),
    ],
    ids=["marks", "statistics", "whitening", "mirrors"],
)
def test_what_a_fit_reads_before_it_trains_is_bounded_by_bytes(monkeypatch, read, bytes_a_number):
    monkeypatch.setattr(_arrays, "PART_BYTES", MEGABYTE)
    images = Photographs(300, 64)
    read(images)
    row = bytes_a_number * 64 * 64 * 3
    assert 1 < max(images.asked) <= MEGABYTE / row


def test_averages_over_copies_read_shards_in_blocks(monkeypatch):
    x = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3), dtype=np.uint8)
    model = ConvolutionalClassifier("nano", epochs=1).fit(x, np.arange(40) % 2)
    model.set_params(tta="shifts")
    images = Photographs(600, 64)
    at_once = model.outputs(images)
    assert images.asked == [600]
    monkeypatch.setattr(_arrays, "PART_BYTES", 4 * MEGABYTE)
    images.asked.clear()
    found = model.outputs(images)
    assert 1 < max(images.asked) <= 4 * MEGABYTE / (64 * 64 * 3)
    # Mixing channels is a matrix product in float32, whose sums some processors order by its rows.
    np.testing.assert_allclose(found, at_once, rtol=1e-5, atol=1e-6)


UNDER_A_LIMIT = """
import resource, sys
import numpy.random, pyarrow.parquet, rankwise.data.arrow, rankwise.data.sharding
from rankwise.cli import main

pages = int(open("/proc/self/statm").read().split()[0])
most = pages * resource.getpagesize() + int(sys.argv.pop()) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (most, most))
main()
"""


LIBC_ENDS_IT = "cannot allocate memory for thread-local data: ABORT\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits as Linux has them")
def test_a_lack_of_threads_under_a_memory_limit_is_no_damaged_file(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, "PNG")
    images = [{"bytes": buffer.getvalue(), "path": None}] * 20
    table = pa.table({"image": images, "label": [0, 1] * 10})
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")

    def command(mebibytes):
        arguments = ["shard", tmp_path, tmp_path / "shards", "--workers", "1", mebibytes]
        return subprocess.run(
            [sys.executable, "-c", UNDER_A_LIMIT, *map(str, arguments)],
            capture_output=True, text=True, timeout=240, check=False,
            env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1"},
        )  # fmt: skip

    lacking = command(20)  # too little for pyarrow's threads; elsewhere for something before them
    if lacking.stderr.endswith(LIBC_ENDS_IT):
        assert lacking.returncode == 127  # the loader ended the process: nothing can say more
    else:
        assert lacking.returncode == 1, lacking.stderr
        assert re.match(
            "error: (the system gives no more threads or processes|not enough memory)",
            lacking.stderr,
        )
        assert lacking.stderr.count("\n") == 1
    assert "damaged" not in lacking.stderr
    assert not (tmp_path / "shards").exists()
    fine = command(4096)
    assert fine.returncode == 0, fine.stderr
