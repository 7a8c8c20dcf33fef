"""Outputs are whole or absent."""

import json
import os

import numpy as np
import pytest

from rankwise._files import atomic_path, write_json


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
