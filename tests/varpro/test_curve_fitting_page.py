"""Every snippet of docs/curve-fitting.md runs, one after another, as a reader would run them."""

import re
from pathlib import Path

import matplotlib

PAGE = Path(__file__).parents[2] / "docs" / "curve-fitting.md"


def test_the_page_s_snippets_run(capsys):
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    snippets = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) >= 8
    namespace: dict = {}
    for i, snippet in enumerate(snippets):
        exec(compile(snippet, f"snippet {i}", "exec"), namespace)
    plt.close("all")
    printed = capsys.readouterr().out
    assert "a term depends on decay; the model's parameters are f" in printed
    assert "13 starts, " in printed
    assert max(map(len, printed.splitlines())) <= 80
