"""A user's own module, and reports that tests share."""

import sys

import pytest

from rankwise.study import report
from study.made_results import make_results
from study.run_cases import SOMEBODY


@pytest.fixture
def somebody(tmp_path_factory, monkeypatch):
    """A user's own module of networks and arms."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "somebody_s_own.py").write_text(SOMEBODY)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("somebody_s_own", None)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    made = {}
    for protocol in ("paper", "sound", "notebook"):
        folder = tmp_path_factory.mktemp(protocol)
        results = make_results(folder, protocol=protocol)
        path = report.write_report(folder)
        assert path == folder / "report.html"
        made[protocol] = (path, results)
    return made
