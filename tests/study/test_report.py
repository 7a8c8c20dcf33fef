"""The report: what it says of each protocol and of an unfinished study; how a browser shows it."""

import json
import re
import xml.etree.ElementTree as ET
from html import unescape
from html.parser import HTMLParser

import pytest

from rankwise import _page
from rankwise.cli._study_text import print_results
from rankwise.errors import RunError
from rankwise.study import report, sections
from rankwise.study.leak_section import leak_check
from rankwise.study.spans import span
from rankwise.study.verdict_sections import answer
from study.made_results import make_results, png_uri

VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Elements with their attributes; fails on tags that don't close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.found, self.texts = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def all(self, tag, **wanted):
        return [a for t, a in self.found if t == tag and wanted.items() <= a.items()]

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.mark.parametrize("protocol", ["paper", "sound", "notebook"])
def test_it_is_one_well_formed_file_that_asks_for_nothing(written, protocol):
    path, results = written[protocol]
    html = path.read_text(encoding="utf-8")
    page = Page(html)
    for tag, attributes in page.found:
        for name in ("src", "href"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes)
    assert not re.search(r"url\(|@import|https?://", html.replace("http://www.w3.org", ""))
    ids = {a["id"] for _, a in page.found if "id" in a}
    targets = {a["href"][1:] for a in page.all("a")}
    assert targets == ids
    assert page.all("meta", name="viewport")
    assert page.all("html", lang="en")
    # Every figure of the gallery is there, as data.
    folder = path.parent
    pictures = [a["src"] for a in page.all("img")]
    assert pictures == [png_uri(folder / item["file"]) for item in results["gallery"]]
    assert all(a["alt"] for a in page.all("img"))


def test_verdicts_come_first_and_in_words(written):
    path, results = written["sound"]
    text = Page(path.read_text(encoding="utf-8")).text
    places = [text.index(f" {head} ") for head in ("Verdicts", "Evidence", "Leak check", "Record")]
    assert places == sorted(places)
    for comparison in results["comparisons"]:
        assert comparison["sentence"] in text
    assert "The paper’s rule retains “no effect”, as published." in text


def test_every_table_is_sortable_and_scrolls_alone(written):
    html = written["sound"][0].read_text(encoding="utf-8")
    page = Page(html)
    assert len(page.all("table")) == len(page.all("table", **{"class": "sortable"})) >= 6
    regions = page.all("div", role="region", tabindex="0")
    assert len(regions) == len(page.all("table"))
    assert all(a["aria-label"] for a in regions)
    for table in re.findall(r"<table.*?</table>", html, re.S):
        widths = {len(re.findall(r"<t[hd][ >]", row)) for row in table.split("<tr")[1:]}
        assert len(widths) == 1


def test_published_figures_stand_beside_measured_ones(written):
    path, results = written["paper"]
    text = Page(path.read_text(encoding="utf-8")).text
    for figure in ("[98.90%, 99.14%]", "99.19%", "[98.60%, 98.86%]", "98.70%", "90.39%"):
        assert figure in text
    rows = sections.tables(results)
    assert [r["condition"]["arm"] for r in rows] == ["none", "low-rank"] * 2
    assert report.interval(rows[0]["interval"]) in text
    assert rows[1]["star"] == 20


def test_leaks_have_a_red_banner_and_counts(written):
    html = written["notebook"][0].read_text(encoding="utf-8")
    text = Page(html).text
    assert 'class="banner leak"' in html
    assert "This protocol leaks on purpose. Its figures are flattered." in text
    leaks = leak_check(written["notebook"][1])
    assert leaks["total"] == 2 * 5 * 2 * 1790
    assert f"✗ {leaks['total']:,} shared sources and copies" in text
    assert "Leaks are this protocol’s purpose." in text
    assert 'class="nonzero" data-value="8950"' in html


def with_repeats(results, **repeats):
    """Results whose data sets have these repeats, and no others."""
    known = {"exact": 0, "near": 0, "exact_within": 0, "checked": 96, "blank": 0} | repeats
    return results | {"data_sets": [d | {"repeats": known} for d in results["data_sets"][:1]]}


