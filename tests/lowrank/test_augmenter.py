"""Pre-computed copies: the same whoever makes them, with their sources, whole or absent."""

import json
import shutil
import tracemalloc
from dataclasses import replace

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lowrank.photos import digits, photo_crops
from rankwise._files import PART
from rankwise.data import ImageSet, check_no_shared_sources, hold_out_by_source, load_images
from rankwise.errors import DataError, RunError
from rankwise.lowrank import (
    LowRankAugmenter,
    NormalEnergy,
    OptionError,
    RandomLowRank,
    UniformEnergy,
    approximation_error,
    low_rank_approximation,
    psnr,
)
from rankwise.lowrank import _copies as copies_module
from rankwise.lowrank import augmenter as augmenter_module
from rankwise.lowrank import export as export_module
from rankwise.lowrank.draws import uniforms_for
from rankwise.lowrank.export import SOURCE_PATTERN, augment_files


def some_digits(count=200, **kwargs):
    images = digits()[:count]
    return ImageSet.from_arrays(images, np.arange(count) % 10, name="digits", **kwargs)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(copies_module, "_BLOCK_BYTES", 64 * 16)  # 16 digits a block


def test_copies_are_beside_their_originals_with_label_source_and_log():
    images = some_digits(source_ids=[f"s{i}" for i in range(200)])
    augmented = LowRankAugmenter(RandomLowRank(UniformEnergy(0.6, 0.9), p=0.4, seed=1)).augment(
        images
    )
    result, log = augmented.images, augmented.log
    assert len(result) == 200 + len(log)
    assert 50 < len(log) < 110
    originals = augmented.copy_of < 0
    assert sorted(result.source_ids[originals]) == sorted(images.source_ids)
    for row in range(len(result)):
        source = int(result.source_ids[row][1:])
        assert result.labels[row] == images.labels[source]
        place = augmented.copy_of[row]
        if place < 0:
            assert (result.images[row] == images.images[source]).all()
            continue
        assert log.rows[place] == source
        copy, rank = low_rank_approximation(
            images.images[source], energy=log.energies[place], return_rank=True
        )
        assert (result.images[row] == copy).all()
        assert log.ranks[place].tolist() == rank.tolist()
        assert log.errors[place] == pytest.approx(
            float(approximation_error(images.images[source], copy))
        )
        assert log.psnr[place] == pytest.approx(float(psnr(images.images[source], copy)))
    assert (np.diff(np.flatnonzero(originals)) > 1).any()  # shuffled
    apart = LowRankAugmenter(RandomLowRank(p=0.4, seed=1)).augment(images, shuffle=False)
    assert (apart.copy_of[:200] < 0).all()


def test_workers_blocks_and_order_change_nothing(small_blocks):
    images = some_digits()
    transform = RandomLowRank(NormalEnergy(0.9, 0.1), p=0.5, seed=3)
    one = LowRankAugmenter(transform).augment(images)
    two = LowRankAugmenter(transform, workers=2).augment(images)
    assert one.images.fingerprint == two.images.fingerprint
    assert (one.log.errors == two.log.errors).all()
    backwards = images.subset(np.arange(200)[::-1])
    there = LowRankAugmenter(transform).augment(backwards).log
    ours = dict(zip(one.log.source_ids, one.log.energies, strict=True))
    assert ours == dict(zip(there.source_ids, there.energies, strict=True))
    assert LowRankAugmenter(transform).augment(images, epoch=1).log.rows.tolist() != (
        one.log.rows.tolist()
    )


def test_rows_of_one_source_have_draws_of_their_own():
    images = some_digits(source_ids=["slide"] * 100 + ["other"] * 100)
    log = LowRankAugmenter(RandomLowRank(UniformEnergy(0.5, 0.9), p=1, seed=1)).augment(images).log
    assert len(set(log.energies)) == 200
    assert set(log.source_ids) == {"slide", "other"}


def test_draws_of_one_source_do_not_depend_on_its_order():
    pixels = digits()[:60].copy()
    pixels[40:] = pixels[:20]  # equal images of one source: numbered
    ids = [f"slide {i % 4}" for i in range(60)]
    images = ImageSet.from_arrays(pixels, np.arange(60) % 10, source_ids=ids)
    transform = RandomLowRank(UniformEnergy(0.5, 0.9), p=0.6, seed=1)

    def drawn(subset):
        plan = copies_module.plan_copies(subset, transform, 0)
        rows = [subset.images[row].tobytes() for row in plan.rows]
        return sorted(zip(subset.source_ids[plan.rows], rows, plan.energies, strict=True))

    first = drawn(images)
    assert 20 < len(first) < 55
    assert len({energy for *_, energy in first}) == len(first)
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(60)
        assert drawn(images.subset(order)) == first


