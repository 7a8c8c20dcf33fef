"""Put the files of several runs of one benchmark, each with some of its rows, into one.

They must have been measured with the same code, versions and hardware.

    python benchmarks/join.py recipe PART.json PART.json --out benchmarks/results/recipe_gpu.json
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rankwise._files import write_json

_OWN = ("command", "seeds", "load_average_at_start", "environment", "code", "epochs", "data")


def main() -> None:
    """Join, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=["curve", "frontier", "recipe"])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title")
    args = parser.parse_args()
    found = [json.loads(path.read_text(encoding="utf-8")) for path in args.files]
    module = import_module(args.benchmark)
    rows = [row for each in found for row in each["data"]]
    known = joined([each["provenance"] for each in found])
    known["seeds"] = sorted({row["seed"] for row in rows})
    n_test = [found[0]["provenance"]["data"][1]["n"]] if args.benchmark == "curve" else []
    tables = module.tables(rows) if hasattr(module, "tables") else [module.table(rows)]
    title = args.title or found[0]["title"]
    tables[0] = replace(tables[0], title=title)
    value = {
        "title": title,
        "provenance": known,
        "notes": module.notes(rows, *n_test),
        "tables": [asdict(table) for table in tables],
        "data": rows,
    }
    write_json(args.out, value)
    for table in tables:
        print(table.text())


def joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """One provenance of several.

    Raises
    ------
    SystemExit
        If they differ in what they were measured with.
    """
    first, code = parts[0], dict[str, str]()
    for each in parts:
        same = {**each["environment"], "date": None} == {**first["environment"], "date": None}
        if not same or any(each.get(k) != v for k, v in first.items() if k not in _OWN):
            raise SystemExit(
                "these were measured with other code, versions or hardware: not joined"
            )
        if any(code.get(name, digest) != digest for name, digest in each["code"].items()):
            raise SystemExit("these were measured with different code: not joined")
        code |= each["code"]
    # Where data and parts lay says nothing to anybody.
    said = (re.sub(r" --(data|out|models) \S+", "", each["command"]) for each in parts)
    commands = " && ".join(dict.fromkeys(said))
    loads = max(each["load_average_at_start"] for each in parts)
    return {**first, "command": commands, "code": code, "load_average_at_start": loads}


if __name__ == "__main__":
    main()
