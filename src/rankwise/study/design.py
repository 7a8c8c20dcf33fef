"""A study as data: data sets, models, arms, protocol, checked before anything runs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from rankwise.errors import RankwiseError
from rankwise.study.design_parts import (
    NETWORK_NAMES,
    Arm,
    Count,
    DataSet,
    Flag,
    Model,
    Number,
    Row,
    Share,
    StrictTable,
    Tuned,
    Whole,
)

PROTOCOLS = ("sound", "paper", "notebook")
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")

RELATIVE_ROPE = 0.1
"""Half the width of the region of practical equivalence as a share of the baseline's error, unless
a study names a width of its own: a tenth of the errors. The point of accuracy that Benavoli et al.
(JMLR 18, 2017) take for classifiers is all of the errors on MNIST and hides the paper's own effect
there, −0.29 points.
"""

ROPE = 0.005
"""The same in accuracy, where no error is known yet, and in simulations: half a point."""

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"
Name = Annotated[str, Field(pattern=_NAME)]


class StudyError(RankwiseError, ValueError):
    """A study that can't be run as it is written: where, what was found, what is accepted."""

    several_lines = True


class Study(StrictTable):
    """Everything a study is; equal studies give equal numbers.

    Attributes
    ----------
    name : str
    protocol : {"sound", "paper", "notebook"}
        See `rankwise.study.protocols`.
    data, models, arms : dict
        By name. ``models = ["simple-cnn"]`` and ``arms = ["none", "low-rank"]`` do where the name
        says it all.
    conditions : list of Row
        Which to combine. Default: every data set with its models (all, unless it names some) and
        every arm.
    factorial : list of (str, str)
        Pairs of arms that are also trained together: the arm ``A+B`` joins, and main effects and
        interaction of both are compared too.
    epochs : int
        Of conditions that name none; SVD arms train for twice as many under ``paper`` (3.4).
    folds : int
        5, as in the paper's section 3.4.
    seeds : list of int
        Of folds, copies, weights and batches. 42, as in the paper's appendix C.2.
    split_seed : int
        Of the test part and of a data set's limit, which all seeds share.
    test_fraction : float
        0.2, as in the paper's section 3.4.
    epochs_factor : float
        Multiplies the epochs of every condition; a smaller study is marked as reduced.
    batch_size : int
        128, as in the paper's appendix A.1.
    precision : {"32-true", "bf16-mixed", "16-mixed"}
        Of the networks' training, Lightning's names; the last for a GPU only. Default "32-true", as
        in the paper's section 3.2.
    retrain : bool
        Train once more on the whole training part, and test.
    degraded : {"none", "retrain", "all"}, optional
        Cells that are tested on degraded images too. Default: all under ``sound``, else those
        that re-train.
    corruptions : {"own", "imagenet-c"}
        Which degraded test images: those of `rankwise.study.degrade`, for any size, or the fifteen
        of ImageNet-C, from 32 × 32 pixels.
    rope : float, optional
        Arms whose accuracies differ by less are practically equal: 0.005 is half a point. To be
        chosen before the study runs.
    relative_rope : float
        The same as a share of the baseline's error, where `rope` isn't given; 0.1 is a tenth of
        the errors.
    patience : int, optional
        Stop each fold's training when its validation loss hasn't fallen for so many epochs: every
        arm then trains to its own plateau, with `epochs` as the most. Default: equal updates.
    reserve : float
        Share of the training part, by class and source, that no cell trains or validates on:
        ``rankwise study tune`` searches there. Default 0: it searches on the study's own images,
        and a study of the values found is marked.
    """

    name: Name = Field(default="study", description="letters, digits, _ . + -")
    protocol: Literal[PROTOCOLS] = Field(  # type: ignore[valid-type]
        "sound", description=", ".join(map(repr, PROTOCOLS))
    )
    data: dict[Name, DataSet] = Field(description="a table [data.NAME] for each data set")
    models: dict[Name, Model] = Field(
        description=f"a list of {', '.join(map(repr, NETWORK_NAMES))}, or tables [models.NAME]"
    )
    arms: dict[Name, Arm] = Field(description="a list of kinds of arms, or tables [arms.NAME]")
    conditions: tuple[Row, ...] = Field(default=(), description="tables [[conditions]]")
    factorial: tuple[tuple[str, str], ...] = Field(
        default=(), description="pairs of the study's arms, such as [['low-rank', 'blur']]"
    )
    epochs: Count = Field(default=10, description="a whole number from 1")
    folds: Whole = Field(default=5, ge=2, le=100, description="a whole number from 2 to 100")
    seeds: tuple[Annotated[Whole, Field(ge=0)], ...] = Field(
        default=(42,), min_length=1, description="a list of different whole numbers from 0"
    )
    split_seed: Whole = Field(default=42, ge=0, description="a whole number from 0")
    test_fraction: Number = Field(
        default=0.2, gt=0, le=0.5, description="a number above 0, at most 0.5"
    )
    epochs_factor: Number = Field(default=1.0, gt=0, description="a number above 0")
    batch_size: Count = Field(default=128, description="a whole number from 1")
    precision: Literal[PRECISIONS] = Field(  # type: ignore[valid-type]
        "32-true", description=", ".join(map(repr, PRECISIONS))
    )
    retrain: Flag = Field(default=True, description="true or false")
    degraded: Literal["none", "retrain", "all"] | None = Field(
        default=None, description="'none', 'retrain' or 'all'"
    )
    corruptions: Literal["own", "imagenet-c"] = Field(
        default="own", description="'own' or 'imagenet-c'"
    )
    rope: Number | None = Field(
        default=None, ge=0, lt=1, description="a share of accuracy, a number from 0, below 1"
    )
    relative_rope: Share = Field(
        default=RELATIVE_ROPE, description="a share of the baseline's error, from 0 to 1"
    )
    patience: Count | None = Field(default=None, description="a whole number of epochs from 1")
    reserve: Number = Field(default=0.0, ge=0, le=0.5, description="a number from 0 to 0.5")
    tuned: Tuned | None = Field(
        default=None, description="a table as 'rankwise study tune' writes it"
    )

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, values: Any) -> Any:
        """Lists of names become tables, and a table's name its kind where it has none."""
        if not isinstance(values, dict):
            return values
        values = dict(values)
        for table, key in (("models", "network"), ("arms", "kind")):
            given = values.get(table)
            if isinstance(given, list | tuple) and all(isinstance(n, str) for n in given):
                given = {name: {key: each} for each, name in plain_names(given).items()}
            if isinstance(given, dict):
                given = {
                    name: {key: name, **value} if isinstance(value, dict) else value
                    for name, value in given.items()
                }
            if given is not None:
                values[table] = given
        return values

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("seeds repeat")
        return value

    def to_json(self) -> dict[str, Any]:
        """Every choice as plain JSON."""
        return self.model_dump(mode="json")  # pydantic's own JSON takes no path that isn't UTF-8


def plain_names(names: Sequence[str]) -> dict[str, str]:
    """Tables' names from networks': ``timm:resnet18`` is called ``resnet18``.

    Where two would have one name, they keep their modules: ``a-make`` and ``b-make``.
    """

    def plain(name: str) -> str:
        return re.sub(r"[^A-Za-z0-9_.+-]", "-", name)

    last = {name: plain(name.removeprefix("timm:").rpartition(":")[2]) for name in names}
    alone = {name for name in names if list(last.values()).count(last[name]) == 1}
    return {name: last[name] if name in alone else plain(name) for name in names}
