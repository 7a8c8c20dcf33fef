"""Outputs are whole or absent."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from rankwise._files import atomic_path, expanded, json_text, write_json


def test_a_whole_file_with_the_usual_mode(tmp_path):
    from safetensors.numpy import save_file

    plain = tmp_path / "plain"
    plain.write_text("x")
    with atomic_path(tmp_path / "new" / "model.safetensors") as temporary:
        save_file({"a": np.ones(3)}, temporary)
        assert not (tmp_path / "new" / "model.safetensors").exists()
    written = tmp_path / "new" / "model.safetensors"
    assert written.stat().st_mode == plain.stat().st_mode
    assert os.listdir(tmp_path / "new") == ["model.safetensors"]


def test_an_interruption_leaves_what_was_there(tmp_path):
    target = tmp_path / "report.json"
    target.write_text("old")

    def interrupted():
        with atomic_path(target) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.json"]


def test_numpy_scalars_are_numbers(tmp_path):
    write_json(tmp_path / "x.json", {"n": np.int64(3), "a": np.float32(0.5)})
    assert json.loads((tmp_path / "x.json").read_text()) == {"n": 3, "a": 0.5}


def test_what_json_has_no_number_for_is_null(tmp_path):
    values = {"a": [float("nan"), (np.float32(np.inf), 1.5)], "b": np.float64(-np.inf)}
    write_json(tmp_path / "x.json", values)
    text = (tmp_path / "x.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": [None, [None, 1.5]], "b": None}
    assert json_text(values) == '{"a": [null, [null, 1.5]], "b": null}'


@pytest.mark.skipif(os.name == "nt", reason="limits of a process are POSIX")
def test_no_room_names_the_file_that_was_asked_for(tmp_path):
    """Whatever the library that writes says of it, and what was there stays."""
    import resource

    from safetensors.numpy import save_file

    def as_json(path):
        write_json(path, ["x" * 1000] * 100)

    def as_tensors(path):
        with atomic_path(path) as temporary:
            save_file({"a": np.ones(10_000)}, temporary)

    def as_array(path):
        with atomic_path(path) as temporary:
            np.save(temporary, np.ones(10_000))

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in (as_json, as_tensors, as_array):
        path = tmp_path / f"{write.__name__}.npy"
        path.write_text("old")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            with pytest.raises(OSError) as caught:
                write(path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert caught.value.filename == str(path)
        assert caught.value.strerror
        assert path.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 3


def test_other_errors_pass_as_they_are(tmp_path):
    with pytest.raises(ValueError, match="3 requested and 2 written"), atomic_path(tmp_path / "x"):
        raise ValueError("3 requested and 2 written")


def test_the_home_of_nobody_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/x") == Path("/home/me/x")
    assert expanded(Path("~nosuchuser/x")) == Path("~nosuchuser/x")


def test_no_file_asks_for_a_home_otherwise():
    files = list((Path(__file__).parents[1] / "src/rankwise").rglob("*.py"))
    assert len(files) > 100
    assert [path for path in files if ".expanduser()" in path.read_text(encoding="utf-8")] == []
