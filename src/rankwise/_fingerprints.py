"""Keys of what is kept: a digest of everything that a result follows from, code included.

Two things have one fingerprint only if they compute the same. So the walk covers the values of
arrays and attributes and, of functions and classes, the code and what that refers to. Code of
installed libraries counts by their versions, that of this package by its files. Where something
can't be seen into, there is no fingerprint, and nothing may be kept under one.
"""

from __future__ import annotations

import dis
import enum
import hashlib
import platform
import random
import re
import sys
import sysconfig
import types
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache, cached_property, partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

_COMPUTING = (
    "_arrays.py",
    "cluster",
    "data",
    "lowrank",
    "units",
    "linear",
    "varpro",
    "networks",
    "training",
    "nets",
    "heads",
    "estimators",
)
"""Rooms whose code a result may follow from; those that only print and draw are left out."""

_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), range, PurePath)
_CONTAINERS = (list, tuple, set, frozenset, dict, types.MappingProxyType)
_OF_MODULES = ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks")
"""What a torch module keeps of itself in attributes that begin with an underscore."""


class NoFingerprintError(Exception):
    """Something can't be seen into; the message names it."""


def fingerprint(*things: Any, package: bool = True) -> str:
    """SHA-256 of values, objects and code.

    An object with a method ``fingerprint_parts()`` says itself what its results follow from.

    Parameters
    ----------
    things : objects
        Numbers, text, arrays, tensors, containers, torch modules, functions, classes, and objects
        made of these.
    package : bool
        Count the code of this package, too, by the bytes of its files.

    Raises
    ------
    NoFingerprintError
        If one holds something that can't be seen into, such as a lock or an open file.
    """
    walk = _Walk()
    walk.add(("python", *sys.version_info[:2]), "")  # whose byte code it is
    if package:
        walk.add(("rankwise", code_of_package()), "")
    for thing in things:
        walk.add(thing, type(thing).__name__)
    return walk.digest.hexdigest()


