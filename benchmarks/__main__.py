"""Run the benchmarks of this folder, one after the other, each in a process of its own.

python -m benchmarks [name ...] [--quick]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# What makes a benchmark short; one that is not named here has one length.
QUICK = {
    "accept": ["--quick"],
    "gcp": ["--quick"],
    "generic": ["--pages", "96"],
    "pricing": ["--rows", "500000"],
    "saas": ["--plans", "500"],
    "units": ["--quick"],
}


def names() -> list[str]:
    """Every benchmark: a module of this folder."""
    return sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_"))


def main() -> int:
    """Run what was asked for; the answer is 1 when one of them failed."""
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Benchmarks, one after the other.",
        epilog=f"Known: {', '.join(names())}.",
    )
    options.add_argument("names", nargs="*", metavar="name", help="without: all of them")
    options.add_argument("--quick", action="store_true", help="smaller sizes, to see that they run")
    given = options.parse_args()
    unknown = [name for name in given.names if name not in names()]
    if unknown:
        options.error(f"there is no benchmark {', '.join(unknown)}; known are {', '.join(names())}")
    failed = []
    for name in given.names or names():
        print(f"== {name}", flush=True)
        more = QUICK.get(name, []) if given.quick else []
        ended = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}", *more], cwd=HERE.parent, check=False
        )
        if ended.returncode:
            failed.append(name)
        print(flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
