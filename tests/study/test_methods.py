"""A study in sentences, tables and references."""

import csv
import re

import pytest

from rankwise._version import __version__
from rankwise.errors import RunError
from rankwise.study import design_words, report
from rankwise.study.conclusions import conclusions
from rankwise.study.conditions import conditions_of
from rankwise.study.exports import comparison_table, write_tables
from rankwise.study.methods import family_size, methods
from rankwise.study.presets import preset
from rankwise.study.reading import study_from
from rankwise.study.references import REFERENCES
from study.made_results import make_results


def factorial(folder):
    """Results of low-rank and jpeg, and both at once, on two data sets."""
    results = make_results(folder, seeds=(1, 2, 3))
    for condition in results["conditions"]:
        if condition["arm"] == "duplicate":
            condition |= {"arm": "low-rank+jpeg", "arm_kind": "both"}
        condition["control"] = None
    results["study"] |= {"factorial": [["low-rank", "jpeg"]], "rope": None}
    results |= conclusions(results, folder)
    return results


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_tables_hold_every_comparison(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3))
    paths = write_tables(results, tmp_path / "tables")
    assert [p.name for p in paths] == [
        *("comparisons.csv", "comparisons.tex", "accuracies.csv", "accuracies.tex"),
        *("degraded.csv", "degraded.tex", "methods.txt", "references.bib"),
    ]
    rows = rows_of(paths[0])
    compared = results["comparisons"] + results["robustness"]
    assert [row["verdict"] for row in rows] == [c["verdict"] for c in compared]
    assert [float(row["effect"]) for row in rows] == pytest.approx(
        [100 * c["effect"]["mean"] for c in compared], abs=6e-4
    )
    latex = paths[1].read_text(encoding="utf-8")
    assert latex.count("\\\\") == 1 + len(rows)
    assert latex.count("&") == (1 + len(rows)) * (len(comparison_table(results)[0]) - 1)
    assert "@article{nadeau2003inference," in paths[-1].read_text(encoding="utf-8")


def test_factors_summaries_and_ranks_are_tables_too(tmp_path):
    results = factorial(tmp_path)
    paths = {p.name: p for p in write_tables(results, tmp_path / "tables")}
    rows = rows_of(paths["factors.csv"])
    assert [row["verdict"] for row in rows] == [f["verdict"] for f in results["factors"]]
    assert {row["effect of"] for row in rows} == {"low-rank", "jpeg", "interaction"}
    assert [float(row["effect"]) for row in rows] == pytest.approx(
        [100 * f["effect"]["mean"] for f in results["factors"]], abs=6e-4
    )
    assert r"low-rank $\times$ jpeg" in paths["factors.tex"].read_text(encoding="utf-8")
    effects = results["summaries"]["effects"]
    rows = rows_of(paths["summaries.csv"])
    assert len(rows) == 3 * len(effects) == 9
    means = [float(row["effect"]) for row in rows if row["data set"] == "mean"]
    assert means == pytest.approx([100 * e["mean"] for e in effects], abs=6e-4)
    (ranks,) = results["summaries"]["ranks"]
    assert [row["arm"] for row in rows_of(paths["ranks.csv"])] == list(ranks["arms"])
    mce = {row["arm"]: row["mCE"] for row in rows_of(paths["degraded.csv"])}
    assert mce["none"] == ""
    assert 0 < float(mce["low-rank"]) < 100
    tested = {row["arm"]: float(row["test"]) for row in rows_of(paths["accuracies.csv"])}
    assert tested["low-rank"] < tested["none"]


def test_the_family_is_the_one_that_was_tested(tmp_path):
    results = factorial(tmp_path)
    assert (len(results["comparisons"]), len(results["factors"])) == (6, 12)
    assert family_size(results, "test") == family_size(results, "degraded") == 12
    text = methods(results)
    assert (
        "over all 12 planned tests, 6 comparisons and 6 main effects and interactions (Holm 1979)"
        in text
    )
    assert "in the same way in a family of 12; mCE is the error" in text
    one = results | {"comparisons": results["comparisons"][:1], "factors": []}
    assert "over the one planned comparison (Holm 1979)" in methods(one)


