"""Keys: everything that changes a result changes the fingerprint, and nothing else does."""

import enum
import importlib
import subprocess
import sys
import textwrap
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize._optimize import _wrap_callback
from torch import nn

from rankwise import RandomLowRank
from rankwise._fingerprints import NoFingerprintError, _version, fingerprint
from rankwise.nets.borrowing import _evaluate
from rankwise.units.multilinear import make_units

FACTOR = 2.0


def scaled(x):
    return x * FACTOR


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)
        self.register_buffer("unsaved", torch.zeros(2), persistent=False)
        self.register_buffer("saved", torch.zeros(2))
        self.power = 1
        self.names = ["a", "b"]
        self.table = {"k": np.arange(3)}

    def forward(self, x):
        return scaled(self.layer(x)) ** self.power


def net() -> Net:
    torch.manual_seed(0)
    return Net()


@pytest.fixture(autouse=True)
def generator():
    with torch.random.fork_rng(devices=[]):
        yield


def set_item(net):
    net.table["k"] = np.arange(3) + 1


CHANGES = {
    "a weight": lambda n: n.layer.weight.data.add_(1),
    "the last bit of a weight": lambda n: n.layer.weight.data[0].copy_(
        torch.nextafter(n.layer.weight.data[0], torch.tensor(9.0))
    ),
    "its dtype": lambda n: n.double(),
    "a saved buffer": lambda n: n.saved.add_(1),
    "an unsaved buffer": lambda n: n.unsaved.add_(1),
    "an attribute": lambda n: setattr(n, "power", 2),
    "its type": lambda n: setattr(n, "power", 1.0),
    "a list": lambda n: n.names.append("c"),
    "an array in a table": set_item,
    "another layer": lambda n: n.add_module("more", nn.Identity()),
    "a function of a layer": lambda n: setattr(n.layer, "forward", lambda x: x),
    "a hook": lambda n: n.layer.register_forward_hook(lambda m, i, o: o + 1),
    "a hook before": lambda n: n.register_forward_pre_hook(lambda m, i: None),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_a_network_computes_with_is_in_its_fingerprint(change):
    changed = net()
    assert fingerprint(changed) == fingerprint(net())
    change(changed)
    assert fingerprint(changed) != fingerprint(net())


def test_its_mode_and_what_was_there_and_went_are_not():
    used = net()
    used.train(False)
    used.layer.register_forward_hook(lambda m, i, o: o).remove()
    used(torch.zeros(1, 2)).sum().backward()
    assert fingerprint(used) == fingerprint(net())


def test_globals_that_code_reads_count(monkeypatch):
    before = fingerprint(net())
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert fingerprint(net()) != before
    monkeypatch.undo()
    assert fingerprint(net()) == before
    monkeypatch.setattr(sys.modules[__name__], "scaled", lambda x: x * FACTOR + 0)
    assert fingerprint(net()) != before


def module(folder, name: str, code: str):
    (folder / f"{name}.py").write_text(textwrap.dedent(code))
    importlib.invalidate_caches()
    sys.modules.pop(name, None)
    return importlib.import_module(name)


_calls = 0


def _counting(x):
    global _calls
    _calls += 1
    return x


def test_what_code_counts_itself_is_no_part_of_it():
    before = fingerprint(_counting)
    _counting(1)
    assert fingerprint(_counting) == before


def test_code_of_other_files_counts(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    user = """
        import fingerprinted_helper
        def augment(x):
            return fingerprinted_helper.change(x)
        def late(x):
            from fingerprinted_helper import change
            return change(x)
    """
    found = []
    for constant in (1, 2, 1):
        helper = (
            f"def change(x):\n    return twice(x) + {constant}\ndef twice(x):\n    return 2 * x"
        )
        module(tmp_path, "fingerprinted_helper", helper)
        functions = module(tmp_path, "fingerprinted_user", user)
        found.append((fingerprint(functions.augment), fingerprint(functions.late)))
    assert found[0] == found[2]
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


CALLS = 0


def counted(x):
    global CALLS
    CALLS += 1
    return x


def test_a_counter_is_no_input():
    before = fingerprint(counted)
    counted(1)
    assert CALLS == 1
    assert fingerprint(counted) == before


def closure(step):
    return lambda x: x + step


@dataclass
class Choices:
    size: int = 1
    parts: list = field(default_factory=list)


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


def chain(step):
    class Chain(list):
        def __call__(self, x):
            return x + step

    return Chain


class Listed(list):
    pass


class Kept(dict):
    pass


class Marked(np.ndarray):
    pass


def with_share(thing, p):
    thing.p = p
    return thing


DIFFERENT = {
    "code of a list's subclass": (chain(1)([1]), chain(2)([1])),
    "attributes of a list": (with_share(Listed([1]), 0.0), with_share(Listed([1]), 0.9)),
    "attributes of a table": (with_share(Kept(a=1), 0.0), with_share(Kept(a=1), 0.9)),
    "attributes of an array": tuple(with_share(np.zeros(2).view(Marked), p) for p in (0.0, 0.9)),
    "masks": tuple(np.ma.masked_array([1, 2], mask=[0, k]) for k in (0, 1)),
    "what a table begins with": (defaultdict(list), defaultdict(int)),
    "methods in C": ({1: 2}.get, {1: 3}.get),
    "methods of generators": (np.random.default_rng(0).normal, np.random.default_rng(1).normal),
    "members of enumerations": (enum.Enum("Mode", {"A": 1}).A, enum.Enum("Mode", {"A": 2}).A),
    "closures of a library": (_wrap_callback(scaled, "bfgs"), _wrap_callback(closure(1), "bfgs")),
    "closures of this package": (_evaluate(nn.Linear(1, 1)), _evaluate(nn.Linear(2, 2))),
    "closures": (closure(1), closure(2)),
    "defaults": (partial(np.add, 1), partial(np.add, 2)),
    "dataclasses": (Choices(1), Choices(2)),
    "slots": (Slotted(1), Slotted(2)),
    "types of numbers": (1, 1.0),
    "true and one": (True, 1),
    "nesting": ([[1], 2], [[1, 2]]),
    "order": ((1, 2), (2, 1)),
    "long arrays": (np.arange(5000), np.r_[0, np.arange(2, 5001)]),
    "shapes": (np.zeros((2, 3)), np.zeros((3, 2))),
    "generators": (np.random.default_rng(1), np.random.default_rng(2)),
    "paths": (Path("a"), "a"),
    "shares": (RandomLowRank(p=0.1234567, seed=1), RandomLowRank(p=0.1234568, seed=1)),
    "channels": (RandomLowRank(channel_axis=-1, seed=1), RandomLowRank(channel_axis=0, seed=1)),
    "bound methods": (Choices(1).__repr__, Choices(2).__repr__),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_different_things_have_different_fingerprints(pair):
    one, other = pair
    assert fingerprint(one) == fingerprint(one)
    assert fingerprint(one) != fingerprint(other)
    assert fingerprint([one]) != fingerprint(one)


def test_what_was_asked_for_before_changes_nothing():
    class Lazy:
        @cached_property
        def root(self):
            return 2**0.5

    lazy = Lazy()
    before = fingerprint(lazy)
    assert lazy.root
    assert fingerprint(lazy) == before
    units = make_units("bilinear", (3, 4))
    before = fingerprint(units)
    units.kernel(np.ones((units.n_params, 2)))
    assert fingerprint(units) == before


def test_a_thing_may_hold_itself():
    ring = [1]
    ring.append(ring)
    other = [2]
    other.append(other)
    assert fingerprint(ring) == fingerprint(ring) != fingerprint(other)


@pytest.mark.parametrize(
    ("thing", "name"),
    [
        ({"a": threading.Lock()}, r"dict\['a'\] is a _thread.lock"),
        (closure(iter("ab")), "closure is a builtins.str.*iterator"),
        (np.frompyfunc(scaled, 1, 1), r"ufunc is a ufunc of its own, scaled \(vectorized\)"),
        ([torch.eye(2).to_sparse()], r"list\[0\] is a tensor of layout torch.sparse_coo"),
        (Choices(parts=[threading.local()]), r"Choices.parts\[0\] is a _thread._local"),
    ],
)
def test_what_cannot_be_seen_into_is_refused(thing, name):
    with pytest.raises(NoFingerprintError, match=name):
        fingerprint(thing)


def test_an_object_may_say_itself_what_counts():
    class Own:
        def __init__(self, value):
            self.value, self.lock = value, threading.Lock()

        def fingerprint_parts(self):
            return self.value

    assert fingerprint(Own(1)) == fingerprint(Own(1)) != fingerprint(Own(2))


def test_another_process_finds_the_same(tmp_path):
    code = (
        "from rankwise._fingerprints import fingerprint\n"
        "from shared_code import Net\n"
        "print(fingerprint({'b', 'a', 'c'}, Net()))"
    )
    (tmp_path / "shared_code.py").write_text(
        "class Net:\n    NAMES = {'x', 'y', 'z'}\n"
        "    def __init__(self):\n        self.k = {'q', 'r'}\n"
        "    def __call__(self, x):\n        return x in {'u', 'v', 'w'}\n"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": f"{tmp_path}:{':'.join(sys.path)}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_a_library_of_another_environment_counts_by_its_version(tmp_path, monkeypatch):
    # As with --system-site-packages, --user or a .pth file: no place that sysconfig knows.
    lines = "__version__ = '{}'\n\n\nclass Thing:\n    def size(self):\n        return {}\n"
    for folder, same in (("site-packages", True), ("mine", False)):
        place = tmp_path / folder
        place.mkdir()
        name = f"library_in_{folder.replace('-', '_')}"
        monkeypatch.syspath_prepend(str(place))
        found = []
        for version, size in (("1", 1), ("1", 22), ("2", 22)):
            (place / f"{name}.py").write_text(lines.format(version, size))
            importlib.invalidate_caches()
            sys.modules.pop(name, None)
            _version.cache_clear()
            found.append(fingerprint(importlib.import_module(name).Thing()))
        assert (found[0] == found[1]) == same
        assert (found[1] != found[2]) == same
    _version.cache_clear()
