"""docs/studies.md: its tables are the study's own, its example can be run."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from rankwise.study import read_study
from rankwise.study.arms import check_arm
from rankwise.study.design import PROTOCOLS, Study
from rankwise.study.design_parts import (
    ARM_KINDS,
    ARM_OPTIONS,
    COPY_KINDS,
    Arm,
    DataSet,
    Model,
    Published,
    Row,
)
from rankwise.study.models import check_model
from rankwise.study.outcomes import primary_outcome
from rankwise.study.protocols import protocol_of
from rankwise.study.verdict import VERDICTS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")

TABLES = {
    "### The study": Study,
    "### `[data.NAME]`": DataSet,
    "### `[models.NAME]`": Model,
    "### `[arms.NAME]`": Arm,
    "### `[[conditions]]`": Row,
    "### `[conditions.published]`": Published,
}


def table(head, after):
    """Rows of the first table with that head after a heading."""
    text = TEXT[TEXT.index(f"\n{after}\n") :]
    lines = text[text.index(f"\n| {head} |") + 1 :].split("\n\n", 1)[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def default_of(name, field):
    if name in ("network", "kind"):  # A table's own name, where it has none.
        return "NAME"
    if field.is_required():
        return "needed"
    value = field.get_default(call_default_factory=True)
    return "–" if value is None else json.dumps(value)


@pytest.mark.parametrize(
    ("heading", "model"), TABLES.items(), ids=lambda v: getattr(v, "__name__", "")
)
def test_every_key_is_there_with_its_default_and_what_is_accepted(heading, model):
    expected = [
        [f"`{name}`", default_of(name, field), field.description]
        for name, field in model.model_fields.items()
    ]
    rows = table("key | default | accepted | what it is", heading)
    assert [row[:3] for row in rows] == expected
    for row in rows:  # A default of none says in words what then holds.
        assert row[3] or row[1] != "–"


def test_every_kind_of_arm_is_there_with_the_keys_it_takes():
    expected = {kind: ARM_OPTIONS.get(kind, set()) for kind in ARM_KINDS if "+" not in kind}
    assert {kind.removeprefix("default+") for kind in ARM_KINDS if "+" in kind} == set(COPY_KINDS)
    rows = table("kind | what it does | takes", "### `[arms.NAME]`")
    found = {row[0].strip("`"): set(re.findall(r"`(\w+)`", row[2])) for row in rows}
    assert found == expected


def test_protocols_and_verdicts_are_there():
    head = " | ".join(f"`{name}`" for name in PROTOCOLS)
    rows = {row[0]: row[1:] for row in table(f"| {head}", "## Protocols")}
    for column, name in enumerate(PROTOCOLS):
        protocol = protocol_of(name)
        assert ("source" in rows["folds"][column]) == protocol.by_source
        assert ("equal" in rows["updates"][column]) == protocol.equal_updates
        assert ("before the folds" in rows["copies"][column]) == protocol.copies_before_folds
        assert ("*and test*" in rows["re-training"][column]) == protocol.test_in_retraining
        assert ("E* epochs" in rows["re-training"][column]) == (protocol.retrain_factor != 1)
        assert rows["verdicts rest on"][column].startswith(primary_outcome(name))
        assert (rows["added arms"][column] != "none") == protocol.controls
    assert tuple(row[0] for row in table("verdict | what it says", "## The report")) == VERDICTS


def test_its_example_can_be_run(tmp_path, monkeypatch):
    (toml,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    (module,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    (tmp_path / "own_parts.py").write_text(module)
    (tmp_path / "mine.toml").write_text(toml)
    monkeypatch.syspath_prepend(str(tmp_path))
    study = read_study(tmp_path / "mine.toml")
    for shape in ((16, 16), (16, 16, 3)):
        assert check_model(study.models["mine"], shape, 3)
        for arm in study.arms.values():
            check_arm(arm, shape)
    stained = sys.modules.pop("own_parts").stained
    images = np.full((2, 4, 4), 250, np.uint8)
    assert not np.array_equal(stained(images, np.random.default_rng(0)), images)
    assert re.search(study.data["slides"].source_pattern, "S07_0012.png")[1] == "S07"
