"""The version has one source, `rankwise._version`; whatever else names it follows."""

import re
from pathlib import Path

from rankwise import __version__

ROOT = Path(__file__).parents[2]


def test_citation_and_changes_follow_the_version():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (\S+)$", citation, re.MULTILINE)[1] == __version__
    assert 'attr = "rankwise._version.__version__"' in (ROOT / "pyproject.toml").read_text("utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d[^\]]*)\]", changes, re.MULTILINE)
    becoming = re.search(r"## \[Unreleased\]\s+To become (\d[\d.]*\d)", changes)
    # What isn't released yet is said to become this version; else it's the newest released one.
    assert (becoming[1] if becoming else released[0]) == __version__
