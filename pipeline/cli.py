"""The command line: arguments in, exit codes out, nothing else."""

import atexit
import gc
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

import click

from pipeline.errors import ExitCode, PipelineError
from pipeline.standard_streams import let_go, open_missing

DESCRIPTORS = 10_240
"""More open files than any run needs; what macOS grants to every process."""

COLLECT_OBJECTS = 20_000
"""So many more objects than before, some megabytes, and the garbage collector looks for cycles."""

EPILOG = """\b
Exit codes: 0 every item has succeeded, 1 some failed or were blocked, 2 usage or manifest error,
3 stopped early and safe to run again, 4 another run holds the run folder, 5 stopped until a human acts,
70 a bug, 130/143/129 interrupted after a drain and safe to run again."""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110}, epilog=EPILOG)
@click.version_option(package_name="gemini-media-pipeline", prog_name="pipeline")
def cli() -> None:
    """Run a Gemini vision model over a great many images and videos.

    Begin without a key:

    \b
        pipeline run FOLDER --emulator
        pipeline run FOLDER -p "Describe {{ name }} in one sentence." --emulator

    Then with one: export GEMINI_API_KEY=... and leave --emulator out. The same command again goes on where the
    last one ended, and sends nothing for what is done.
    """


def settings_option(*names: str, key: str, **options: Any) -> Callable[[Any], Any]:
    """An option that sets a configuration key; absent means that the file, the environment or the default decide."""

    def take(context: click.Context, _: click.Parameter, value: Any) -> None:
        if value is not None and value != ():
            context.ensure_object(dict)[key] = list(value) if isinstance(value, tuple) else value

    return click.option(*names, callback=take, expose_value=False, **options)


def span(_: click.Context, __: click.Parameter, value: str | None) -> float | None:
    """A time like 4h, in seconds."""
    from pipeline.settings import span_seconds

    return None if value is None else span_seconds(value)


ENDPOINT_OPTIONS = (
    settings_option("--base-url", key="endpoint.base_url", metavar="URL", help="Another endpoint that speaks the API."),
    settings_option("--api-version", key="endpoint.api_version", type=click.Choice(["v1beta", "v1"]), help="[v1beta]"),
)

RUN_OPTIONS = (
    settings_option("-o", "--output", key="run.output", metavar="RUN", help="Run folder. [runs/<name of SOURCE>]"),
    click.option("-c", "--config", type=click.Path(path_type=Path), metavar="FILE", help="Settings (TOML)."),
    settings_option("-p", "--prompt", key="run.prompt", metavar="TEMPLATE", help="The prompt, a Jinja2 template."),
    settings_option(
        "-t",
        "--template",
        key="run.template",
        metavar="NAME|FILE",
        help="A template: describe, alt_text, tags, ocr ...",
    ),
    settings_option("-m", "--model", key="run.model", metavar="NAME", help="[gemini-3.8-flash]"),
    click.option("--emulator", is_flag=True, help="Answer from the built-in emulator: no key, no cost."),
    *ENDPOINT_OPTIONS,
    settings_option(
        "--via", key="upload.via", type=click.Choice(["auto", "inline", "files"]), help="How media travel. [auto]"
    ),
    settings_option("--concurrency", key="run.concurrency", type=int, help="Most generate calls at once. [64]"),
    settings_option("--uploads", key="run.uploads", type=int, help="Most file uploads at once. [16]"),
    settings_option("--rpm", key="quota.rpm", type=float, help="Requests a minute, where known."),
    settings_option("--tpm", key="quota.tpm", type=float, help="Input tokens a minute, where known."),
    settings_option("--rpd", key="quota.rpd", type=int, help="Requests a day, where known."),
    click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N items that would be sent."),
    click.option("--retry-failed", is_flag=True, help="Run failed and blocked items again, permanent ones too."),
    settings_option(
        "--on-change",
        key="run.on_change",
        type=click.Choice(["run", "keep", "stop"]),
        help="Done items whose prompt, model or settings changed. [run]",
    ),
    settings_option("--deadline", key="run.deadline", metavar="HH:MM", help="Local time to have ended by (exit 3)."),
    click.option("--max-time", callback=span, metavar="TIME", help="Time to have ended in, like 4h (exit 3)."),
    settings_option("--grace", key="run.grace_seconds", type=float, metavar="SECONDS", help="Longest drain. [120]"),
    settings_option(
        "--group",
        key="run.group",
        type=click.Choice(["file", "folder"]),
        help="One item per file or sub-folder. [file]",
    ),
    settings_option(
        "--include", key="run.include", multiple=True, metavar="GLOB", help="Only these files; repeatable."
    ),
    settings_option("--exclude", key="run.exclude", multiple=True, metavar="GLOB", help="Not these files; repeatable."),
    settings_option(
        "--min-age", key="run.min_age_seconds", type=float, metavar="SECONDS", help="Leave younger files for later. [0]"
    ),
    settings_option(
        "--media-root", key="run.media_roots", multiple=True, metavar="DIR", help="Media may also lie here; repeatable."
    ),
    click.option(
        "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Any configuration key, dotted; repeatable."
    ),
    click.option("--json", "as_json", is_flag=True, help="The summary as one JSON object on stdout."),
    click.option("--quiet", is_flag=True, help="No progress."),
    click.option("--verbose", is_flag=True, help="Every item's states in run.log."),
)


