"""Anybody's network as a backbone: a function's, an ONNX file's, a TorchScript file's."""

from __future__ import annotations

import importlib
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from rankwise.errors import MissingDependencyError, ModelFileError


class OnnxNetwork(nn.Module):
    """An ONNX file, run by onnxruntime on the CPU; there are no gradients.

    Parameters
    ----------
    content : bytes
        The whole file, its weights inside.
    name : str
        For errors.

    Raises
    ------
    ModelFileError
        If onnxruntime can't read it, or it takes anything but one batch of maps.
    """

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__()
        self.content, self.name = content, name
        self._session = _session(content, name)
        entries = self._session.get_inputs()
        if len(entries) != 1 or len(entries[0].shape) != 4 or "float" not in entries[0].type:
            shapes = ", ".join(f"{e.name} {e.type} {e.shape}" for e in entries)
            raise ModelFileError(
                f"{name} takes {shapes}; a backbone takes one batch of float images "
                "(n, channels, height, width)"
            )
        self._entry = entries[0]

    @property
    def channels(self) -> int | None:
        """That the file says, if it says any."""
        return _known(self._entry.shape[1])

    @property
    def side(self) -> int | None:
        """Side of the square that the file takes, if it says one."""
        sides = [_known(side) for side in self._entry.shape[2:]]
        return sides[0] if sides[0] == sides[1] else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The file's first output for a batch ``(n, C, H, W)``."""
        batch = np.ascontiguousarray(x.detach().cpu().numpy())
        fixed = _known(self._entry.shape[0])
        step = fixed or len(batch)
        parts = []
        for first in range(0, len(batch), step):
            part = batch[first : first + step]
            short = step - len(part)
            if short:  # the file wants so many
                part = np.concatenate([part, np.zeros((short, *part.shape[1:]), part.dtype)])
            try:
                found = self._session.run(None, {self._entry.name: part})[0]
            except Exception as error:  # onnxruntime's own kinds
                raise ValueError(
                    f"{self.name} can't take images of shape {tuple(x.shape[1:])}: {_reason(error)}"
                ) from error
            parts.append(found[: step - short])
        return torch.from_numpy(np.concatenate(parts)).to(x.device)

    def fingerprint_parts(self) -> bytes:
        """What its outputs follow from."""
        return self.content

    def __deepcopy__(self, memo: Any) -> OnnxNetwork:
        return OnnxNetwork(self.content, self.name)

    def __reduce__(self) -> Any:
        return OnnxNetwork, (self.content, self.name)


class TorchScriptNetwork(nn.Module):
    """A TorchScript file. Running it runs the program that it holds.

    Parameters
    ----------
    content : bytes
    name : str
        For errors.

    Raises
    ------
    ModelFileError
        If torch can't read it.
    """

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__()
        self.content, self.name = content, name
        try:
            self.program = torch.jit.load(io.BytesIO(content), map_location="cpu").eval()
        except Exception as error:  # of torch's many kinds
            raise ModelFileError(
                f"{name} can't be read as TorchScript: {_reason(error)}; torch.jit.save writes "
                "such files, and a pickled module isn't read"
            ) from error

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The program's output for a batch ``(n, C, H, W)``."""
        return self.program(x)

    def fingerprint_parts(self) -> bytes:
        """What its outputs follow from."""
        return self.content


def called(spelled: str) -> nn.Module:
    """What ``package.module:function()`` gives; the current folder is looked in as well.

    Raises
    ------
    ValueError
        If it can't be imported, can't be called without arguments, or gives no module.
    """
    place, _, name = spelled.partition(":")
    with _current_folder():
        try:
            module = importlib.import_module(place)
        except Exception as error:  # whatever somebody's own module raises
            raise ValueError(
                f"{spelled} can't be imported: {_reason(error)}; a module on Python's path or in "
                "the current folder is accepted"
            ) from error
        function = getattr(module, name, None)
        if not callable(function):
            raise ValueError(f"{spelled}: the module {place} has no function {name}")
        try:
            found = function()
        except Exception as error:  # whatever somebody's own function raises
            raise ValueError(
                f"{spelled}() fails: {type(error).__name__}: {_reason(error)}; a backbone's "
                "function takes no arguments"
            ) from error
    if not isinstance(found, nn.Module):
        raise ValueError(f"{spelled}() gave {type(found).__name__}; a torch.nn.Module is needed")
    return found.eval()


@contextmanager
def _current_folder() -> Iterator[None]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _session(content: bytes, name: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"backbone {name} needs onnxruntime: pip install 'rankwise[onnx]'"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(
            content, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own kinds
        raise ModelFileError(f"{name} can't be read as ONNX: {_reason(error)}") from error


def _known(size: Any) -> int | None:
    return size if isinstance(size, int) else None


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
