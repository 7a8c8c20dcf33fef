"""Images that energy and skip threshold were searched on, found again in any other study."""

import shutil

import numpy as np
import pytest

from rankwise.data import ImageSet, load_images
from rankwise.errors import DataError, RunError
from rankwise.study import StudyError, conditions_of, tune_study
from rankwise.study.claim import claim
from rankwise.study.cuts import test_part as part_of_tests
from rankwise.study.cuts import training_part
from rankwise.study.reading import study_from
from rankwise.study.report import write_report
from rankwise.study.results import describe_data
from rankwise.study.run import load_data
from rankwise.study.searched import refuse_searched, searched_rows, write_searched
from study.run_cases import run

QUADRATIC = {"quadratic": {"parameters": {"n_units": 4, "n_subnets": 1, "max_iter": 1}}}
RESERVED = {"reserve": 0.2}


def study(source="digits", *, limit=100, size=None, **more):
    values = {
        "data": {"digits": {"source": str(source), "limit": limit, "size": size}},
        "models": QUADRATIC,
        "arms": ["none", "low-rank"],
        "folds": 2,
        "retrain": False,
        "degraded": "none",
    }
    return study_from(values | more)


def loaded(design):
    return load_data(design, conditions_of(design))


def tuned(out, images=None, **more):
    """The table of a search of the study that has these choices."""
    design = study(**more)
    data_sets = loaded(design) if images is None else {"digits": images}
    out.mkdir(exist_ok=True)
    return {
        "fingerprints": {},
        "reserve": design.reserve,
        "split_seed": design.split_seed,
        "images": str(write_searched(design, data_sets, out)),
    }


@pytest.fixture(scope="module")
def reserved(tmp_path_factory):
    """Of a search on a fifth of the training part of 100 digits."""
    return tuned(tmp_path_factory.mktemp("search"), **RESERVED)


def test_a_reserve_too_small_to_search_on_is_one_sentence(tmp_path, capsys):
    message = (
        "^data set 'digits', its reserve: 5 folds need as many training images of any class, and "
        "there are 2; use fewer folds or more images$"
    )
    with pytest.raises(DataError, match=message):
        tune_study(study(**RESERVED), tmp_path / "out", trials=1, device="cpu")
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr() == ("", "")


def refused(design):
    with pytest.raises(StudyError) as caught:
        refuse_searched(design, loaded(design))
    return str(caught.value)


def note(design):
    images = loaded(design)["digits"]
    return describe_data(design, "digits", images, conditions_of(design))["searched"]


def test_a_search_says_which_images_it_looked_at(tmp_path):
    design = study(limit=300, **RESERVED)
    found = tune_study(design, tmp_path, trials=1, device="cpu")["tuned"]
    assert found["images"] == str(tmp_path / "searched.json")
    same = study(limit=300, **RESERVED, tuned=found)
    images = loaded(same)["digits"]
    rows = training_part(same, images, searched=True)
    np.testing.assert_array_equal(searched_rows(same, "digits", images), rows)
    assert len(rows) == 48
    refuse_searched(same, {"digits": images})
    assert note(same) is None
    # Nothing of the machine's is in it.
    assert str(tmp_path) not in (tmp_path / "searched.json").read_text()


@pytest.mark.parametrize(
    "change",
    [
        {"test_fraction": 0.4},
        {"limit": 140, "reserve": 0.0},
        {"split_seed": 7, "limit": None},
        {"size": 12, "test_fraction": 0.4},
        {"protocol": "paper", "reserve": 0.0},
    ],
)
def test_searched_images_that_judge_the_arms_are_refused(reserved, change):
    design = study(**(RESERVED | change), tuned=reserved)
    images = loaded(design)["digits"]
    before = loaded(study())["digits"]
    known = set(before.ids[training_part(study(**RESERVED), before, searched=True)].tolist())
    rows = part_of_tests(design, images)
    in_test = [name for name in images.ids[rows].tolist() if name in known]
    assert in_test or change.get("protocol") == "paper"
    message = refused(design)
    expected = f"were searched on {len(in_test)} images of the test part of 'digits', by which this"
    if not in_test:
        expected = "were searched on 16 images of the training part of 'digits', by which this"
    assert expected in message
    assert message.endswith("its data, protocol, test_fraction, split_seed and reserve")


