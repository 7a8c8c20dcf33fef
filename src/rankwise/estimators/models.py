"""A saved model of either kind: `QuadraticClassifier` or `VarProHead`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rankwise.errors import ModelFileError


def load_model(folder: str | Path) -> Any:
    """Read the model of a folder, whichever kind ``model.json`` says it is.

    Returns
    -------
    QuadraticClassifier or VarProHead
        Both have ``classes_``, ``image_shape_``, ``outputs``, ``predict`` and ``predict_proba``.

    Raises
    ------
    ModelFileError
        Naming the file, and what is wrong with it.
    """
    if Path(folder).is_file():
        raise ModelFileError(
            f"{folder} is a file; give the folder of a trained model (an exported file is "
            "compared with its model by 'rankwise export DIR --format … --check SOURCE')"
        )
    if is_head(Path(folder)):
        from rankwise.heads.head import load_head

        return load_head(folder)
    from rankwise.estimators.quadratic import QuadraticClassifier

    return QuadraticClassifier.load(folder)


def is_head(folder: Path) -> bool:
    """Whether a folder holds a `VarProHead`."""
    try:
        description = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the classifier's own reader says what is wrong
    return isinstance(description, dict) and description.get("format") == "rankwise-head"
