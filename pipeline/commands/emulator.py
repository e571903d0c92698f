"""``pipeline emulator``: serve until interrupted."""

import errno
from functools import partial
from pathlib import Path

import anyio

from pipeline.commands.tell import tell
from pipeline.emulator import Plan, load_plan
from pipeline.emulator.serve import serve
from pipeline.errors import UsageError


def emulator_command(port: int, plan_file: Path | None) -> None:
    """Serve on loopback. Raises ``UsageError`` for a bad plan or a port in use."""
    try:
        plan = load_plan(plan_file) if plan_file else Plan()
    except OSError as error:
        raise UsageError(f"can't read the plan {plan_file}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    try:
        anyio.run(partial(serve, port=port, plan=plan, ready=announce))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError(f"port {port} is in use: choose another with --port, or 0 for a free one") from error
        raise UsageError(f"can't listen on port {port}: {error.strerror}") from error


def announce(base_url: str) -> None:
    """Say where it listens: the address on stdout for scripts, the hint on stderr for people."""
    tell(f"emulator listening on {base_url}")
    hint = f"try: GEMINI_API_KEY=any pipeline run FOLDER --base-url {base_url} -o RUN   (Ctrl-C ends it)"
    tell(hint, err=True)
