"""Manifests, names, paths and answers that mean harm, through the real command: refused or taken literally."""

import csv
import json
import os
import stat
import subprocess
import unicodedata
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import jsonlog
from tests.security.hostile import ESCAPES, SSTI, check, check_log, manifest
from tests.security.wire import Answer, liar, whole_reply
from tests.support import generated
from tests.support.processes import KEY, PYTHON, by_key, emulator, environment, lines, pipeline, run

SAYS_ALL = "{{ key }}|{{ path }}|{{ name }}|{{ v | string }}|{{ nested | string }}"


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Three pictures."""
    return generated.pictures(tmp_path / "media", 3)


def kinds(output: Path) -> dict[str, str | None]:
    """The failure's kind of each key."""
    return {key: (line["error"] or {}).get("kind") for key, line in by_key(output).items()}


# values -----------------------------------------------------------------------------------------------------------


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


# names ------------------------------------------------------------------------------------------------------------

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


# paths ------------------------------------------------------------------------------------------------------------


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


# manifests --------------------------------------------------------------------------------------------------------

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


# answers ----------------------------------------------------------------------------------------------------------


def candidate(text: str, **more: Any) -> dict[str, Any]:
    """An answer."""
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    one = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"} | more
    return {"candidates": [one], "usageMetadata": usage}


