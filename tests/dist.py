"""Build wheel and sdist, install each into an empty environment, and use it (``make dist``).

The environments hold nothing but the package; what it depends on is read from the environment that
runs this, so nothing is downloaded and the package there is never the one of the working tree.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "rankwise"

SMOKE = """
import sys
from pathlib import Path

import numpy as np
import rankwise
from rankwise.export import export_model

assert Path(rankwise.__file__).is_relative_to(sys.prefix), rankwise.__file__
assert rankwise.__version__ == sys.argv[1], rankwise.__version__
model = rankwise.load("mnist-small")
assert model.predict(np.zeros((1, 28, 28), np.uint8)).shape == (1,)
assert rankwise.pretrained.card("mnist-small")
export_model(model, "html", Path("digits.html"))
"""


def run(*command: object, cwd: Path | None = None) -> str:
    """What a command prints; it must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def built(folder: Path) -> tuple[Path, Path]:
    """Build both afresh, the wheel from the sdist, and give their paths."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, cwd=ROOT)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def check_files(wheel: Path, sdist: Path) -> None:
    """Every file of the package is in both, nothing of the tests in the wheel, no bytecode."""
    expected = {
        f"rankwise/{path.relative_to(SOURCE)}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == expected, f"the wheel: {sorted(names ^ expected)}"
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/src/")[2] for name in archive.getnames()}
    assert not any(name.endswith(".pyc") for name in inside), sorted(inside)
    assert inside >= expected, f"the sdist lacks {sorted(expected - inside)}"


def check_installed(package: Path, folder: Path, version: str) -> None:
    """Install into an empty environment, nothing downloaded, and use it from another folder."""
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    # Read after its own folder, and without the links to working trees that lie there.
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    # --ignore-installed: a link to a working tree there is none of ours to take away.
    options = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--ignore-installed")
    run(*pip, "install", *options, package)
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    run(python, "-c", SMOKE, version, cwd=elsewhere)
    for program in ((folder / "bin" / "rankwise",), (python, "-m", "rankwise")):
        assert run(*program, "--version", cwd=elsewhere).strip() == version
    out = run(python, "-m", "rankwise", "show", "digits", "--out", "set.png", cwd=elsewhere)
    assert "36 images" in out, out
    print(f"{package.name}: installed, imported, run")


def main() -> None:
    """Build, compare, install, run."""
    scope: dict[str, str] = {}
    exec((SOURCE / "_version.py").read_text(encoding="utf-8"), scope)
    version = scope["__version__"]
    dist = ROOT / "dist"
    dist.mkdir(exist_ok=True)
    for old in (*dist.glob("*.whl"), *dist.glob("*.tar.gz")):
        old.unlink()
    wheel, sdist = built(dist)
    assert wheel.name.startswith(f"rankwise-{version}-"), wheel.name
    check_files(wheel, sdist)
    with TemporaryDirectory() as folder:
        check_installed(wheel, Path(folder) / "wheel", version)
        check_installed(sdist, Path(folder) / "sdist", version)


if __name__ == "__main__":
    main()