def test_the_paragraph_lets_somebody_repeat_the_study(tmp_path):
    results = factorial(tmp_path)
    results["study"] |= {
        "models": {"simple-cnn": {"network": "simple-cnn", "dropout": 0.5, "learning_rate": 0.003}},
        "arms": {"jpeg": {"kind": "jpeg", "severity": 4}},
    }
    text = methods(results)
    for said in (
        "The network was simple-cnn (101,770 parameters, dropout 0.5, Adam at a learning rate of "
        "0.003).",
        "low-rank (copies of low rank by SVD, of 0.2 of the training images, energy 0.975 ± 0.025 "
        "of the sum of singular values)",
        "jpeg (JPEG-compressed copies, of 0.2 of the training images, severity 4)",
        "low-rank+jpeg (both at once)",
        "Trainings had 10 epochs in batches of 128.",
        "on the whole training part, for the mean of the folds’ best epochs.",
        "the region of practical equivalence (Benavoli et al. 2017), ±0.1 of the baseline’s mean "
        "error, here ±",
        "degraded by low rank by SVD, JPEG, down-scaling, Gaussian blur and Gaussian noise, at",
        "In a 2 × 2 factorial design (low-rank × jpeg) the main effect",
        "random effects, their variance between data sets after Paule and Mandel (1982)",
        "Friedman's test (Friedman 1937) with Nemenyi's critical difference",
        "McNemar's test (McNemar 1947;",
    ):
        assert said in text
    results["study"] |= {"rope": 0.005, "corruptions": "imagenet-c", "reserve": 0.1}
    results["study"]["models"]["simple-cnn"] = {
        "network": "backbone", "backbone": "a.safetensors", "transfer": True, "unfreeze": 2,
        "frozen_epochs": 5, "frozen_stage": "epochs", "precision": "bf16-mixed",
    }  # fmt: skip
    text = methods(results)
    assert "(Benavoli et al. 2017), ±0.5 points, with" in text
    assert "the fifteen corruptions of ImageNet-C (Hendrycks and Dietterich 2019)" in text
    assert "10% of the training part was set aside for tuning." in text
    assert (
        "network backbone, backbone a.safetensors, pre-trained, its head trained for 5 epochs, "
        "then its 2 topmost layers too, dropout 0.5, RMSprop at a learning rate of 1e-05" in text
    )
    solved = {"frozen_stage": "closed-form", "unfreeze": 0}
    results["study"]["models"]["simple-cnn"] |= solved
    text = methods(results)
    assert "pre-trained, its head solved in closed form and nothing else" in text
    assert "Trainings had" not in text


def said_of(study):
    conditions = [condition.to_json() for condition in conditions_of(study)]
    return design_words.arms({"study": study.to_json(), "conditions": conditions})


def test_an_arm_is_named_with_every_dose_that_it_has():
    assert said_of(preset("experiment-1")) == (
        "The arms were none (no augmentation); low-rank on mnist and fashion-mnist (copies of low "
        "rank by SVD, of 0.2 of the training images, energy 0.975 ± 0.025 of the sum of singular "
        "values); low-rank on malaria and cats-vs-dogs (copies of low rank by SVD, of 0.2 of the "
        "training images, energy 0.9999 ± 0.025 of the sum of singular values)."
    )
    rows = [
        {"data": "a", "model": m, "arm": "low-rank", "skip_threshold": s, "epochs": e}
        for m, s, e in (("simple-cnn", 0.5, 4), ("simple-cnn", 0.6, 8), ("resnet25", 0.7, 4))
    ]
    made = {
        "protocol": "paper",
        "data": {"a": {"source": "digits"}},
        "models": ["simple-cnn", "resnet25"],
        "arms": ["low-rank"],
        "conditions": rows,
    }
    said = said_of(study_from(made, "made"))
    for place, share in (
        ("a with simple-cnn for 4 epochs", 0.5),
        ("a with simple-cnn for 8 epochs", 0.4),
        ("a with resnet25", 0.3),
    ):
        assert f"low-rank on {place} (copies of low rank by SVD, of {share} of the" in said


