"""A study as data: data sets, models, arms, protocol, checked before anything runs."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator, model_validator

from rankwise.errors import RankwiseError

COPY_KINDS = ("low-rank", "duplicate", "jpeg", "downscale", "blur")
"""Arms that put changed copies of some training images beside them."""

ARM_KINDS = (
    "none",
    "default",
    *COPY_KINDS,
    *(f"default+{kind}" for kind in COPY_KINDS),
    "matched",
    "albumentations",
    "callable",
)
LIBRARIES = ("albumentations", "torchvision", "kornia")
"""Whose augmentations are arms by name, such as ``kornia:RandomBoxBlur``."""

NETWORK_NAMES = ("simple-cnn", "resnet25", "vgg16", "quadratic", "backbone")
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

OF_LIBRARY = re.compile(rf"({'|'.join(LIBRARIES)}):[A-Za-z_]\w*")
"""How such an arm's kind is spelled."""

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$"

ARM_OPTIONS = {
    "low-rank": {"energy", "energy_std", "skip_threshold", "reference"},
    "duplicate": {"skip_threshold"},
    "jpeg": {"skip_threshold", "severity"},
    "downscale": {"skip_threshold", "severity"},
    "blur": {"skip_threshold", "severity"},
    "matched": {"skip_threshold"},
    "albumentations": {"pipeline", "use", "skip_threshold"},
    "callable": {"function", "use", "skip_threshold"},
    "library:NAME": {"parameters", "use", "skip_threshold"},
}
"""What each kind of arm reads beside `kind`."""

ROW_OPTIONS = ("energy", "energy_std", "skip_threshold")
"""What a row may set in place of its arm."""

_TRAINED = {"optimizer", "learning_rate", "output"}
MODEL_OPTIONS = {
    "simple-cnn": {"dropout", *_TRAINED},
    "resnet25": {"dropout", *_TRAINED},
    "vgg16": {"dropout", "weights", "transfer", *_TRAINED},
    "backbone": {"dropout", "backbone", "transfer", *_TRAINED},
    "quadratic": {"parameters"},
}
"""What each network reads beside `network`; any other network reads `OWN_OPTIONS`."""

OWN_OPTIONS = {"parameters", "transfer", *_TRAINED}
TRANSFER_OPTIONS = {"dropout", "frozen_epochs", "frozen_stage", "unfreeze"}
"""What is read beside that where a backbone is fine-tuned."""

# Values of their very type: "128" and 128.0 are no whole numbers, "yes" isn't true, true isn't 1.
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Flag = Annotated[bool, Strict()]
# The description of a field is what an error message says is accepted.
Share = Annotated[Number, Field(ge=0, le=1, description="a number from 0 to 1")]
Count = Annotated[Whole, Field(ge=1, description="a whole number from 1")]
Name = Annotated[str, Field(pattern=_NAME)]


class StudyError(RankwiseError, ValueError):
    """A study that can't be run as it is written: where, what was found, what is accepted."""

    several_lines = True


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


Side = Annotated[Whole, Field(ge=1)]


class DataSet(_Strict):
    """A source of images, as `rankwise.load_images` reads it.

    All its splits are read, one after another, and the protocol cuts off its test part: the
    paper's 80–20 split is of MNIST's 70,000 images (Table 1), not of its official parts.
    """

    source: str | None = Field(
        default=None,
        description="'digits', a hub id, a folder or an .npz file, or nothing with --data",
    )
    size: Side | tuple[Side, Side] | None = Field(
        default=None, description="a number of pixels, or [height, width]"
    )
    grey: Flag = Field(default=False, description="true or false")
    source_pattern: str | None = Field(
        default=None,
        description="a regular expression on file names, its first group the source id",
    )
    limit: Whole | None = Field(default=None, ge=20, description="a number of images from 20")
    on_error: Literal["raise", "skip"] = Field(default="raise", description="'raise' or 'skip'")
    models: tuple[str, ...] | None = Field(default=None, description="names of the study's models")
    epochs: Count | None = Field(default=None, description="a whole number from 1")

    @field_validator("source_pattern")
    @classmethod
    def _is_an_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(str(error)) from error
        return value