def test_no_leak_is_said_with_its_counts(written):
    path, results = written["sound"]
    results = with_repeats(results)
    text = Page(report.render(results, path.parent)).text
    assert 'class="banner leak"' not in text
    assert "✓ Nothing is shared, by source ids, by pixels or by looks." in text
    assert "Source ids and copies: over the rows that 40 cells trained" in text
    assert "mnist: pixels and looks of 96 images, test part against training part." in text
    assert leak_check(results)["checked"] == 40
    results = results | {"leaks": []}
    assert "No cell has been checked yet." in Page(report.render(results, path.parent)).text
    leaky = [{**written["notebook"][1]["leaks"][5], "condition": results["conditions"][0]["id"]}]
    text = Page(report.render(results | {"leaks": leaky}, path.parent)).text
    assert "✗ 3,580 shared sources and copies over 1 cell." in text
    assert "Accuracies above are flattered by what is shared." in text


@pytest.mark.parametrize(
    ("protocol", "repeats", "headline", "are"),
    [
        (
            "paper",
            {"exact": 15, "near": 4},
            "15 test images have the pixels of a training image, 4 more look nearly like one.",
            "are",
        ),
        ("sound", {"near": 12}, "12 test images look nearly like a training image.", "may be"),
        ("sound", {"exact": 1}, "1 test image has the pixels of a training image.", "are"),
        (
            "paper",
            {"exact_within": 2},
            "2 training images repeat another, and folds cut by image may part them.",
            "may be",
        ),
    ],
)
def test_equal_pictures_under_other_names_are_the_headline(
    written, protocol, repeats, headline, are
):
    path, results = written[protocol]
    found = leak_check(with_repeats(results, **repeats))
    assert (found["headline"], found["clean"]) == (f"✗ {headline}", False)
    text = Page(report.render(with_repeats(results, **repeats), path.parent)).text
    assert f"✗ {headline} Accuracies above {are} flattered by what is shared." in text
    assert "Nothing is shared" not in text


def test_a_headline_of_several_data_sets_names_them(written):
    found = leak_check(written["sound"][1])
    assert found["headline"] == (
        "✗ mnist: 3 test images look nearly like a training image; "
        "fashion-mnist: 3 test images look nearly like a training image."
    )
    # Equal pixels count as one source under `sound`, whose folds don't part sources.
    assert leak_check(with_repeats(written["sound"][1], exact_within=2))["clean"]


def test_what_nobody_compared_isn_t_told_to_be_clean(written):
    path, results = written["sound"]
    old = [{k: v for k, v in d.items() if k != "repeats"} for d in results["data_sets"]]
    text = Page(report.render(results | {"data_sets": old}, path.parent)).text
    assert "No declared source or copy is shared. Pixels and looks weren’t compared." in text
    assert "Nothing is shared" not in text
    assert not leak_check(results | {"data_sets": old})["clean"]


def test_reductions_are_marked(written):
    text = Page(written["sound"][0].read_text(encoding="utf-8")).text
    assert "Smaller than designed." in text
    assert "70,000 images; 9 unreadable" not in text
    assert "fashion-mnist: limit 5000 of 70,000 images" in text
    whole = [d | {"reduced": False} for d in written["sound"][1]["data_sets"]]
    results = written["sound"][1] | {"data_sets": whole}
    assert "Smaller" not in report.render(results, written["sound"][0].parent)
    # Results of a version that kept reductions among the notes.
    old = [{k: v for k, v in d.items() if k != "reductions"} for d in results["data_sets"]]
    old = [d | {"reduced": d["name"] != "mnist"} for d in old]
    text = report.render(results | {"data_sets": old}, written["sound"][0].parent)
    assert "fashion-mnist: limit 5000 of 70,000 images; 9 unreadable images" in text


def test_conditions_without_a_baseline_are_named(written):
    path, results = written["sound"]
    html = path.read_text(encoding="utf-8")
    assert "Not compared" not in html
    kinds = {"low-rank": "default+low-rank", "jpeg": "jpeg"}
    conditions = [
        c | {"arm_kind": kinds[c["arm"]], "baseline": None} if c["arm"] in kinds else c
        for c in results["conditions"]
    ]
    text = Page(report.render(results | {"conditions": conditions}, path.parent)).text
    assert "Not compared, as this study has no baseline for them:" in text
    assert "mnist/simple-cnn/low-rank/10; an arm of kind “default” beside it would be one" in text
    assert "mnist/simple-cnn/jpeg/10; an arm of kind “none” beside it would be one" in text
    assert "mnist/simple-cnn/none/10; an arm" not in text


def test_one_epoch_is_no_epochs(written):
    path, results = written["sound"]
    conditions = [c | {"epochs": 1} for c in results["conditions"]]
    text = Page(report.render(results | {"conditions": conditions}, path.parent)).text
    assert "low-rank, 1 epoch" in text
    assert "1 epochs" not in text