def test_no_id_can_pass_for_another_with_a_mark():
    images = ImageSet.from_arrays(digits()[:3], [0, 1, 0], source_ids=["a", "a", "b"])
    marks = copies_module.marks_of(images)
    assert 2 not in marks
    assert marks[0] != marks[1]
    marked = uniforms_for(1, "a", 0, marks[0])
    plain = [f"a{m}" for m in ("", "#0", "#1", marks[0].hex(), "\x1f" + marks[0].hex())]
    for other in plain:
        assert (uniforms_for(1, other, 0) != marked).all()
    alone = RandomLowRank(UniformEnergy(0.5, 0.9), p=1, seed=1)  # as on the fly
    plan = copies_module.plan_copies(images, alone, 0)
    assert plan.energies[2] == alone.draw(1, ["b"])[0]


def test_ids_that_differ_by_a_line_break_are_another_set(tmp_path):
    augmenter = LowRankAugmenter(RandomLowRank(0.8, p=1, seed=1))
    pixels = digits()[:2]
    sets = [
        ImageSet.from_arrays(pixels, [0, 1], source_ids=ids)
        for ids in (["a\nb", "c"], ["a", "b\nc"])
    ]
    augmenter.augment(sets[0], cache=tmp_path)
    with pytest.raises(RunError, match="other images or with other options"):
        augmenter.augment(sets[1], cache=tmp_path)


def test_images_are_mixed_by_the_permutation_of_the_seed():
    order = LowRankAugmenter(RandomLowRank(seed=7)).order(5_000, epoch=3)
    expected = np.random.default_rng([7, 3]).permutation(5_000)
    np.testing.assert_array_equal(order, expected)


def test_no_split_separates_a_copy_from_its_source():
    augmented = LowRankAugmenter(RandomLowRank(0.8, p=0.5, seed=1)).augment(some_digits()).images
    rest, held_out = hold_out_by_source(augmented.labels, augmented.source_ids)
    check_no_shared_sources(augmented.source_ids[rest], augmented.source_ids[held_out])
    half = len(augmented) // 2
    with pytest.raises(DataError, match="share"):
        check_no_shared_sources(augmented.source_ids[:half], augmented.source_ids[half:])


