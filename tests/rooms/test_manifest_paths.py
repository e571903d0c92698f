"""Confinement of media paths, patterns and natural order."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ItemError
from pipeline.manifest import globs
from pipeline.manifest.globs import matches, natural_key, natural_path_key
from pipeline.manifest.paths import Confinement


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A manifest's folder with an outside that must not be reached."""
    root = tmp_path / "root"
    for name in ("a.jpg", "sub/b.jpg", "sub/deep/c.jpg", "s/img_2.jpg", "s/img_10.jpg", "s/img_1.jpg", "[1].jpg"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    (root / "s/.hidden.jpg").write_bytes(b"x")
    (tmp_path / "rooted").mkdir()
    (tmp_path / "rooted/x.jpg").write_bytes(b"x")
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (root / "link_in.jpg").symlink_to("sub/b.jpg")
    (root / "link_out.jpg").symlink_to("../secret.jpg")
    (root / "folder_out").symlink_to("..")
    (root / "loop").symlink_to("loop")
    (root / "self").symlink_to(".")
    os.mkfifo(root / "fifo.jpg")
    return root


def kind_of(confinement: Confinement, path: str) -> str:
    with pytest.raises(ItemError) as caught:
        confinement.resolve(path)
    return caught.value.failure.kind


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("../secret.jpg", "outside_root"),
        ("sub/../../secret.jpg", "outside_root"),
        ("./.././secret.jpg", "outside_root"),
        ("/etc/passwd", "outside_root"),
        ("//etc/passwd", "outside_root"),
        ("/proc/self/environ", "outside_root"),
        ("/dev/zero", "outside_root"),
        ("link_out.jpg", "outside_root"),
        ("folder_out/secret.jpg", "outside_root"),
        ("self/self/../../secret.jpg", "outside_root"),
        ("../rooted/x.jpg", "outside_root"),
        ("..", "outside_root"),
        ("../*.jpg", "outside_root"),
        ("folder_out/*.jpg", "outside_root"),
        ("*/../../*.jpg", "outside_root"),
        ("/etc/*", "outside_root"),
        ("**/../../secret.jpg", "outside_root"),
        ("link_o*.jpg", "outside_root"),
        ("http://example.org/a.jpg", "unsupported_source"),
        ("HTTPS://example.org/a.jpg", "unsupported_source"),
        ("gs://bucket/a.jpg", "unsupported_source"),
        ("s3://bucket/a.jpg", "unsupported_source"),
        ("file:///etc/passwd", "unsupported_source"),
        ("", "bad_row"),
        ("a\0.jpg", "bad_row"),
        ("nothing/*.jpg", "missing_file"),
        ("*.gif", "missing_file"),
    ],
)
def test_refused_paths(tree: Path, path: str, kind: str) -> None:
    """Each is refused before anything is opened."""
    assert kind_of(Confinement(tree, (), most_files=100), path) == kind


