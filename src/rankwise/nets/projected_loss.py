"""Training with the last layer projected out: variable projection for any network with features.

With features ``Φ(θ)`` of a mini-batch (a constant column last), one-hot targets ``τ`` and carried
statistics ``G₀, B₀, t₀`` of earlier batches, weight ``n₀``, the functional is

``F(θ) = min_A ½‖τ − ΦA‖² + ½(tr AᵀG₀A − 2 tr AᵀB₀ + t₀) + ½μ(n + n₀)‖A‖²`` over ``n + n₀``;

without statistics this is ``½‖P⊥τ‖²/n`` of the ridge-augmented ``Φ``. The minimum is a closed
form, ``A = (ΦᵀΦ + G₀ + μ(n + n₀)I)⁻¹(Φᵀτ + B₀)``, by one Cholesky in float64. Since ``∂F/∂A = 0``
there (the envelope theorem), the gradient of ``F`` in ``θ`` is that of ``½‖τ − ΦA‖²`` with ``A``
held still: exact, and no cheaper to get in another way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from rankwise.linear.class_ridge import RidgeFamily, modelled_temperature
from rankwise.linear.design import design
from rankwise.linear.running import solve_layer, with_constant
from rankwise.linear.statistics import block_statistics
from rankwise.nets.losses import Batch, CrossEntropyLoss, Loss


def head_of(model: nn.Module) -> nn.Linear:
    """The last linear layer: ``model.head``, or that of an `nn.Sequential` that ends in one.

    Raises
    ------
    ValueError
        If there is none, or it has no bias.
    """
    head: Any
    if isinstance(model, nn.Sequential) and len(model):
        head = model[-1]
    else:
        head = getattr(model, "head", None)
        if not callable(getattr(model, "features", None)) or head is None:
            raise ValueError(
                "a solved output layer (output 'varpro') needs a network with features(x) and "
                "head, or an nn.Sequential that ends in an nn.Linear; "
                f"{type(model).__name__} is neither"
            )
    if not isinstance(head, nn.Linear):
        raise ValueError(
            f"the last layer of {type(model).__name__} must be an nn.Linear, got "
            f"{type(head).__name__}"
        )
    if head.bias is None:
        raise ValueError(f"the last layer of {type(model).__name__} needs a bias, and has none")
    return head


def features_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """What the layer of `head_of` takes, ``(n, m)``."""
    if isinstance(model, nn.Sequential):
        for part in list(model)[:-1]:
            x = part(x)
        return x
    network: Any = model
    return network.features(x)


def write_layer(
    layer: nn.Linear, classes: Any, coef: Any, intercept: Any, temperature: float
) -> None:
    """Write a solved output layer, divided by its temperature, into a linear layer in place.

    Parameters
    ----------
    layer : nn.Linear
    classes : int array of shape (k,)
        The outputs that were solved for; any other class is never predicted.
    coef, intercept : float64 arrays of shape (k, m) and (k,)
    temperature : float
    """
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(-1.0 / temperature)
        rows = torch.as_tensor(classes, device=layer.weight.device)
        layer.weight[rows] = torch.as_tensor(coef / temperature).to(layer.weight)
        layer.bias[rows] = torch.as_tensor(intercept / temperature).to(layer.bias)


Sums = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
"""``ΦᵀΦ``, ``Φᵀτ``, ``‖τ‖²`` and the number of samples; float64."""


class ProjectedLoss(Loss):
    """The variable projection functional as a loss; the output layer is solved, never stepped.

    Parameters
    ----------
    model : nn.Module
        With ``features(x) -> (n, m)`` and ``head``, its last `nn.Linear`; or an `nn.Sequential`
        that ends in an `nn.Linear`.
    ridge : float, default=1e-3
        ``μ``, per sample.
    window : float or None, default=50
        Batches that the carried statistics add up to: they fade by ``ρ = 1 − 1/window`` a batch,
        since features move. 1 carries none, each batch stands alone; None never fades.

    Notes
    -----
    At the end of an epoch, `finish` solves the output layer on the features of all training
    images, in one pass, ridge by generalised cross-validation, divides it by the fitted temperature
    (see `rankwise.linear.class_ridge`), and writes it into ``model.head``: a softmax of the
    network's outputs are calibrated probabilities.
    """

    trains_head = False
    gram: torch.Tensor
    cross: torch.Tensor
    squares: torch.Tensor
    weight: torch.Tensor

    def __init__(self, model: nn.Module, *, ridge: float = 1e-3, window: float | None = 50) -> None:
        super().__init__()
        head = head_of(model)
        if not ridge > 0:
            raise ValueError(f"ridge must be above 0, got {ridge}")
        if window is not None and not window >= 1:
            raise ValueError(f"window must be at least 1 batch, or None, got {window}")
        size, k = head.in_features + 1, head.out_features
        self.n_classes, self.ridge = k, ridge
        self.decay = 1.0 if window is None else 1.0 - 1.0 / window
        zeros = torch.zeros
        self.register_buffer("gram", zeros(size, size, dtype=torch.float64))
        self.register_buffer("cross", zeros(size, k, dtype=torch.float64))
        self.register_buffer("squares", zeros((), dtype=torch.float64))
        self.register_buffer("weight", zeros((), dtype=torch.float64))

    def functional(
        self, features: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``F`` of a batch, differentiable in its features, and ``A``; statistics stay as they are.

        Parameters
        ----------
        features : tensor of shape (n, m)
        targets : tensor of shape (n, K)
        """
        phi = with_constant(features)
        with torch.no_grad():
            sums = self._with(features, targets)
            layer, total = self._layer(sums), sums[-1]
            shrunk = self.ridge * total * layer[:-1].square().sum()
            rest = 0.5 * (shrunk + self._carried(layer))
        residual = targets.to(phi) - phi @ layer.to(phi)
        value = (0.5 * residual.square().sum() + rest.to(phi)) / total.to(phi)
        return value, layer

    def _carried(self, layer: torch.Tensor) -> torch.Tensor:
        """``tr AᵀG₀A − 2 tr AᵀB₀ + t₀``: squares of what `layer` leaves of the batches carried.

        With ``G₀ = QΛQᵀ`` it is ``(t₀ − ‖Λ^{-½}QᵀB₀‖²) + ‖Λ^½QᵀA − Λ^{-½}QᵀB₀‖²``. Only the first
        bracket, which knows nothing of ``A``, is a difference.
        """
        values, vectors = torch.linalg.eigh(self.gram)
        kept = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
        roots, vectors = values[kept].sqrt()[:, None], vectors[:, kept]
        along = (vectors.T @ self.cross) / roots
        unexplained = (self.squares - along.square().sum()).clamp(min=0.0)
        return unexplained + (roots * (vectors.T @ layer) - along).square().sum()

    def carry(self, features: torch.Tensor, targets: torch.Tensor) -> None:
        """Add a batch to the statistics, then let them fade."""
        with torch.no_grad():
            self._keep(self._with(features, targets))

    def _with(self, features: torch.Tensor, targets: torch.Tensor) -> Sums:
        """The statistics with a batch in them; the carried ones stay as they are."""
        wide, tau = with_constant(features).double(), targets.double()
        return (
            torch.addmm(self.gram, wide.T, wide),
            torch.addmm(self.cross, wide.T, tau),
            self.squares + tau.square().sum(),
            self.weight + len(tau),
        )

    def _keep(self, sums: Sums) -> None:
        self.gram, self.cross, self.squares, self.weight = (s.mul_(self.decay) for s in sums)

    def _layer(self, sums: Sums) -> torch.Tensor:
        """``A`` for the samples of these statistics."""
        gram, cross, _, total = sums
        return solve_layer(gram, cross, self.ridge * total)

    def forward(
        self, model: nn.Module, x: torch.Tensor, y: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``½‖τ − ΦA‖²/n`` of a training batch, and the outputs ``ΦA``.

        Its gradient is that of ``F`` times ``(n + n₀)/n``, which makes it a mean over the batch
        whatever has been carried; its value leaves out what no gradient sees.
        """
        with torch.autocast(x.device.type, enabled=False):
            features = features_of(model, x).float()
            targets = F.one_hot(y, self.n_classes).to(features)
            with torch.no_grad():
                sums = self._with(features, targets)
                layer = self._layer(sums)
                self._keep(sums)
            outputs = with_constant(features) @ layer.to(features)
            loss = 0.5 * (targets - outputs).square().sum() / len(y)
        return loss, outputs.detach()

    def finish(self, model: nn.Module, batches: Iterable[Batch]) -> None:
        """Solve the output layer on all training images and write it into ``model.head``."""
        total = None
        for x, y in batches:
            part = block_statistics(features_of(model, x), y.cpu().numpy())
            total = part if total is None else total + part
        if total is None:
            return
        family = RidgeFamily(design(total))
        ridge = min(family.gcv_errors(family.path()), key=lambda pair: pair[1])[0]
        coef, intercept, *_ = family.solve(ridge)
        temperature = modelled_temperature(total, family, ridge)
        write_layer(head_of(model), total.classes, coef, intercept, temperature)


def make_loss(output: str, model: nn.Module) -> Loss:
    """The loss of an output layer: ``"softmax"`` or ``"varpro"``."""
    if output == "softmax":
        return CrossEntropyLoss()
    return ProjectedLoss(model)
