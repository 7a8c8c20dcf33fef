"""From singular values to the rank that an energy asks for, and when rounding could change it."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from rankwise.lowrank._layout import is_tensor, tensor_to_array
from rankwise.lowrank.options import ENERGY_OF, LowRankOptions, OptionError

_UNIT_ROUNDOFF = float(np.finfo(np.float64).eps) / 2
_TINY = float(np.finfo(np.float64).tiny)


def check_energies(energies: Any) -> NDArray[np.float64]:
    """Float64 energies, each in (0, 1].

    Raises
    ------
    OptionError
        If one of them isn't, or there is none.
    """
    if isinstance(energies, float) and 0 < energies <= 1:
        return np.array(energies)
    try:
        values = np.asarray(energies, dtype=np.float64)
    except (TypeError, ValueError):
        raise OptionError(f"energy must be numbers in (0, 1], not {energies!r}") from None
    if values.size == 0:
        raise OptionError("energy is an empty sequence; at least one number in (0, 1] is accepted")
    if not ((values > 0) & (values <= 1)).all():
        raise OptionError(f"energy must lie in (0, 1], not {energies!r}")
    return values


def energy_fractions(
    sigma: Float[np.ndarray, "*batch n"], energy_of: str = "sigma"
) -> Float[np.ndarray, "*batch n"]:
    """``E_k = Σ_{i≤k} σ_i^p / Σ_i σ_i^p``, k = 1…n, with p = 1 or 2; all ones for a zero matrix.

    Raises
    ------
    OptionError
        For another `energy_of` than ``"sigma"`` and ``"sigma_squared"``.
    """
    if energy_of not in ENERGY_OF:
        LowRankOptions(energy_of)  # says what is accepted
    weights = _weights(sigma, energy_of)
    totals = np.cumsum(weights, axis=-1)
    last = totals[..., -1:]
    if (last > 0).all():
        return totals / last
    return np.divide(totals, last, out=np.ones_like(totals), where=last > 0)


def rank_for_energy(
    sigma: Any,
    energy: Any,
    *,
    energy_of: str = "sigma",
    rank_rule: str = "reach",
) -> Int[np.ndarray, "*batch"]:
    """Ranks that keep a share `energy` of the spectrum.

    Parameters
    ----------
    sigma : ndarray or torch.Tensor of float, (*batch, n)
        Singular values, descending.
    energy : float or ndarray
        In (0, 1]; one for all, or an array that broadcasts with `batch`.
    energy_of : {"sigma", "sigma_squared"}
        What is summed. Paper (section 3.3) and notebook: ``"sigma"``.
    rank_rule : {"reach", "nearest"}
        First to reach the energy (paper), or nearest to it (notebook).

    Returns
    -------
    rank : ndarray of int, (*batch)
        From 1 to n; n wherever the energy is exactly 1.

    Raises
    ------
    OptionError
        For an energy outside (0, 1], an unknown option, and shapes that don't fit.

    Examples
    --------
    With σ = (5, 3, 1, 1) the energies are 0.5, 0.8, 0.9, 1: the first to reach 0.82 is the third,
    the nearest to it the second.

    >>> import numpy as np
    >>> sigma = np.array([5.0, 3.0, 1.0, 1.0])
    >>> int(rank_for_energy(sigma, 0.82)), int(rank_for_energy(sigma, 0.82, rank_rule="nearest"))
    (3, 2)
    """
    LowRankOptions(energy_of, rank_rule)
    sigma = np.asarray(tensor_to_array(sigma.cpu()) if is_tensor(sigma) else sigma, float)
    if sigma.ndim == 0 or sigma.shape[-1] == 0:
        raise OptionError(f"sigma of shape {sigma.shape} holds no singular values")
    energies = check_energies(energy)
    try:
        wanted = np.broadcast_to(energies, sigma.shape[:-1])
    except ValueError:
        raise OptionError(
            f"energies of shape {energies.shape} don't fit spectra of shape {sigma.shape}: one "
            "energy for all, or one for each spectrum"
        ) from None
    return ranks_from_fractions(energy_fractions(sigma, energy_of), wanted, rank_rule)


def ranks_from_fractions(
    fractions: NDArray[np.float64], energy: NDArray[np.float64], rank_rule: str
) -> NDArray[np.intp]:
    """The rule itself, on ready energies ``E_k`` (also means of them over channels).

    `fractions` is (…, n); `energy` broadcasts with its other axes, and may have more before them.
    """
    order = fractions.shape[-1]
    wanted = energy[..., None]
    if rank_rule == "reach":
        # The last energy is 1, whatever its rounding.
        rank = (fractions[..., :-1] < wanted).sum(axis=-1) + 1
    else:
        rank = np.abs(fractions - wanted).argmin(axis=-1) + 1
    return np.where(energy == 1, order, rank)


def singular_value_bounds(
    sigma: Float[np.ndarray, "*batch n"], other_side: int
) -> Float[np.ndarray, "*batch n"]:
    """How far σ from the Gram matrix can lie from the true ones, and those of an SVD with it.

    The eigenvalues of the float64 Gram matrix are those of ``G + E`` (Weyl: none moves by more
    than ‖E‖₂ ≤ δ). Forming G costs ``m·u·‖A‖_F²`` (m products a sum, u = 2⁻⁵³), reducing it and
    the QL iteration ``p(n)·u·‖G‖₂``, where p grows slowly (LAPACK Users' Guide, 4.7.1): p = 4n
    here, several times what is ever seen. With λ̂ = σ̂² then

        |σ̂ − σ| = |λ̂ − λ| / (σ̂ + σ) ≤ min(δ / σ̂, √δ).

    An SVD that computes σ directly is itself uncertain by ``n·u·σ_1``, which is added.
    """
    order = sigma.shape[-1]
    largest = sigma[..., :1]
    square = (sigma * sigma).sum(axis=-1, keepdims=True)
    delta = _UNIT_ROUNDOFF * (4 * order * largest * largest + other_side * square)
    root = np.maximum(np.sqrt(delta), _TINY)
    return delta / np.maximum(sigma, root) + order * _UNIT_ROUNDOFF * largest


def fraction_bounds(
    sigma: Float[np.ndarray, "*batch n"],
    bounds: Float[np.ndarray, "*batch n"],
    energy_of: str,
) -> Float[np.ndarray, "*batch 1"]:
    """Bound of all ``E_k`` of a spectrum: ``|δE_k| ≤ Σ_i b_i / (Σ_i σ_i − Σ_i b_i)``.

    Here b_i bounds the error of σ_i; for σ² it is ``(2σ_i + b_i) b_i`` instead. A share of a sum
    moves by ``((1 − E_k) δ(head) − E_k δ(tail)) / sum``, at most the whole error over the sum.
    """
    if energy_of == "sigma":
        total, errors = sigma.sum(axis=-1, keepdims=True), bounds
    else:
        total, errors = (sigma**2).sum(axis=-1, keepdims=True), (2 * sigma + bounds) * bounds
    error = errors.sum(axis=-1, keepdims=True)
    least = np.maximum(total - error, _TINY)
    rounding = 4 * sigma.shape[-1] * _UNIT_ROUNDOFF
    return np.minimum(error / least + rounding, 1) * (total > 0)


def doubtful(
    fractions: NDArray[np.float64],
    bounds: NDArray[np.float64],
    energy: NDArray[np.float64],
    rank_rule: str,
) -> NDArray[np.bool_]:
    """True where energies anywhere within `bounds` of `fractions` could give another rank.

    Shapes as in `ranks_from_fractions`; `bounds` is (…, 1).
    """
    off = fractions - energy[..., None]
    if rank_rule == "reach":
        unsure = np.abs(off[..., :-1]) <= bounds
        return np.asarray(unsure.any(axis=-1) & (energy < 1))
    best = np.abs(off).argmin(axis=-1)[..., None]
    lead = np.abs(off) - np.take_along_axis(np.abs(off), best, axis=-1)
    places = np.arange(fractions.shape[-1])
    # Past the first that surely reaches the energy, none is nearer: energies only grow.
    reached = np.take_along_axis(off, best, axis=-1) >= bounds
    rivals = (lead <= 2 * bounds) & (places != best) & ~((places > best) & reached)
    return np.asarray(rivals.any(axis=-1) & (energy < 1))


def _weights(sigma: NDArray[np.float64], energy_of: str) -> NDArray[np.float64]:
    return sigma if energy_of == "sigma" else sigma**2