def test_every_figure_is_there(written):
    path, _ = written["sound"]
    html = path.read_text(encoding="utf-8")
    charts = re.findall(r'<svg class="chart".*?</svg>', html, re.S)
    # Forest plots of accuracy and robustness; loss and accuracy of 8 conditions; 5 degradations of
    # 2 data sets.
    assert len(charts) == 2 + 16 + 10
    for chart in charts:
        ET.fromstring(chart)
    labels = [unescape(re.search(r'aria-label="(.*?)"', c).group(1)) for c in charts]
    assert any(label.startswith("low-rank on mnist: accuracy.") for label in labels)
    assert any(label.startswith("Gaussian noise of mnist, simple-cnn.") for label in labels)


def test_text_of_the_study_is_escaped(written):
    path, results = written["sound"]
    html = path.read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert results["command"] in unescape(html)


@pytest.mark.parametrize("finished", [0.0, 0.05, 0.3, 0.7, 0.99])
def test_an_unfinished_study_says_what_is_missing(tmp_path, finished):
    results = make_results(tmp_path, finished=finished, seeds=(42, 43))
    html = report.write_report(tmp_path).read_text(encoding="utf-8")
    text = Page(html).text
    done = len(results["cells"])
    assert f"{done} of 96 cells are done." in text
    missing = sections.missing(results)
    assert (missing["done"], missing["planned"]) == (done, 96)
    left = sum(row["fold"] + row["retrain"] for row in missing["rows"])
    assert left == 96 - done
    assert all(row["condition"]["id"] in text for row in missing["rows"])
    assert ("cells trained, validated" in text) == (finished > 0)


def test_the_least_that_a_study_holds(tmp_path):
    results = {
        "format": 1,
        "study": {"name": "s", "protocol": "paper", "folds": 2, "seeds": [1], "retrain": False},
        "conditions": [],
        "cells": [],
        "data_sets": [],
    }
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    text = Page(report.write_report(tmp_path).read_text(encoding="utf-8")).text
    assert "There is nothing to compare: no condition has a baseline in this study." in text


def test_a_model_without_epochs_and_a_picture_that_is_gone(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",))
    for cell in results["cells"]:
        cell["history"] = []
    (tmp_path / "results.json").write_text(json.dumps(results), encoding="utf-8")
    (tmp_path / "gallery" / "mnist.png").unlink()
    page = Page(report.write_report(tmp_path).read_text(encoding="utf-8"))
    assert "gallery/mnist.png isn’t there any more." in page.text
    assert "curves" not in {a.get("id") for _, a in page.found}


def test_histories_with_gaps_and_of_different_lengths(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    first = results["cells"][0]
    first["history"] = first["history"][:4]
    for entry in results["cells"][1]["history"]:
        entry["train_loss"] = None
    (group,) = sections.curves(results)
    assert len(group["panels"]) == 2
    # What isn't known in every fold has no mean.
    loss = group["panels"][0]["charts"][0]
    assert loss.count("<polyline") == 1


def test_comparisons_are_made_where_they_lack(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",), protocol="paper")
    sentence = results["comparisons"][0]["sentence"]
    del results["comparisons"]
    assert sentence in Page(report.render(results, tmp_path)).text


def test_degraded_takes_the_stage_with_more_models(tmp_path):
    results = make_results(tmp_path, data_sets=("mnist",))
    (group,) = sections.degraded(results)
    assert group["models"] == "models of the folds"
    low_rank = next(r for r in group["rows"] if r["condition"]["arm"] == "low-rank")
    assert low_rank["n"] == 5
    assert low_rank["gain_range"][0] <= low_rank["gain"] <= low_rank["gain_range"][1]
    none = next(r for r in group["rows"] if r["condition"]["arm"] == "none")
    assert none["gain"] is None
    assert low_rank["gain"] == pytest.approx(low_rank["all"] - none["all"])
    results["cells"] = [c for c in results["cells"] if c["stage"] == "retrain"]
    (group,) = sections.degraded(results)
    assert group["models"] == "re-trained models"
    results["cells"] = [c | {"degraded": None} for c in results["cells"]]
    assert sections.degraded(results) == []


def test_costs_add_up(written):
    results = written["paper"][1]
    found = sections.costs(results)
    assert found["seconds"] == pytest.approx(sum(c["seconds"] for c in results["cells"]))
    low_rank = found["rows"][1]
    assert (low_rank["n_train"], low_rank["n_copies"]) == (44800, 8960)
    assert low_rank["cells"] == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "has no results.json: run the study first"),
        ("{", "results.json is damaged: it isn't JSON"),
        ("[]", "has format None; this version reads format 1"),
        ('{"format": 7}', "has format 7; this version reads format 1"),
        ('{"format": 1, "study": {}}', "it lacks conditions, cells, data_sets"),
    ],
)
def test_refusals(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=re.escape(message)):
        report.write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_filters():
    assert report.percent(0.98765) == "98.77%"
    assert report.percent(None) == report.points(None) == report.seconds(None) == "–"
    assert report.points(-0.0123) == "−1.23"
    assert report.points(-1e-9) == "+0.00"
    assert [span(v, v).split()[0] for v in (-1e-9, -0.01234)] == ["+0.00", report.points(-0.01234)]
    assert [report.probability(p) for p in (0.0, 0.0449, 1.0, 0.9999, None)] == [
        "< 0.001",
        "0.045",
        "1.000",
        "> 0.999",
        "–",
    ]
    assert [report.seconds(s) for s in (4.21, 185, 7380)] == ["4.2 s", "3 min 05 s", "2 h 03 min"]
    assert report.whole(1234567.4) == "1,234,567"
    assert report.interval(None) == "–"
    assert report.interval((0.989, 0.9914)) == "[98.90%, 99.14%]"
    assert report.counts(14000) == "14,000"
    assert report.counts([5, 7]) == "5 to 7"
    assert report.counts([7, 7]) == "7"
    assert report.counts(None) == report.counts([]) == "–"


