"""Studies of augmentations: design, run, compare, report.

The paper's experiments are presets; anyone's data, models and augmentations are a small TOML file::

    name = "do low-rank copies help on my images?"
    arms = ["none", "low-rank", "jpeg"]
    models = ["simple-cnn"]
    epochs = 10

    [data.mine]
    source = "path/to/images"

How to add …

- *an arm of copies*: a kind in `rankwise.study.design_parts.COPY_KINDS`, a branch of
  `rankwise.study.arms.make_copies`; without code it is an augmentation of a library by name, an
  Albumentations pipeline or a callable.
- *a library of augmentations*: its place in `rankwise.study.library_arms`, its name in `LIBRARIES`.
- *a corruption of test images*: a row of `rankwise.study.degrade`.
- *a protocol*: an entry in `rankwise.study.protocols`.
- *a model*: nothing to add; ``package.module:callable`` names any function that makes a network.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rankwise.study.conditions import Condition, conditions_of
    from rankwise.study.design import Study, StudyError
    from rankwise.study.design_parts import Arm, DataSet, Model
    from rankwise.study.narrowing import narrowed
    from rankwise.study.presets import PRESET_NAMES, preset
    from rankwise.study.reading import read_study
    from rankwise.study.run import run_study
    from rankwise.study.status import study_status
    from rankwise.study.tune import tune_study

_HOMES = {
    "Arm": "design_parts",
    "Condition": "conditions",
    "DataSet": "design_parts",
    "Model": "design_parts",
    "PRESET_NAMES": "presets",
    "Study": "design",
    "StudyError": "design",
    "conditions_of": "conditions",
    "narrowed": "narrowing",
    "preset": "presets",
    "read_study": "reading",
    "run_study": "run",
    "study_status": "status",
    "tune_study": "tune",
}

__all__ = [
    "PRESET_NAMES",
    "Arm",
    "Condition",
    "DataSet",
    "Model",
    "Study",
    "StudyError",
    "conditions_of",
    "narrowed",
    "preset",
    "read_study",
    "run_study",
    "study_status",
    "tune_study",
]


def __getattr__(name: str) -> Any:
    # Reading a study file needs no PyTorch; what a name's module needs is loaded when it's used.
    if name in _HOMES:
        return getattr(import_module(f"rankwise.study.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'rankwise.study' has no attribute {name!r}")
