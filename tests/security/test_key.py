"""The key leaves the process in one header, to one origin, and is found nowhere else, whatever goes wrong."""

import os
import shutil
import signal
import ssl
import subprocess
import time
from base64 import b64encode
from pathlib import Path
from urllib.parse import quote

import pytest

from pipeline.config import endpoint
from pipeline.errors import UsageError
from pipeline.settings import EndpointSection
from tests.security.traces import CANARY, traces, traces_below
from tests.security.wire import Stranger, liar, recorder, stranger, whole_reply
from tests.support import generated
from tests.support.processes import PYTHON, Ended, emulator, environment, lines, pipeline, start

FAULTS = """
describe = "brief"
[latency]
generate = 0.02
[[fault]]
kind = "400_generic"
route = "generate"
first = 4
message = "MESSAGE"
[[fault]]
kind = "503"
rate = 0.1
route = "*"
[[fault]]
kind = "reset_after"
rate = 0.05
route = "generate"
[[fault]]
kind = "html_200"
rate = 0.05
route = "generate"
[[fault]]
kind = "vanish"
rate = 0.1
attempt = 1
[[fault]]
kind = "cut_upload"
rate = 0.1
[[fault]]
kind = "400_key_invalid"
route = "generate"
after = 20
first = 1
"""
ECHO = f"Header x-goog-api-key={CANARY}; {quote(CANARY, safe='')}; " + ", ".join(
    b64encode(b"k" * before + CANARY.encode() + b"=1").decode() for before in range(3)
)
KEY_HEADER = f"x-goog-api-key: {CANARY}\r\n".encode()


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small pictures, no two alike."""
    return generated.pictures(tmp_path_factory.mktemp("media"), 40)


def run(media: Path, place: Path, base_url: str, *arguments: str, **more: str) -> Ended:
    """The real command in ``place``, with the canary as its key."""
    place.mkdir(exist_ok=True)
    return pipeline(
        *("run", media, "-o", place / "run", "--json", "--verbose", "--base-url", base_url, *arguments),
        key=CANARY,
        cwd=place,
        **more,
    )


def said(ended: Ended) -> list[str]:
    """Traces in what the command printed."""
    return traces((ended.stdout + ended.stderr).encode())


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """The other tests here prove something: each way of writing the key is found."""
    (tmp_path / "file").write_text(ECHO + CANARY[::-1])
    (found,) = traces_below(tmp_path).values()
    assert {"raw", "reversed", "url"} < set(found)
    assert len([name for name in found if name.startswith("b64")]) == 3


def test_a_run_through_every_trouble_leaves_no_trace(media: Path, tmp_path: Path) -> None:
    """Faults, echoing errors, --verbose: no file, no output, no argument holds the key; the wire only in its header."""
    with emulator(FAULTS.replace("MESSAGE", ECHO)) as server, recorder(server.base_url) as wire:
        (tmp_path / "place").mkdir()
        process = start(
            *("run", media, "-o", "run", "--json", "--verbose", "--via", "files", "--base-url", wire.url),
            key=CANARY,
            cwd=tmp_path / "place",
        )
        arguments = b""
        limits = ""
        while process.poll() is None and not (limits and wire.sent):
            arguments += Path(f"/proc/{process.pid}/cmdline").read_bytes()
            if wire.sent:
                limits = Path(f"/proc/{process.pid}/limits").read_text()
            time.sleep(0.01)
        stdout, stderr = process.communicate(timeout=100)
        kinds = {call.get("fault") for call in server.calls()}
    assert process.returncode == 1, stderr
    assert {"400_generic", "503", "reset_after", "html_200", "vanish", "cut_upload"} <= kinds
    assert traces(stdout.encode() + stderr.encode() + arguments) == []
    assert traces_below(tmp_path) == {}
    failed = [line["error"]["message"] for line in lines(tmp_path / "place" / "run") if line["error"]]
    assert any("[key]" in message for message in failed), "the echo never came: the test proves nothing"
    assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
    check_wire(wire.sent, wire.heads())


def check_wire(streams: list[bytearray], heads: list[tuple[bytes, bytes]]) -> None:
    """The key stands in its header, in nothing else; uploads of bytes go without it."""
    assert sum(stream.count(CANARY.encode()) for stream in streams) == sum(head.count(KEY_HEADER) for _, head in heads)
    for target, head in heads:
        assert head.count(KEY_HEADER) == (0 if b"upload_id=" in target else 1), target
        assert traces(target) == []
        assert traces(head.replace(KEY_HEADER, b"")) == []
    assert any(b"upload_id=" in target for target, _ in heads)
    for stream in streams:
        assert traces(bytes(stream).replace(KEY_HEADER, b"")) == []


def test_a_kill_leaves_no_trace(media: Path, tmp_path: Path) -> None:
    """What a killed run leaves behind, its write-ahead log among it, does not hold the key."""
    with emulator('describe = "brief"\n[latency]\ngenerate = 0.1') as server:
        process = start(
            *("run", media, "-o", "run", "--verbose", "--base-url", server.base_url, "--concurrency", 4),
            key=CANARY,
            cwd=tmp_path,
        )
        results = tmp_path / "run" / "results.jsonl"
        while process.poll() is None and not (results.exists() and results.read_bytes().count(b"\n") >= 8):
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / "ledger.sqlite3-wal").stat().st_size > 0
    assert traces(stdout.encode() + stderr.encode()) == []
    assert traces_below(tmp_path) == {}


BUG = """
import sys, pipeline.generation.judging as judging
def broken(*given):
    secret = ...
    raise RuntimeError("headers: {'x-goog-api-key': 'SECRET'} \\x1b[2J\\u202e " + "ENCODED")
