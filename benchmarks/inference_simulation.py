"""False positives of each rule for comparing two arms, where neither is better.

Simulated fold scores with the correlation that the corrected tests assume, and real ones: a cheap
learner cross-validated on digits drawn anew for each study, whose arms differ in their random
features alone. A rule at level 5% should find a difference in at most 5 of 100 such studies, and
Holm's procedure one or more among several arms of a study in at most 5 of 100 as well.

    python benchmarks/inference_simulation.py
"""

from __future__ import annotations

from typing import Any

from common import Table, argument_parser, say, timed, write_result
from rankwise._threads import one_thread
from rankwise.study.simulate import (
    Rate,
    detection_rates,
    family_error_rates,
    learner_scores,
    simulated_family,
    simulated_scores,
)
from rankwise.study.simulate_images import simulated_images

# Scores as noisy as the paper's on MNIST, whose intervals are about ±0.12 points.
SIMULATED: dict[str, dict[str, Any]] = {
    "2 folds": {"folds": 2},
    "2 folds × 3 seeds": {"folds": 2, "seeds": 3},
    "3 folds": {"folds": 3},
    "3 folds × 3 seeds": {"folds": 3, "seeds": 3},
    "5 folds": {},
    "5 folds × 3 seeds": {"seeds": 3},
    "10 folds": {"folds": 10},
    "20 epochs against 10": {"epochs": (20, 10), "wobble": 0.001},
    "uneven folds": {"shared": 0.01},
}
REAL: dict[str, dict[str, Any]] = {
    "2 folds": {"folds": 2},
    "3 folds": {"folds": 3},
    "3 folds × 3 seeds": {"folds": 3, "seeds": 3},
    "5 folds": {},
    "5 folds × 3 seeds": {"seeds": 3},
    "5 folds × 10 seeds": {"seeds": 10},
    "5 folds, one start": {"fixed_start": True},
    "5 folds × 10 seeds, one start": {"seeds": 10, "fixed_start": True},
}
POWER: dict[str, dict[str, Any]] = {
    "+0.5 points, 5 folds": {"effect": 0.005},
    "+1 point, 5 folds": {"effect": 0.01},
    "+1 point, 5 folds × 3 seeds": {"effect": 0.01, "seeds": 3},
    "−1 point, 5 folds": {"effect": -0.01},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "3 arms, 5 folds": {"n_arms": 3},
    "6 arms, 5 folds": {"n_arms": 6},
    "6 arms, 5 folds × 3 seeds": {"n_arms": 6, "seeds": 3},
    # As with few images: half a point is little there, and the verdict rests on Holm.
    "6 arms, 5 folds, five times the noise": {"n_arms": 6, "deviation": 0.01},
}
# Equal arms whose validation accuracy wobbles alike, or three times as much as the other's.
WOBBLING: dict[str, dict[str, Any]] = {
    "equal wobble": {"flips": (0.02, 0.02)},
    "three times the wobble": {"flips": (0.18, 0.02)},
    "three times the wobble, 1 seed": {"flips": (0.18, 0.02), "seeds": 1},
    "three times the wobble, 3 folds": {"flips": (0.18, 0.02), "folds": 3},
    "three times the wobble, 2000 images": {"flips": (0.18, 0.02), "n_images": 2000},
    "three times the wobble, 80% right, 30 epochs": {
        "flips": (0.18, 0.02),
        "accuracy": 0.8,
        "epochs": 30,
    },
}
WOBBLE_COLUMNS = {
    "difference": "mean difference, points",
    "corrected t": "corrected t",
    "verdict": "helps, harms",
    "no practical difference": "no difference",
}
FAMILY_COLUMNS = {"corrected t": "corrected t", "Holm": "after Holm", "verdict": "helps, harms"}
COLUMNS = {
    "paper's rule": "paper's rule",
    "paired t": "paired t",
    "corrected t": "corrected t",
    "posterior": "posterior alone",
    "verdict": "helps, harms",
    "no practical difference": "no difference",
}


