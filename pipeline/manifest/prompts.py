"""Finds a template by its name or file: in ``./configs/prompts`` first, then among those shipped."""

import os
import re
from pathlib import Path
from typing import Final

from pipeline.errors import UsageError
from pipeline.manifest.template import Template
from pipeline.spec import ItemDefaults

SUFFIX: Final = ".j2"
_TEMPLATE_BYTES: Final = 1024 * 1024
_NAME: Final = re.compile(r"\w[\w-]{0,99}(?:\.[\w-]{1,99}){0,4}")
_PACKAGE: Final = Path(__file__).resolve().parent.parent


def prompt_folders() -> tuple[Path, ...]:
    """Where names are looked up, first to last; the last is the source checkout's, absent in a wheel."""
    return Path("configs/prompts"), _PACKAGE / "prompts", _PACKAGE.parent / "configs" / "prompts"


class Prompts:
    """Templates by name, each compiled once."""

    def __init__(self, folders: tuple[Path, ...] | None = None) -> None:
        self._folders = prompt_folders() if folders is None else folders
        self._compiled: dict[str, Template] = {}

    def named(self, name: str) -> Template:
        """The template called ``name``. Raises ``UsageError`` where there is none or it can't be compiled."""
        if name not in self._compiled:
            self._compiled[name] = self._find(name)
        return self._compiled[name]

    def of_run(self, defaults: ItemDefaults) -> Template:
        """The template of rows that name none: a name or a file, else the prompt given in place."""
        wanted = defaults.template
        if wanted is None:
            return Template(defaults.prompt)
        file = defaults.template_file
        if file is None and ("/" in wanted or os.path.isfile(wanted)):  # noqa: PTH113 - never raises
            file = Path(wanted)
        # a file called "tags" lies about in many a folder: a bare word is a name first
        if file is not None and ("/" in wanted or not self._file_of(wanted)):
            return _read(file, file.name.removesuffix(SUFFIX))
        return self.named(wanted)

    def _file_of(self, name: str) -> Path | None:
        if not _NAME.fullmatch(name):
            return None
        paths = (folder / f"{name}{SUFFIX}" for folder in self._folders)
        return next((path for path in paths if os.path.isfile(path)), None)  # noqa: PTH113 - never raises

    def _find(self, name: str) -> Template:
        if path := self._file_of(name):
            return _read(path, name)
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r} is neither the name of a template nor a file")
        known = sorted({path.stem for folder in self._folders for path in folder.glob(f"*{SUFFIX}")})
        raise UsageError(f"no template named {name!r}; there are: {', '.join(known) or 'none'}")


def _read(path: Path, name: str) -> Template:
    try:
        with path.open("rb") as file:
            content = file.read(_TEMPLATE_BYTES + 1)
        if len(content) > _TEMPLATE_BYTES:
            raise UsageError(f"template {path} is larger than 1 MiB")
        return Template(content.decode("utf-8-sig"), name)
    except OSError as error:
        raise UsageError(f"template {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"template {path} is not valid UTF-8") from None