@cache
def code_of_package(*more: str) -> str:
    """SHA-256 of the package's files that compute; see `_COMPUTING`.

    Parameters
    ----------
    more : str
        Further rooms, or files in rooms that do other things as well, such as ``study/cells.py``.
    """
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for name in (*_COMPUTING, *more):
        place = root / name
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            digest.update(str(path.relative_to(root)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


class _Walk:
    """One walk over things, each object entered once."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # so that no other object takes over an id

    def _note(self, *texts: Any) -> None:
        for text in texts:
            data = str(text).encode("utf-8", "surrogatepass")
            self.digest.update(f"{len(data)}:".encode() + data)

    def add(self, thing: Any, place: str) -> None:
        """Add a thing; `place` is how it was reached, for messages."""
        kind = type(thing)
        if kind in _PLAIN or isinstance(thing, PurePath):
            self._note(kind.__name__, repr(thing))
            return
        if id(thing) in self._seen:
            self._note("again", self._seen[id(thing)])
            return
        self._seen[id(thing)] = len(self._seen)
        self._kept.append(thing)
        self._note("type", f"{kind.__module__}.{kind.__qualname__}")
        if callable(getattr(kind, "fingerprint_parts", None)):
            self.add(thing.fingerprint_parts(), place)
        elif isinstance(thing, enum.Enum):
            self._note("enum", thing.name)
            self.add((thing.value, kind), place)
        elif isinstance(thing, _CONTAINERS):
            self._container(thing, place)
            self._beside(thing, place)
        elif isinstance(thing, (np.ndarray, np.generic)):
            self._array(np.asarray(thing), place)
            self._beside(thing, place)
        elif self._is_torchs(thing):
            self._torchs(thing, place)
        elif isinstance(thing, types.ModuleType):
            self._module(thing, place)
        elif isinstance(thing, type):
            self._class(thing, place)
        elif isinstance(thing, types.MethodType):
            self.add(thing.__self__, place)
            self.add(thing.__func__, place)
        elif isinstance(thing, types.FunctionType):
            self._function(thing, place)
        elif isinstance(thing, types.CodeType):
            self._code(thing, {}, place)
        elif isinstance(thing, partial):
            self.add((thing.func, thing.args, thing.keywords), place)
        elif isinstance(thing, np.random.Generator):
            self.add(thing.bit_generator.state, place)
        elif isinstance(thing, (staticmethod, classmethod)):
            self.add(thing.__func__, place)
        elif isinstance(thing, property):
            self.add((thing.fget, thing.fset), place)
        elif isinstance(thing, cached_property):
            self.add(thing.func, place)
        elif isinstance(thing, re.Pattern):
            self._note(thing.pattern, thing.flags)
        elif callable(thing) and hasattr(thing, "__wrapped__"):
            self.add(thing.__wrapped__, place)  # as functools.cache leaves it
        elif isinstance(thing, np.ufunc) and not _is_librarys(thing):
            raise NoFingerprintError(f"{place} is a ufunc of its own, {thing.__name__}")
        elif isinstance(thing, _NAMED):
            if isinstance(thing, types.BuiltinFunctionType) and _is_of_an_object(thing):
                self.add(thing.__self__, place)
            self._note(getattr(thing, "__module__", None), getattr(thing, "__name__", thing))
        else:
            self._object(thing, place)

    def _container(self, thing: Any, place: str) -> None:
        self._note(len(thing))
        if isinstance(thing, (set, frozenset)):
            thing = sorted(thing, key=repr)
        if isinstance(thing, Mapping):
            for key, value in thing.items():
                self.add(key, place)
                self.add(value, f"{place}[{key!r}]")
            return
        for i, value in enumerate(thing):
            self.add(value, f"{place}[{i}]")

    def _beside(self, thing: Any, place: str) -> None:
        """What a subclass of a container or an array adds to its items."""
        kind = type(thing)
        if kind in _CONTAINERS or kind in (np.ndarray, np.memmap):
            return  # where a file is mapped from changes nothing
        if isinstance(thing, defaultdict):
            self.add(thing.default_factory, place)
        if not _is_counted(kind.__module__):
            self.add(kind, place)
        self._attributes(thing, place)

    def _array(self, array: np.ndarray, place: str) -> None:
        if array.dtype.hasobject:
            self.add(array.tolist(), place)
            return
        self._note(array.dtype.str, array.shape)
        self.digest.update(np.ascontiguousarray(array).data)

    def _is_torchs(self, thing: Any) -> bool:
        torch = sys.modules.get("torch")
        return torch is not None and isinstance(
            thing,
            (torch.Tensor, torch.nn.Module, torch.Generator, torch.dtype, torch.device),
        )

    def _torchs(self, thing: Any, place: str) -> None:
        import torch

        if isinstance(thing, torch.Tensor):
            if thing.layout is not torch.strided:
                raise NoFingerprintError(f"{place} is a tensor of layout {thing.layout}")
            value = thing.detach().cpu()
            self._note(value.dtype, tuple(value.shape))
            flat = value.resolve_conj().resolve_neg().contiguous().flatten()
            self.digest.update(flat.view(torch.uint8).numpy().data if flat.numel() else b"")
        elif isinstance(thing, torch.nn.Module):
            self._class(type(thing), place)
            for name, value in vars(thing).items():
                if name == "training" or (_belongs_to_torch(name) and name not in _OF_MODULES):
                    continue
                found: Any = dict(value) if isinstance(value, dict) else value
                if name in _OF_MODULES[-2:]:
                    found = tuple(found.values())  # the keys count all hooks there ever were
                self._note(name)
                self.add(found, f"{place}.{name}")
        elif isinstance(thing, torch.Generator):
            self.add(thing.get_state(), place)
        else:
            self._note(thing)

    def _module(self, thing: types.ModuleType, place: str) -> None:
        self._note(thing.__name__, _version(thing.__name__))
        if _is_counted(thing.__name__) or thing.__name__ == "__main__":
            return  # of a script or notebook counts what is referred to
        file = getattr(thing, "__file__", None)
        if file is None or not Path(file).is_file():
            raise NoFingerprintError(f"{place} is a module without a file, {thing.__name__}")
        self.digest.update(Path(file).read_bytes())

    def _class(self, thing: type, place: str) -> None:
        for base in thing.__mro__[:-1]:
            self._note(base.__module__, base.__qualname__, _version(base.__module__))
            if not _is_counted(base.__module__):
                for name, value in sorted(vars(base).items()):
                    if name not in _OF_CLASSES:
                        self._note(name)
                        self.add(value, f"{place}.{name}")

    def _function(self, thing: types.FunctionType, place: str) -> None:
        self._note(thing.__module__, thing.__qualname__, _version(thing.__module__ or ""))
        if _is_counted(thing.__module__) and not _is_made_by_a_call(thing):
            return
        self.add((thing.__defaults__, thing.__kwdefaults__), place)
        for cell in thing.__closure__ or ():
            try:
                self.add(cell.cell_contents, f"{place}'s closure")
            except ValueError:
                self._note("empty")
        if not _is_counted(thing.__module__):
            self._code(thing.__code__, thing.__globals__, place)

    def _code(self, code: types.CodeType, known: dict[str, Any], place: str) -> None:
        self.digest.update(code.co_code)
        self._note(code.co_varnames, code.co_names, code.co_flags)
        for value in code.co_consts:
            if isinstance(value, types.CodeType):
                self._code(value, known, place)
            else:
                self.add(value, place)
        for name, value in _referred(code, known):
            self.add(value, f"{place}, which refers to {name}")

    def _object(self, thing: Any, place: str) -> None:
        kind = type(thing)
        if not _is_pythons(kind):
            raise NoFingerprintError(f"{place} is a {kind.__module__}.{kind.__qualname__}")
        self._class(kind, place)
        self._attributes(thing, place)

    def _attributes(self, thing: Any, place: str) -> None:
        kind = type(thing)
        state = dict(getattr(thing, "__dict__", {}))
        for base in kind.__mro__:
            slots = vars(base).get("__slots__", ())
            for name in (slots,) if isinstance(slots, str) else slots:
                if name not in ("__dict__", "__weakref__") and hasattr(thing, name):
                    state[name] = getattr(thing, name)
        for name, value in state.items():
            if isinstance(getattr(kind, name, None), cached_property):
                continue  # it may have been asked for, or not yet
            self._note(name)
            self.add(value, f"{place}.{name}")


_NAMED = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    np.ufunc,
    np.dtype,
)
_OF_CLASSES = {
    "__dict__", "__weakref__", "__module__", "__doc__", "__annotations__", "__firstlineno__",
    "__static_attributes__", "__abstractmethods__", "_abc_impl", "__parameters__",
    "__orig_bases__", "__type_params__", "__annotate__", "__annotate_func__",
    "__annotations_cache__",
}  # fmt: skip


def _is_pythons(kind: type) -> bool:
    """Whether Python code made a class and its bases, so that its slots and attributes are all."""
    has_attributes = False
    for base in reversed(kind.__mro__[:-1]):
        has_attributes |= "__dict__" in vars(base)
        if not (has_attributes or "__slots__" in vars(base)):
            return False
    return True


def _is_librarys(thing: np.ufunc) -> bool:
    """Whether a ufunc is one that its name alone stands for."""
    places = (np, sys.modules.get("scipy.special"))
    return any(getattr(place, thing.__name__, None) is thing for place in places)


def _is_of_an_object(thing: types.BuiltinFunctionType) -> bool:
    """Whether a function in C is bound to an object: no module, class of a library, or nothing.

    The process's own generators of random numbers don't count, as they don't where code draws.
    """
    owner = thing.__self__
    if isinstance(owner, type):
        return not _is_counted(owner.__module__)
    if owner is None or isinstance(owner, types.ModuleType):
        return False
    drawing: tuple[Any, ...] = (random.random, np.random.rand)
    return all(owner is not f.__self__ for f in drawing)


def _is_made_by_a_call(thing: types.FunctionType) -> bool:
    """Whether a function was made inside another one, and isn't kept under its name."""
    if "<locals>" not in thing.__qualname__:
        return False
    return getattr(sys.modules.get(thing.__module__), thing.__name__, None) is not thing


def _belongs_to_torch(name: str) -> bool:
    return name in _module_attributes()


@cache
def _module_attributes() -> frozenset[str]:
    from torch import nn

    return frozenset(vars(nn.Module()))


def _referred(code: types.CodeType, known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Globals that code reads, what it reads of modules among them, and what it imports."""
    steps = [(i.opname, i.argval) for i in dis.get_instructions(code)]
    attributes = {name for step, name in steps if "ATTR" in step or step == "LOAD_METHOD"}
    names = {name for step, name in steps if step in ("LOAD_GLOBAL", "LOAD_NAME")}
    names -= {name for step, name in steps if step == "STORE_GLOBAL"}  # as a counter does
    for name in sorted(names & set(known)):
        yield name, known[name]
        yield from _attributes(known[name], name, attributes)
    for name in sorted({str(name) for step, name in steps if step == "IMPORT_NAME"}):
        if name in sys.modules:
            yield name, sys.modules[name]
            yield from _attributes(sys.modules[name], name, attributes)
        elif name.split(".")[0] not in sys.stdlib_module_names:
            yield name, ("not imported yet", name)


def _attributes(thing: Any, name: str, attributes: set[str]) -> Iterator[tuple[str, Any]]:
    """What may be read of a module, and of modules in it."""
    if isinstance(thing, types.ModuleType) and not _is_counted(thing.__name__):
        for attribute in sorted(attributes & set(vars(thing))):
            value = getattr(thing, attribute)
            yield f"{name}.{attribute}", value
            if value is not thing:
                yield from _attributes(value, f"{name}.{attribute}", attributes - {attribute})


def _is_counted(module: str | None) -> bool:
    """Whether a module's code counts by a version, and so isn't looked into."""
    return _is_own(module) or bool(_version(module or ""))


def _is_own(module: str | None) -> bool:
    """Of this package: `code_of_package` counts it."""
    return (module or "").split(".")[0] == "rankwise"


@cache
def _version(module: str) -> str:
    """Version of the installed library, or of the Python, that a module is of; "" for others."""
    top = module.split(".")[0]
    if top in sys.stdlib_module_names and top != "__main__":
        return platform.python_version()
    found = sys.modules.get(top)
    file = getattr(found, "__file__", None)
    if file is None or not _is_installed(Path(file)):
        return ""
    return str(getattr(found, "__version__", "")) or _distribution_version(top)


def _is_installed(file: Path) -> bool:
    """Whether a file lies where libraries are installed, of this environment or one below it."""
    places = {Path(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")}
    return any(
        folder in places or folder.name in ("site-packages", "dist-packages")
        for folder in file.parents
    )


def _distribution_version(top: str) -> str:
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    try:
        return version(packages_distributions().get(top, [top])[0])
    except PackageNotFoundError:
        return ""
