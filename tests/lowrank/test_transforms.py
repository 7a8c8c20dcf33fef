"""`RandomLowRank`: its draws, and its manners in pipelines that aren't ours."""

import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.utils.data import DataLoader, Dataset

from lowrank.photos import photo_crops
from rankwise._seeds import checked_seed
from rankwise.data import ImageSet
from rankwise.lowrank import (
    FixedEnergy,
    LowRankAugmenter,
    NormalEnergy,
    OptionError,
    RandomLowRank,
    UniformEnergy,
    low_rank_approximation,
)

IDS = [f"image-{i}" for i in range(4000)]


def test_defaults_are_the_papers():
    transform = RandomLowRank()
    assert transform.energy == NormalEnergy(0.975, 0.025)
    assert transform.p == pytest.approx(0.2)
    assert transform.skip_threshold == pytest.approx(0.8)


def test_draws_follow_their_laws():
    energies = RandomLowRank(p=1, seed=5).draw(4000, IDS)
    assert ((energies > 0) & (energies <= 1)).all()
    assert (energies == 1).mean() == pytest.approx(stats.norm.sf(1), abs=0.02)  # 16% exceed 1
    below = energies[energies < 1]
    law = stats.truncnorm(-np.inf, 1, loc=0.975, scale=0.025)
    assert stats.kstest(below, law.cdf).pvalue > 1e-3
    uniform = RandomLowRank(UniformEnergy(0.6, 0.7), p=1, seed=5).draw(4000, IDS)
    assert stats.kstest(uniform, stats.uniform(0.6, 0.1).cdf).pvalue > 1e-3
    assert (RandomLowRank(0.9, p=1).draw(10) == 0.9).all()
    wide = RandomLowRank(NormalEnergy(0.5, 5.0), p=1, seed=1).draw(1000)
    assert ((wide > 0) & (wide <= 1)).all()
    share = np.isnan(RandomLowRank(skip_threshold=0.8, seed=2).draw(4000, IDS)).mean()
    assert share == pytest.approx(0.8, abs=0.03)


def test_a_draw_depends_on_seed_source_and_epoch_only():
    transform = RandomLowRank(p=0.5, seed=7)
    whole = transform.draw(4000, IDS, epoch=2)
    shuffled = np.random.default_rng(0).permutation(4000)
    again = transform.draw(4000, [IDS[i] for i in shuffled], epoch=2)
    assert np.array_equal(again, whole[shuffled], equal_nan=True)
    single = np.array([RandomLowRank(p=0.5, seed=7).draw(1, [i], 2)[0] for i in IDS[:50]])
    assert np.array_equal(single, whole[:50], equal_nan=True)
    for other in (transform.draw(4000, IDS, 3), RandomLowRank(p=0.5, seed=8).draw(4000, IDS, 2)):
        assert not np.array_equal(other, whole, equal_nan=True)
        both = ~np.isnan(other) & ~np.isnan(whole) & (other < 1) & (whole < 1)
        assert abs(np.corrcoef(other[both], whole[both])[0, 1]) < 0.15


def test_an_id_that_is_no_utf_8_has_a_draw():
    transform = RandomLowRank(UniformEnergy(0.5, 0.9), p=1, seed=7)
    names = [os.fsdecode(b"a\xe9"), os.fsdecode(b"a\xe8"), "a\ud800", "aé"]
    drawn = transform.draw(4, names)
    assert len(set(drawn)) == 4
    assert drawn[3] == pytest.approx(
        0.8605917038267463, abs=1e-15
    )  # that of text stays what it was
    images = ImageSet.from_arrays(photo_crops(32)[:4], [0, 1, 0, 1], source_ids=names)
    log = LowRankAugmenter(transform).augment(images).log
    assert log.energies.tolist() == drawn.tolist()


