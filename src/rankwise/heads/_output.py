"""What `VarProHead` becomes: figures of the solved layer, modules of torch, a graph, files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn.utils import skip_init

from rankwise.heads.backbones import Backbone, as_backbone
from rankwise.heads.missing import missing_backbone
from rankwise.linear.class_ridge import HeadSolution


class HeadOutput(ABC):
    """The part of `VarProHead` that hands its layer on."""

    @abstractmethod
    def _solution(self) -> HeadSolution:
        """The layer that was solved."""

    @abstractmethod
    def _rank_and_condition(self) -> tuple[int, float]:
        """Of the features, worked out where no fit needed them."""

    @abstractmethod
    def _backbone(self) -> Backbone | None:
        """What the head was fitted on, if it was a network."""

    def to_linear(self, *, calibrated: bool = False) -> nn.Linear:
        """The layer as a plain float32 `nn.Linear` from features to outputs.

        Parameters
        ----------
        calibrated : bool, default=False
            Divide by the temperature, so that a softmax of its outputs is `predict_proba`.
        """
        check_is_fitted(self)
        solved = self._solution()
        divisor = solved.temperature if calibrated else 1.0
        k, d = solved.coef.shape
        linear: nn.Linear = skip_init(nn.Linear, d, k)  # type: ignore[assignment]  # a Module to it
        with torch.no_grad():
            linear.weight.copy_(torch.as_tensor(solved.coef / divisor))
            linear.bias.copy_(torch.as_tensor(solved.intercept / divisor))
        return linear

    def attach(
        self, backbone: nn.Module | None = None, *, calibrated: bool = False
    ) -> nn.Sequential:
        """Backbone and head as one module: images ``(n, C, H, W)`` in [-1, 1] to outputs.

        Parameters
        ----------
        backbone : nn.Module, optional
            Default: the head's own.
        calibrated : bool, default=False
            As in `to_linear`.
        """
        found = self._backbone() if backbone is None else as_backbone(backbone)
        if found is None:
            lacks = missing_backbone(self) or "there is no backbone to attach the head to"
            raise ValueError(f"{lacks}; attach(backbone) takes one, too")
        return nn.Sequential(found, self.to_linear(calibrated=calibrated)).eval()

    def as_graph(self) -> Any:
        """Backbone and head as a `rankwise.networks.graph.Graph`, for ``rankwise export``."""
        from rankwise.heads.graph import graph_of_head

        check_is_fitted(self)
        return graph_of_head(self)

    def as_onnx(self, metadata: dict[str, str], batch: int | None = None) -> bytes:
        """Preparation, backbone and calibrated head as one ONNX file; ``rankwise export`` asks.

        Raises
        ------
        ValueError
            If there is no backbone or image shape, or a layer has no counterpart in ONNX.
        """
        from rankwise.heads.runtime import classifier_model

        check_is_fitted(self)
        backbone, shape = self._backbone(), getattr(self, "image_shape_", None)
        if backbone is None or shape is None:
            lacks = missing_backbone(self) or "the head was fitted on features, not on images"
            raise ValueError(f"nothing can be exported: {lacks}")
        solved = self._solution()
        return classifier_model(
            backbone,
            tuple(shape),
            solved.coef / solved.temperature,
            solved.intercept / solved.temperature,
            metadata,
            batch,
        )

    @property
    def n_parameters_total_(self) -> int:
        """Weights of the backbone, its own head left out, and of the layer."""
        solved, backbone = self._solution(), self._backbone()
        own = solved.coef.size + solved.intercept.size
        if backbone is None:
            return own
        left_out = getattr(backbone.network, "head", None)
        total = sum(p.numel() for p in backbone.network.parameters())
        unused = 0 if left_out is None else sum(p.numel() for p in left_out.parameters())
        return own + total - unused

    # -- the solved layer ----------------------------------------------------------------------

    @property
    def coef_(self) -> np.ndarray:
        """Coefficients of the features as they are."""
        return self._solution().coef

    @property
    def intercept_(self) -> np.ndarray:
        """Outputs where all features are zero."""
        return self._solution().intercept

    @property
    def alpha_(self) -> float:
        """Ridge in use."""
        return self._solution().ridge

    @property
    def chosen_by_(self) -> str:
        """How the ridge was chosen."""
        return self._solution().chosen_by

    @property
    def loss_(self) -> str:
        """Loss of the layer in use."""
        return self._solution().loss

    @property
    def n_passes_(self) -> int:
        """Looks at the samples in all, of a logistic loss; 0 for the squared one: one or two."""
        return self._solution().n_passes

    @property
    def criterion_(self) -> list[tuple[float, float]]:
        """Ridges and their errors."""
        return self._solution().criterion

    @property
    def temperature_(self) -> float:
        """Divisor of the outputs in the softmax."""
        return self._solution().temperature

    @property
    def rank_(self) -> int:
        """Directions used."""
        return self._rank_and_condition()[0]

    @property
    def condition_(self) -> float:
        """Condition number of the features."""
        return self._rank_and_condition()[1]