def main() -> None:
    """Simulate, print, write."""
    args = argument_parser(__doc__, "inference_simulation", seeds=None).parse_args()
    n_simulated, n_real = (100, 10) if args.quick else (5_000, 1_500)
    parts: tuple[tuple[str, Any, dict[str, dict[str, Any]], int], ...] = (
        ("Simulated scores, no true difference", simulated_scores, SIMULATED, n_simulated),
        ("Simulated families of arms, no true difference", simulated_family, FAMILIES, n_simulated),
        ("Cross-validated learner on digits, no true difference", learner_scores, REAL, n_real),
        ("Simulated scores, a true difference", simulated_scores, POWER, n_simulated),
    )
    tables, data = [], []
    with one_thread():
        for title, make, cases, n in parts:
            rows = []
            heads = FAMILY_COLUMNS if make is simulated_family else COLUMNS
            for name, options in cases.items():
                # The real learner's cost grows with the seeds; simulated scores cost nothing.
                studies = max(2, n // options.get("seeds", 1)) if make is learner_scores else n
                seconds, rates = timed(lambda m=make, k=studies, o=options: _rates(m, k, o))
                say(f"{title}, {name}: {studies} studies, {seconds:.1f} s")
                rows.append([name, str(studies), *(_text(rates[rule]) for rule in heads)])
                data.append(
                    {
                        "scores": title,
                        "case": name,
                        "options": options,
                        "studies": studies,
                        "seconds": seconds,
                        "rates": {
                            rule: {"rate": rate.rate, "interval": rate.interval}
                            for rule, rate in rates.items()
                        },
                    }
                )
            columns = ("fold scores", "studies", *heads.values())
            tables.append(Table(f"{title}: % of studies in which a rule finds one", columns, rows))
        table, rows_of_it = wobbling(100 if args.quick else 1_500)
        tables.insert(1, table)
        data += rows_of_it
    print("\n\n".join(table.text() for table in tables))
    write_result(
        args,
        "Rules that compare two arms: false positives and power",
        tables,
        data,
        {"level": 0.05, "rope": 0.005, "seed": 42},
        notes=(
            "The paper's rule is one-sided: it can't find harm. The other rules are two-sided, at "
            "level 5%. 'posterior alone' is 95% of the Bayesian posterior beyond ±0.5 points; "
            "'helps, harms' is the verdict: that, and the corrected t-test; 'no difference' is the "
            "verdict that there's no practical one.",
            "Simulated: arms' fold scores have a deviation of 0.2 points, a correlation of 1/folds "
            "between folds, and a part common to both arms of the same size (uneven folds: 1 "
            "point). 20 epochs against 10: the best epoch is taken, as in the paper, each epoch "
            "wobbling by 0.1 points.",
            "Families: several arms against one baseline, which correlates the comparisons; a "
            "study counts if any of them finds a difference. 'corrected t' tests each by itself; "
            "'after Holm' and the verdict hold the level over the family.",
            "Image by image: both arms label as many images right in every epoch (95%, where no "
            "other share is given); the decisions of the alternative flip more from epoch to "
            "epoch, with a deviation three times as large. Parts have 400 images, where no "
            "other number is given. Best validation accuracy is the maximum over ten epochs on "
            "the images that chose it (the paper's score); test accuracy is that of the epoch "
            "that validation chose, with the variance of the images (`sound`).",
            "Digits: arms are one learner with other random features, new in every fold or, with "
            "one start, the same in all. New starts make the differences nearly independent: the "
            "plain t-test holds its level and the corrected one is cautious. With one start the "
            "arms' luck is common to all folds: the plain test takes it for an effect, the more "
            "so the more folds there are.",
            "95% intervals of the rates are in the result file.",
        ),
    )


def wobbling(studies: int) -> tuple[Table, list[dict[str, Any]]]:
    """The paper's score and the test part's, where one arm's curve wobbles more."""
    rows, data = [], []
    for name, options in WOBBLING.items():
        n = max(2, studies // (5 if "n_images" in options else 1))
        seconds, found = timed(lambda k=n, o=options: simulated_images(k, **o))
        say(f"image by image, {name}: {n} studies, {seconds:.1f} s")
        for outcome in ("validation", "test"):
            made = found[outcome]
            rates = detection_rates(
                made.alternative,
                made.baseline,
                folds=options.get("folds", 5),
                noises=made.noises,
            )
            mean = float((made.alternative - made.baseline).mean())
            words = "best validation" if outcome == "validation" else "test"
            figures = [_text(rates[rule]) for rule in WOBBLE_COLUMNS if rule != "difference"]
            rows.append([f"{name}: {words} accuracy", str(n), f"{100 * mean:+.2f}", *figures])
            data.append(
                {
                    "scores": "image by image",
                    "case": name,
                    "outcome": outcome,
                    "options": options,
                    "studies": n,
                    "seconds": seconds,
                    "mean_difference": mean,
                    "rates": {
                        rule: {"rate": rate.rate, "interval": rate.interval}
                        for rule, rate in rates.items()
                    },
                }
            )
    columns = ("fold scores", "studies", *WOBBLE_COLUMNS.values())
    title = "Image by image, no true difference: % of studies in which a rule finds one"
    return Table(title, columns, rows), data


def _rates(make: Any, studies: int, options: dict[str, Any]) -> dict[str, Rate]:
    rates_of = family_error_rates if make is simulated_family else detection_rates
    return dict(rates_of(*make(studies, **options), folds=options.get("folds", 5)))


def _text(rate: Rate) -> str:
    return f"{100 * rate.rate:.1f}"


if __name__ == "__main__":
    main()