def test_nothing_is_opened_or_hangs(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops, FIFOs and very long names are resolved without opening a file."""

    def refuse(*_: object, **__: object) -> int:
        raise AssertionError("opened")

    monkeypatch.setattr(os, "open", refuse)
    started = time.monotonic()
    confinement = Confinement(tree, (), most_files=100)
    for path in ("fifo.jpg", "loop", "loop/a.jpg", "x" * 300, "self/" * 200 + "a.jpg", "a/" * 3000):
        try:
            confinement.resolve(path)
        except ItemError as error:
            assert error.failure.kind in {"outside_root", "missing_file"}  # noqa: PT017 - both ends are fine
    assert time.monotonic() - started < 5


def test_paths_that_stay_inside(tree: Path) -> None:
    """Dots, absolute paths and links are fine as long as they end inside; the path is shown as given."""
    confinement = Confinement(tree, (), most_files=100)
    root = os.path.realpath(tree)
    for path, location in [
        ("a.jpg", "a.jpg"),
        ("./sub/../a.jpg", "a.jpg"),
        ("sub/deep/c.jpg", "sub/deep/c.jpg"),
        ("link_in.jpg", "sub/b.jpg"),
        ("folder_out/root/a.jpg", "a.jpg"),
        (f"{root}/a.jpg", "a.jpg"),
        ("[1].jpg", "[1].jpg"),
    ]:
        assert confinement.resolve(path) == [(path, f"{root}/{location}")], path


def test_media_roots(tree: Path) -> None:
    """A path may also lie under a media root, and only there."""
    rooted = tree.parent / "rooted"
    confinement = Confinement(tree, (rooted,), most_files=100)
    assert confinement.resolve("../rooted/x.jpg") == [("../rooted/x.jpg", f"{os.path.realpath(rooted)}/x.jpg")]
    assert confinement.resolve(str(rooted / "x.jpg"))
    assert kind_of(confinement, "../secret.jpg") == "outside_root"
    (tree.parent / "rooted2").mkdir()
    assert kind_of(confinement, "../rooted2/x.jpg") == "outside_root"
    assert Confinement(tree, (Path("/"),), most_files=100).resolve("/etc/passwd")


def test_patterns(tree: Path) -> None:
    """A pattern finds files in natural order, no hidden ones, no folders, and enters no linked folder."""
    confinement = Confinement(tree, (), most_files=100)

    def found(pattern: str) -> list[str]:
        return [shown for shown, _ in confinement.resolve(pattern)]

    assert found("s/*.jpg") == ["s/img_1.jpg", "s/img_2.jpg", "s/img_10.jpg"]
    assert found("s/img_?.jpg") == ["s/img_1.jpg", "s/img_2.jpg"]
    assert found("sub/**") == ["sub/b.jpg", "sub/deep/c.jpg"]
    assert found("**/c.jpg") == ["sub/deep/c.jpg"]
    assert found("s/.h*") == ["s/.hidden.jpg"]
    assert found("sub/*/c.jpg") == ["sub/deep/c.jpg"]
    assert found("s/img_[12].jpg") == ["s/img_1.jpg", "s/img_2.jpg"]


def test_a_pattern_finds_no_more_than_can_be_sent(tree: Path) -> None:
    """More files than any request may hold are not even listed."""
    assert kind_of(Confinement(tree, (), most_files=2), "s/*.jpg") == "too_many_images"


@pytest.mark.parametrize(
    ("path", "pattern", "expected"),
    [
        ("a/b.jpg", "*.jpg", True),
        ("a/b.jpg", "a/*.jpg", True),
        ("x/a/b.jpg", "a/*.jpg", True),
        ("x/a/b.jpg", "/a/*.jpg", False),
        ("a/b.jpg", "/a/*.jpg", True),
        ("a/b/c/d.jpg", "a/**/*.jpg", True),
        ("a/d.jpg", "a/**/*.jpg", True),
        ("a/b/c.jpg", "a/*.jpg", False),
        ("a/b", "b/", True),
        ("a.JPG", "*.jpg", False),
        ("a\n.jpg", "*.jpg", True),
    ],
)
def test_matches(path: str, pattern: str, expected: bool) -> None:
    """Patterns match from the right, as pathlib's do; a leading slash ties them to the top."""
    assert matches(path, pattern) is expected


def test_matching_is_never_exponential() -> None:
    """A hostile pattern ends at once."""
    started = time.monotonic()
    assert not matches("/".join(["a"] * 200), "/".join(["**", "a"] * 12 + ["b"]))
    assert time.monotonic() - started < 1


def test_natural_order() -> None:
    """Numbers sort as numbers, whatever their length, and case does not part files."""
    names = ["img_10", "Img_2", "img_1", "img_02", "img", "img_" + "9" * 5000]
    assert sorted(names, key=natural_key) == ["img", "img_1", "Img_2", "img_02", "img_10", "img_" + "9" * 5000]
    assert sorted(["b/1", "a/10", "a/2"], key=natural_path_key) == ["a/2", "a/10", "b/1"]


@given(st.sets(st.text(max_size=12)))
def test_natural_order_is_total(names: set[str]) -> None:
    """No two names are equal in it, so that the order never depends on how a folder was listed."""
    assert len({natural_key(name) for name in names}) == len(names)


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_natural_order_of_numbers(one: int, other: int) -> None:
    """Two numbers sort by their value."""
    assert (natural_key(f"a{one}") < natural_key(f"a{other}")) is (one < other)


def test_a_name_that_is_not_utf8_fails_its_pattern(tree: Path) -> None:
    """No result line and no key can hold it; the row says so, and the run goes on."""
    (tree / os.fsdecode(b"s/img_\xff.jpg")).write_bytes(b"x")
    confinement = Confinement(tree, (), most_files=100)
    with pytest.raises(ItemError, match=r"s/img_\\xff\.jpg: a name is not valid UTF-8") as caught:
        confinement.resolve("s/*.jpg")
    assert caught.value.failure.kind == "unsupported_source"
    assert confinement.resolve("s/img_1*.jpg")


def test_a_chain_of_very_many_symlinks_is_no_bug(tree: Path) -> None:
    """Python follows each by calling itself."""
    target = "a.jpg"
    for number in range(1500):
        (tree / f"link_{number}.jpg").symlink_to(target)
        target = f"link_{number}.jpg"
    confinement = Confinement(tree, (), most_files=100)
    assert kind_of(confinement, target) == "not_a_file"
    assert kind_of(confinement, f"{target}/a.jpg") == "not_a_file"
    assert confinement.resolve("link_1.jpg") == [("link_1.jpg", str(tree / "a.jpg"))]


def test_a_pattern_goes_as_deep_as_folders_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree deeper than Python may call itself is walked."""

    def entries(folder: str) -> list[tuple[str, bool]]:
        return [("d", True)] if folder.count("/d") < 1200 else [("a.jpg", False)]

    monkeypatch.setattr(globs, "_entries", entries)
    [(shown, _)] = Confinement(tmp_path, (), most_files=100).resolve("**/*.jpg")
    assert shown == "d/" * 1200 + "a.jpg"


def test_a_pattern_over_a_large_tree_can_be_stopped(tree: Path) -> None:
    """It is looked at each folder whether to go on."""
    seen: list[str] = []

    def check() -> None:
        seen.append("looked")
        if len(seen) == 3:
            raise InterruptedError

    confinement = Confinement(tree, (), most_files=100, check_cancelled=check)
    with pytest.raises(InterruptedError):
        confinement.resolve("**/*.gif")
