"""What is odd about images and labels: wrong labels, repeats, outliers, classes that may be one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rankwise.data.repeats import same_looking, thumbnails
from rankwise.explore.neighbours import REFERENCE, leading, nearest
from rankwise.explore.scores import interval
from rankwise.explore.seen import LeftOut, Seen
from rankwise.linear.class_ridge import log_probabilities

FAR = 3.0
"""An image is far where its distance to others exceeds this multiple of the median one."""
ONE_CLASS = 0.75
"""Two classes may be one where this balanced accuracy between them is out of their interval."""
_TOLD_APART = 0.9
_MOST_NOISE = 0.5
_NEIGHBOURS = 5
_DIRECTIONS = 32


@dataclass(frozen=True)
class WrongLabels:
    """Images by how much speaks against their label, the most suspicious first.

    Parameters
    ----------
    rows : int array of shape (n,)
        Over all parts, one after the other.
    margins : float array of shape (n,)
        In the same order: what speaks for the given label less what speaks for another one at
        most. That is the output of a layer that was fitted without the image, and the share among
        its nearest images. Below 0 the other images are against the label.
    others : int array of shape (n,)
        The class that most speaks for otherwise.
    probabilities : float array of shape (n,)
        Of the given label, by that layer.
    wrong : float array of shape (n,)
        Probability that the label is wrong, see `noise`.
    """

    rows: Int[np.ndarray, "n"]
    margins: Float[np.ndarray, "n"]
    others: Int[np.ndarray, "n"]
    probabilities: Float[np.ndarray, "n"]
    wrong: Float[np.ndarray, "n"]

    @property
    def n_likely(self) -> int:
        """About how many labels are wrong; 0 where nothing says that any is."""
        return round(float(self.wrong.sum()))

    @property
    def n_against(self) -> int:
        """Images whose label the others are against."""
        return int((self.margins < 0).sum())


def wrong_labels(found: LeftOut, truth: Int[np.ndarray, "n"]) -> WrongLabels:
    """Images of all parts, the most suspicious label first.

    Parameters
    ----------
    found : LeftOut
    truth : int array of shape (n,)
        Given labels, of the parts one after the other.
    """
    at = np.arange(len(truth))
    evidence = found.outputs + found.votes
    given = evidence[at, truth]
    rest = evidence.copy()
    rest[at, truth] = -np.inf
    others = rest.argmax(axis=1)
    margins = given - rest[at, others]
    order = np.argsort(margins, kind="stable")
    shares = np.exp(log_probabilities(found.outputs, found.temperature))[at, truth]
    wrong = noise(evidence, truth)[order]
    return WrongLabels(order, margins[order], others[order], shares[order], wrong)


def noise(outputs: Float[np.ndarray, "n K"], truth: Int[np.ndarray, "n"]) -> np.ndarray:
    """Probability that each label is wrong, from outputs that don't know it.

    A share ``η`` of the labels was drawn among the wrong ones, the others by ``p = softmax(o/T)``:
    label ``g`` has the probability ``(1 − η)·p_g + η·(1 − p_g)/(K − 1)``. ``T`` and ``η`` are those
    of the largest likelihood; where ``η`` improves it no more than chance does (likelihood ratio,
    95%), none is wrong. A weak model's outputs explain by ``T`` alone that it's often wrong.

    Returns
    -------
    array of shape (n,)
    """
    from scipy.optimize import minimize
    from scipy.special import expit
    from scipy.stats import chi2

    n, k = outputs.shape
    at = np.arange(n)
    scale = max(float(np.ptp(outputs, axis=1).mean()), 1e-12)
    lead = (outputs - outputs[at, truth][:, None]) / scale

    def given(temperature: float) -> np.ndarray:
        return 1.0 / np.exp(np.clip(lead / temperature, -700.0, 80.0)).sum(axis=1)

    def likelihood(temperature: float, share: float) -> np.ndarray:
        p = given(temperature)
        return (1.0 - share) * p + share * (1.0 - p) / (k - 1)

    def loss(x: np.ndarray) -> float:
        p = likelihood(float(np.exp(x[0])), float(_MOST_NOISE * expit(x[1])))
        return -float(np.log(np.maximum(p, 1e-300)).sum())

    alone = minimize(lambda x: loss(np.array([x[0], -50.0])), [-1.5], method="Nelder-Mead")
    both = minimize(loss, [alone.x[0] - 0.3, -4.0], method="Nelder-Mead")
    if k < 2 or 2 * (alone.fun - both.fun) < chi2.ppf(0.95, 1):
        return np.zeros(n)
    temperature, share = float(np.exp(both.x[0])), float(_MOST_NOISE * expit(both.x[1]))
    p = given(temperature)
    return share * (1.0 - p) / (k - 1) / np.maximum(likelihood(temperature, share), 1e-300)


def repeated(images: np.ndarray, parts: np.ndarray, truth: np.ndarray) -> list[dict[str, Any]]:
    """Groups of images that look the same, those across parts and of unlike labels first.

    Parameters
    ----------
    images : uint8 array of shape (n, height, width[, channels])
        Of all parts.
    parts, truth : arrays of shape (n,)
        Part and label of each.

    Returns
    -------
    list of dict
        ``rows`` (in order), ``exact`` (all have the same pixels), ``across`` (parts),
        ``labels_differ``, ``likeness`` (the least of its pairs, 1 for exact repeats).
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    pairs = same_looking(images)
    n = len(images)
    links = coo_array((np.ones(len(pairs.first)), (pairs.first, pairs.second)), shape=(n, n))
    group = connected_components(links, directed=False)[1]
    least: dict[int, float] = {}
    for code, likeness in zip(group[pairs.first], pairs.likeness, strict=True):
        least[int(code)] = min(least.get(int(code), 2.0), float(likeness))
    inside = np.flatnonzero(np.isin(group, list(least)))
    inside = inside[np.argsort(group[inside], kind="stable")]
    cuts = np.flatnonzero(np.diff(group[inside])) + 1
    found = []
    for rows in np.split(inside, cuts) if len(inside) else []:
        likeness = least[int(group[rows[0]])]
        found.append(
            {
                "rows": rows.tolist(),
                "exact": likeness > 1.0,
                "across": len(set(parts[rows].tolist())) > 1,
                "labels_differ": len(set(truth[rows].tolist())) > 1,
                "likeness": min(likeness, 1.0),
            }
        )
    return sorted(
        found, key=lambda g: (not g["across"], not g["labels_differ"], -g["likeness"], g["rows"])
    )


