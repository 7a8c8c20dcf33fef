"""The parts of a study as data: data sets, models, arms, rows, each checked by itself."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, Strict, field_validator

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

OF_LIBRARY = re.compile(rf"({'|'.join(LIBRARIES)}):[A-Za-z_]\w*")
"""How such an arm's kind is spelled."""

_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")

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


class StrictTable(BaseModel):
    """A table that takes its own keys alone, and never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


Side = Annotated[Whole, Field(ge=1)]


class DataSet(StrictTable):
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


class Model(StrictTable):
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


class Arm(StrictTable):
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


class Published(StrictTable):
    """A row of the paper's tables 1 to 3, as shares."""

    interval: tuple[Share, Share] = Field(description="[low, high], numbers from 0 to 1")
    test_accuracy: Share = Field(description="a number from 0 to 1")


class Row(StrictTable):
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


class Tuned(StrictTable):
    """Where values of this study were searched: as ``rankwise study tune`` writes it."""

    fingerprints: dict[str, str] = Field(description="a table of the data sets' fingerprints")
    reserve: Number = Field(description="the share of the training part searched on, or 0")
    split_seed: Whole = Field(description="a whole number")
    images: str | None = Field(
        default=None, description="the file beside tune.json that has marks of the images"
    )