class Model(_Strict):
    """A network, and how it's trained.

    ``transfer`` is the paper's appendix B.1: with all but the head frozen for `frozen_epochs`,
    then with the topmost `unfreeze` layers at RMSprop's 1e-5 for the condition's epochs. Network
    ``"backbone"`` is a pre-trained `backbone` under a new head, and always trained that way.
    ``frozen_stage = "closed-form"`` solves the new head in one pass (`rankwise.VarProHead`) in
    place of the frozen epochs; with ``unfreeze = 0`` that is all, and nothing is fine-tuned.
    """

    network: str = Field(
        description=f"{', '.join(map(repr, NETWORK_NAMES))}, 'timm:NAME', or 'package.module:name'"
    )
    weights: str | None = Field(default=None, description="a safetensors file or a hub id")
    backbone: str | None = Field(
        default=None,
        description="what rankwise.heads.backbones.load_backbone reads: a file, a library's model",
    )
    transfer: Flag = Field(default=False, description="true or false")
    frozen_epochs: Count = Field(default=50, description="a whole number from 1")
    frozen_stage: Literal["epochs", "closed-form"] = Field(
        default="epochs", description="'epochs' or 'closed-form'"
    )
    unfreeze: Whole = Field(default=4, ge=0, description="a whole number of layers from 0")
    dropout: Number = Field(default=0.5, ge=0, lt=1, description="a number from 0, below 1")
    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] | None = Field(
        default=None, description="'adam', 'adamw', 'rmsprop' or 'sgd'"
    )
    learning_rate: Number | None = Field(default=None, gt=0, description="a number above 0")
    output: Literal["softmax", "varpro"] = Field(
        default="softmax", description="'softmax' or 'varpro'"
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="a table of the network's own arguments"
    )

    @field_validator("network")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in NETWORK_NAMES or value.startswith("timm:") or _FUNCTION.fullmatch(value):
            return value
        raise ValueError("unknown network")

    @property
    def is_quadratic(self) -> bool:
        """Whether this is the `QuadraticClassifier`, which has no epochs."""
        return self.network == "quadratic"

    @property
    def is_head_alone(self) -> bool:
        """Whether a frozen backbone's new head is solved in one pass, and nothing else trained."""
        return self.is_transfer and self.frozen_stage == "closed-form" and self.unfreeze == 0

    @property
    def in_one_pass(self) -> bool:
        """Whether it has no epochs, and so sees no batches that an arm could change."""
        return self.is_quadratic or self.is_head_alone

    @property
    def is_transfer(self) -> bool:
        """Whether it's trained with a frozen backbone first (appendix B.1)."""
        return self.transfer or self.network == "backbone"