def blank(images: np.ndarray) -> Int[np.ndarray, "m"]:
    """Rows of images without contrast: their deviation is under 2 of 255."""
    return np.flatnonzero(~thumbnails(images).any(axis=1))


def far(features: Float[np.ndarray, "n m"]) -> tuple[np.ndarray, np.ndarray]:
    """Images by how far they are from all others, the farthest first.

    The distance is the mean one to the `_NEIGHBOURS` nearest others, in the `_DIRECTIONS` leading
    directions of the standardised features, over its median: 1 is usual. Of more than
    `REFERENCE` images every so many serve as others.

    Returns
    -------
    rows : int array of shape (n,)
    distances : float array of shape (n,)
        In the same order.
    """
    n, _ = features.shape
    if n <= _NEIGHBOURS + 1:
        return np.zeros(0, np.int64), np.zeros(0)
    step = -(-n // REFERENCE)
    chosen = np.asarray(features[::step], np.float32)
    mean, scale = chosen.mean(axis=0), chosen.std(axis=0)
    scale[scale < 1e-6] = 1.0
    directions = leading((chosen - mean) / scale, _DIRECTIONS)
    points = np.concatenate(
        [
            directions.transform((np.asarray(features[i : i + 4096], np.float32) - mean) / scale)
            for i in range(0, n, 4096)
        ]
    ).astype(np.float32)
    own = np.where(np.arange(n) % step == 0, np.arange(n) // step, -1)
    distances = nearest(points, points[::step], own, _NEIGHBOURS)[0].mean(axis=1)
    distances = distances / max(float(np.median(distances)), 1e-12)
    order = np.argsort(-distances, kind="stable")
    return order, distances[order]


def one_class(
    found: LeftOut, truth: Int[np.ndarray, "n"], *, most: int = 10
) -> list[dict[str, Any]]:
    """Pairs of classes that the outputs tell apart worst, the worst first.

    Between two classes, an image is right where the output for its own exceeds that for the other.
    Half is guessing. Where the interval of the balanced accuracy lies below `ONE_CLASS`, they
    `may` be one class under two names; unless half of all pairs are told apart so badly that it
    says more of the model than of the two.

    Returns
    -------
    list of dict
        ``classes`` (two positions), ``n`` (images of both), ``apart`` (balanced accuracy),
        ``low``, ``high`` (its interval), ``may``.
    """
    k = found.outputs.shape[1]
    order = np.argsort(truth, kind="stable")
    ends = np.cumsum(np.bincount(truth, minlength=k))
    right = np.full((k, k), np.nan)
    counts = np.diff(np.concatenate([[0], ends]))
    for c, rows in enumerate(np.split(order, ends[:-1])):
        if len(rows):
            outputs = found.outputs[rows]
            right[c] = (outputs[:, [c]] > outputs).mean(axis=0)
    a, b = np.triu_indices(k, 1)
    apart = (right[a, b] + right[b, a]) / 2
    weak = k > 2 and not np.nanmedian(apart) >= _TOLD_APART
    worst = [i for i in np.argsort(apart, kind="stable") if not np.isnan(apart[i])][:most]
    result = []
    for i in worst:
        n = int(counts[a[i]] + counts[b[i]])
        # As of equally many of both: the smaller class decides how sure that is.
        even = 2 * int(min(counts[a[i]], counts[b[i]]))
        low, high = interval(round(apart[i] * even), even)
        result.append(
            {
                "classes": [int(a[i]), int(b[i])],
                "n": n,
                "apart": float(apart[i]),
                "low": low,
                "high": high,
                "may": bool(high < ONE_CLASS and not weak),
            }
        )
    return result


def all_of(parts: list[Seen], name: str) -> np.ndarray:
    """An array of every part, one after the other."""
    return np.concatenate([getattr(part, name) for part in parts])
