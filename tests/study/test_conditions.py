"""From a study to its conditions, with what the command line changes."""

import pytest

from rankwise.study import StudyError, conditions_of, narrowed
from rankwise.study.reading import study_from
from study.run_cases import MINIMAL

# -- what the command line changes ----------------------------------------------------------


def test_narrowed_takes_the_given_values():
    study = study_from(MINIMAL | {"data": {"a": {}, "b": {"source": "digits"}}})
    new = narrowed(
        study,
        data={"a": "somewhere"},
        only=["a"],
        limit=50,
        size=16,
        epochs_factor=0.5,
        folds=3,
        seeds=[7],
        arms=["none", "blur"],
        protocol="notebook",
        rope=0.01,
    )
    assert list(new.data) == ["a"]
    assert (new.data["a"].source, new.data["a"].limit) == ("somewhere", 50)
    assert new.data["a"].size == 16
    assert (new.epochs_factor, new.folds, new.seeds) == (0.5, 3, (7,))
    assert (list(new.arms), new.protocol) == (["none", "blur"], "notebook")
    assert (study.rope, new.rope) == (None, 0.01)
    assert narrowed(study) == study


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["c"]}, "'c' is no data set here; 'digits' are accepted"),
        ({"data": {"c": "x"}}, "'c' is no data set here"),
        ({"arms": ["blurr"]}, "'blurr' is no arm here; 'none', 'default', 'low-rank'"),
        ({"arms": ["callable"]}, "'callable' is no arm here"),
        ({"arms": ["kornia:"]}, "'kornia:' is no arm here; "),
        ({"arms": ["pillow:Flip"]}, "'torchvision:NAME', 'kornia:NAME' are accepted"),
        ({"folds": 1}, "folds is 1; a whole number from 2 to 100 is accepted"),
        ({"limit": 3}, "data.digits.limit is 3; a number of images from 20"),
        ({"size": 0}, "data.digits.size is 0; a number of pixels, or [height, width] is accepted"),
        ({"epochs_factor": 0}, "epochs_factor is 0; a number above 0"),
        ({"protocol": "x"}, "protocol is 'x'; 'sound', 'paper', 'notebook' is accepted"),
    ],
)
def test_narrowed_refuses(options, message):
    with pytest.raises(StudyError, match=r"study: |no arm|no data set") as caught:
        narrowed(study_from(MINIMAL), **options)
    assert message in str(caught.value)


def test_kinds_of_libraries_are_added_under_their_names():
    kinds = ["none", "kornia:RandomErasing"]
    new = narrowed(study_from(MINIMAL), arms=kinds)
    assert {name: arm.kind for name, arm in new.arms.items()} == {
        "none": "none",
        "RandomErasing": "kornia:RandomErasing",
    }
    assert new.arms == study_from(MINIMAL | {"arms": kinds}).arms
    # What the study has of that kind is that arm, and another of its name stays another.
    strong = {"kind": kinds[1], "parameters": {"p": 1.0}}
    named = study_from(MINIMAL | {"arms": {"none": {}, "strong": strong}})
    assert narrowed(named, arms=kinds) == named
    taken = study_from(MINIMAL | {"arms": {"none": {}, "RandomErasing": {"kind": "blur"}}})
    found = narrowed(taken, arms=[*kinds, "RandomErasing"]).arms
    assert {name: arm.kind for name, arm in found.items()} == {
        "none": "none",
        "kornia-RandomErasing": "kornia:RandomErasing",
        "RandomErasing": "blur",
    }
    row = {"data": "digits", "model": "simple-cnn", "arm": "none"}
    rows = narrowed(study_from(MINIMAL | {"conditions": [row]}), arms=kinds).conditions
    assert [row.arm for row in rows] == ["none", "RandomErasing"]


# -- conditions -----------------------------------------------------------------------------


def by_arm(study):
    return {c.arm: c for c in conditions_of(study)}


def test_conditions_are_the_product_and_know_their_baseline():
    arms = ["none", "default", "low-rank", "default+low-rank", "duplicate", "matched"]
    found = by_arm(study_from(MINIMAL | {"arms": arms, "protocol": "paper"}))
    assert {arm: c.epochs for arm, c in found.items()} == {
        "none": 10,
        "default": 10,
        "low-rank": 20,
        "default+low-rank": 20,
        "duplicate": 10,
        "matched": 20,
    }
    none = "digits/simple-cnn/none/10"
    assert found["none"].id == none
    assert found["none"].baseline is None
    assert found["low-rank"].baseline == none
    assert found["low-rank"].control == "digits/simple-cnn/duplicate/10"
    assert found["default+low-rank"].baseline == "digits/simple-cnn/default/10"
    assert found["default+low-rank"].control is None
    assert found["duplicate"].baseline == none
    assert found["duplicate"].control is None


def test_the_sound_protocol_adds_controls_and_levels_epochs():
    values = MINIMAL | {
        "arms": {"mild": {"kind": "low-rank", "skip_threshold": 0.5}, "default+low-rank": {}}
    }
    found = by_arm(study_from(values))
    assert list(found) == [
        "none",
        "mild",
        "default+low-rank",
        "default",
        "default+duplicate",
        "duplicate",
    ]
    assert {c.epochs for c in found.values()} == {10}
    assert found["duplicate"].options.skip_threshold == 0.5
    assert found["mild"].control == found["duplicate"].id
    assert found["default+duplicate"].options.skip_threshold == 0.8
    assert found["default+low-rank"].control == found["default+duplicate"].id
    paper = by_arm(study_from(values | {"protocol": "paper"}))
    assert list(paper) == ["mild", "default+low-rank"]


