"""Models to and from the hub, by a stand-in for it: nothing here reaches a network."""

from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import errors
from sklearn.datasets import load_digits

import rankwise
from rankwise import QuadraticClassifier, VarProHead
from rankwise._hub import CARD, fetched, model_card
from rankwise.errors import ModelFileError, RankwiseError


@pytest.fixture(scope="module")
def model():
    bunch = load_digits()
    images = (bunch.images * 255 / 16).astype(np.uint8)
    return QuadraticClassifier(n_units=20, n_subnets=1, max_iter=1).fit(images, bunch.target)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that is a folder, and what it was asked for."""
    asked = []

    class Api:
        def __init__(self, token=None):
            self.token = token

        def create_repo(self, repo_id, *, private, exist_ok):
            asked.append((repo_id, private, exist_ok, self.token))
            return SimpleNamespace(repo_id=f"me/{repo_id}")

        def upload_folder(self, *, repo_id, folder_path):
            from pathlib import Path

            place = tmp_path / "hub" / repo_id
            place.mkdir(parents=True)
            for file in Path(folder_path).iterdir():
                (place / file.name).write_bytes(file.read_bytes())
            return SimpleNamespace(commit_url=f"hub:{repo_id}")

    def snapshot(repo_id, *, revision, allow_patterns):
        asked.append((repo_id, revision, sorted(allow_patterns)))
        return str(tmp_path / "hub" / repo_id)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return SimpleNamespace(folder=tmp_path / "hub", asked=asked)


def test_there_and_back(model, hub):
    assert model.push_to_hub("digits", private=True, token="t") == "hub:me/digits"
    files = {path.name for path in (hub.folder / "me" / "digits").iterdir()}
    assert files == {"model.safetensors", "model.json", CARD}
    images = (load_digits().images[:50] * 255 / 16).astype(np.uint8)
    for read in (QuadraticClassifier.from_pretrained, rankwise.from_pretrained):
        back = read("me/digits", revision="main")
        np.testing.assert_array_equal(back.predict_proba(images), model.predict_proba(images))
    wanted = ["README.md", "model.json", "model.safetensors"]
    assert hub.asked == [("digits", True, True, "t")] + 2 * [("me/digits", "main", wanted)]
    model.push_to_hub("own", card="# Mine\n")
    assert (hub.folder / "me" / "own" / CARD).read_text() == "# Mine\n"
    model.push_to_hub("odd", card="# \udcff\n")  # a class after a folder that is no UTF-8
    assert (hub.folder / "me" / "odd" / CARD).read_text() == "# \\udcff\n"


def test_a_folder_is_read_as_it_is(model, tmp_path, monkeypatch):
    model.save(tmp_path / "m")
    assert fetched(tmp_path / "m") == tmp_path / "m"
    assert isinstance(rankwise.from_pretrained(tmp_path / "m"), QuadraticClassifier)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert fetched("~/m") == tmp_path / "m"
    with pytest.raises(ValueError, match=r"revision is for the hub, and .* is a folder here"):
        QuadraticClassifier.from_pretrained(tmp_path / "m", revision="main")
    with pytest.raises(ModelFileError, match=r"is a file; give the folder that holds model\.json"):
        rankwise.from_pretrained(tmp_path / "m" / "model.json")
    with pytest.raises(ModelFileError, match="isn't a head of rankwise"):
        VarProHead.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError("no route"), "the hub can't be reached, and its cache here doesn't hold it"),
        (errors.LocalTokenNotFoundError("x"), "log in first, by 'hf auth login'"),
    ],
)
def test_what_goes_wrong_is_one_sentence(model, monkeypatch, error, reason):
    def fails(*arguments, **more):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", fails)
    with pytest.raises(RankwiseError, match=f"there is no folder 'a/b', and none came: {reason}"):
        rankwise.from_pretrained("a/b")
    with pytest.raises(RankwiseError, match=f"'a/b' isn't on the hub now: {reason}"):
        model.push_to_hub("a/b")


def test_what_is_no_id_is_said(model):
    for call in (rankwise.from_pretrained, model.push_to_hub):
        with pytest.raises(RankwiseError, match="that is no id of a repository, which is 'name'"):
            call("a/b/c d")


def test_a_card_says_what_is_known(model):
    text = model_card(model, "me/digits")
    assert 'rankwise.QuadraticClassifier.from_pretrained("me/digits")' in text
    assert f"| parameters | {model.n_parameters_total_:,} |" in text
    assert "| images | 8 × 8 |" in text
    assert "| accuracy | not stated: measure it on images of your own |" in text
    text = model_card(model, "digits", {"accuracy": "99% | 98%"})
    assert r"| accuracy | 99% \| 98% |" in text
    assert 'rankwise.load("digits")' in text
