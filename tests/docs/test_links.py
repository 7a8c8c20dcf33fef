"""The site's build follows every link: it finds the dead ones, and only those."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def dead_links(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("links").dead_links


def test_dead_links_and_anchors_are_found(dead_links, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(
        '<a href="in/b.html#there">1</a> <a href="in/">2</a> <a href="#top">3</a>'
        '<a href="https://example.org/none">4</a> <img src="a.png"> <img src="data:,">'
        '<a href="a%2Epng?v=1">5</a>'
    )
    (tmp_path / "in" / "index.html").write_text('<a href="../index.html">home</a>')
    (tmp_path / "in" / "b.html").write_text('<h1 id="there">b</h1>')
    assert dead_links(tmp_path) == []
    (tmp_path / "in" / "c.html").write_text(
        '<a href="b.html#gone">1</a><img src="../b.png"><a href="#nowhere">2</a>'
    )
    assert dead_links(tmp_path) == [
        "in/c.html: #nowhere",
        "in/c.html: ../b.png",
        "in/c.html: b.html#gone",
    ]


def test_every_page_is_in_the_navigation():
    written = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    assert {name for name in written if name not in listed} == set()