def test_batches_and_single_images_agree():
    images = photo_crops(32)
    transform = RandomLowRank(UniformEnergy(0.5, 0.9), p=0.5, seed=3)
    ids = list(range(len(images)))
    batch = transform(images, source_id=ids, epoch=1)
    for i, image in enumerate(images):
        assert (transform(image, source_id=i, epoch=1) == batch[i]).all()
    untouched = [i for i in ids if (batch[i] == images[i]).all()]
    assert 0 < len(untouched) < len(ids)
    nested = transform(images.reshape(2, 12, 32, 32, 3), source_id=ids, epoch=1)
    assert (nested.reshape(images.shape) == batch).all()
    tensor = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    before = tensor.clone()
    assert (transform(tensor, source_id=ids, epoch=1).numpy().transpose(0, 2, 3, 1) == batch).all()
    assert torch.equal(tensor, before)


def test_its_own_generator_follows_the_seed():
    image = photo_crops(32)[0]

    def three(transform):
        return np.stack([transform(image) for _ in range(3)])

    first = three(RandomLowRank((0.4, 0.9), p=1, seed=1))
    assert (first == three(RandomLowRank((0.4, 0.9), p=1, seed=1))).all()
    assert (first != three(RandomLowRank((0.4, 0.9), p=1, seed=2))).any()
    assert (first[0] != first[1]).any()
    moved = pickle.loads(pickle.dumps(RandomLowRank((0.4, 0.9), p=1, seed=1)))
    assert (first == three(moved)).all()


class Draws(Dataset):
    def __init__(self, transform):
        self.transform = transform

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return self.transform.draw(1)


def test_workers_of_a_data_loader_draw_apart():
    dataset = Draws(RandomLowRank(UniformEnergy(0.3, 0.9), p=1, seed=4))

    def all_draws(seed):
        torch.manual_seed(seed)
        return [float(draw) for draw in DataLoader(dataset, num_workers=2)]

    first = all_draws(0)
    assert len(set(first)) == 8
    assert all_draws(0) == first
    assert not set(all_draws(1)) & set(first)


class Compose:
    """As torchvision's v2.Compose hands samples on."""

    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, *inputs):
        unpack = len(inputs) > 1
        for transform in self.transforms:
            outputs = transform(*inputs)
            inputs = outputs if unpack else (outputs,)
        return outputs


def test_inside_a_compose():
    image = torch.from_numpy(photo_crops(32)[0].transpose(2, 0, 1).copy())
    expected = low_rank_approximation(image, energy=0.7)
    pipeline = Compose([lambda *x: x if len(x) > 1 else x[0], RandomLowRank(0.7, p=1)])
    assert torch.equal(pipeline(image), expected)
    copy, label = pipeline(image, 3)
    assert torch.equal(copy, expected)
    assert label == 3
    copy, label = pipeline((image, "cat"))
    assert torch.equal(copy, expected)
    assert label == "cat"
    sample = pipeline({"image": image, "boxes": [1]})
    assert torch.equal(sample["image"], expected)
    assert sample["boxes"] == [1]
    assert RandomLowRank(0.7, p=0)(image) is image


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_pil_images(mode):
    picture = Image.fromarray(photo_crops(40)[0]).convert(mode)
    copy = RandomLowRank(0.7, p=1)(picture)
    assert (copy.mode, copy.size) == (picture.mode, picture.size)
    before, after = np.asarray(picture), np.asarray(copy)
    assert (before != after).any()
    if mode in ("LA", "RGBA"):
        assert (before[..., -1] == after[..., -1]).all()
    if mode == "RGB":
        assert (after == low_rank_approximation(before, energy=0.7)).all()


def test_pil_images_without_channels_are_refused():
    for p in (0, 1):  # whatever is drawn
        with pytest.raises(OptionError, match="mode 'P'"):
            RandomLowRank(p=p)(Image.fromarray(photo_crops(20)[0]).convert("P"))


def test_round_trip_through_plain_values():
    transform = RandomLowRank(UniformEnergy(0.7, 0.8), p=0.3, reference="notebook", seed=9)
    again = RandomLowRank(**transform.to_dict())
    assert again.to_dict() == transform.to_dict()
    assert np.array_equal(again.draw(9, IDS[:9]), transform.draw(9, IDS[:9]), equal_nan=True)


def test_p_and_skip_threshold():
    assert RandomLowRank(p=0.3).skip_threshold == pytest.approx(0.7)
    assert RandomLowRank(skip_threshold=0.9).p == pytest.approx(0.1)
    assert RandomLowRank(p=0.2, skip_threshold=0.8).p == 0.2
    with pytest.raises(OptionError, match="contradict"):
        RandomLowRank(p=0.3, skip_threshold=0.8)