def test_the_answer_counts_no_pairs_of_other_arms(written):
    _, results = written["sound"]
    own = [c for c in results["comparisons"] if c["data_set"] == "mnist"]
    none_yet = {"pairs": 0, "verdict": "cannot tell", "obstacle": None}
    compared = [c | none_yet if c["arm"] == "jpeg" else c for c in own]
    shown = results | {"comparisons": compared}
    assert answer(shown) == (
        "Cannot tell: low-rank (5 folds, 1 seed, 5 pairs). No pair of folds is finished yet: jpeg."
    )
    jpeg = next(c["condition"] for c in own if c["arm"] == "jpeg")
    failures = [{"condition": jpeg, "cells": 5, "reason": "RuntimeError: boom"}]
    assert answer(shown | {"failures": failures}) == (
        "Cannot tell: low-rank (5 folds, 1 seed, 5 pairs). Not compared, as cells failed: jpeg."
    )
    fewer = [c | {"pairs": 3} if c["arm"] == "jpeg" else c for c in own]
    assert answer(results | {"comparisons": fewer}).endswith("(5 folds, 1 seed, 3 to 5 pairs).")
    assert answer(results | {"comparisons": [c | none_yet for c in own]}) == (
        "Nothing can be said yet (5 folds, 1 seed). No pair of folds is finished yet: low-rank, "
        "jpeg."
    )


@pytest.mark.parametrize(
    ("clean", "degraded", "said"),
    [
        ("helps", "harms", "; but on degraded test images harms: jpeg on mnist ("),
        ("copies help", "copies harm", "; but on degraded test images harms: jpeg on mnist ("),
        ("harms", "helps", "; but on degraded test images helps: jpeg on mnist ("),
        ("helps", "helps", None),
        ("cannot tell", "harms", None),
    ],
)
def test_the_answer_says_what_is_the_opposite_on_degraded_images(written, clean, degraded, said):
    _, results = written["sound"]

    def with_verdict(items, verdict):
        jpeg = ("jpeg", "mnist", "baseline")
        return [
            c | {"verdict": verdict}
            if (c["arm"], c["data_set"], c["role"]) == jpeg
            else c | {"verdict": "cannot tell"}
            for c in items
        ]

    shown = results | {
        "comparisons": with_verdict(results["comparisons"], clean),
        "robustness": with_verdict(results["robustness"], degraded),
    }
    assert ("but on degraded" in answer(shown)) == (said is not None)
    assert said is None or said in answer(shown)


