"""A study in sentences that a paper can take over."""

from __future__ import annotations

from typing import Any

from rankwise._version import __version__
from rankwise.study import design_words
from rankwise.study.outcomes import OUTCOMES, primary_outcome
from rankwise.study.tables import degraded_kinds
from rankwise.study.verdict import CERTAINTY, FEWEST_FOLDS, FEWEST_SEEDS

_Record = dict[str, Any]

_DEGRADED = {
    "svd": "low rank by SVD",
    "jpeg": "JPEG",
    "downscale": "down-scaling",
    "blur": "Gaussian blur",
    "noise": "Gaussian noise",
}


def methods(results: _Record) -> str:
    """How the study was made and judged, as a paragraph; every figure is the study's own."""
    study = results["study"]
    text = [_design(results), design_words.networks(results), design_words.arms(results)]
    if study["protocol"] == "sound":
        stop = study.get("patience")
        text.append(
            "Copies were made of training images only, after the parts were cut; validation chose "
            + (
                f"the epoch, and each training ended after {stop} epochs without a lower "
                "validation loss."
                if stop
                else "the epoch, and all arms had the same number of updates."
            )
        )
    text.append(design_words.schedule(results))
    if results.get("paired_starts"):
        text.append("With one seed all arms of a model began with the same weights.")
    text += [_judged(results), _retrained(results), _robustness(results), _factors(results)]
    text.append(_over_data_sets(results))
    if results.get("look", 1) > 1:
        text.append(
            f"The study was extended {results['look'] - 1} time(s); each look had its part of the "
            "level."
        )
    if results.get("plan"):
        added = results.get("seeds_after_plan") or ()
        seeds_added = ", ".join(map(str, added))
        later = f"; seeds added later, beyond the plan: {seeds_added}" if added else ""
        text.append(f"It follows a plan written before, sha256 {results['plan']}{later}.")
    text.append(_versions(results))
    return " ".join(part for part in text if part)


def _versions(results: _Record) -> str:
    """The version that trained, and the one that writes where it's another."""
    trained = (results.get("environment") or {}).get("rankwise") or __version__
    written = "" if trained == __version__ else f", this text written with {__version__}"
    return f"Computed with rankwise {trained}{written}."


def family_size(results: _Record, outcome: str) -> int:
    """Members of an outcome's family: its comparisons, main effects and interactions."""
    compared = [*results["comparisons"], *results.get("robustness", ())]
    main = primary_outcome(results["study"]["protocol"])
    own = [item for item in compared if item.get("outcome", main) == outcome]
    return len(own) + sum(f["outcome"] == outcome for f in results.get("factors") or ())


def _design(results: _Record) -> str:
    study = results["study"]
    data = "; ".join(
        f"{d['name']} ({d['n_images']:,} images of {' × '.join(map(str, d['image_shape']))}, "
        f"{len(d['class_names'])} classes)"
        for d in results["data_sets"]
        if "n_images" in d
    )
    seeds = len(study["seeds"])
    reserve = study.get("reserve") or 0.0
    return (
        f"We compared {len(results['conditions'])} conditions"
        + (f" on {data}" if data else "")
        + f" in {study['folds']}-fold cross-validation with {seeds} "
        f"seed{'s' if seeds != 1 else ''} ({', '.join(map(str, study['seeds']))}), after "
        f"{study.get('test_fraction', 0.2):.0%} of the images had been held out as a test part"
        + (" by source" if study["protocol"] == "sound" else "")
        + f" (protocol {study['protocol']})."
        + f" {reserve:.0%} of the training part was set aside for tuning." * (reserve > 0)
    )


def _judged(results: _Record) -> str:
    compared = results["comparisons"]
    if not compared or "outcome" not in compared[0]:
        return ""
    outcome, level = compared[0]["outcome"], compared[0].get("level", 0.05)
    n_contrasts = family_size(results, outcome) - len(compared)
    planned = f"all {len(compared)} planned comparisons"
    if len(compared) == 1:
        planned = "the one planned comparison"
    if n_contrasts:
        planned = (
            f"all {len(compared) + n_contrasts} planned tests, {len(compared)} comparisons and "
            f"{n_contrasts} main effects and interactions"
        )
    return (
        f"The outcome is {OUTCOMES[outcome]}. Paired differences of folds were tested by the "
        f"corrected resampled t-test (Nadeau and Bengio 2003){_images(compared)}, at a level of "
        f"{level:.3g} over {planned} (Holm 1979); an effect counts where in addition the Bayesian "
        "correlated t-test (Corani and Benavoli 2015) puts "
        f"{CERTAINTY:.0%} beyond the region of practical equivalence (Benavoli et al. 2017), "
        f"{design_words.region(results)}, with at least {FEWEST_FOLDS} folds and {FEWEST_SEEDS} "
        "seeds, and as one of the augmentation where it holds against unchanged copies too."
    )


def _images(compared: list[_Record]) -> str:
    """Of which comparisons the variance has a part of the images, in words."""
    begun = [item for item in compared if item["pairs"]]
    having = [item for item in begun if item.get("images")]
    if not having:
        return ""
    where = "" if len(having) == len(begun) else f" in {len(having)} of {len(begun)} comparisons"
    return f", their variance including that of the images{where}"


def _retrained(results: _Record) -> str:
    if not any(item.get("mcnemar") for item in results["comparisons"]):
        return ""
    return (
        "The re-trained networks were compared on the test images by McNemar's test (McNemar 1947; "
        "by source where images share one, Durkalski et al. 2003), which no verdict rests on."
    )


def _robustness(results: _Record) -> str:
    if not any(item["pairs"] for item in results.get("robustness", ())):
        return ""
    if results["study"].get("corruptions") == "imagenet-c":
        what = "the fifteen corruptions of ImageNet-C (Hendrycks and Dietterich 2019)"
    else:
        kinds = degraded_kinds(results, results["conditions"])
        what = design_words.listed([_DEGRADED.get(kind, kind) for kind in kinds])
    return (
        f"Robustness is the mean accuracy of the same networks on test images degraded by {what}, "
        "at five severities each, tested in the same way in a family of "
        f"{family_size(results, 'degraded')}; mCE is the error on them as a share of the "
        "baseline's, summed over severities, in the mean over kinds (Hendrycks and Dietterich 2019 "
        "divide by AlexNet's)."
    )


def _factors(results: _Record) -> str:
    pairs = dict.fromkeys(tuple(item["pair"]) for item in results.get("factors") or ())
    if not pairs:
        return ""
    named = design_words.listed([f"{first} × {second}" for first, second in pairs])
    return (
        f"In a 2 × 2 factorial design ({named}) the main effect of an arm is its effect averaged "
        "over with and without the other, and the interaction by how much both do more together "
        "than the sum of each, fold by fold."
    )


def _over_data_sets(results: _Record) -> str:
    found = results.get("summaries") or {}
    text = []
    if found.get("effects"):
        text.append(
            "Effects of an arm on several data sets were combined by random effects, their "
            "variance between data sets after Paule and Mandel (1982), the interval after Hartung "
            "and Knapp (2001)."
        )
    if found.get("ranks"):
        text.append(
            "Arms were ranked over data sets by Friedman's test (Friedman 1937) with Nemenyi's "
            "critical difference (Nemenyi 1963; Demšar 2006)."
        )
    return " ".join(text)
