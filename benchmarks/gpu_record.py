"""What `gpu.py` printed on a machine with a GPU, as a result file of this folder.

A later print takes the place of an earlier one's parts, which were run again after a repair. The
digests of the code in a print must be those of the commit that is named with it: a copy of a
checkout on a lent machine doesn't know its own.

    python benchmarks/gpu_record.py PRINT.json=COMMIT PRINT.json=COMMIT
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common import RESULTS, Table
from rankwise._files import write_json

TITLE = "On a GPU"
_DIGITS = 16


def main() -> None:
    """Check the prints, and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("prints", nargs="+", metavar="PRINT.json=COMMIT")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    args = parser.parse_args()
    parts: dict[str, Any] = {}
    code: dict[str, str] = {}
    commits, machine = [], {}
    for given in args.prints:
        name, _, commit = given.rpartition("=")
        printed = json.loads(Path(name).read_text(encoding="utf-8"))
        check(printed["code"], commit)
        parts |= printed["parts"]
        code |= printed["code"]
        commits.append(commit)
        machine = printed["machine"]
    provenance = {
        "command": "python benchmarks/gpu.py",
        "environment": {k: v for k, v in machine.items() if k != "device"},
        "commit": ", then ".join(dict.fromkeys(commits)),
        "code": code,
    }
    tables = [seconds(parts), agreement(parts)]
    value = {
        "title": TITLE,
        "provenance": provenance,
        "notes": ["Seconds: the median of three runs behind one that isn't counted."],
        "tables": [asdict(table) for table in tables],
        "data": parts,
    }
    write_json(args.out, value)
    for table in tables:
        print(table.text())


def check(code: dict[str, str], commit: str) -> None:
    """Refuse a print of other code than the commit's.

    Raises
    ------
    SystemExit
    """
    for name, digest in code.items():
        found = subprocess.run(
            ["git", "show", f"{commit}:{name}"], capture_output=True, check=True
        ).stdout
        if hashlib.sha256(found).hexdigest()[:_DIGITS] != digest:
            raise SystemExit(f"{name} isn't that of {commit}")


def seconds(parts: dict[str, Any]) -> Table:
    """Of each computation, here and by its rival."""
    rows = [
        (f"{part}: {name}", f"{value:.4f}")
        for part, found in parts.items()
        for name, value in found["seconds"].items()
    ]
    return Table("Seconds", ("what", "s"), rows)


def agreement(parts: dict[str, Any]) -> Table:
    """Of each part with the CPU."""
    rows = []
    for part, found in parts.items():
        worst = max(d["found"] / max(d["bound"], 1e-300) for d in found["differences"].values())
        said = "yes" if found["agrees"] else "no"
        rows.append((part, said, str(len(found["differences"])), f"{worst:.2g}"))
    return Table(
        "Agreement with the CPU", ("part", "agrees", "checked", "worst, of its bound"), rows
    )


if __name__ == "__main__":
    main()