class Arm(_Strict):
    """An augmentation of the training images."""

    kind: str = Field(
        description=", ".join(map(repr, (*ARM_KINDS, *(f"{name}:NAME" for name in LIBRARIES))))
    )
    energy: Number = Field(default=0.975, gt=0, le=1, description="a number above 0, at most 1")
    energy_std: Number = Field(default=0.025, ge=0, description="a number from 0")
    skip_threshold: Share = Field(
        default=0.8, description="the share of images that get no copy, a number from 0 to 1"
    )
    reference: Literal["paper", "notebook"] = Field(
        default="paper", description="'paper' or 'notebook'"
    )
    severity: Whole = Field(default=3, ge=1, le=5, description="a whole number from 1 to 5")
    pipeline: str | dict[str, Any] | None = Field(
        default=None,
        description="a JSON file that A.save wrote, or a table as A.to_dict has it",
    )
    function: str | None = Field(default=None, description="'package.module:name'")
    use: Literal["fly", "copies"] = Field(default="fly", description="'fly' or 'copies'")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="a table of the augmentation's own arguments"
    )

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        if value in ARM_KINDS or OF_LIBRARY.fullmatch(value):
            return value
        raise ValueError("unknown kind")

    @field_validator("function")
    @classmethod
    def _spelled(cls, value: str | None) -> str | None:
        if value is not None and not _FUNCTION.fullmatch(value):
            raise ValueError("not a function's place")
        return value

    @property
    def with_default(self) -> bool:
        """Whether batches are flipped, rotated and zoomed while training (paper 4.2)."""
        return self.kind.startswith("default")

    @property
    def copies(self) -> str | None:
        """What makes its copies, None for an arm without."""
        if self.is_foreign:
            return self.kind if self.use == "copies" else None
        kind = self.kind.removeprefix("default+")
        return kind if kind in COPY_KINDS else None

    @property
    def library(self) -> str | None:
        """The library that it is an augmentation of by name."""
        return self.kind.partition(":")[0] if ":" in self.kind else None

    @property
    def is_foreign(self) -> bool:
        """Whether somebody else's code changes the images."""
        return self.library is not None or self.kind in ("albumentations", "callable")

    @property
    def in_batches(self) -> bool:
        """Whether it changes batches while a network is trained."""
        return self.with_default or (self.is_foreign and self.use == "fly")

    @property
    def is_svd(self) -> bool:
        """Whether it's the paper's own: such arms train for twice the epochs there (3.4)."""
        return self.copies == "low-rank"


class Both(Arm):
    """Two arms at once, as `Study.factorial` asks for them: no arm of a study file.

    Copies of both are there, and batches are changed by the first and then by the second.
    """

    kind: str = "both"
    parts: tuple[Arm, Arm]

    @field_validator("kind")
    @classmethod
    def _known(cls, value: str) -> str:
        return value

    @property
    def copies(self) -> str | None:
        """``"both"`` where one of the two makes copies."""
        return "both" if any(part.copies for part in self.parts) else None

    @property
    def in_batches(self) -> bool:
        """Whether one of the two does."""
        return any(part.in_batches for part in self.parts)


class Published(_Strict):
    """A row of the paper's tables 1 to 3, as shares."""

    interval: tuple[Share, Share] = Field(description="[low, high], numbers from 0 to 1")
    test_accuracy: Share = Field(description="a number from 0 to 1")


class Row(_Strict):
    """One condition by name; what it sets takes the place of the arm's and the study's."""

    data: str = Field(description="the name of a data set of this study")
    model: str = Field(description="the name of a model of this study")
    arm: str = Field(description="the name of an arm of this study")
    epochs: Count | None = Field(default=None, description="a whole number from 1")
    energy: Number | None = Field(
        default=None, gt=0, le=1, description="a number above 0, at most 1"
    )
    energy_std: Number | None = Field(default=None, ge=0, description="a number from 0")
    skip_threshold: Share | None = Field(default=None, description="a number from 0 to 1")
    published: Published | None = Field(
        default=None, description="a table of interval and test_accuracy"
    )


class Tuned(_Strict):
    """Where values of this study were searched: as ``rankwise study tune`` writes it."""

    fingerprints: dict[str, str] = Field(description="a table of the data sets' fingerprints")
    reserve: Number = Field(description="the share of the training part searched on, or 0")
    split_seed: Whole = Field(description="a whole number")
    images: str | None = Field(
        default=None, description="the file beside tune.json that has marks of the images"
    )


class Study(_Strict):
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
        return json.loads(self.model_dump_json())


def plain_names(names: Sequence[str]) -> dict[str, str]:
    """Tables' names from networks': ``timm:resnet18`` is called ``resnet18``.

    Where two would have one name, they keep their modules: ``a-make`` and ``b-make``.
    """

    def plain(name: str) -> str:
        return re.sub(r"[^A-Za-z0-9_.+-]", "-", name)

    last = {name: plain(name.removeprefix("timm:").rpartition(":")[2]) for name in names}
    alone = {name for name in names if list(last.values()).count(last[name]) == 1}
    return {name: last[name] if name in alone else plain(name) for name in names}
