"""The figures that a report shows are those that results.json keeps."""

import json
import re

import pytest

from rankwise.study.degrade import KINDS
from rankwise.study.report import interval, percent
from rankwise.study.results import finite
from rankwise.study.tables import LEAKS, report_tables


@pytest.fixture(params=["paper", "sound", "notebook"])
def shown_and_stored(request, written):
    path, results = written[request.param]
    html = path.read_text(encoding="utf-8")
    return html, json.loads(json.dumps(finite(report_tables(results)))), results


def values(html, section):
    """Numbers behind the cells of a section's tables, row by row: what sorting goes by."""
    part = html[html.index(f'<section id="{section}">') :].split("</section>")[0]
    rows = [re.findall(r'data-value="(.*?)"', row) for row in part.split("<tr")]
    return [[float(v) if v else None for v in row] for row in rows if row]


def test_costs_and_leaks(shown_and_stored):
    html, stored, results = shown_and_stored
    keys = ("n_parameters", "cells", "n_train", "n_copies", "n_updates", "per_fold", "seconds")
    costs = stored["costs"]
    assert values(html, "costs") == [[row[key] for key in keys] for row in costs["rows"]]
    assert costs["seconds"] == pytest.approx(sum(c["seconds"] for c in results["cells"]))
    leaks = stored["leaks"]
    expected = [[row["cells"], *(row["counts"][key] for key, _ in LEAKS)] for row in leaks["rows"]]
    assert values(html, "leaks") == expected
    assert leaks["checked"] == len(results["leaks"])
    counted = sum(entry[key] for entry in results["leaks"] for key, _ in LEAKS)
    assert leaks["total"] == counted
    assert (f"{counted:,} shared sources and copies" in html) == (counted > 0)


def test_accuracies(shown_and_stored):
    html, stored, results = shown_and_stored
    known = {c["id"]: c for c in results["conditions"]}
    expected = []
    for row in stored["accuracies"]:
        condition = known[row["condition"]]
        published = condition["published"] or {"interval": [None], "test_accuracy": None}
        expected.append(
            [
                *(condition[key] for key in ("energy", "skip_threshold", "epochs")),
                published["interval"][0],
                row["fold_test"],
                row["mean"],
                row["folds"],
                published["test_accuracy"],
                row["test"],
                row["star"],
            ]
        )
        assert row["mean"] == pytest.approx(sum(row["interval"]) / 2)
        assert f">{interval(row['interval'])}</td>" in html
        assert f">{percent(row['test'])}</td>" in html
        assert f"best epoch {row['best_epoch']:.1f} on average" in html
    assert values(html, "tables") == expected


def test_degraded(shown_and_stored):
    html, stored, results = shown_and_stored
    known = {c["id"]: c for c in results["conditions"]}
    expected = []
    for group in stored["degraded"]:
        assert f"<h3>{group['name']}: " in html
        for row in group["rows"]:
            kinds = [row["kinds"][kind] for kind in KINDS]
            rest = [row[key] for key in ("all", "mce", "gain", "n")]
            expected.append([row["clean"], *kinds, *rest])
    assert values(html, "degraded") == expected
    assert len(expected) == len(results["conditions"])
    # Epochs stand beside an arm's name where arms of a data set and model differ in them.
    part = html[html.index('<section id="degraded">') :].split("</section>")[0]
    told = re.findall(r'<span class="small">(\d+) epochs</span>', part)
    differ = {c["epochs"] for c in known.values()} != {10}
    assert told == ([str(c["epochs"]) for c in results["conditions"]] if differ else [])


def test_nothing_is_missing_where_all_is_done(shown_and_stored):
    missing, results = shown_and_stored[1]["missing"], shown_and_stored[2]
    assert missing == {"rows": [], "done": len(results["cells"]), "planned": len(results["cells"])}


def test_results_without_them_give_the_same_report(written):
    """As earlier versions wrote results."""
    from rankwise.study import report

    path, results = written["sound"]
    assert "tables" not in results
    stored = results | {"tables": finite(report_tables(results))}
    assert report.render(stored, path.parent) == path.read_text(encoding="utf-8")
