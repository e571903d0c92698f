"""Answers and headers that mean harm, through the real command: they end in whole lines, and command nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.security.hostile import ESCAPES, candidate, check, kinds, manifest
from tests.security.wire import Answer, liar, whole_reply
from tests.support.processes import by_key, pipeline, run


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
