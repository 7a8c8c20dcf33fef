"""rankwise: image classification that treats an image as a matrix, not as a long vector."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rankwise._version import __version__

if TYPE_CHECKING:
    from rankwise.cluster import cluster
    from rankwise.data import ImageSet, load_images
    from rankwise.estimators.choices import (
        FixedRidge,
        GaussNewton,
        GeneralizedCrossValidation,
        Grow,
        LeaveOneOut,
        Prune,
        Refine,
        Subnetworks,
        TrainingOptions,
        UnitForm,
    )
    from rankwise.estimators.convolutional import ConvolutionalClassifier
    from rankwise.estimators.models import load_model
    from rankwise.estimators.quadratic import QuadraticClassifier
    from rankwise.heads.head import VarProHead
    from rankwise.lowrank import (
        LowRankAugmenter,
        RandomLowRank,
        low_rank_approximation,
        spectrum,
    )
    from rankwise.pretrained import from_pretrained, load
    from rankwise.varpro import VariableProjection
    from rankwise.varpro.curve_fit import curve_fit_separable
    from rankwise.varpro.regressor import SeparableRegressor

# Public names and the rooms they live in; imported when first used, so `import rankwise` is light.
_HOMES = {
    "cluster": "rankwise.cluster",
    "ImageSet": "rankwise.data",
    "load_images": "rankwise.data",
    "VarProHead": "rankwise.heads.head",
    "VariableProjection": "rankwise.varpro",
    "SeparableRegressor": "rankwise.varpro.regressor",
    "curve_fit_separable": "rankwise.varpro.curve_fit",
    "QuadraticClassifier": "rankwise.estimators.quadratic",
    "ConvolutionalClassifier": "rankwise.estimators.convolutional",
    "UnitForm": "rankwise.estimators.choices",
    "Subnetworks": "rankwise.estimators.choices",
    "TrainingOptions": "rankwise.estimators.choices",
    "LeaveOneOut": "rankwise.estimators.choices",
    "GeneralizedCrossValidation": "rankwise.estimators.choices",
    "FixedRidge": "rankwise.estimators.choices",
    "Grow": "rankwise.estimators.choices",
    "Prune": "rankwise.estimators.choices",
    "Refine": "rankwise.estimators.choices",
    "GaussNewton": "rankwise.estimators.choices",
    "load_model": "rankwise.estimators.models",
    "LowRankAugmenter": "rankwise.lowrank",
    "RandomLowRank": "rankwise.lowrank",
    "low_rank_approximation": "rankwise.lowrank",
    "spectrum": "rankwise.lowrank",
    "from_pretrained": "rankwise.pretrained",
    "load": "rankwise.pretrained",
}

__all__ = [
    "ConvolutionalClassifier",
    "FixedRidge",
    "GaussNewton",
    "GeneralizedCrossValidation",
    "Grow",
    "ImageSet",
    "LeaveOneOut",
    "LowRankAugmenter",
    "Prune",
    "QuadraticClassifier",
    "RandomLowRank",
    "Refine",
    "SeparableRegressor",
    "Subnetworks",
    "TrainingOptions",
    "UnitForm",
    "VarProHead",
    "VariableProjection",
    "__version__",
    "cluster",
    "curve_fit_separable",
    "from_pretrained",
    "load",
    "load_images",
    "load_model",
    "low_rank_approximation",
    "spectrum",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rankwise' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
