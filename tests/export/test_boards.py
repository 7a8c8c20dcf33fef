"""C headers on emulated microcontrollers, and the Arduino example: what isn't installed is said."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from export_cases import needs_compiler
from rankwise.export import export_model
from rankwise.export.check import run_c

ROOT = Path(__file__).parents[2]


def runner():
    path = ROOT / "benchmarks" / "board_runner.py"
    specification = importlib.util.spec_from_file_location("board_runner", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules["board_runner"] = module
    specification.loader.exec_module(module)
    return module


RUNNER = runner()


@needs_compiler
@pytest.mark.parametrize(
    ("board", "precision"),
    [("cortex-m3", "int8"), ("cortex-m4", "float32"), ("cortex-m4", "int4"), ("rv32imac", "int8")],
)
def test_a_board_answers_as_the_host_does(fitted, tmp_path, board, precision):
    chosen = RUNNER.BOARDS[board]
    absent = RUNNER.missing(chosen)
    if absent:
        pytest.skip(f"{absent} isn't installed")
    model, images, _ = fitted("convolutional")
    header = tmp_path / "m.h"
    report = export_model(model, "c", header, precision=precision, calibration=images)
    found = RUNNER.measure(chosen, header, images[:3])
    host = run_c(header, images[:3])
    # Six decimals; a board has another erf, and multiplies and adds in two roundings.
    np.testing.assert_allclose(found.probabilities, host, atol=1e-5)
    np.testing.assert_array_equal(found.labels, host.argmax(axis=1))
    assert found.ram_bytes >= report["ram_bytes"]
    assert report["flash_bytes"] < found.flash_bytes < report["flash_bytes"] + 20_000
    # Each weight of the first layer alone meets some of 64 places.
    assert found.instructions > 50_000


def test_whole_numbers_are_what_a_board_without_floats_wants(fitted, tmp_path):
    board = RUNNER.BOARDS["cortex-m3"]
    if RUNNER.missing(board):
        pytest.skip(f"{RUNNER.missing(board)} isn't installed")
    model, images, _ = fitted("convolutional")
    counted = []
    for precision in ("float32", "int8"):
        header = tmp_path / f"{precision}.h"
        export_model(model, "c", header, precision=precision, calibration=images)
        counted.append(RUNNER.measure(board, header, images[:2]).instructions)
    assert counted[1] < counted[0] / 5


ARDUINO = """#pragma once
#include <stdint.h>
#include <stddef.h>
struct Port {
  void begin(long);
  size_t readBytes(char *, size_t);
  template <typename T> void print(T);
  template <typename T> void println(T);
};
extern Port Serial;
unsigned long micros();
"""


@pytest.mark.parametrize("compiler", ["g++", "clang++", "arm-none-eabi-g++"])
def test_the_arduino_sketch_compiles_as_it_is(tmp_path, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} isn't installed")
    sketch = ROOT / "examples" / "arduino" / "digits" / "digits.ino"
    (tmp_path / "Arduino.h").write_text(ARDUINO)
    # Arduino's builder puts this include before the sketch, and takes it as C++.
    command = [compiler, "-x", "c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", "-O1"]
    command += ["-include", str(tmp_path / "Arduino.h"), f"-I{sketch.parent}"]
    subprocess.run([*command, "-c", str(sketch), "-o", str(tmp_path / "o")], check=True)