def test_a_cache_is_finished_not_made_again(small_blocks, tmp_path, monkeypatch):
    images = some_digits()
    augmenter = LowRankAugmenter(RandomLowRank(0.8, p=0.5, seed=1))
    whole = augmenter.augment(images)
    real, made = copies_module._make_block, []

    def stop_at_third(options, originals):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(originals[0].tobytes())
        return real(options, originals)

    monkeypatch.setattr(copies_module, "_make_block", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        augmenter.augment(images, cache=tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2

    def count(options, originals):
        made.append(originals[0].tobytes())
        return real(options, originals)

    monkeypatch.setattr(copies_module, "_make_block", count)
    resumed = augmenter.augment(images, cache=tmp_path)
    assert resumed.images.fingerprint == whole.images.fingerprint
    assert len(made) == len(set(made)) == len(list(tmp_path.glob("*.npz")))
    augmenter.augment(images, cache=tmp_path)
    assert len(made) == len(set(made))  # nothing was made a second time
    with pytest.raises(RunError, match="other images or with other options"):
        LowRankAugmenter(RandomLowRank(0.7, p=0.5, seed=1)).augment(images, cache=tmp_path)
    block = next(tmp_path.glob("*.npz"))
    block.write_bytes(block.read_bytes()[:100])
    with pytest.raises(RunError, match="damaged"):
        augmenter.augment(images, cache=tmp_path)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("file_format", ["parquet", "folder"])
def test_files_load_with_the_hubs_tools_and_with_ours(tmp_path, colour, file_format):
    pixels = photo_crops(24) if colour else digits()[:24]
    labels = np.array(["cat", "dog"])[np.arange(24) % 2]
    images = replace(
        ImageSet.from_arrays(pixels, labels, source_ids=[f"a/{i}" for i in range(24)]),
        split="train",
    )
    out = tmp_path / "out"
    augmenter = LowRankAugmenter(RandomLowRank(0.8, p=0.5, seed=2))
    summary = augment_files(images, augmenter, out, file_format)
    total = summary["originals"] + summary["copies"]
    assert summary["originals"] == 24
    assert 0 < summary["copies"] < 24
    assert not list(out.glob(".*"))

    hub = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(hub) == total
    assert hub.features["label"].names == ["cat", "dog"]
    expected = augmenter.augment(images)
    ours = load_images(out, "all")
    assert len(ours) == total
    assert ours.class_names == ("cat", "dog")
    ids = expected.images.source_ids.tolist()
    if file_format == "folder":  # the column of the parquet file knows better than file names do
        ids = [s.replace("/", "_") for s in ids]
    assert sorted(ours.source_ids) == sorted(ids)
    assert ours.holds_copies
    assert expected.images.holds_copies
    assert not images.holds_copies
    firsts = np.unique(ours.source_ids, return_index=True)[1]
    assert not ours.subset(firsts).holds_copies
    key = lambda x: sorted(image.tobytes() for image in x)  # noqa: E731
    assert key(ours.images) == key(expected.images.images)
    train, test = load_images(out, "train"), load_images(out, "test")
    by_name = load_images(out, "train", source_pattern=SOURCE_PATTERN)
    assert len(set(by_name.source_ids)) < len(by_name)
    assert by_name.holds_copies
    check_no_shared_sources(train.source_ids, test.source_ids)

    if file_format == "parquet":
        assert sum(e is not None for e in hub["energy"]) == summary["copies"]
        for row in hub:
            if row["energy"] is not None:
                assert row["energy"] == 0.8
                assert len(row["rank"]) == (3 if colour else 1)
                assert row["error"] > 0
                assert row["psnr"] > 5
                assert row["source_id"].startswith("a/")
    else:
        log = (out / "augment-log.csv").read_text().splitlines()
        assert log[0] == "file,label,source_id,energy,rank,error,psnr"
        assert len(log) == total + 1
        assert all((out / line.split(",")[0]).is_file() for line in log[1:])

    stamp = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert augment_files(images, augmenter, out, file_format) == summary
    assert stamp == {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    with pytest.raises(RunError, match="another augmentation"):
        augment_files(images, LowRankAugmenter(RandomLowRank(0.7)), out, file_format)


def test_files_are_finished_after_a_stop(tmp_path, monkeypatch):
    images = replace(some_digits(), split="train")
    augmenter = LowRankAugmenter(RandomLowRank(0.8, p=0.5, seed=2))
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr("rankwise.lowrank.export._png", lambda pixels: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            augment_files(images, augmenter, out)
    assert not list(out.glob("*.parquet"))
    summary = augment_files(images, augmenter, out)
    assert json.loads((out / "augment.json").read_text()) == summary


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="isn't empty"):
        augment_files(some_digits(), LowRankAugmenter(), tmp_path)
    with pytest.raises(RunError, match="is a file"):
        augment_files(some_digits(), LowRankAugmenter(), tmp_path / "thesis.tex")
    with pytest.raises(OptionError, match="format must be"):
        augment_files(some_digits(), LowRankAugmenter(), tmp_path / "new", "zip")
    with pytest.raises(OptionError, match="workers"):
        LowRankAugmenter(workers=0)


def _augmented(folder, file_format):
    pixels = np.random.default_rng(0).integers(0, 256, (60, 8, 8), np.uint8)
    images = replace(
        ImageSet.from_arrays(pixels, np.arange(60) % 2, source_ids=[f"s{i}" for i in range(60)]),
        split="train",
    )
    augment_files(images, LowRankAugmenter(RandomLowRank(0.8, p=0.7, seed=2)), folder, file_format)


@pytest.mark.parametrize("file_format", ["parquet", "folder"])
def test_copies_stay_with_their_originals_wherever_the_files_go(tmp_path, file_format):
    _augmented(tmp_path / "out", file_format)
    place = tmp_path / "elsewhere"
    if file_format == "parquet":
        place.mkdir()
        for path in (tmp_path / "out").glob("*.parquet"):
            shutil.copy(path, place)
    else:
        place = tmp_path / "out" / "train"
    train, test = load_images(place, "train"), load_images(place, "test")
    assert len(np.unique(np.concatenate([train.source_ids, test.source_ids]))) == 60
    check_no_shared_sources(train.source_ids, test.source_ids)
    together = load_images(place, "all", source_pattern=r"^s(\d)")
    assert set(together.source_ids) == set("0123456789")
    with pytest.raises(DataError, match="gives an original and its copies different ids"):
        load_images(place, "train", source_pattern=r"--(\d+)")


@pytest.mark.parametrize(
    "columns", [["source_id"], ["source_id", "energy", "rank", "error", "psnr"]]
)
def test_images_written_anew_under_other_names_keep_their_sources(tmp_path, columns):
    _augmented(tmp_path / "out", "parquet")
    table = pq.read_table(next((tmp_path / "out").glob("*.parquet")))
    blobs = table.column("image").combine_chunks().field("bytes")
    names = pa.array([f"{row}.png" for row in range(len(blobs))])
    images = pa.StructArray.from_arrays([blobs, names], ["bytes", "path"])
    kept = {"image": images, "label": table.column("label")}
    kept |= {name: table.column(name) for name in columns}
    place = tmp_path / "anew"
    place.mkdir()
    pq.write_table(pa.table(kept), place / "train.parquet")
    train, test = load_images(place, "train"), load_images(place, "test")
    sources = set(train.source_ids) | set(test.source_ids)
    assert sources == {f"s{i}" for i in range(60)}
    check_no_shared_sources(train.source_ids, test.source_ids)
    assert load_images(place, "all").holds_copies
    if len(columns) == 1:  # a column may mean something else: an expression comes before it
        other = load_images(place, "all", source_pattern=r"^\d+")
        assert len(set(other.source_ids)) == len(other)
        assert not other.holds_copies
    else:
        with pytest.raises(DataError, match="or none: then the data tell"):
            load_images(place, "all", source_pattern=r"^\d+")


def test_what_a_kill_left_is_cleared_and_not_read(tmp_path):
    out = tmp_path / "out"
    copies = out / ".copies-parquet"
    copies.mkdir(parents=True)
    half = out / f"{PART}00000000-1-x1-train-00000-of-00001.parquet"
    half.write_bytes(b"PAR1 half")
    _augmented(out, "parquet")
    assert not half.exists()
    half.write_bytes(b"PAR1 half")
    assert len(load_images(out, "all")) > 60


def test_another_format_is_not_mixed_in_and_lost_data_is_named(tmp_path):
    (tmp_path / "out" / ".copies-folder").mkdir(parents=True)
    with pytest.raises(RunError, match="isn't empty and holds no augmentation; choose"):
        _augmented(tmp_path / "out", "parquet")
    _augmented(tmp_path / "new", "parquet")
    next((tmp_path / "new").glob("*.parquet")).unlink()
    with pytest.raises(
        RunError, match="has lost its train-00000-of-00001.parquet; remove it".replace(".", r"\.")
    ):
        _augmented(tmp_path / "new", "parquet")


def _peak_of_augmenting(folder, count, monkeypatch):
    """Bytes at the peak, of images on disk to files on disk; what is mapped doesn't count."""
    size = 32
    pixels = np.lib.format.open_memmap(
        folder / f"{count}.npy", "w+", np.uint8, (count, size, size, 3)
    )
    pixels[:] = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    images = replace(ImageSet.from_arrays(pixels, np.arange(count) % 2), split="train")
    monkeypatch.setattr(copies_module, "_BLOCK_BYTES", 8 * size * size * 3)
    monkeypatch.setattr(augmenter_module, "_MEMORY", 0)
    monkeypatch.setattr(export_module, "_ROW_GROUP", 8)
    augmenter = LowRankAugmenter(RandomLowRank(0.8, p=0.5, seed=2))
    tracemalloc.start()
    try:
        summary = augment_files(images, augmenter, folder / f"out-{count}")
        return tracemalloc.get_traced_memory()[1], summary["copies"]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded_by_blocks_not_by_the_data(tmp_path, monkeypatch):
    _peak_of_augmenting(tmp_path, 16, monkeypatch)  # what is imported and kept for good
    few, _ = _peak_of_augmenting(tmp_path, 100, monkeypatch)
    many, copies = _peak_of_augmenting(tmp_path, 800, monkeypatch)
    more = (700 + copies * 7 / 8) * 32 * 32 * 3
    assert many - few < more / 8, (few, many, more)


def test_a_copy_alone_in_its_block_is_the_same(monkeypatch):
    images, seen = some_digits(), []

    def approximate(images, *others):
        seen.append(len(images))
        return one_by_one(images, *others)

    one_by_one = copies_module.approximate
    monkeypatch.setattr(copies_module, "approximate", approximate)
    monkeypatch.setattr(copies_module, "_BLOCK_BYTES", 1)
    few = LowRankAugmenter(RandomLowRank(p=0.1, seed=3)).augment(images)
    monkeypatch.setattr(copies_module, "_BLOCK_BYTES", 2**20)
    assert set(seen) == {2}  # one image alone takes another path, which may round otherwise
    whole = LowRankAugmenter(RandomLowRank(p=0.1, seed=3)).augment(images)
    assert few.images.fingerprint == whole.images.fingerprint
    assert few.log.errors.tolist() == whole.log.errors.tolist()
