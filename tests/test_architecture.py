"""Keeps the arrows: each layer imports only what is below it, and the layout keeps its promises."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "pipeline"

WORDS = {
    *(
        "errors",
        "limits",
        "records",
        "events",
        "clock",
        "spec",
        "drain",
        "group_commit",
        "streams",
        "lanes",
        "own_thread",
    ),
    *("plain_text", "redaction", "standard_streams", "nesting", "json_schema", "whole", "moment"),
}
CONTRACTS = {"gemini.api", "ledger.api"}
ADAPTERS = {"gemini", "ledger", "media"}
ROOMS = {"manifest", "upload", "activation", "generation", "results", "retention"}
ENGINE = {"engine"}
COMPOSE = {"compose"}
OUTSIDE = {"cli", "config", "settings", "report", "commands", "__init__", "__main__"}
EMULATOR = {"emulator"}

ALLOWED: dict[str, set[str]] = {
    **dict.fromkeys(WORDS, WORDS),
    **dict.fromkeys(ADAPTERS, WORDS | CONTRACTS),
    **dict.fromkeys(ROOMS, WORDS | CONTRACTS | {"media"}),
    "engine": WORDS | CONTRACTS | ROOMS,
    "compose": WORDS | CONTRACTS | ADAPTERS | ROOMS | ENGINE | {"report"},
    "report": WORDS | CONTRACTS,
    "settings": WORDS | CONTRACTS,
    "config": WORDS | CONTRACTS | {"settings"},
    "cli": WORDS | {"commands", "config", "settings"},
    "commands": WORDS
    | CONTRACTS
    | {"compose", "config", "settings", "report", "emulator", "media", "results", "ledger"},
    "emulator": {"limits", "clock"},
    "__init__": WORDS | COMPOSE | {"report"},
    "__main__": {"cli"},
}
"""What each top-level name may import of ours, besides itself."""

AIOHTTP_IMPORTERS = {"gemini", "emulator"}
FORBIDDEN_NAMES = {"utils.py", "common.py", "misc.py", "base.py", "manager.py", "helpers.py"}
FILE_LINES = 350
EMULATOR_FILE_LINES = 400


def modules() -> list[Path]:
    """Every source file of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Dotted names that a file imports, at its top or inside functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def top(path: Path) -> str:
    """The top-level name below the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def tops(names: set[str]) -> set[str]:
    """The layers that imported names belong to, contracts kept apart from their folders."""
    found = set()
    for name in names:
        parts = name.split(".")
        if parts[0] != "pipeline" or len(parts) < 2:
            continue
        dotted = ".".join(parts[1:3])
        found.add(dotted if dotted in CONTRACTS else parts[1])
    # "from pipeline.gemini import api" names the folder and the contract
    return {name for name in found if f"{name}.api" not in found or name not in {"gemini", "ledger"}} | (
        found & CONTRACTS
    )


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows(path: Path) -> None:
    """A file imports only from its own folder and from layers below it."""
    layer = top(path)
    allowed = ALLOWED[layer] | {layer} | {f"{layer}.api"}
    assert tops(imported(path)) <= allowed


def test_every_layer_is_known() -> None:
    """A new top-level name must be given its place here."""
    assert {top(path) for path in modules()} <= set(ALLOWED)


def test_aiohttp_is_spoken_in_two_places_only() -> None:
    """HTTP is the client's and the emulator's business."""
    importers = {top(path) for path in modules() if any(n.split(".")[0] == "aiohttp" for n in imported(path))}
    assert importers <= AIOHTTP_IMPORTERS


def test_tqdm_is_imported_by_one_file() -> None:
    """The progress display can be exchanged in one place."""
    assert [p.name for p in modules() if any(n.split(".")[0] == "tqdm" for n in imported(p))] == ["progress.py"]


def test_the_command_line_answers_without_what_a_run_needs() -> None:
    """``--help`` waits for nothing heavy: that is imported where it is used."""
    heavy = ("aiohttp", "anyio", "asyncio", "av", "jinja2", "jsonschema", "PIL", "pyarrow", "sqlite3", "tqdm")
    program = f"import sys, pipeline.cli; print([name for name in {heavy} if name in sys.modules])"
    told = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_names_say_no() -> None:
    """No file has a name that anything could go into."""
    assert not [path for path in modules() if path.name in FORBIDDEN_NAMES]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sizes(path: Path) -> None:
    """A file stays small enough to have one reason to change."""
    ceiling = EMULATOR_FILE_LINES if top(path) == "emulator" else FILE_LINES
    assert len(path.read_text("utf-8").splitlines()) <= ceiling


def test_no_task_without_an_owner() -> None:
    """Every task belongs to a task group."""
    for path in modules():
        if top(path) != "emulator":
            assert "create_task(" not in path.read_text("utf-8"), path
