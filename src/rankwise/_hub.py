"""Fitted models on the Hugging Face hub: a folder of safetensors and JSON, and its card.

Reading runs nothing that a file holds. Nothing is sent or fetched unless one of these is called.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from rankwise._files import expanded
from rankwise._model_files import DESCRIPTION, WEIGHTS
from rankwise._text import spelled
from rankwise.errors import ModelFileError, RankwiseError

CARD = "README.md"

_KIND = {
    "QuadraticClassifier": "quadratic units",
    "ConvolutionalClassifier": "convolutional units",
    "VarProHead": "a last layer",
}


class _Saved(Protocol):
    """What the mixin asks of a classifier."""

    classes_: Any

    def save(self, folder: str | Path) -> None: ...

    @classmethod
    def load(cls, folder: str | Path) -> Self: ...


class OnHub:
    """``push_to_hub`` and ``from_pretrained`` for a classifier with ``save`` and ``load``."""

    def push_to_hub(
        self: _Saved,
        repo_id: str,
        *,
        card: str | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Write the fitted model and its card into a repository of the Hugging Face hub.

        Parameters
        ----------
        repo_id : str
            ``"name"`` or ``"organisation/name"``; made if it isn't there.
        card : str, optional
            Text of the card; default `model_card`.
        private : bool
            Of a repository that is made.
        token : str, optional
            Default: the one of ``hf auth login``.

        Returns
        -------
        str
            The address of the commit.

        Raises
        ------
        rankwise.errors.RankwiseError
            If the hub can't be reached, or refuses.
        """
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            self.save(folder)
            text = model_card(self, repo_id) if card is None else card
            (Path(folder) / CARD).write_text(spelled(text), encoding="utf-8")
            try:
                api = HfApi(token=token)
                repo = api.create_repo(repo_id, private=private, exist_ok=True)
                done = api.upload_folder(repo_id=repo.repo_id, folder_path=folder)
            except Exception as error:
                raise _of_the_hub(error, f"{repo_id!r} isn't on the hub now") from error
        return str(done.commit_url)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Self:
        """Read a model from a folder, or else from a repository of the Hugging Face hub.

        Parameters
        ----------
        source : str or Path
            A folder of `save` or of ``rankwise train``; else the id of a repository.
        revision : str, optional
            Branch, tag or commit of the repository.

        Raises
        ------
        rankwise.errors.ModelFileError
            If it holds no such model, or a damaged one.
        rankwise.errors.RankwiseError
            If there is no such folder, and the hub can't be reached or has no such repository.
        """
        return cls.load(fetched(source, revision=revision))  # type: ignore[attr-defined]  # of the class that this is mixed into


def fetched(source: str | Path, *, revision: str | None = None) -> Path:
    """The folder of a model: `source` itself, or a copy of a hub's repository in its cache."""
    folder = expanded(source)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision is for the hub, and {folder} is a folder here")
        return folder
    if folder.is_file():
        raise ModelFileError(f"{folder} is a file; give the folder that holds {DESCRIPTION}")
    from huggingface_hub import snapshot_download

    try:
        return Path(
            snapshot_download(
                str(source), revision=revision, allow_patterns=[WEIGHTS, DESCRIPTION, CARD]
            )
        )
    except Exception as error:
        raise _of_the_hub(error, f"there is no folder {str(source)!r}, and none came") from error


def _of_the_hub(error: Exception, what: str) -> RankwiseError:
    """One sentence for whatever went wrong between here and the hub."""
    from huggingface_hub import errors

    if isinstance(error, (errors.HFValidationError, errors.StrictDataclassError)):
        reason = "that is no id of a repository, which is 'name' or 'organisation/name'"
    elif isinstance(error, errors.LocalTokenNotFoundError):
        reason = "log in first, by 'hf auth login'"
    elif isinstance(error, errors.RepositoryNotFoundError):
        reason = "the hub has no such repository, or none that you may see"
    elif isinstance(error, errors.RevisionNotFoundError):
        reason = "the repository has no such revision"
    elif isinstance(error, errors.HfHubHTTPError) and error.response is not None:
        reason = str(error).strip().splitlines()[0]
    else:
        reason = "the hub can't be reached, and its cache here doesn't hold it"
    return RankwiseError(f"{what}: {reason}")


def model_card(model: Any, name: str, facts: Mapping[str, str] | None = None) -> str:
    """A model's card in the hub's form: what it is, how to use it, what is known of it.

    Parameters
    ----------
    model : fitted classifier
    name : str
        The heading; with a slash, the repository that the lines of use name.
    facts : mapping, optional
        More rows, such as data, command, accuracy and limits.
    """
    classes = [str(c) for c in model.classes_]
    shape = getattr(model, "image_shape_", None)
    rows = {
        "model": f"{type(model).__name__}: {_KIND.get(type(model).__name__, 'a classifier')}",
        "images": "features" if shape is None else " × ".join(map(str, shape)),
        "classes": f"{len(classes)}: {', '.join(classes[:20])}{', …' * (len(classes) > 20)}",
    }
    n = getattr(model, "n_parameters_total_", None)
    if n is not None:
        rows["parameters"] = f"{int(n):,}"
    rows |= facts or {"accuracy": "not stated: measure it on images of your own"}
    if "/" in name:
        use = f'model = rankwise.{type(model).__name__}.from_pretrained("{name}")'
    else:
        use = f'model = rankwise.load("{name}")'
    lines = "\n".join(
        f"| {key} | {value.replace('|', chr(92) + '|')} |" for key, value in rows.items()
    )
    return f"""---
library_name: rankwise
license: bsd-3-clause
pipeline_tag: image-classification
tags: [rankwise, image-classification]
---

# {name}

| | |
| --- | --- |
{lines}

```python
import rankwise

{use}
model.predict(images)  # uint8, (n, height, width[, channels]), as rankwise.load_images gives them
```

The weights are safetensors, the rest is JSON: reading them runs nothing.
"""
