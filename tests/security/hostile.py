"""Input that means harm, and how output is looked over for its marks."""

import json
import re
from pathlib import Path
from typing import Any

from tests.support.processes import Ended, by_key

SSTI = [
    "{{ 7 * 7 }}",
    "{{7*'7'}}",
    "${7*7}",
    "#{7*7}",
    "<%= 7*7 %>",
    "{% print(7*7) %}",
    "{%- set x = 1 -%}{{ x }}",
    "{# a comment #}",
    "{{ config }}",
    "{{ config.items() }}",
    "{{ self }}",
    "{{ self.__init__.__globals__ }}",
    "{{ request.application.__globals__ }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ [].__class__.__base__.__subclasses__() }}",
    "{{ ().__class__.__bases__[0] }}",
    "{{ lipsum.__globals__['os'].popen('touch pwned').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch pwned').read() }}",
    "{{ joiner.__init__.__globals__.os.system('touch pwned') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ url_for.__globals__ }}",
    "{% for x in ().__class__.__base__.__subclasses__() %}{{ x }}{% endfor %}",
    "{% import 'os' as os %}{{ os.popen('touch pwned').read() }}",
    "{% include '/etc/passwd' %}",
    "{% extends '/etc/passwd' %}",
    "{{ ''|attr('__class__') }}",
    "{{ ''['__class__'] }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{0.__class__.__init__.__globals__}",
    "{key.__class__}",
    "%(key)s %s %n %99999999d",
    "{% raw %}{{ x }}{% endraw %}",
    "{{ 'a' * 10**9 }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{{ x",
    "{% if",
    "}}{{",
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned #",
    "| touch pwned",
    "'; DROP TABLE line; --",
    "__import__('os').system('touch pwned')",
    "=cmd|'/c calc'!A1",
]
"""Templates, formats, shells, SQL and formulas."""

COMMANDS_TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""C0 but for tab and line feed, DEL, C1, direction marks, Unicode's own line ends."""

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202etxt.exe\u2066\r\n\x85\u2028\u200f\x00\x7f"
"""A window's title, a cleared screen, colours, a turned direction, forged lines."""


def manifest(path: Path, *rows: object) -> Path:
    """``rows`` as JSONL; bytes are taken as they are."""
    raw = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in raw))
    return path


def check(ended: Ended, output: Path | None = None) -> None:
    """No trace, no bug; nothing in the output or the log commands a terminal or forges a line."""
    assert "Traceback" not in ended.stderr, ended.stderr[-3000:]
    assert ended.exit_code != 70, ended.stderr[-3000:]
    for text in (ended.stdout, ended.stderr):
        assert not COMMANDS_TERMINAL.search(text), repr(COMMANDS_TERMINAL.search(text))
    if output is not None and (output / "run.log").exists():
        check_log(output / "run.log")


def check_log(path: Path) -> list[dict[str, Any]]:
    """Every line of the log is one JSON object, for whatever counts lines, and shows as it is."""
    text = path.read_bytes().decode("utf-8")
    assert text.splitlines() == text.split("\n")[:-1]
    assert not COMMANDS_TERMINAL.search(text), repr(COMMANDS_TERMINAL.search(text))
    entries = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(entry, dict) and "action" in entry for entry in entries)
    return entries


def kinds(output: Path) -> dict[str, str | None]:
    """The failure's kind of each key."""
    return {key: (line["error"] or {}).get("kind") for key, line in by_key(output).items()}


def candidate(text: str, **more: Any) -> dict[str, Any]:
    """An answer."""
    usage = {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}
    one = {"content": {"parts": [{"text": text}]}, "finishReason": "STOP"} | more
    return {"candidates": [one], "usageMetadata": usage}
