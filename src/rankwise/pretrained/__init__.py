"""Models that come with the package, each in a folder with its card.

``python benchmarks/models.py`` trains such models and writes the folders. Those of the presets
``tiny`` and ``small`` were trained before these had three blocks, and keep their former layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankwise._hub import fetched
from rankwise.estimators.models import load_model

_FOLDER = Path(__file__).parent


def names() -> tuple[str, ...]:
    """The models that `load` knows."""
    return tuple(sorted(path.parent.name for path in _FOLDER.glob("*/model.json")))


def load(name: str) -> Any:
    """A trained model that comes with the package.

    Parameters
    ----------
    name : str
        One of `names`, such as ``"mnist-small"``. Each
        has a card, ``README.md`` in its folder, with its data, command, accuracy and limits.

    Returns
    -------
    fitted classifier
        With ``predict`` and ``predict_proba`` for uint8 images of its ``image_shape_``.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> import rankwise
    >>> rankwise.load("mnist-small").image_shape_
    (28, 28)
    """
    if name not in names():
        raise ValueError(
            f"no model {name!r} comes with rankwise; it has {', '.join(names())}. "
            "from_pretrained reads a folder of your own, or a repository of the hub"
        )
    return load_model(_FOLDER / name)


def card(name: str) -> str:
    """The card of a model that comes with the package."""
    load(name)
    return (_FOLDER / name / "README.md").read_text(encoding="utf-8")


def from_pretrained(source: str | Path, *, revision: str | None = None) -> Any:
    """A model of either kind, from a folder or else from a repository of the Hugging Face hub.

    See `rankwise.QuadraticClassifier.from_pretrained`, which says what is raised.
    """
    return load_model(fetched(source, revision=revision))
