"""A saved model of any kind: a classifier of images or a `VarProHead`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankwise._files import expanded
from rankwise._model_files import built_from, check_class
from rankwise._reading import read_json
from rankwise.errors import ModelFileError


def load_model(folder: str | Path, backbone: Any = None) -> Any:
    """Read the model of a folder, whichever kind ``model.json`` says it is.

    Parameters
    ----------
    folder : path
    backbone : nn.Module, str or path, optional
        For a head that was saved without it, see `rankwise.heads.head.load_head`.

    Returns
    -------
    QuadraticClassifier, ConvolutionalClassifier or VarProHead
        All have ``classes_``, ``image_shape_``, ``outputs``, ``predict`` and ``predict_proba``.

    Raises
    ------
    ModelFileError
        Naming the file, and what is wrong with it.
    """
    folder = expanded(folder)
    if folder.is_file():
        raise ModelFileError(
            f"{folder} is a file; give the folder of a trained model (an exported file is "
            "compared with its model by 'rankwise export DIR --format … --check SOURCE')"
        )
    if is_head(folder):
        from rankwise.heads.head import load_head

        return load_head(folder, backbone)
    if backbone is not None:
        raise ValueError(f"{folder} holds no head, and only a head takes a backbone; leave it out")
    from rankwise.estimators.convolutional import ConvolutionalClassifier
    from rankwise.estimators.files import read_classifier
    from rankwise.estimators.quadratic import QuadraticClassifier

    record = read_classifier(Path(folder))
    kinds = (QuadraticClassifier, ConvolutionalClassifier)
    kind = next(kind for kind in kinds if kind.family == record.family)
    check_class(Path(folder), record.class_name, kind)
    with built_from(Path(folder)):
        return kind.from_record(record)


def is_head(folder: Path) -> bool:
    """Whether a folder holds a `VarProHead`."""
    try:
        description = read_json(folder / "model.json", error=ModelFileError)
    except ModelFileError:
        return False  # the classifier's own reader says what is wrong
    return isinstance(description, dict) and description.get("format") == "rankwise-head"
