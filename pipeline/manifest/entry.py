"""What SOURCE says of one item, before its files are opened: the common form of a row and of a walked file."""

from typing import Final

import msgspec

from pipeline.errors import Failure, ItemError
from pipeline.manifest.times import Clip
from pipeline.records import Json, Rejected

SHOWN_PATHS: Final = 100
"""Media paths that the line of an item repeats which can't be used as it stands."""


class MediaRef(msgspec.Struct, frozen=True, kw_only=True):
    """A file that an item names: ``path`` as shown, ``location`` to open."""

    path: str
    location: str
    declared_type: str | None = None
    clip: Clip = Clip()


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One item as SOURCE describes it; what is None or empty comes from the run."""

    key: str
    position: int
    line: int | None = None
    path: str | None = None
    """What templates see as ``path``."""
    media: tuple[MediaRef, ...] = ()
    prompt: str | None = None
    template: str | None = None
    system: str | None = None
    variables: dict[str, Json] = {}
    model: str | None = None
    generation: dict[str, Json] = {}
    safety: dict[str, str] = {}
    schema: dict[str, Json] | None = None

    def reject(self, failure: Failure) -> Rejected:
        """This entry as a failed line."""
        return Rejected(
            key=self.key,
            position=self.position,
            line=self.line,
            failure=failure,
            paths=tuple(ref.path for ref in self.media),
            model=self.model,
            template=self.template,
        )


def failed(kind: str, message: str) -> ItemError:
    """A permanent failure of this room."""
    return ItemError(Failure(stage="manifest", kind=kind, message=message))


def shown_path(path: str) -> str:
    """``path`` with bytes that are not UTF-8, which no key and no line can hold, written as ``\\xNN``."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def not_utf8(path: str) -> ItemError:
    """The failure of a file that can be opened, but not named in a result line."""
    return failed("unsupported_source", f"{shown_path(path)}: a name is not valid UTF-8; rename it")