judging.judge = broken
from pipeline.cli import main
main()
"""


def test_a_bug_tells_its_trace_without_the_key(media: Path, tmp_path: Path) -> None:
    """Exit 70 with the traceback, even where the exception itself holds the key; and no control character."""
    code = BUG.replace("SECRET", CANARY).replace("ENCODED", b64encode(b"u:" + CANARY.encode()).decode())
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(code)
    with emulator('describe = "brief"') as server:
        ended = subprocess.run(
            [PYTHON, script, "run", media, "-o", "run", "--verbose", "--base-url", server.base_url],
            env=environment(CANARY),
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
            check=False,
        )
    assert ended.returncode == 70, ended.stderr
    assert b"Traceback" in ended.stderr
    assert b"RuntimeError: headers: {'x-goog-api-key': '[key]'} \\x1b[2J\\u202e" in ended.stderr
    assert b"\x1b" not in ended.stderr
    # the source line that Python quotes is the test's own script
    assert traces(ended.stdout + ended.stderr) == []
    assert traces_below(tmp_path) == {}


def test_redirects_are_refused(media: Path, tmp_path: Path) -> None:
    """Exit 5, and the host that the redirect names hears nothing."""
    with stranger() as other:
        plan = f'[[fault]]\nkind = "redirect"\nroute = "*"\nhost = "{other.url}"'
        with emulator(plan) as server:
            ended = run(media, tmp_path / "place", server.base_url, "--limit", "2")
    assert ended.exit_code == 5, ended.stderr
    assert other.url in ended.summary["reason"]
    assert (other.listener.connections, other.received) == (0, [])
    assert said(ended) == []
    assert traces_below(tmp_path) == {}


def test_foreign_upload_hosts_get_nothing(media: Path, tmp_path: Path) -> None:
    """Exit 5 where the service sends uploads elsewhere, and elsewhere hears nothing."""
    with stranger() as other:
        plan = f'[[fault]]\nkind = "upload_foreign_url"\nhost = "{other.url}"'
        with emulator(plan) as server:
            ended = run(media, tmp_path / "place", server.base_url, "--via", "files", "--limit", "2")
    assert ended.exit_code == 5, ended.stderr
    assert "foreign host" in ended.summary["reason"]
    assert other.listener.connections == 0
    assert lines(tmp_path / "place" / "run") == []


def test_upload_urls_that_can_not_be_read_get_nothing(media: Path, tmp_path: Path) -> None:
    """Bytes in an upload's URL that no URL has end the run with a sentence, not with a trace."""
    here = ""

    def answer(method: str, _path: str, _body: bytes) -> bytes:
        if method == "GET":
            return b'{"name": "models/gemini-3.8-flash"}'
        session = f"X-Goog-Upload-URL: {here}/".encode() + b"\xff\xc2\x9b?upload_id=1"
        return whole_reply(b"{}", "200 OK", session)

    with liar(answer) as url:
        here = url
        ended = run(media, tmp_path / "place", url, "--via", "files", "--limit", "2")
    assert ended.exit_code == 5, ended.stderr
    assert "foreign host" in ended.summary["reason"]
    assert ended.summary["reason"].isprintable()


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a certificate that it has signed itself."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    subprocess.run([*make.split(), "-keyout", "k.pem", "-out", "c.pem"], cwd=folder, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "c.pem", folder / "k.pem")
    return context


