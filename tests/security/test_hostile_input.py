"""Manifests, names and paths that mean harm, through the real command: refused or taken literally."""

import csv
import json
import os
import subprocess
import unicodedata
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from tests.security.hostile import ESCAPES, SSTI, check, kinds, manifest
from tests.support import generated
from tests.support.processes import KEY, PYTHON, by_key, emulator, environment, lines, pipeline, run

SAYS_ALL = "{{ key }}|{{ path }}|{{ name }}|{{ v | string }}|{{ nested | string }}"


# values -------------------------------------------------------------------------------------------------------------


def ssti_rows(payload: str, number: int) -> list[dict[str, Any]]:
    """``payload`` in every column that takes a text."""
    one = {"media": "media/00000.png"}
    return [
        one | {"key": f"p{number} {payload}", "prompt": payload, "system": payload},
        one | {"key": f"v{number} {payload}", "vars": {"v": payload, "nested": [{payload: [payload]}]}},
        one | {"key": f"u{number}", "v": payload, "nested": payload, payload: payload},
        one | {"key": f"t{number}", "template": payload},
        one | {"key": f"m{number}", "model": payload},
        {"key": f"f{number}", "media": payload},
        {"key": f"y{number}", "media": {"path": "media/00000.png", "mime_type": payload}},
        {"key": f"c{number}", "media": {"path": "media/00000.png", "start": payload}},
    ]


def test_no_column_of_a_manifest_is_ever_run(media: Path, tmp_path: Path) -> None:
    """Every payload in every column arrives literally at the service, or its row fails; nothing happens besides."""
    assert len(SSTI) >= 30
    rows = [row for number, payload in enumerate(SSTI) for row in ssti_rows(payload, number)]
    source = manifest(tmp_path / "m.jsonl", *rows)
    with emulator('describe = "brief"\nrecord_bodies = true') as server:
        ended = run(source, tmp_path / "run", "-p", SAYS_ALL, base_url=server.base_url, cwd=tmp_path)
        bodies = server.bodies()
    check(ended, tmp_path / "run")
    assert ended.exit_code == 1, ended.stderr
    assert not list(tmp_path.rglob("pwned"))
    prompts = {body["contents"][0]["parts"][-1]["text"] for body in map(body_of, bodies)}
    systems = {
        body["systemInstruction"]["parts"][0]["text"] for body in map(body_of, bodies) if "systemInstruction" in body
    }
    name = "media/00000.png|00000.png"
    for number, payload in enumerate(SSTI):
        assert payload in prompts
        assert payload in systems
        nested = str([{payload: [payload]}])
        assert f"v{number} {payload}|{name}|{payload}|{nested}" in prompts
        assert f"u{number}|{name}|{payload}|{payload}" in prompts
    failed = kinds(tmp_path / "run")
    for letter, allowed in {
        "t": {"template_error"},
        "m": {"bad_row"},
        "f": {"missing_file"},
        "y": {"unsupported_type"},
        "c": {"bad_clip"},
    }.items():
        assert {failed[f"{letter}{number}"] for number in range(len(SSTI))} == allowed


def body_of(recorded: dict[str, Any]) -> dict[str, Any]:
    """The request's body, as the emulator has kept it."""
    return dict(json.loads(b64decode(recorded["body_base64"])))


