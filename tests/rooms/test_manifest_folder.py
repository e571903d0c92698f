"""A folder SOURCE: sorted, links not followed, nothing silently left out."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.clock import ManualClock
from pipeline.errors import UsageError
from pipeline.manifest.entry import Entry
from pipeline.manifest.folder import FolderSource
from pipeline.records import Rejected
from pipeline.spec import SourceSpec

PNG = b"\x89PNG\r\n\x1a\n"
NOW = datetime(2026, 11, 22, 2, 30, tzinfo=UTC)


def source(root: Path, **options: object) -> FolderSource:
    spec = SourceSpec(path=root, **options)  # type: ignore[arg-type]
    return FolderSource(
        root, spec, run_folder=root / "run", clock=ManualClock(NOW), most_files=5, check_cancelled=lambda: None
    )


def fill(root: Path, *names: str, content: bytes = PNG) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def keys(folder: FolderSource) -> list[str]:
    entries = list(folder.entries())
    assert [entry.position for entry in entries if entry] == list(range(len(entries)))
    return [entry.key for entry in entries if entry]


def test_the_walk_is_sorted(tmp_path: Path) -> None:
    """The files of a folder come first, by name, then its folders."""
    fill(tmp_path, "b.png", "a.png", "z/1.png", "c/2.png", "c/1.png", "c/d/0.png")
    assert keys(source(tmp_path)) == ["a.png", "b.png", "c/1.png", "c/2.png", "c/d/0.png", "z/1.png"]


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    """Hidden names, links, the run folder and what is no medium are counted by suffix."""
    fill(tmp_path, "a.png", ".hidden.png", ".git/x.png", "run/x.png", "sub/real.png")
    fill(tmp_path, "notes.txt", "more.TXT", "Makefile", content=b"text")
    (tmp_path / "link.png").symlink_to("a.png")
    (tmp_path / "linked").symlink_to("sub")
    (tmp_path / "loop").symlink_to(".")
    folder = source(tmp_path)
    assert keys(folder) == ["a.png", "sub/real.png"]
    assert folder.skipped == {".png": 2, ".txt": 2, "": 3, "/": 2}


def test_bytes_or_suffix_make_an_item(tmp_path: Path) -> None:
    """A medium without a suffix, and a media suffix without a medium, are both items."""
    fill(tmp_path, "photo", "data.bin")
    fill(tmp_path, "broken.jpg", "empty.mp4", "old.gif", content=b"")
    os.mkfifo(tmp_path / "fifo.png")
    os.mkfifo(tmp_path / "fifo")
    assert keys(source(tmp_path)) == ["broken.jpg", "data.bin", "empty.mp4", "fifo.png", "old.gif", "photo"]


def test_include_and_exclude(tmp_path: Path) -> None:
    """Patterns choose files; an excluded folder is not entered."""
    fill(tmp_path, "a.png", "b.jpg", "drafts/c.png", "x/drafts/d.png", "x/e.png")
    assert keys(source(tmp_path, include=("*.png",))) == ["a.png", "drafts/c.png", "x/e.png", "x/drafts/d.png"]
    assert keys(source(tmp_path, exclude=("drafts", "*.jpg"))) == ["a.png", "x/e.png"]
    assert keys(source(tmp_path, exclude=("/drafts",))) == ["a.png", "b.jpg", "x/e.png", "x/drafts/d.png"]
    assert keys(source(tmp_path, include=("x/**",), exclude=("d.png",))) == ["x/e.png"]


def test_min_age(tmp_path: Path) -> None:
    """Files written just now are left for the next run, and counted."""
    fill(tmp_path, "old.png", "new.png")
    for name, age in (("old.png", 61), ("new.png", 59)):
        os.utime(tmp_path / name, (NOW.timestamp() - age, NOW.timestamp() - age))
    folder = source(tmp_path, min_age_seconds=60.0)
    assert keys(folder) == ["old.png"]
    assert folder.skipped == {".png": 1}


def test_a_series_is_left_whole_while_a_part_of_it_is_young(tmp_path: Path) -> None:
    """Without that part it would be another series, paid for again when the part is there."""
    fill(tmp_path, "still/1.png", "still/2.png", "rest/1.png")
    fill(tmp_path, "rest/notes.txt", content=b"text")
    for name, age in (("still/1.png", 90), ("still/2.png", 5), ("rest/1.png", 90), ("rest/notes.txt", 5)):
        os.utime(tmp_path / name, (NOW.timestamp() - age, NOW.timestamp() - age))
    folder = source(tmp_path, group="folder", min_age_seconds=60.0)
    assert keys(folder) == ["rest"]
    assert folder.skipped == {".png": 2, ".txt": 1}


def test_groups(tmp_path: Path) -> None:
    """With group=folder each folder with media is one item, its files in natural order."""
    fill(tmp_path, "s/img_10.png", "s/img_2.png", "s/t/1.png", "top.png")
    fill(tmp_path, "s/notes.txt", "empty/x.txt", content=b"text")
    entries = [entry for entry in source(tmp_path, group="folder").entries() if isinstance(entry, Entry)]
    assert [(entry.key, [ref.path for ref in entry.media]) for entry in entries] == [
        (".", ["top.png"]),
        ("s", ["s/img_2.png", "s/img_10.png"]),
        ("s/t", ["s/t/1.png"]),
    ]
    assert [entry.path for entry in entries] == [".", "s", "s/t"]


@pytest.mark.parametrize(
    "name",
    ["\u00e9.png", "e\u0301.png", "new\nline.png", "n" * 251 + ".png", "\u202egnp.png", "-rf.png", "%s{{x}}'\".png",
     "\U0001f3de.png", "sp ace.png", "back\\slash.png", "tab\t.png"],
)  # fmt: skip
def test_odd_names_are_kept(tmp_path: Path, name: str) -> None:
    """Any valid name is a key as it stands."""
    fill(tmp_path, name)
    (entry,) = source(tmp_path).entries()
    assert isinstance(entry, Entry)
    assert entry.key == name
    assert Path(entry.media[0].location).read_bytes() == PNG


def test_undecodable_names_fail_cleanly(tmp_path: Path) -> None:
    """A name that is not UTF-8 gives a failed line under an escaped key."""
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(PNG)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    for group in ("file", "folder"):
        (entry,) = source(tmp_path, group=group).entries()
        assert isinstance(entry, Rejected)
        assert entry.failure.kind == "unsupported_source"
        assert entry.paths == ("caf\\xe9.png",)
        entry.key.encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_told(tmp_path: Path) -> None:
    """A folder that can't be listed is a failed line, not silence."""
    fill(tmp_path, "locked/a.png")
    (tmp_path / "locked").chmod(0)
    (entry,) = source(tmp_path).entries()
    (tmp_path / "locked").chmod(0o700)
    assert isinstance(entry, Rejected)
    assert entry.failure.kind == "missing_file"


def test_a_folder_that_vanishes_is_told(tmp_path: Path) -> None:
    """A folder removed during the walk is a failed line."""
    fill(tmp_path, "a.png", "b/c.png")
    entries = source(tmp_path).entries()
    assert next(entries)
    (tmp_path / "b/c.png").unlink()
    (tmp_path / "b").rmdir()
    (gone,) = entries
    assert isinstance(gone, Rejected)
    assert (gone.key, gone.failure.kind) == ("b", "missing_file")


def test_no_folder() -> None:
    """A SOURCE that can't be listed is a usage error."""
    with pytest.raises(UsageError, match="nowhere"):
        source(Path("nowhere"))
