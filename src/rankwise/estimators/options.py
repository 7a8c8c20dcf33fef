"""A classifier from single options, as a command line, a study or a file gives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rankwise.estimators._arguments import check_probabilities
from rankwise.estimators.choices import convolutional_parameters_of, parameters_of
from rankwise.estimators.convolutional import ConvolutionalClassifier
from rankwise.estimators.quadratic import QuadraticClassifier
from rankwise.training.convolutional_presets import CONVOLUTIONAL_PRESETS, OWN
from rankwise.training.network_planning import plan_network
from rankwise.training.presets import GIVEN, check_given, refuse_own

OPTIONS = (
    *GIVEN,
    "rcond",
    "squash",
    "probabilities",
    "tta",
    "class_weight",
    "image_shape",
    "dtype",
    "n_jobs",
    "device",
    "random_state",
    "verbose",
)
"""Names that are accepted beside ``preset``."""


def training_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `rankwise.training.presets.GIVEN` among options, ``rcond`` as the two that it is.

    None counts as not given.
    """
    given = {k: v for k, v in options.items() if v is not None and k in GIVEN}
    if options.get("rcond") is not None:
        given = {"subnet_rcond": options["rcond"], "glue_rcond": options["rcond"]} | given
    return given


def classifier_of(
    preset: str | None = None, **options: Any
) -> QuadraticClassifier | ConvolutionalClassifier:
    """The classifier that a preset has, with options by their single names.

    Parameters
    ----------
    preset : str, optional
        Of either kind; None is a `QuadraticClassifier` sized to the data.
    **options
        Any of `OPTIONS`; None counts as not given. ``max_iter`` is the number of epochs where
        units are convolutional, ``rcond`` both truncations, ``squash=True`` the same as
        ``probabilities="sigmoid"``.

    Raises
    ------
    ValueError
        If a preset, a name or a value isn't accepted.
    """
    if not isinstance(preset, str | None):
        raise ValueError(f"a preset is named by text, got {preset!r}")
    options = {name: value for name, value in options.items() if value is not None}
    unknown = sorted(set(options) - {*OPTIONS})
    if unknown:
        raise ValueError(
            f"unknown options {', '.join(map(repr, unknown))}; accepted: preset, "
            f"{', '.join(OPTIONS)}"
        )
    if options.get("squash") and options.get("probabilities") not in (None, "sigmoid"):
        raise ValueError(
            "squash is probabilities='sigmoid', but probabilities="
            f"{options['probabilities']!r} was given as well"
        )
    check_options(preset, options)
    if preset not in CONVOLUTIONAL_PRESETS:
        if "tta" in options:
            raise ValueError(
                f"tta={options['tta']!r} is for convolutional units; presets "
                f"{', '.join(CONVOLUTIONAL_PRESETS)} are accepted"
            )
        refuse_own("QuadraticClassifier" if preset is None else f"preset {preset!r}", options)
        return QuadraticClassifier(preset, **parameters_of(options))
    if options.pop("dtype", "auto") not in ("auto", "float32"):
        raise ValueError(f"preset {preset!r} has convolutional units, which compute in float32")
    return ConvolutionalClassifier(preset, **convolutional_parameters_of(options))


def check_options(preset: str | None, options: Mapping[str, Any]) -> None:
    """Refuse what no images could make right, before any are read.

    Raises
    ------
    ValueError
    """
    check_probabilities(options.get("probabilities"))
    given = training_options(options)
    if preset in CONVOLUTIONAL_PRESETS:
        if options.get("rcond") is not None:
            given.pop("subnet_rcond")
        check_given(preset, given)
    else:
        check_given(preset, given)
        # What the form of a unit asks of its images aside, a plan shows what doesn't fit together.
        plan_network(preset, _any_image(given), (8, 8), n_samples=1, dtype="float32")


def _any_image(given: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in given.items() if k not in ("unit", "prune", *OWN)}