def thresholds(arms, **more):
    """Arms of a study's conditions, with the skip thresholds and the arms of their controls."""
    found = conditions_of(study_from(MINIMAL | {"arms": arms} | more))
    arm_of = {c.id: c.arm for c in found}
    return {
        c.arm: (c.options.skip_threshold, arm_of.get(c.control))
        for c in found
        if c.options.copies is not None
    }


def test_every_arm_has_a_control_of_its_own_skip_threshold():
    arms = {
        "few": {"kind": "low-rank", "skip_threshold": 0.8},
        "many": {"kind": "low-rank", "skip_threshold": 0.5},
        "blur": {"skip_threshold": 0.5},
        "default+jpeg": {"skip_threshold": 0.5},
    }
    assert thresholds(arms) == {
        "few": (0.8, "duplicate"),
        "many": (0.5, "duplicate-0.5"),
        "blur": (0.5, "duplicate-0.5"),
        "default+jpeg": (0.5, "default+duplicate"),
        "default+duplicate": (0.5, None),
        "duplicate": (0.8, None),
        "duplicate-0.5": (0.5, None),
    }


def test_a_given_control_stands_for_its_own_skip_threshold_only():
    arms = {"same": {"kind": "duplicate", "skip_threshold": 0.5}, "low-rank": {}, "blur": {}}
    arms["blur"] = {"skip_threshold": 0.5}
    assert thresholds(arms) == {
        "same": (0.5, None),
        "low-rank": (0.8, "duplicate-0.8"),
        "blur": (0.5, "same"),
        "duplicate-0.8": (0.8, None),
    }
    # Where controls aren't added, an arm has that of its threshold or none.
    assert thresholds(arms, protocol="paper") == {
        "same": (0.5, None),
        "low-rank": (0.8, None),
        "blur": (0.5, "same"),
    }
    taken = {"low-rank": {}, "duplicate-0.5": {"kind": "blur", "skip_threshold": 0.5}}
    assert thresholds(taken)["duplicate-0.5"] == (0.5, "duplicate-0.5-control")


def test_rows_of_two_data_sets_have_controls_of_their_own():
    row = {"model": "simple-cnn", "arm": "low-rank"}
    rows = [
        row | {"data": "a", "skip_threshold": 0.9},
        row | {"data": "b", "skip_threshold": 0.4},
        row | {"data": "b", "arm": "blur"},
    ]
    values = {"data": {"a": {}, "b": {}}, "arms": ["low-rank", "blur"], "conditions": rows}
    found = {c.id: c for c in conditions_of(study_from(MINIMAL | values))}
    skips = {
        name: found[c.control].options.skip_threshold for name, c in found.items() if c.control
    }
    assert skips == {
        "a/simple-cnn/low-rank/10": 0.9,
        "b/simple-cnn/low-rank/10": 0.4,
        "b/simple-cnn/blur/10": 0.8,
    }
    assert found["b/simple-cnn/low-rank/10"].control == "b/simple-cnn/duplicate/10"
    assert found["b/simple-cnn/blur/10"].control == "b/simple-cnn/duplicate-0.8/10"


def test_unchanged_copies_are_there_where_an_arm_adds_copies():
    flying = {"kind": "kornia:RandomErasing"}
    for arms in (["none"], ["default", "matched"], {"erased": flying}):
        assert thresholds(arms) == {}
        assert "none" in by_arm(study_from(MINIMAL | {"arms": arms}))
    # Asked for, or with an arm that does, they are.
    assert thresholds({"erased": flying, "duplicate": {}}) == {"duplicate": (0.8, None)}
    assert thresholds({"erased": flying | {"use": "copies"}}) == {
        "erased": (0.8, "duplicate"),
        "duplicate": (0.8, None),
    }
    # What an arm of the other kind copies is copied alone, too.
    found = thresholds({"default+low-rank": {"skip_threshold": 0.3}, "none": {}})
    assert found["duplicate"] == (0.3, None)


def test_epochs_come_from_the_row_the_data_or_the_study():
    row = {"data": "digits", "model": "simple-cnn", "arm": "none"}
    rows = [row | {"epochs": 4}, row | {"arm": "low-rank", "epochs": 9}, row | {"arm": "blur"}]
    values = MINIMAL | {"arms": ["none", "low-rank", "blur"], "conditions": rows}
    paper = by_arm(study_from(values | {"protocol": "paper"}))
    assert {arm: c.epochs for arm, c in paper.items()} == {"none": 4, "low-rank": 9, "blur": 4}
    sound = by_arm(study_from(values))
    assert {c.epochs for c in sound.values()} == {4}
    short = by_arm(study_from(values | {"protocol": "paper", "epochs_factor": 0.1}))
    assert {c.epochs for c in short.values()} == {1}
    data = {"digits": {"source": "digits", "epochs": 3}}
    assert by_arm(study_from(MINIMAL | {"data": data}))["none"].epochs == 3


def test_a_condition_twice_is_refused():
    row = {"data": "digits", "model": "simple-cnn", "arm": "none"}
    with pytest.raises(StudyError, match="has the condition digits/simple-cnn/none/10 twice"):
        conditions_of(study_from(MINIMAL | {"conditions": [row, row]}))