def test_a_self_signed_server_gets_no_request(media: Path, tmp_path: Path) -> None:
    """Exit 5 with a sentence about the certificate; not a byte of a request has been sent."""
    with stranger(certificate(tmp_path)) as impostor:
        ended = run(media, tmp_path / "place", impostor.url)
    assert ended.exit_code == 5, ended.stderr
    assert "certificate" in ended.summary["reason"]
    assert impostor.listener.connections > 0
    assert b"".join(impostor.received) == b""
    assert lines(tmp_path / "place" / "run") == []


def proxied(other: Stranger, home: Path) -> dict[str, str]:
    """An environment full of proxies and passwords."""
    home.mkdir()
    netrc = home / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password a-password\n")
    netrc.chmod(0o600)
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    return dict.fromkeys(names, other.url) | {"HOME": str(home), "NETRC": str(netrc), "NO_PROXY": "", "no_proxy": ""}


def test_proxies_and_netrc_count_only_when_asked_for(media: Path, tmp_path: Path) -> None:
    """The environment's proxies hear nothing and netrc's password is not sent, until ``trust_env`` says otherwise."""
    with stranger() as other, emulator('describe = "brief"') as server, recorder(server.base_url) as wire:
        more = proxied(other, tmp_path / "home")
        ended = run(media, tmp_path / "place", wire.url, "--limit", "2", **more)
        assert ended.exit_code == 0, ended.stderr
        assert other.listener.connections == 0
        assert wire.heads()
        assert not any(b"\r\nauthorization:" in head.lower() for _, head in wire.heads())
        asked = run(media, tmp_path / "asked", wire.url, "--limit", "2", "--set", "endpoint.trust_env=true", **more)
        assert asked.exit_code != 0
        assert other.listener.connections > 0, "the proxy is not used even then: the test proves nothing"


WRONG_URLS = [
    *("http://192.0.2.1", "http://example.com", "http://127.0.0.1.example.com", "http://0.0.0.0", "http://2130706433"),
    *("http://[::", "http://127.0.0.1:99999", "https://user:pass@127.0.0.1", "https://h/?a=b", "https://h/#a"),
    *("http:///x", "https://\u202emoc.elgoog", "file:///etc/passwd", "//h", "", "localhost"),
]


@pytest.mark.parametrize("url", WRONG_URLS)
def test_base_urls_that_would_show_the_key(url: str) -> None:
    """None of them gets as far as a connection."""
    with pytest.raises(UsageError):
        endpoint(EndpointSection(base_url=url), emulator=False)


@pytest.mark.parametrize("url", ["http://[::", f"\u202e?key={CANARY}"])
def test_wrong_base_urls_end_with_one_plain_sentence(media: Path, tmp_path: Path, url: str) -> None:
    """Exit 2, nothing that commands the terminal, no key repeated; no run folder is even made."""
    ended = run(media, tmp_path / "place", url)
    assert ended.exit_code == 2, ended.stderr
    (sentence,) = ended.stderr.splitlines()
    assert sentence.startswith("pipeline: ")
    assert sentence.isprintable()
    assert said(ended) == []
    assert not (tmp_path / "place" / "run").exists()


def test_a_key_that_can_be_none_is_not_repeated(media: Path, tmp_path: Path) -> None:
    """Exit 2 and a sentence that does not show it."""
    ended = pipeline("run", media, "-o", tmp_path / "run", key=CANARY + "\n", cwd=tmp_path)
    assert ended.exit_code == 2, ended.stderr
    assert said(ended) == []


@pytest.mark.parametrize("verb", [["list"], ["upload", "PICTURE"]])
def test_the_files_commands_leave_no_trace(media: Path, tmp_path: Path, verb: list[str]) -> None:
    """By hand as in a run: an error that echoes the key does not bring it to the terminal."""
    with emulator(f'[[fault]]\nkind = "400_generic"\nroute = "*"\nmessage = "{ECHO}"') as server:
        arguments = [str(media / "00000.png") if word == "PICTURE" else word for word in verb]
        ended = pipeline("files", *arguments, "--base-url", server.base_url, key=CANARY, cwd=tmp_path)
    assert ended.exit_code not in (0, 70), ended.stderr
    assert "[key]" in ended.stderr
    assert said(ended) == []
    assert list(tmp_path.iterdir()) == []