def test_the_same_pictures_elsewhere_are_known_by_their_pixels(reserved, tmp_path):
    images = load_images("digits", "all", limit=100, seed=42)
    place = tmp_path / "other.npz"
    order = np.random.default_rng(0).permutation(100)
    np.savez(place, images=images.images[order], labels=images.labels[order])
    assert "images of the test part" in refused(study(place, limit=None, tuned=reserved))
    # Other pictures of the same source aren't.
    others = load_images("digits", "all")
    rest = ~np.isin(others.ids, images.ids)
    np.savez(place, images=others.images[rest], labels=others.labels[rest])
    design = study(place, tuned=reserved)
    refuse_searched(design, loaded(design))
    assert note(design) is None


def test_where_they_are_trained_on_the_study_says_so_at_its_top(tmp_path):
    design = study(tuned=tuned(tmp_path / "search"))
    results = run(design, tmp_path / "out")
    sentence = (
        "energy and skip threshold were searched on 80 of its 80 training images: its figures "
        "flatter them"
    )
    (data,) = results["data_sets"]
    assert data["searched"] == sentence
    assert sentence in data["notes"]
    html = write_report(tmp_path / "out").read_text(encoding="utf-8")
    banner = html.index("Tuned on its own training images.</strong> digits: energy and skip")
    assert banner < html.index('<nav aria-label="Sections">')
    # Where validation accuracy decides, the training part judges.
    assert "80 images of the training part" in refused(
        study(protocol="paper", tuned=design.tuned.model_dump())
    )


def test_another_image_of_a_searched_source_counts_as_searched(tmp_path):
    images = load_images("digits", "all", limit=100, seed=42)
    ids = np.array([f"s{i // 4}\udce9" for i in range(100)])  # of files that are no UTF-8
    grouped = ImageSet.from_arrays(images.images, images.labels, source_ids=ids)
    design = study(**RESERVED)
    table = tuned(tmp_path / "search", **RESERVED, images=grouped)
    searched = training_part(design, grouped, searched=True)
    sources = set(ids[searched].tolist())
    # Of the searched images none is there, of their sources another one each.
    others = ImageSet.from_arrays(255 - images.images, images.labels, source_ids=ids)
    rest = others.subset(np.setdiff1d(np.arange(100), searched[ids[searched] != ids[searched[0]]]))
    rows = searched_rows(study(**RESERVED, tuned=table), "digits", rest)
    assert set(rest.source_ids[rows].tolist()) == {ids[searched[0]]} < sources
    assert len(rows) == 4


def test_a_table_that_does_not_say_is_refused(reserved, tmp_path):
    old = {k: v for k, v in reserved.items() if k != "images"}
    message = refused(study(**RESERVED, tuned=old))
    assert message == (
        "the table 'tuned' has no key images, which says on what energy and skip threshold were "
        "searched; 'rankwise study tune' with the folder of the search writes it, and trains "
        "nothing anew"
    )
    path = tmp_path / "searched.json"
    design = study(**RESERVED, tuned=old | {"images": str(path)})
    assert refused(design) == (
        f"{path} can't be read: No such file or directory; tuned.images of a study names what "
        "'rankwise study tune' writes there"
    )
    for content in ("[]", '{"digits": {}}', '{"digits": {"source": "", "pixels": "AAA="}}'):
        path.write_text(content)
        assert refused(design).startswith(f"{path} is damaged: ")


def test_a_file_of_another_search_is_refused(reserved, tmp_path):
    images = loaded(study(**RESERVED))["digits"]
    path = tmp_path / "searched.json"
    path.write_text("{}")
    table = reserved | {"fingerprints": {"a": images.fingerprint}}
    refuse_searched(study(**RESERVED, tuned=table), {"digits": images})
    assert refused(study(**RESERVED, tuned=table | {"images": str(path)})) == (
        f"{path} has no image of 'digits', which the table 'tuned' says was searched on; the file "
        "that lies beside that search's tune.json is accepted"
    )


def test_a_folder_keeps_to_the_file_and_not_to_its_place(reserved, tmp_path):
    design = study(**RESERVED, tuned=reserved)
    images = loaded(design)
    first = claim(design, images, tmp_path / "out")
    moved = tmp_path / "moved.json"
    shutil.copy(reserved["images"], moved)
    elsewhere = study(**RESERVED, tuned=reserved | {"images": str(moved)})
    assert claim(elsewhere, images, tmp_path / "out") == first
    moved.write_text("{}")
    with pytest.raises(RunError, match=r"\(different: the file of tuned\.images\); choose"):
        claim(elsewhere, images, tmp_path / "out")