def test_no_cell_of_a_csv_is_ever_run(media: Path, tmp_path: Path) -> None:
    """As for JSONL."""
    with (tmp_path / "m.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["key", "media", "v", "nested"])
        table.writerows([f"k{n} {payload}", "media/00000.png", payload, payload] for n, payload in enumerate(SSTI))
    with emulator('describe = "brief"\nrecord_bodies = true') as server:
        ended = run(tmp_path / "m.csv", tmp_path / "run", "-p", SAYS_ALL, base_url=server.base_url, cwd=tmp_path)
        prompts = {body_of(body)["contents"][0]["parts"][-1]["text"] for body in server.bodies()}
    check(ended, tmp_path / "run")
    assert ended.exit_code == 0, ended.stderr
    name = "media/00000.png|00000.png"
    assert prompts == {f"k{n} {payload}|{name}|{payload}|{payload}" for n, payload in enumerate(SSTI)}
    assert not list(tmp_path.rglob("pwned"))


# names --------------------------------------------------------------------------------------------------------------

NAMES = [
    *(payload.replace("/", "_") for payload in SSTI),
    unicodedata.normalize("NFC", "Ärger.png"),
    unicodedata.normalize("NFD", "Ärger.png"),
    "new\nline.png",
    "x" * 251 + ".png",
    "\u202egnp.exe",
    "'single' \"double\".png",
    "-rf.png",
    "--config=x.png",
    "100%s%n.png",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467.png",
    "tab\there.png",
    "esc\x1b[31m.png",
    "c1\u009b31m.png",
    "separator\u2028.png",
    " leading and trailing ",
    "#line:1",
    "a|b.png",
    "*?[x].png",
    "https:",
]


UNDECODABLE = [b"latin-\xe9.png", b"\xff\xfe.png", b"half-\xc3.png"]


def test_names_are_names(tmp_path: Path) -> None:
    """Files of a folder with any name are answered under that name; bytes that are no text fail cleanly."""
    source = tmp_path / "media"
    source.mkdir()
    for number, name in enumerate(NAMES):
        (source / name).write_bytes(generated.image("PNG", number, 32))
    for number, raw in enumerate(UNDECODABLE):
        Path(os.fsdecode(os.fsencode(source) + b"/" + raw)).write_bytes(generated.image("PNG", 500 + number, 32))
    with emulator('describe = "brief"\nrecord_bodies = true') as server:
        ended = run(
            *(source, tmp_path / "run", "--verbose", "-p", "{{ name }}", "--via", "files"),
            base_url=server.base_url,
            cwd=tmp_path,
        )
        prompts = {body_of(body)["contents"][0]["parts"][-1]["text"] for body in server.bodies()}
        listed = pipeline("files", "list", "--base-url", server.base_url)
        as_json = pipeline("files", "list", "--json", "--base-url", server.base_url)
    check(ended, tmp_path / "run")
    assert ended.exit_code == 1, ended.stderr
    found = kinds(tmp_path / "run")
    assert {key for key, kind in found.items() if kind is None} == set(NAMES)
    assert {kind for kind in found.values() if kind} == {"unsupported_source"}
    assert len(found) == len(NAMES) + len(UNDECODABLE)
    assert {name.strip() for name in NAMES} == prompts
    for shown in (listed, as_json):
        check(shown)
        assert len(shown.stdout.splitlines()) == len(NAMES)
    assert not list(tmp_path.rglob("pwned"))


def test_source_and_run_folder_may_have_any_name(tmp_path: Path) -> None:
    """Also bytes that are no text: the run does its work, and says where in characters that can be shown."""
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m\xc2\x9b\n"))
    place.mkdir()
    generated.pictures(place / "media", 1)
    with emulator('describe = "brief"') as server:
        for _ in range(2):
            ended = run(place / "media", place / "run", base_url=server.base_url)
            check(ended, place / "run")
            assert ended.exit_code == 0, ended.stderr
    for told in (pipeline("status", place / "run"), pipeline("status", place / "run", "--json")):
        check(told)
        assert told.exit_code == 0


# paths --------------------------------------------------------------------------------------------------------------


def paths(root: Path) -> dict[str, str]:
    """Paths that lead out, or to what is no file, with the kind of failure."""
    os.mkfifo(root / "fifo.png")
    (root / "loop.png").symlink_to("loop.png")
    (root / "out.png").symlink_to("../secret.png")
    (root / "out").symlink_to("..")
    (root / "dir.png").mkdir()
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "twice.png").symlink_to("out.png")
    outside = ["../secret.png", "media/../../secret.png", "/etc/passwd", "//etc/passwd", "/dev/zero", "/proc/self/mem"]
    outside += ["/proc/self/environ", "/dev/stdin", "/dev/fd/0", "out.png", "out/secret.png", "zero.png", "twice.png"]
    outside += [
        "..",
        "../*.png",
        "out/*.png",
        "*/../../*.png",
        "/proc/self/root/etc/passwd",
        str(root.parent / "secret.png"),
    ]
    foreign = [
        "http://169.254.169.254/",
        "https://example.com/a.png",
        "gs://b/a.png",
        "s3://b/a.png",
        "file:///etc/passwd",
    ]
    foreign += ["data://text/plain,x", "FTP://example.com/a.png"]
    return (
        dict.fromkeys(outside, "outside_root")
        | dict.fromkeys(foreign, "unsupported_source")
        | dict.fromkeys(["fifo.png", "loop.png", "dir.png", ".", "media"], "not_a_file")
        | dict.fromkeys(["a\0.png", ""], "bad_row")
        | dict.fromkeys(
            ["x" * 300, "a/" * 500_000, "*/" * 500_000, "media/" + "../media/" * 800 + "00000.png"], "missing_file"
        )
    )


