"""A study in sentences that a paper can take over, its tables as files, and what to cite."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rankwise._files import atomic_path
from rankwise._version import __version__
from rankwise.study.outcomes import OUTCOMES
from rankwise.study.verdict import CERTAINTY, FEWEST_FOLDS, FEWEST_SEEDS

_Record = dict[str, Any]

REFERENCES = """@article{nadeau2003inference,
  author = {Nadeau, Claude and Bengio, Yoshua},
  title = {Inference for the Generalization Error},
  journal = {Machine Learning}, volume = {52}, pages = {239--281}, year = {2003}
}
@article{benavoli2017time,
  author = {Benavoli, Alessio and Corani, Giorgio and Dem{\\v{s}}ar, Janez and Zaffalon, Marco},
  title = {Time for a Change: a Tutorial for Comparing Multiple Classifiers Through {B}ayesian
           Analysis},
  journal = {Journal of Machine Learning Research}, volume = {18}, pages = {1--36}, year = {2017}
}
@article{holm1979simple,
  author = {Holm, Sture},
  title = {A Simple Sequentially Rejective Multiple Test Procedure},
  journal = {Scandinavian Journal of Statistics}, volume = {6}, pages = {65--70}, year = {1979}
}
@article{durkalski2003analysis,
  author = {Durkalski, Valerie L. and Palesch, Yuko Y. and Lipsitz, Stuart R. and Rust, Philip F.},
  title = {Analysis of Clustered Matched-Pair Data},
  journal = {Statistics in Medicine}, volume = {22}, pages = {2417--2428}, year = {2003}
}
"""


def methods(results: _Record) -> str:
    """How the study was made and judged, as a paragraph; every figure is the study's own."""
    study, compared = results["study"], results["comparisons"]
    outcome = OUTCOMES[compared[0]["outcome"]] if compared and "outcome" in compared[0] else ""
    data = "; ".join(
        f"{d['name']} ({d['n_images']:,} images of {' × '.join(map(str, d['image_shape']))}, "
        f"{len(d['class_names'])} classes)"
        for d in results["data_sets"]
        if "n_images" in d
    )
    seeds = len(study["seeds"])
    text = [
        f"We compared {len(results['conditions'])} conditions"
        + (f" on {data}" if data else "")
        + f" in {study['folds']}-fold cross-validation with {seeds} "
        f"seed{'s' if seeds != 1 else ''}, after {study.get('test_fraction', 0.2):.0%} of the "
        "images had been held out as a test part"
        + (" by source" if study["protocol"] == "sound" else "")
        + "."
    ]
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
    if results.get("paired_starts"):
        text.append("With one seed all arms of a model began with the same weights.")
    if outcome:
        level = compared[0].get("level", 0.05)
        text.append(
            f"The outcome is {outcome}. Paired differences of folds were tested by the corrected "
            "resampled t-test (Nadeau and Bengio 2003), their variance including that of the "
            f"images, at a level of {level:.3g} over all {len(compared)} planned comparisons (Holm "
            "1979); an effect counts where in addition the Bayesian correlated t-test puts "
            f"{CERTAINTY:.0%} beyond the region of practical equivalence (Benavoli et al. 2017), "
            f"with at least {FEWEST_FOLDS} folds and {FEWEST_SEEDS} seeds, and as one of the "
            "augmentation where it holds against unchanged copies too."
        )
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
    text.append(f"Computed with rankwise {__version__}.")
    return " ".join(text)


def comparison_table(results: _Record) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the main table: one row a comparison, of accuracy and of robustness."""
    heads = [
        "data set", "model", "arm", "against", "outcome", "pairs", "effect", "low", "high",
        "simultaneous low", "simultaneous high", "p", "p after Holm", "verdict",
    ]  # fmt: skip
    rows = []
    for item in [*results["comparisons"], *results.get("robustness", [])]:
        effect, test = item["effect"], item["corrected_t"]
        rows.append(
            [
                item["data_set"],
                item["model"],
                item["arm"],
                item["baseline_arm"],
                OUTCOMES.get(item.get("outcome", ""), "validation accuracy"),
                str(item["pairs"]),
                *(
                    _points(effect.get(key))
                    for key in ("mean", "low", "high", "simultaneous_low", "simultaneous_high")
                ),
                _plain(test["p_value"]),
                _plain(test["p_holm"]),
                item["verdict"],
            ]
        )
    return heads, rows


def write_tables(results: _Record, folder: Path) -> list[Path]:
    """``comparisons.csv``, ``comparisons.tex``, ``methods.txt`` and ``references.bib``.

    Parameters
    ----------
    results : dict
        As in ``results.json``.
    folder : Path
        Made where it isn't there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    heads, rows = comparison_table(results)
    texts = {
        "comparisons.csv": _csv(heads, rows),
        "comparisons.tex": _latex(heads, rows),
        "methods.txt": methods(results) + "\n",
        "references.bib": REFERENCES,
    }
    for name, text in texts.items():
        with atomic_path(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def _csv(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([heads, *([_cell(value) for value in row] for row in rows)])
    return text.getvalue()


def _cell(value: str) -> str:
    """A name that a spreadsheet would take for a formula gets a quote before it."""
    number = value.lstrip("+-").replace(".", "", 1).isdigit()
    return f"'{value}" if value[:1] in ("=", "+", "-", "@") and not number else value


_ESCAPES = {
    "\\": r"\textbackslash{}",
    **{sign: "\\" + sign for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def _latex(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(values: Sequence[str]) -> str:
        cells = ("".join(_ESCAPES.get(sign, sign) for sign in value) for value in values)
        return " & ".join(cells) + r" \\"

    columns = "lllll" + "r" * (len(heads) - 6) + "l"
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            r"\hline",
            line(heads),
            r"\hline",
            *(line(row) for row in rows),
            r"\hline",
            r"\end{tabular}",
            "",
        ]
    )


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.3f}"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
