"""Runs benchmarks: ``python -m tests.benchmarks run [SCENARIO...] [--quick] [--rounds N] [--output DIR]``."""

import argparse
import compileall
import os
import platform
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import report
from tests.benchmarks.contest import Form
from tests.benchmarks.measure import Failed
from tests.benchmarks.scenarios import SCENARIOS
from tests.support.processes import ROOT

ROUNDS = 5
QUICK_ROUNDS = 2


def main() -> int:
    """Run what is named, or everything; 0, or 1 where a contestant could not do its work."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("command", choices=["run", "list"])
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all where none is named")
    parser.add_argument("--quick", action="store_true", help=f"few items, {QUICK_ROUNDS} rounds, bars not judged")
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS} where it is not told")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"), help="where table and plot go")
    given = parser.parse_args()
    if unknown := set(given.scenarios) - set(SCENARIOS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    if given.command == "list":
        print("\n".join(f"{name:24} {one.__doc__}" for name, one in SCENARIOS.items()))
        return 0
    # as pip does with what it installs; an editable package may be compiled anew at every start instead
    for ours in ("pipeline", "tests/benchmarks"):
        compileall.compile_dir(ROOT / ours, quiet=1)
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}."
    done = report.Report(machine=machine, quick=given.quick, outcomes=[])
    failed = False
    with tempfile.TemporaryDirectory() as work:
        rounds = given.rounds or (QUICK_ROUNDS if given.quick else ROUNDS)
        form = Form(given.quick, rounds, Path(work), tell=lambda line: print(line, file=sys.stderr, flush=True))
        for name in given.scenarios or SCENARIOS:
            try:
                outcome = SCENARIOS[name](form)
            except Failed as problem:
                outcome, failed = report.Outcome(name=name, title="Could not be run.", text=str(problem)), True
            outcome.load = os.getloadavg()[0]
            done.outcomes.append(outcome)
            print(report.markdown(outcome, quick=given.quick), flush=True)
            report.write(done, given.output, picture=False)
    for path in report.write(done, given.output, picture=True):
        print(f"written: {path}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