def with_options(options: tuple[Callable[[Any], Any], ...]) -> Callable[[Any], Any]:
    """Decorate a command with ``options``, in their order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@cli.command()
@click.argument("source")
@with_options(RUN_OPTIONS)
@click.pass_context
def run(
    context: click.Context,
    source: str,
    *,
    config: Path | None,
    emulator: bool,
    limit: int | None,
    retry_failed: bool,
    max_time: float | None,
    sets: tuple[str, ...],
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """The main job, and its resume: send what is not done yet.

    SOURCE is a folder of media, a manifest file (JSONL, CSV, Parquet), or - for JSONL on stdin.
    """
    from pipeline.commands.run import run_command
    from pipeline.settings import CommandLine, setting

    settings = dict(setting(text) for text in sets) | context.ensure_object(dict)
    if max_time is not None:
        settings["run.max_time_seconds"] = max_time
    line = CommandLine(
        source=source,
        config_file=config,
        settings=settings,
        emulator=emulator,
        limit=limit,
        retry_failed=retry_failed,
        quiet=quiet,
        verbose=verbose,
    )
    sys.exit(run_command(line, as_json=as_json))


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="As one JSON object on stdout.")
def status(run_folder: Path, *, as_json: bool) -> None:
    """Where a run folder stands; works while a run is going on."""
    from pipeline.commands.status import status_command

    status_command(run_folder, as_json=as_json)


@cli.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Mend what can be rebuilt; the damaged original is kept.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object on stdout.")
def verify(run_folder: Path, *, repair: bool, as_json: bool) -> None:
    """Check a run folder: every line whole, no key twice, the ledger in line with the results.

    Exit codes: 0 all well or mended, 1 problems were found, 4 a run holds the folder, 5 it can't be mended.
    """
    from pipeline.commands.verify import verify_command

    sys.exit(verify_command(run_folder, repair=repair, as_json=as_json))


@cli.command()
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--plan", type=click.Path(path_type=Path), metavar="FILE", help="Latencies, quotas and faults (TOML).")
def emulator(port: int, plan: Path | None) -> None:
    """A local server of the Gemini API, for work without a key."""
    from pipeline.commands.emulator import emulator_command

    emulator_command(port, plan)


@cli.group()
def files() -> None:
    """The project's File API storage: what lies there, put there, freed by hand."""


def files_command(name: str, verb: str, help_text: str, *arguments: Callable[[Any], Any]) -> None:
    """Register ``pipeline files NAME``."""

    def command(context: click.Context, **given: Any) -> None:
        from pipeline.commands.files import files_command as run_files_command

        run_files_command(verb, context.ensure_object(dict), **given)

    json_option = click.option("--json", "as_json", is_flag=True, help="As JSON on stdout, one object a line.")
    decorated = with_options((*arguments, *ENDPOINT_OPTIONS, json_option))(click.pass_context(command))
    files.command(name, help=help_text)(decorated)


files_command("list", "list", "Every file of the project, as the service lists them.")
files_command("get", "get", "One file's metadata.", click.argument("name"))
files_command(
    "upload",
    "upload",
    "Upload files by hand.",
    click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path)),
)
files_command("delete", "delete", "Delete files.", click.argument("names", nargs=-1, required=True))


def main() -> NoReturn:
    """The console script."""
    if sys.platform not in ("linux", "darwin"):
        fail("pipeline runs on Linux and macOS; on Windows use it inside WSL", ExitCode.USAGE)
    open_missing()
    collect_seldom()
    leave_no_core()
    allow_descriptors()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does where the locale lacks a character
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        sys.exit(ExitCode.SIGINT)
    except click.exceptions.NoArgsIsHelpError as help_text:
        click.echo(help_text.format_message(), err=True)
        sys.exit(ExitCode.USAGE)
    except click.ClickException as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if isinstance(error, click.UsageError) and error.ctx else ""
        fail(error.format_message() + hint, ExitCode.USAGE)
    except PipelineError as error:
        fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(ExitCode.SIGINT)
    except Exception as error:  # noqa: BLE001 - whatever else gets here is a bug; the trace is what its report needs
        from pipeline.commands.tell import tell_lines

        if isinstance(error, OSError) and is_raised_by_click(error):  # who writes help; all else goes by `tell`
            let_go(sys.stdout)
            fail(f"stdout can't be written ({error.strerror})", ExitCode.NEEDS_HUMAN)
        tell_lines(traceback.format_exc())
        fail(
            "this is a bug; please report it with the lines above. Run again: nothing that was answered is lost",
            ExitCode.BUG,
        )
    sys.exit(ExitCode.OK)


def is_raised_by_click(error: Exception) -> bool:
    """Whether no code of ours was at work when ``error`` arose."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return str(frame.f_globals.get("__name__")).startswith("click.")


def fail(sentence: str, exit_code: int) -> NoReturn:
    """One clear sentence on stderr, and out."""
    from pipeline.commands.tell import tell

    tell(f"pipeline: {sentence}", err=True)
    sys.exit(exit_code)


def collect_seldom() -> None:
    """Cyclic garbage is rare here, and looking for it at Python's pace takes a twentieth of a busy run's time.

    At the end Python would look through all that there is, for longer than many a run takes to begin.
    """
    gc.set_threshold(COLLECT_OBJECTS, 20, 50)
    atexit.register(gc.freeze)


def leave_no_core() -> None:
    """A core dump would hold the key."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def allow_descriptors() -> None:
    """As many open files and connections as the system lets us have, where the shell gives fewer."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):  # macOS has a lower limit yet, and says so only here
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
