"""``python -m pipeline.emulator --port P --plan FILE.toml``: the emulator as a process of its own."""

import argparse
import asyncio
import contextlib
import signal
import sys
from pathlib import Path

from pipeline.emulator.plan import Plan, load_plan
from pipeline.emulator.serve import serve


def main() -> int:
    """Serve until SIGINT or SIGTERM; 2 where the plan or the port cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.emulator", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--plan", type=Path, help="behaviour and faults, as TOML")
    options = parser.parse_args()
    try:
        plan = load_plan(options.plan) if options.plan else Plan()
        asyncio.run(_serve(options.port, plan))
    except (OSError, ValueError) as problem:
        sys.stderr.write(f"emulator: {problem}\n")
        return 2
    return 0


async def _serve(port: int, plan: Plan) -> None:
    serving = asyncio.ensure_future(serve(port=port, plan=plan, ready=_announce))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def _announce(base_url: str) -> None:
    sys.stdout.write(f"emulator listening on {base_url}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
