"""Run the numerical tests again with other kernels, whose sums round as on other processors.

Each set of kernels is asked for by environment variables, which count only while a process begins,
so each has a fresh process. A set that this processor lacks, or that it takes anyway, is skipped
with a line that says so. Six minutes together on two cores, at most.

python tests/kernels.py [--only NAME ...] [pytest's own arguments]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent

OLDEST_X86 = {
    "OPENBLAS_CORETYPE": "Prescott",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "NPY_DISABLE_CPU_FEATURES": "all that can be",
}
SETS = {
    "haswell": {"OPENBLAS_CORETYPE": "Haswell"},
    "skylakex": {"OPENBLAS_CORETYPE": "SkylakeX"},
    "torch-default": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "oldest": OLDEST_X86,
    "armv8": {"OPENBLAS_CORETYPE": "ARMV8", "ATEN_CPU_CAPABILITY": "default"},
    "neoverse-n1": {"OPENBLAS_CORETYPE": "NeoverseN1"},
}
NUMERICAL = (
    "linear",
    "units",
    "varpro",
    "networks",
    "training",
    "estimators",
    "heads",
    "lowrank/test_ranks.py",
    "lowrank/test_reconstruct.py",
    "lowrank/test_small.py",
    "nets/test_projected_loss.py",
    "nets/test_training.py",
)
# What no kernel changes: how much is held, and how files and backbones are told apart.
IGNORED = (
    "heads/test_any_backbone.py",
    "heads/test_backbone_graphs.py",
    "heads/test_backbones.py",
    "heads/test_head_files.py",
    "estimators/test_convolutional.py",
)
# One of many alike, and the longest, is enough where the others differ in options alone.
LEFT_OUT = (
    "not memory_does_not_grow and not (scikit_learn_conventions and readonly_memmap) "
    "and not (near_interpolation_is_n_fits and shape5) and not objective_is_that_of_scikit "
    "and not cross_validated_probabilities and not search_on_two_workers"
)

PROBE = """
import json
import numpy as np, scipy.linalg, torch
from threadpoolctl import threadpool_info
x = np.random.default_rng(0).standard_normal((64, 64))
scipy.linalg.cholesky(x @ x.T + 64 * np.eye(64))
torch.from_numpy(x) @ torch.from_numpy(x)
torch.nn.functional.conv2d(torch.ones(1, 3, 9, 9), torch.ones(4, 3, 3, 3))
from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__
print(json.dumps({
    "openblas": sorted({i["architecture"] for i in threadpool_info() if "architecture" in i}),
    "aten": torch.backends.cpu.get_cpu_capability(),
    "numpy": [name for name in __cpu_dispatch__ if __cpu_features__.get(name)],
}))
"""


def probe(environment: dict[str, str]) -> dict | None:
    """Which kernels a fresh process takes; None if it doesn't live."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROBE],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def lacking(wanted: dict[str, str], found: dict | None, ran: dict[str, dict]) -> str | None:
    """Why a set is skipped; None if it isn't. `ran` is what earlier ones took."""
    if found is None:
        return "a process with it ends at once, so this processor lacks it"
    core, usual = wanted.get("OPENBLAS_CORETYPE"), ran["make test"]
    taken = found["openblas"]
    core is None or core.lower() in map(str.lower, taken)
    # Prescott is taken under another name; what isn't there leaves everything as it is.
    if (
        core is not None
        and taken == usual["openblas"]
        and core.lower() not in map(str.lower, taken)
    ):
        return f"OpenBLAS stays with {', '.join(taken)}, so it lacks {core} here"
    same = next((name for name, kernels in ran.items() if kernels == found), None)
    return None if same is None else f"the same kernels as those of {same}"


def main() -> int:
    """Run the sets, the failed ones named at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(SETS), default=list(SETS))
    args, more = parser.parse_known_args()
    usual = probe({})
    if usual is None:
        raise SystemExit("numpy, scipy or torch can't be used here")
    failed, ran = [], {"make test": usual}
    for name in args.only:
        wanted = dict(SETS[name])
        if "NPY_DISABLE_CPU_FEATURES" in wanted:
            wanted["NPY_DISABLE_CPU_FEATURES"] = " ".join(usual["numpy"])
        found = probe(wanted)
        reason = lacking(wanted, found, ran)
        if found is None or reason is not None:
            print(f"-- {name} skipped: {reason}", flush=True)
            continue
        ran[name] = found
        spelled = " ".join(f"{key}={value}" for key, value in wanted.items())
        print(f"-- {name}: {spelled}", flush=True)
        begin = time.perf_counter()
        command = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal"]
        command += ["-p", "no:cacheprovider", "-k", LEFT_OUT, *more]
        command += [f"--ignore={HERE / part}" for part in IGNORED]
        if not any(Path(argument.partition("::")[0]).exists() for argument in more):
            command += [str(HERE / part) for part in NUMERICAL]
        done = subprocess.run(
            command, cwd=HERE.parent, env=os.environ | wanted | {"PYTHONWARNINGS": "ignore"}
        )
        print(f"-- {name}: {time.perf_counter() - begin:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    if failed:
        print(f"-- failed with the kernels of: {', '.join(failed)}")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