def test_two_arms_at_once_are_named_with_the_doses_of_each():
    made = {
        "protocol": "sound",
        "data": {"a": {"source": "digits"}},
        "models": ["simple-cnn"],
        "arms": {
            "none": {},
            "low-rank": {"reference": "notebook", "energy": 0.9, "skip_threshold": 0.5},
            "blur": {"severity": 2},
        },
        "factorial": [["low-rank", "blur"]],
    }
    said = said_of(study_from(made, "made"))
    low_rank = (
        "copies of low rank by SVD, of 0.5 of the training images, energy 0.9 ± 0.025 of the sum "
        "of singular values, the rank nearest to it, one for all channels, as the paper’s code has "
        "it"
    )
    blur = "blurred copies, of 0.2 of the training images, severity 2"
    assert f"; low-rank ({low_rank});" in said
    assert f"; low-rank+blur (both at once: {low_rank}; and {blur})" in said
    assert (
        "low-rank+blur-unchanged (both at once: unchanged copies, of 0.5 of the training images; "
        "and unchanged copies, of 0.2 of the training images)" in said
    )


def test_the_images_variance_is_told_where_it_is_in(tmp_path):
    results = make_results(tmp_path, seeds=(1, 2, 3))
    assert "2003), their variance including that of the images, at a level" in methods(results)
    for item in results["comparisons"][1:]:
        item["images"] = None
    n = len(results["comparisons"])
    assert f"including that of the images in 1 of {n} comparisons, at" in methods(results)
    results["comparisons"][0]["images"] = None
    assert "t-test (Nadeau and Bengio 2003), at a level" in methods(results)


def test_predictions_that_are_gone_are_refused(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3))
    gone = tmp_path / next(c for c in results["cells"] if c["stage"] == "fold")["predictions"]
    gone.unlink()
    with pytest.raises(RunError) as caught:
        conclusions(results, tmp_path)
    assert str(caught.value) == (
        f"{gone} of a finished cell isn't there; remove its folder, and the command that runs the "
        "study makes it again"
    )


def test_what_is_cited_has_an_entry(tmp_path):
    results = factorial(tmp_path)
    results["study"]["corruptions"] = "imagenet-c"
    html = report.render(results, tmp_path)
    cited = set(re.findall(r"([A-Z]\w+)(?: and [A-Z]\w+| et al\.)? \(?((?:19|20)\d\d)\b", html))
    assert {("Corani", "2015"), ("Paule", "1982"), ("Hendrycks", "2019")} <= cited
    entries = re.findall(r"author = \{(.*?)\},\n.*?year = \{(\d+)\}", REFERENCES, re.S)
    known = {(authors.replace(r"{\v{s}}", "š").split(",")[0], year) for authors, year in entries}
    assert cited - known == set()
    for name in ("Hartung", "Holm", "Nemenyi", "Friedman", "McNemar", "Durkalski", "Benavoli"):
        assert name in {author for author, _ in known}
    assert REFERENCES.count("@") == len(entries) == 12
    assert REFERENCES.count("{") == REFERENCES.count("}")


def test_names_are_text_in_tables(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    results["comparisons"][0]["arm"] = "=SUM(A1)_50%"
    csv_path, tex_path, *_ = write_tables(results, tmp_path / "tables")
    assert "'=SUM(A1)_50%" in csv_path.read_text(encoding="utf-8")
    assert r"=SUM(A1)\_50\%" in tex_path.read_text(encoding="utf-8")


def test_the_paragraph_says_what_was_done(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), seeds=(1, 2, 3))
    text = methods(results)
    assert "in 5-fold cross-validation with 3 seeds (1, 2, 3), after 20% of the images" in text
    assert "all arms had the same number of updates" in text
    assert "The outcome is test accuracy." in text
    assert "at a level of 0.04 over all 5 planned comparisons" in text
    results |= {"look": 2, "plan": "abc"}
    results["study"]["patience"] = 4
    text = methods(results)
    assert "ended after 4 epochs without a lower validation loss" in text
    assert "The study was extended 1 time(s)" in text
    assert "It follows a plan written before, sha256 abc." in text


def test_the_version_that_trained_is_told(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",))
    results["environment"]["rankwise"] = "0.0.7"
    said = f"Computed with rankwise 0.0.7, this text written with {__version__}."
    assert methods(results).endswith(said)
    results["environment"]["rankwise"] = __version__
    assert methods(results).endswith(f"Computed with rankwise {__version__}.")