@pytest.mark.parametrize(
    "arguments",
    [
        {"energy": 0},
        {"energy": 1.1},
        {"energy": (0.9, 0.8)},
        {"energy": "high"},
        {"energy": {"distribution": "cauchy"}},
        {"energy": {"distribution": "fixed"}},
        {"p": 1.5},
        {"skip_threshold": -0.1},
        {"channels": "rgb"},
        {"reference": "code"},
        {"channel_axis": "last"},
        {"channel_axis": [-1]},
    ],
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(OptionError):
        RandomLowRank(**arguments)


@pytest.mark.parametrize("law", [lambda: NormalEnergy(1.2), lambda: NormalEnergy(0.9, -1)])
def test_wrong_laws_are_refused(law):
    with pytest.raises(OptionError):
        law()


def test_ids_must_fit_the_batch():
    images = photo_crops(20, 3)
    transform = RandomLowRank(FixedEnergy(0.9), p=1)
    with pytest.raises(OptionError, match="2 source ids for 3"):
        transform(images, source_id=["a", "b"])
    with pytest.raises(OptionError, match="every image"):
        transform(images, source_id="abc")
    with pytest.raises(TypeError, match="needs an image"):
        transform()


@pytest.mark.parametrize("energy", [NormalEnergy(), UniformEnergy(0.4, 0.8), FixedEnergy(0.7)])
def test_the_ends_of_the_unit_interval_give_energies_too(energy):
    least, most = energy.of(np.array([0.0, 1.0]))
    assert 0 < least <= most <= 1
    assert np.isfinite([least, most]).all()


def test_draws_by_id_repeat_without_a_seed_too():
    first, second = RandomLowRank(p=0.5), RandomLowRank(p=0.5)
    by_id = first.draw(50, IDS[:50])
    assert np.array_equal(by_id, second.draw(50, IDS[:50]), equal_nan=True)
    assert np.array_equal(by_id, RandomLowRank(p=0.5, seed=0).draw(50, IDS[:50]), equal_nan=True)
    assert not np.array_equal(first.draw(50), second.draw(50), equal_nan=True)


@pytest.mark.parametrize("seed", [-1, 1.5, True, "7"])
def test_a_seed_that_is_none(seed):
    with pytest.raises(ValueError, match=rf"^seed is {seed!r}; a whole number from 0 is accepted$"):
        checked_seed(seed)
    if isinstance(seed, int):  # the others fail this module's own type check first
        with pytest.raises(ValueError, match="a whole number from 0"):
            RandomLowRank(seed=seed)
    assert type(checked_seed(np.int64(3))) is int
    assert checked_seed(None) is None


def test_ids_are_the_same_however_a_loader_hands_them_over():
    transform = RandomLowRank(p=0.5, seed=1)
    expected = transform.draw(9, list(range(9)))
    for ids in (np.arange(9), torch.arange(9), list(torch.arange(9)), [str(i) for i in range(9)]):
        assert np.array_equal(transform.draw(9, ids), expected, equal_nan=True)


@pytest.mark.parametrize(
    ("sample", "options", "message"),
    [
        ({"img": 1, "label": 2}, {}, "this one has the keys 'img', 'label'"),
        ({}, {}, "has its image under 'image', and this one has the keys none"),
        ([], {}, "has its image first; this one is empty"),
        (np.zeros((8, 8), np.uint8), {"source_id": ["a"]}, "one image needs one source id, not s"),
        (np.zeros((2, 8, 8, 3), np.uint8), {"source_id": 7}, "a batch needs a source id for every"),
    ],
)
def test_a_sample_without_its_image_or_id_is_one_sentence(sample, options, message):
    with pytest.raises(OptionError, match=message):
        RandomLowRank(p=1)(sample, **options)


def test_a_pair_that_holds_no_numbers():
    with pytest.raises(OptionError, match=r"^energy is a number, a pair .*, not \(0.9, 'a'\)$"):
        RandomLowRank((0.9, "a"))
    with pytest.raises(OptionError, match="0 < low ≤ high ≤ 1"):
        RandomLowRank((0.9, 0.5))