def test_no_path_leads_out(tmp_path: Path) -> None:
    """All are refused before anything is opened for reading, and nothing hangs."""
    root = tmp_path / "root"
    generated.pictures(root / "media", 1)
    (tmp_path / "secret.png").write_bytes(generated.image("PNG", 9))
    expected = paths(root)
    rows = [{"key": f"{n}", "media": path} for n, path in enumerate(expected)]
    source = manifest(root / "m.jsonl", *rows, {"key": "good", "media": "media/00000.png"})
    log = tmp_path / "opened"
    hook = (
        "import sys\n"
        f"log = open({str(log)!r}, 'w', 1)\n"
        "def hook(event, given):\n"
        "    if event == 'open' and isinstance(given[0], str):\n"
        "        log.write(ascii(given[0]) + '\\n')\n"
        "sys.addaudithook(hook)\n"
        "from pipeline.cli import main\n"
        "main()\n"
    )
    ended = subprocess.run(
        [PYTHON, "-c", hook, "run", source, "-o", tmp_path / "run", "--emulator"],
        env=environment(KEY),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    found = by_key(tmp_path / "run")
    assert found["good"]["status"] == "succeeded"
    assert {path: (found[str(n)]["error"] or {}).get("kind") for n, path in enumerate(expected)} == expected
    seen = log.read_text().splitlines()
    assert any("m.jsonl" in line for line in seen), "the hook sees nothing: the test proves nothing"
    for forbidden in (
        "secret.png",
        "/etc/passwd",
        "/dev/zero",
        "/proc/self/mem",
        "/proc/self/environ",
        "/proc/self/root",
    ):
        assert not [line for line in seen if forbidden in line]


# manifests ----------------------------------------------------------------------------------------------------------

PICTURE = '"media": "media/00000.png"'


def test_rows_that_are_none_fail_alone(media: Path, tmp_path: Path) -> None:
    """Damage of every kind costs its own line; a good row after it is answered."""
    bad: list[bytes] = [
        b"\0",
        b'{"key": "nul\0", ' + PICTURE.encode() + b"}",
        b'{"key": "twice", "key": "twice", ' + PICTURE.encode() + b"}",
        b'{"key": "n1", "vars": {"a": NaN}, ' + PICTURE.encode() + b"}",
        b'{"key": "n2", "vars": {"a": Infinity}, ' + PICTURE.encode() + b"}",
        b'{"key": "n3", "vars": {"a": 1e999}, ' + PICTURE.encode() + b"}",
        b'{"key": "n4", "vars": {"a": ' + b"9" * 5000 + b"}, " + PICTURE.encode() + b"}",
        b'{"key": "\\ud800", ' + PICTURE.encode() + b"}",
        b'{"key": "s", "prompt": "\\udfff lone", ' + PICTURE.encode() + b"}",
        b'{"key": "\xff", ' + PICTURE.encode() + b"}",
        b"[1]",
        b"null",
        b'"text"',
        b'{"key": {"a": 1}}',
        b'{"key": "' + b"k" * 5000 + b'"}',
        b'{"key": "s1", "schema": {"type": 5}, ' + PICTURE.encode() + b"}",
        b'{"key": "s2", "schema": {"$ref": "file:///etc/passwd"}, ' + PICTURE.encode() + b"}",
        b'{"key": "s3", "schema": {"pattern": "("}, ' + PICTURE.encode() + b"}",
        json.dumps({"key": ESCAPES, "media": ESCAPES + "://x", "prompt": 5}).encode(),
        json.dumps({"key": "e", "model": ESCAPES}).encode(),
        json.dumps({"key": "e2", "template": ESCAPES, "promt": 1}).encode(),
        b'{"a":' + b"[" * 100_000,
        *(b'{"a":' + b"[" * deep + b"]" * deep + b"}" for deep in (100, 900, 940, 960, 980, 990, 1000, 1100, 5000)),
        *(b'{"a":' * deep + b"1" + b"}" * deep for deep in (101, 930, 950, 970, 985, 995)),
    ]
    good = '{"key": "good", ' + PICTURE + ', "promt": "close to a known name"}'
    source = tmp_path / "m.jsonl"
    source.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join((*bad, good.encode())) + b"\r\n")
    with emulator('describe = "brief"') as server:
        ended = run(source, tmp_path / "run", base_url=server.base_url)
        told = pipeline("status", tmp_path / "run")
    check(ended, tmp_path / "run")
    check(told)
    assert ended.exit_code == 1, ended.stderr
    assert ended.summary["items"]["total"] == len(bad) + 1
    assert by_key(tmp_path / "run")["good"]["status"] == "succeeded"
    failed = [line for line in lines(tmp_path / "run") if line["status"] == "failed"]
    assert len(failed) == len(bad)
    assert {line["error"]["kind"] for line in failed} <= {"bad_row", "template_error"}
    assert all(line["error"]["message"].startswith(f"line {line['line']}: ") for line in failed)


