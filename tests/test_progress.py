"""Bars whose words change while they move."""

from rankwise import _progress
from rankwise.cluster import cluster, on_workers


def test_a_description_is_asked_for_anew(monkeypatch, capsys):
    monkeypatch.setattr(_progress, "_FRESH", 0.0)
    monkeypatch.setenv("COLUMNS", "80")
    workers = iter([1, 1, 3, 3, 3])
    with _progress.progress_bar(lambda: f"cells on {next(workers)}", 2) as advance:
        advance(1)
        advance(1)
    line = capsys.readouterr().err
    assert "cells on 3" in line
    assert "2/2" in line


def test_words_name_the_workers_that_there_are():
    assert on_workers("cells", processes=True) == "cells"
    for where, words in (("local:1", "cells on 1 worker"), ("local:3", "cells on 3 workers")):
        with cluster(where):
            assert on_workers("glue") == "glue"  # which threads of this machine take
            said = on_workers("cells", processes=True)
            assert callable(said)
            assert said() == words
