"""What images are moved by: mirror images in turn, long trainings, erased squares."""

import numpy as np
import pytest
import torch

from joint_cases import training
from rankwise.networks.convolutional import as_maps
from rankwise.training.augment import Augmentation
from rankwise.training.joint_plan import LONG
from rankwise.training.steps import Clock


def test_alternating_mirror_images_show_each_image_both_ways_in_two_epochs(digits):
    images, labels = digits
    images = np.tile(np.arange(8, dtype=np.uint8) * 20, (90, 8, 1))  # brighter to the right
    seen = np.zeros((2, 90), dtype=bool)

    def note(maps, source_id, epoch):
        seen[epoch, source_id] = (maps[:, 0, 4, 2] > maps[:, 0, 4, 5]).numpy()
        return maps

    still = Augmentation(rotation=0.0, scale=0.0, shear=0.0, shift=0.0, mirror=True, alternate=True)
    run = training(images, epochs=2, augmentation=still, extra=note, batch_size=90)
    run.fit(images, labels[:90])
    assert 25 < seen[0].sum() < 65
    assert (seen[0] != seen[1]).all()


def moves_of_epochs(run, images, labels, *, update=lambda *_, **__: 1.0, **options):
    """The moves of each epoch of a training whose updates are none, but for what they take."""
    found, epoch, run.update = [], run._epoch, update
    run._epoch = lambda *given: (found.append(run.moves), epoch(*given))[1]
    run.fit(images[:120], labels[:120], **options)
    return found


@pytest.mark.parametrize("epochs", [LONG - 1, LONG])
def test_moves_of_a_long_training_are_those_of_all_its_epochs(digits, epochs):
    images, labels = digits
    usual, long = Augmentation(), Augmentation(shift=0.2, erase=0.5)
    run = training(images, epochs=epochs, augmentation=usual, long=long)
    assert moves_of_epochs(run, images, labels) == [long if epochs == LONG else usual] * epochs
    alone = training(images, epochs=epochs, augmentation=usual)
    assert moves_of_epochs(alone, images, labels) == [usual] * epochs


@pytest.mark.parametrize(("early", "late"), [(1.2, 0.8), (0.8, 1.2)])
def test_moves_change_no_more_behind_a_quarter_of_a_budget(digits, tmp_path, early, late):
    images, labels = digits
    usual, long = Augmentation(), Augmentation(shift=0.2, erase=0.5)
    passed, path = [0.0], tmp_path / "joint.safetensors"

    def begun():
        run = training(images, epochs=200, time_budget=1.0, augmentation=usual, long=long)
        run._clock = Clock(float(LONG), now=lambda: passed[0])
        return run

    def timed(*_, **__):
        passed[0] += (early if passed[0] < LONG / 4 else late) / 2  # two updates an epoch
        return 1.0

    found = moves_of_epochs(begun(), images, labels, update=timed)
    # Of epochs that take more time than a long training's at first, and less later.
    assert found[1:] == [usual if early > 1 else long] * (len(found) - 1)

    def stop(entry):
        if entry["epoch"] == LONG // 2:
            raise KeyboardInterrupt

    passed[0] = 0.0
    with pytest.raises(KeyboardInterrupt):
        moves_of_epochs(begun(), images, labels, update=timed, checkpoint=path, after_epoch=stop)
    passed[0] = 0.0
    run = begun()
    start = run._clock.start
    run._clock.start = lambda: (start(), run._clock.add(LONG / 2))
    goes_on = moves_of_epochs(run, images, labels, update=timed, checkpoint=path)
    assert set(goes_on) == {found[-1]}


@pytest.mark.parametrize(("expected", "is_long"), [(LONG - 5, False), (LONG + 5, True)])
def test_a_time_budget_is_long_by_the_time_that_epochs_take(digits, expected, is_long):
    images, labels = digits
    usual, long = Augmentation(), Augmentation(shift=0.2, erase=0.5)
    run = training(images, epochs=200, time_budget=1.0, augmentation=usual, long=long)
    passed = [0.0]

    def timed(*_, **__):
        passed[0] += 0.5  # two updates an epoch
        return 1.0

    run._clock = Clock(float(expected), now=lambda: passed[0])
    found = moves_of_epochs(run, images, labels, update=timed)
    assert len(found) == expected
    # Nothing is known before the first epoch is over.
    assert found == [usual] + [long if is_long else usual] * (expected - 1)
    # No more epochs are to be expected than are planned, whatever the time.
    few = training(images, epochs=3, time_budget=1e6, augmentation=usual, long=long)
    assert moves_of_epochs(few, images, labels) == [usual] * 3


def test_squares_are_erased_in_the_images_that_are_trained_on(digits):
    images, labels = digits
    still = {"rotation": 0.0, "scale": 0.0, "shear": 0.0, "shift": 0.0}
    seen = []

    def note(maps, source_id, epoch):
        seen.append((maps.clone(), source_id))
        return maps

    whole = Augmentation(**still, erase=0.5)
    run = training(images, epochs=1, augmentation=whole, extra=note, batch_size=90)
    run.fit(images, labels)
    maps, rows = seen[0]
    before = as_maps(images[rows])
    kept = torch.isclose(maps, before, atol=1e-5)
    # A square of 4 of 8 pixels has its centre inside, so that at least 2 × 2 lie in the image.
    grey = torch.isclose(maps, before.mean(dim=(2, 3), keepdim=True), atol=1e-5)
    assert (kept | grey).all()
    erased = (grey & ~kept).sum(dim=(1, 2, 3))
    assert erased.float().mean() > 4
    assert erased.max() <= 16