def test_separators_of_unicode_end_no_line(media: Path, tmp_path: Path) -> None:
    """U+2028 and U+0085 in a row are characters like others, in JSONL and in CSV."""
    text = "a\u2028b\u0085c\u2029d\x0ce"
    one = tmp_path / "m.jsonl"
    one.write_text(json.dumps({"key": text, "media": "media/00000.png", "prompt": text}, ensure_ascii=False), "utf-8")
    other = tmp_path / "m.csv"
    other.write_text(f"key,media,prompt\r\n{text},media/00000.png,{text}\r\n", "utf-8", newline="")
    with emulator('describe = "brief"') as server:
        for number, source in enumerate((one, other)):
            output = tmp_path / f"run{number}"
            ended = run(source, output, base_url=server.base_url)
            check(ended, output)
            assert ended.exit_code == 0, ended.stderr
            assert by_key(output)[text]["status"] == "succeeded"


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_line_of_100_megabytes_costs_no_memory(media: Path, tmp_path: Path, suffix: str) -> None:
    """It fails as its row, the row after it is answered, and the process stays far smaller than the line."""
    source = tmp_path / f"m{suffix}"
    with source.open("wb") as file:
        file.write(b"" if suffix == ".jsonl" else b"key,media\n")
        file.write(b'{"key": "' if suffix == ".jsonl" else b'"')
        for _ in range(100):
            file.write(b"x" * 1024 * 1024)
        file.write(
            b'"}\n{"key": "k", "media": "media/00000.png"}\n' if suffix == ".jsonl" else b'"\nk,media/00000.png\n'
        )
    script = (
        "import sys; from pipeline.cli import main; from tests.benchmarks.million_lines import peak_memory_bytes\n"
        "try: main()\n"
        "finally: sys.stderr.write(f'PEAK {peak_memory_bytes()}')"
    )
    ended = subprocess.run(
        [PYTHON, "-c", script, "run", source, "-o", tmp_path / "run", "--emulator"],
        env=environment(None),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert sorted(kinds(tmp_path / "run").values(), key=str) == [None, "bad_row"]
    assert int(ended.stderr.rpartition("PEAK ")[2]) < 250_000_000


def test_ten_thousand_bad_rows(tmp_path: Path) -> None:
    """Each gets its failed line, quickly; the exit code is 2, for not one can be used."""
    source = manifest(tmp_path / "m.jsonl", *(b'{"key": "k%d", "media": 5, "x\x1b": "' % n for n in range(10_000)))
    ended = run(source, tmp_path / "run")
    check(ended, tmp_path / "run")
    assert ended.exit_code == 2, ended.stderr
    assert len(by_key(tmp_path / "run")) == 10_000
    assert ended.seconds < 30
    assert len(ended.stderr.splitlines()) < 20


def test_settings_that_are_no_text(media: Path, tmp_path: Path) -> None:
    """Bytes that are no text, in any setting that is sent, end with 2 and a sentence."""
    bad = os.fsdecode(b"\xff")
    for setting in ("run.system", "run.prompt", "generation.config.x"):
        ended = run(media, tmp_path / "run", "--set", f"{setting}={bad}")
        check(ended)
        assert ended.exit_code == 2, (setting, ended.stderr)