def deep(levels: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(levels):
        value = [value]
    return value


def raw(body: dict[str, Any]) -> bytes:
    """JSON with everything that is not ASCII as it is, and lone surrogates as bytes that no UTF-8 has."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "surrogatepass")


LONG = ESCAPES + "m" * 1_000_000
JSON_ASKED = {"responseMimeType": "application/json"}
ERRORS = {
    "status": "INVALID_ARGUMENT" + ESCAPES,
    "message": LONG,
    "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": LONG}],
}
ANSWERS: list[tuple[str, Answer, str | None]] = [
    ("separators", raw(candidate("a\u2028b\u0085c\u2029\x0c" + ESCAPES)), None),
    ("surrogate escaped", candidate("a \ud800 b \udfff"), None),
    ("surrogate bytes", raw(candidate("a \ud800 b")), None),
    ("not utf-8", raw(candidate("caf")).replace(b"caf", b"caf\xe9 \xff"), None),
    ("nan", raw(candidate("x", avgLogprobs=float("nan"), safetyRatings=[{"p": float("inf")}])), None),
    ("nan data", candidate('{"a": NaN}'), "invalid_output"),
    ("surrogate data", candidate('{"a": "\\ud800"}'), "invalid_output"),
    ("deep data", candidate("[" * 900 + "]" * 900), "invalid_output"),
    ("deeper data", candidate("[" * 100_000), "invalid_output"),
    ("great number", candidate('{"a": ' + "9" * 5000 + "}"), "invalid_output"),
    ("great tokens", candidate("x") | {"usageMetadata": {"totalTokenCount": 10**100, "promptTokenCount": -5}}, None),
    ("deep ratings", candidate("x", safetyRatings=[{"a": deep(300)}, 5, None]), None),
    ("odd types", candidate("x", finishMessage=5) | {"modelVersion": [], "responseId": {}, "promptFeedback": 7}, None),
    ("finish", candidate("x", finishReason=LONG), "unknown_finish"),
    ("blocked", {"promptFeedback": {"blockReason": LONG}}, "..."),
    ("finish message", candidate("x", finishReason="SAFETY", finishMessage=LONG), "safety"),
    ("no dict", b"[]", "empty"),
    ("error", whole_reply({"error": ERRORS | {"code": 400}}, "400 Bad"), "invalid_request"),
    ("error text", whole_reply(LONG.encode("utf-8", "replace"), "413 Too"), "request_too_large"),
    ("error list", whole_reply(raw({"error": ERRORS}).join((b"[", b"]")), "400 Bad"), "invalid_request"),
]


def served(answers: dict[str, Answer]) -> Callable[[str, str, bytes], Answer]:
    """Answers by the prompt of the request."""

    def answer(method: str, _path: str, body: bytes) -> Answer:
        if method == "GET":
            return {"name": "models/gemini-3.8-flash"}
        return answers[json.loads(body)["contents"][0]["parts"][-1]["text"]]

    return answer


def test_answers_are_data(tmp_path: Path) -> None:
    """Whatever the service says ends in one whole line; nothing of it reaches the terminal or forges a log line."""
    rows = [
        {"key": name, "prompt": name} | ({"generation": JSON_ASKED} if kind == "invalid_output" else {})
        for name, _, kind in ANSWERS
    ]
    source = manifest(tmp_path / "m.jsonl", *rows)
    answers = {name: answer for name, answer, _ in ANSWERS}
    with liar(served(answers)) as url:
        ended = run(source, tmp_path / "run", "--verbose", "--set", "generation.attempts=1", base_url=url)
        again = run(source, tmp_path / "run", base_url=url)
    for one in (ended, again):
        check(one, tmp_path / "run")
        assert one.exit_code == 1, one.stderr
    assert again.summary["requests"] == 0
    found = by_key(tmp_path / "run")
    for name, _, kind in ANSWERS:
        line = found[name]
        if kind != "...":
            assert (line["error"] or {}).get("kind") == kind, (name, line["error"])
        if line["error"]:
            assert len(line["error"]["message"]) < 2000
            assert len(line["error"]["kind"]) <= 64
            assert (line["error"]["message"] + line["error"]["kind"]).isprintable()
    assert found["separators"]["text"].startswith("a\u2028b\u0085c")
    assert found["surrogate escaped"]["text"] == "a \ufffd b \ufffd"
    assert max(map(len, ended.stderr.splitlines())) < 2000
    told = pipeline("status", tmp_path / "run")
    check(told)
    assert told.exit_code == 0


HEADERS = [
    b"200 OK\r\nContent-Encoding: br",
    b"200 OK\r\nContent-Encoding: gzip",
    b"200 OK\r\nContent-Encoding: \xff",
    b"200 OK\r\nContent-Type: \xff/\x9b; charset=\xff",
    b"200 OK\r\nSet-Cookie: " + b"a=\xff\x1b;" * 100,
    b"99999 X",
    b"-1 \x1b",
    b"200 OK\r\nContent-Length: -1",
    b"200 OK\r\nContent-Length: " + b"9" * 5000,
    b"200 OK\r\nTransfer-Encoding: \xff",
    b"200 OK\r\n\xff",
    b"200 OK\r\nX: " + b"x" * 100_000,
]
UPLOAD_HEADERS = [
    b"200 OK\r\nX-Goog-Upload-URL: URL/up?upload_id=1\r\nX-Goog-Upload-Chunk-Granularity: " + b"9" * 5000,
    b"302 \x1b[31m\r\nLocation: http://\xff\xfe\xc2\x9b/",
]


def headed(head: bytes) -> bytes:
    """A reply with ``head`` and a body that is no JSON."""
    body = b"\x1b\xff{}"
    length = b"" if b"Content-Length" in head else b"\r\nContent-Length: %d" % len(body)
    return b"HTTP/1.1 " + head + length + b"\r\nConnection: close\r\n\r\n" + body


def test_headers_are_data(tmp_path: Path) -> None:
    """Headers that no server should send cost their item alone."""
    answers: dict[str, Answer] = {}
    for number, head in enumerate(HEADERS):
        answers |= {f"{number}": headed(head), f"good {number}": candidate("x")}  # so many failures alone are an outage
    source = manifest(tmp_path / "m.jsonl", *({"key": name, "prompt": name} for name in answers))
    with liar(served(answers)) as url:
        ended = run(*(source, tmp_path / "run", "--set", "generation.attempts=1", "--concurrency", "1"), base_url=url)
    check(ended, tmp_path / "run")
    assert ended.exit_code == 1, ended.stderr
    for name, kind in kinds(tmp_path / "run").items():
        assert kind is None if name.startswith("good") else kind in {"network", "unavailable", "unclassified"}, name


@pytest.mark.parametrize("head", UPLOAD_HEADERS, ids=["granularity", "redirect"])
def test_headers_of_uploads_are_data(media: Path, tmp_path: Path, head: bytes) -> None:
    """Numbers of 5000 digits and addresses that are no text end in failed lines or a sentence."""
    port = ""

    def answer(method: str, _path: str, _body: bytes) -> Answer:
        return {"name": "models/m"} if method == "GET" else headed(head.replace(b"URL/", f"{port}/".encode()))

    with liar(answer) as url:
        port = url
        ended = run(
            *(media, tmp_path / "run", "--via", "files", "--limit", "1", "--set", "upload.attempts=1"), base_url=url
        )
    check(ended, tmp_path / "run")
    assert ended.exit_code in (1, 5), ended.stderr


FILES = {"files": [{"name": "files/a", "uri": "u", "displayName": LONG, "mimeType": ESCAPES, "sizeBytes": 10**30}] * 2}


@pytest.mark.parametrize("how", [[], ["--json"]])
def test_the_list_of_files_is_data(how: list[str]) -> None:
    """One line a file, whatever it is called."""
    with liar(lambda *_: FILES) as url:
        ended = pipeline("files", "list", *how, "--base-url", url)
    check(ended)
    assert ended.exit_code == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 2


def test_names_of_files_are_checked() -> None:
    """What can be no file's name is told of on a line of its own, and the exit code is 1."""
    names = ["../../etc", "files/" + ESCAPES.replace("\0", ""), "a b", "-"]
    with liar(lambda *_: b"{}") as url:
        ended = pipeline("files", "delete", "--base-url", url, "--", *names)
    check(ended)
    assert ended.exit_code == 1, ended.stderr
    assert len(ended.stderr.splitlines()) == len(names)


def test_a_terminal_without_unicode(media: Path, tmp_path: Path) -> None:
    """Names that the locale lacks are written out, not a bug."""
    with liar(lambda *_: FILES | {"files": [{"name": "files/a", "uri": "u", "displayName": "\u4e2d"}]}) as url:
        ended = pipeline("files", "list", "--base-url", url, PYTHONIOENCODING="latin-1")
    check(ended)
    assert ended.exit_code == 0, ended.stderr
    assert "\\u4e2d" in ended.stdout


# the run folder ---------------------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    """The permission bits of every file."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_everything_is_private(media: Path, tmp_path: Path) -> None:
    """The folder is 0700 and every file 0600, also while a run is on, whatever the umask."""
    seen: dict[str, int] = {}

    def answer(method: str, _path: str, _body: bytes) -> Answer:
        seen.update(modes(tmp_path / "run"))
        return {"name": "models/gemini-3.8-flash"} if method == "GET" else candidate("x")

    before = os.umask(0)
    try:
        with liar(answer) as url:
            ended = run(media, tmp_path / "run", "--verbose", base_url=url)
            run(media, tmp_path / "run", "-p", "another", base_url=url)
    finally:
        os.umask(before)
    assert ended.exit_code == 0, ended.stderr
    seen |= modes(tmp_path / "run")
    assert {"results.jsonl", "ledger.sqlite3", "ledger.sqlite3-wal", "ledger.sqlite3-shm", "run.log"} <= seen.keys()
    assert {"run.lock", "summary.json", "superseded.jsonl"} <= seen.keys()
    assert {name: oct(mode) for name, mode in seen.items() if mode != 0o600} == {}
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_rotated_logs_are_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file of the rotation is 0600, whole lines in each, and no more than are kept."""
    monkeypatch.setattr(jsonlog, "ROTATE_BYTES", 500)
    before = os.umask(0)
    try:
        log = jsonlog.JsonLog(tmp_path / "run.log", secrets=(), verbose=True)
        for number in range(100):
            log.write("said", {"number": number, "text": ESCAPES})
        log.close()
    finally:
        os.umask(before)
    assert len(modes(tmp_path)) == jsonlog.KEPT_FILES + 1
    assert set(modes(tmp_path).values()) == {0o600}
    for path in tmp_path.iterdir():
        assert check_log(path)


@pytest.mark.parametrize("name", ["run.log", "results.jsonl", "ledger.sqlite3"])
def test_no_file_is_written_through_a_link(media: Path, tmp_path: Path, name: str) -> None:
    """A link in the run folder's place of a file ends the run with 5, and what it points to is untouched."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "precious").write_bytes(b"")
    (tmp_path / "run" / name).symlink_to(tmp_path / "precious")
    ended = run(media, tmp_path / "run")
    check(ended)
    assert ended.exit_code == 5, ended.stderr
    assert (tmp_path / "precious").read_bytes() == b""


def test_a_folder_open_to_all_is_refused(media: Path, tmp_path: Path) -> None:
    """Exit 2 before anything is written to a folder that anybody may write to."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    ended = run(media, tmp_path / "run")
    check(ended)
    assert ended.exit_code == 2
    assert "chmod o-w" in ended.stderr
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("content", [b'{"source": "\xff"}', b"[" * 100_000])
def test_a_damaged_summary_is_no_bug(tmp_path: Path, content: bytes) -> None:
    """``status`` does without it."""
    (tmp_path / "run").mkdir(mode=0o700)
    (tmp_path / "run" / "summary.json").write_bytes(content)
    (tmp_path / "run" / "results.jsonl").touch(0o600)
    told = pipeline("status", tmp_path / "run")
    check(told)
    assert told.exit_code == 0


def test_settings_that_are_no_text(media: Path, tmp_path: Path) -> None:
    """Bytes that are no text, in any setting that is sent, end with 2 and a sentence."""
    bad = os.fsdecode(b"\xff")
    for setting in ("run.system", "run.prompt", "generation.config.x"):
        ended = run(media, tmp_path / "run", "--set", f"{setting}={bad}")
        check(ended)
        assert ended.exit_code == 2, (setting, ended.stderr)
