"""The paper's tables as studies."""

import pytest

from rankwise.study import PRESET_NAMES, StudyError, conditions_of, narrowed, preset


def rows(name):
    return [
        (
            c.data_set,
            c.model,
            c.arm,
            c.options.energy if c.options.copies else None,
            c.options.skip_threshold if c.options.copies else None,
            c.epochs,
            tuple(round(100 * v, 2) for v in c.published["interval"]),
            round(100 * c.published["test_accuracy"], 2),
        )
        for c in conditions_of(preset(name))
    ]


def test_experiment_1_is_table_1():
    found = rows("experiment-1")
    assert len(found) == 8
    assert found[0] == ("mnist", "simple-cnn", "none", None, None, 10, (98.9, 99.14), 99.19)
    assert found[1] == ("mnist", "simple-cnn", "low-rank", 0.975, 0.8, 20, (98.6, 98.86), 98.7)
    assert found[3][5:] == (60, (88.58, 88.9), 90.39)
    assert found[5] == ("malaria", "resnet25", "low-rank", 0.9999, 0.8, 100, (88.07, 88.39), 95.94)
    assert found[7][:3] == ("cats-vs-dogs", "resnet25", "low-rank")
    assert found[7][5:] == (200, (85.4, 86.7), 93.98)


def test_experiments_2_and_3_are_tables_2_and_3():
    assert rows("experiment-2")[1:3] == [
        ("malaria", "resnet25", "default+low-rank", 0.9999, 0.8, 100, (92.71, 93.03), 97.44),
        ("cats-vs-dogs", "resnet25", "default", None, None, 100, (96.27, 97.05), 99.48),
    ]
    assert rows("experiment-3") == [
        ("cats-vs-dogs", "vgg16", "default", None, None, 50, (98.46, 98.88), 99.79),
        ("cats-vs-dogs", "vgg16", "default+low-rank", 0.975, 0.9, 100, (98.97, 99.29), 98.54),
    ]
    model = preset("experiment-3").models["vgg16"]
    assert (model.transfer, model.frozen_epochs, model.unfreeze) == (True, 50, 4)


@pytest.mark.parametrize("name", PRESET_NAMES)
def test_svd_rows_have_twice_the_epochs_of_their_baseline(name):
    conditions = {c.id: c for c in conditions_of(preset(name))}
    low_rank = [c for c in conditions.values() if c.options.is_svd]
    assert low_rank
    for condition in low_rank:
        assert condition.epochs == 2 * conditions[condition.baseline].epochs
    assert preset(name).protocol == "paper"
    assert preset(name).folds == 5
    assert preset(name).seeds == (42,)


def test_a_preset_under_the_sound_protocol():
    study = narrowed(preset("experiment-1"), only=["mnist"], protocol="sound")
    found = {c.arm: c for c in conditions_of(study)}
    assert list(found) == ["none", "low-rank", "duplicate"]
    assert {c.epochs for c in found.values()} == {10}
    assert found["low-rank"].published["epochs"] == 20
    study = narrowed(preset("experiment-1"), only=["mnist"], arms=["none", "jpeg"])
    assert [c.id for c in conditions_of(study)] == [
        "mnist/simple-cnn/none/10",
        "mnist/simple-cnn/jpeg/10",
    ]


def test_malaria_is_split_by_slide_and_has_no_source_of_its_own():
    import re

    data = preset("experiment-1").data["malaria"]
    assert data.source is None
    assert re.search(data.source_pattern, "C100P61ThinF_IMG_20150918_144104_cell_1.png")[1] == (
        "C100P61ThinF"
    )


def test_no_such_preset():
    with pytest.raises(StudyError, match="'experiment-4' is no preset; 'experiment-1', "):
        preset("experiment-4")
    study = preset("experiment-1")
    first = study.model_copy(update={"conditions": study.conditions[:1]})
    with pytest.raises(StudyError, match="has no condition with the data sets 'malaria'"):
        narrowed(first, only=["malaria"])
    with pytest.raises(StudyError, match="has no condition with the arms 'low-rank'"):
        narrowed(first, arms=["low-rank"])