@pytest.mark.parametrize("obstacle", [None, "jpeg is near chance: train longer"])
def test_a_banner_takes_nothing_out_that_the_answer_holds(tmp_path, obstacle):
    results = make_results(tmp_path, data_sets=("mnist",))
    flagged = next(c["id"] for c in results["conditions"] if c["arm"] == "jpeg")
    for row in results["convergence"]:
        row["near_chance"] = row["condition"] == flagged
    for item in results["comparisons"]:
        if item["arm"] == "jpeg":
            item |= {"verdict": "cannot tell" if obstacle else "harms", "obstacle": obstacle}
    text = Page(report.render(results, tmp_path)).text
    out = "These conditions take no part in the conclusions: mnist/simple-cnn/jpeg/10: near chance"
    assert (out in text) == bool(obstacle)
    judged = "These conditions have verdicts, which rest on such figures: mnist/simple-cnn/jpeg/10"
    assert (judged in text) != bool(obstacle)
    assert ("harms: jpeg" in answer(results).replace("Harms", "harms")) != bool(obstacle)
    if obstacle:
        assert "Jpeg is near chance: train longer." in text


def test_many_comparisons_are_one_table_that_is_folded_away(written):
    path, results = written["sound"]
    html = path.read_text(encoding="utf-8")
    words = re.search(r'<details class="words">(.*?)</details>', html, re.S).group(1)
    assert "All 10 comparisons in words" in words
    rows = re.findall(r"<tr>.*?</tr>", words, re.S)[1:]
    assert len(rows) == len(results["comparisons"]) == 10
    for row, item, other in zip(rows, results["comparisons"], results["robustness"], strict=True):
        text = unescape(row)
        assert item["sentence"] in text
        assert other["sentence"] in text
    assert 'class="cards"' not in html
    few = results | {"comparisons": results["comparisons"][:2], "robustness": []}
    assert '<details class="words" open>' in report.render(few, path.parent)


def test_an_interval_that_says_nothing_ends_where_accuracies_do(written):
    path, results = written["sound"]
    effect = {"mean": 0.0833, "low": -2.6231, "high": 0.2, "simultaneous_low": -40.1}
    effect |= {"simultaneous_high": 40.2, "deviation": 0.1}
    first = results["comparisons"][0] | {"effect": effect}
    shown = results | {"comparisons": [first, *results["comparisons"][1:]]}
    text = Page(report.render(shown, path.parent)).text
    assert text.count("−100 to +20.00") == 1  # among the evidence
    assert "262" not in text
    assert report.span_of({"low": None, "high": None}) == "–"
    assert report.span_of({"low": -0.01, "high": 1.0}) == "−1.00 to +100.00"


def test_what_each_look_told_stands_in_a_table(written):
    path, results = written["sound"]
    assert "What each look told" not in Page(report.render(results, path.parent)).text
    looks = [
        {"look": 1, "level": 0.04, "p_holm": 0.0123, "verdict": "harms"},
        {"look": 2, "level": 0.005, "p_holm": None, "verdict": "cannot tell"},
    ]
    first, *others = results["comparisons"]
    html = report.render(
        results | {"comparisons": [first | {"looks": looks}, *others]}, path.parent
    )
    table = html.split('aria-label="What each look told"')[1].split("</table>")[0]
    head, row = [re.sub("<[^>]+>", " ", row).split() for row in table.split("<tr>")[1:]]
    assert " ".join(head) == "Comparison Look 1, level 0.040 Look 2, level 0.005"
    assert " ".join(row).endswith("test accuracy ▼ harms p 0.012 ? cannot tell p –")


def contrast(first, second):
    """WCAG 2.1, relative luminance."""

    def luminance(colour):
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(first), luminance(second)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_colours_have_contrast(mode):
    css = _page.shared("base.css")
    blocks = re.findall(r":root \{(.*?)\}", css, re.S)
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", blocks[mode]))
    for name in ("ink", "soft", "link", *(f"s{i}" for i in range(8))):
        assert contrast(colours[name], colours["page"]) >= 4.5, name
    assert contrast(colours["soft"], colours["panel"]) >= 4.5
    for name in ("good", "bad", "even", "open", "alarm"):
        assert contrast(colours[name], colours[f"{name}-tint"]) >= 4.5, name
    assert contrast(colours["ink"], colours["alarm-tint"]) >= 7


def test_the_command_line_holds_intervals_of_summaries_to_what_is_possible(capsys, tmp_path):
    effect = {"arm": "jpeg", "baseline_arm": "none", "model": "cnn", "rows": [1, 2], "note": "Few."}
    effect |= {"mean": -0.02, "low": -2.6, "high": 0.3}
    results = {key: [] for key in ("data_sets", "conditions", "cells", "comparisons")}
    results |= {"study": {"protocol": "sound"}, "summaries": {"effects": [effect]}}
    print_results(results, tmp_path, False)
    shown = " ".join(capsys.readouterr().out.split())
    assert "over 2 data sets: −2.00 points (−100 to +30.00). Few." in shown
