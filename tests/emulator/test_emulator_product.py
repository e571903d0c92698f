"""The emulator as a product: its plan files, its process, its ledger, its fixtures and its place in the tree."""

import ast
import asyncio
import base64
import hashlib
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from emulator_http import MEDIA, MODEL, Http

from pipeline.emulator import Emulator, Fault, Plan, load_plan
from pipeline.emulator.serve import serve

ROOT = Path(__file__).parents[2]
FULL_PLAN = """
seed = 7
accepted_keys = ["k"]
describe = "brief"
[limits]
max_images = 5
[latency]
upload = 0.01
generate = [0.01, 0.02]
files = { median_seconds = 0.01 }
[processing_seconds]
"video/*" = 2.5
"image/heic" = 1.0
[[quota]]
model = "gemini-3.7-flash"
requests_per_minute = 60
window = "token_bucket"
burst = 5
[[fault]]
kind = "503"
route = ["generate", "file_get"]
rate = 0.5
attempt = [1, 2]
"""


def test_plan_file_is_read_whole(tmp_path):
    """Every table of a plan file arrives in the plan."""
    path = tmp_path / "plan.toml"
    path.write_text(FULL_PLAN)
    plan = load_plan(path)
    assert plan.limits.max_images == 5
    assert plan.latency.generate == (0.01, 0.02)
    assert plan.latency.files.median_seconds == 0.01
    assert plan.quota[0].burst == 5
    assert plan.fault == [Fault(kind="503", route=["generate", "file_get"], rate=0.5, attempt=[1, 2])]
    seconds = [plan.processing_seconds_of(kind) for kind in ("video/mp4", "image/heic", "image/png")]
    assert seconds == [2.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sede = 1", "unknown key 'sede'; the nearest known one is 'seed'."),
        ("[[fault]]\nkind = '503'\nrout = '*'", "unknown key 'rout' in fault 1; the nearest known one is 'route'."),
        ("[limits]\nmax_image = 1", "unknown key 'max_image' in limits; the nearest known one is 'max_images'."),
        ("[[fault]]\nkind = '503_emty'", "fault 1: unknown kind '503_emty'; the nearest known one is '503_empty'."),
        ("[[fault]]\nkind = '503'\nroute = 'generat'", "fault 1: unknown route 'generat'; the nearest known one is"),
        ("[[fault]]\nkind = 'finish'\nroute = 'file_get'", "fault 1: finish strikes only generate."),
        ("describe = 'some'", "Invalid enum value 'some'"),
        ("seed = ", "plan.toml: "),
    ],
)
def test_wrong_plans_are_explained_in_one_sentence(tmp_path, text, sentence):
    """A ValueError names the file, the place and the nearest known name."""
    path = tmp_path / "plan.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"plan\.toml: ") as caught:
        load_plan(path)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_process_tells_its_address_serves_and_stops(tmp_path):
    """python -m pipeline.emulator prints its address first, answers, and ends with 0 on SIGTERM."""
    (tmp_path / "plan.toml").write_text("seed = 3")
    command = [sys.executable, "-m", "pipeline.emulator", "--port", "0", "--plan", str(tmp_path / "plan.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        line = process.stdout.readline()
        assert line.startswith("emulator listening on http://127.0.0.1:")
        assert Http(line.split()[-1]).generate({"text": "x"}).status == 200
        process.terminate()
        assert process.wait(10) == 0


@pytest.mark.parametrize("arguments", [["--plan", "missing.toml"], ["--plan", "bad.toml"]])
def test_process_refuses_bad_plans_without_a_traceback(tmp_path, arguments):
    """One sentence on stderr and exit code 2."""
    (tmp_path / "bad.toml").write_text("sede = 1")
    command = [sys.executable, "-m", "pipeline.emulator", *arguments]
    environment = {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("emulator: ")
    assert done.stderr.count("\n") == 1


async def test_a_port_in_use_is_an_os_error():
    """serve leaves the message to its caller."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match=r"(?i)address already in use"):
        await serve(port=taken.getsockname()[1], plan=Plan(), ready=lambda _: None)


async def test_serve_tells_when_it_is_ready_and_ends_when_cancelled():
    """ready gets the base URL once requests are answered; afterwards the port is free again."""
    told = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(serve(port=0, plan=Plan(), ready=told.set_result))
    base_url = await told
    assert (await asyncio.to_thread(Http(base_url).generate, {"text": "x"})).status == 200
    serving.cancel()
    await asyncio.wait([serving])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(Http(base_url).generate, {"text": "x"})


async def test_emulator_lives_in_the_callers_loop():
    """The context manager gives an address, a clock and a ledger without HTTP."""
    async with Emulator(Plan(describe="brief")) as emulator:
        api = Http(emulator.base_url)
        await asyncio.to_thread(api.upload, b"x", "image/png", display_name="one")
        before = emulator.clock.now()
        emulator.clock.advance(60)
        assert (emulator.clock.now() - before).total_seconds() >= 60
        (upload,) = emulator.ledger()["uploads"]
        assert upload["displayName"] == "one"
        assert upload["sha256"] == hashlib.sha256(b"x").hexdigest()
        assert [call.route for call in emulator.calls()] == ["upload_start", "finalize"]


def test_ledger_counts_what_was_asked_and_paid(api, gemini_emulator):
    """Calls by kind and status, bytes, state calls, and answers by prompt and media however they travelled."""
    content = (MEDIA / "chelsea.jpg").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    file = api.upload(content, "image/jpeg", display_name="cat")
    api("GET", f"/v1beta/{file['name']}")
    by_file = {"fileData": {"fileUri": file["uri"]}}
    inline = {"inlineData": {"mimeType": "image/jpeg", "data": base64.b64encode(content).decode()}}
    for part in (by_file, inline):
        assert api.generate(part, {"text": "Which cat?"}).status == 200
    assert api.generate({"text": "x"}, model="none").status == 404
    ledger = gemini_emulator.ledger()
    assert ledger["calls"]["generate"] == {"200": 2, "404": 1}
    assert ledger["state_calls"] == 1
    assert ledger["bytes_received"]["finalize"] == len(content)
    assert ledger["largest_body_bytes"] > len(content) * 4 / 3
    assert (ledger["paid_answers"], ledger["paid_items"], ledger["in_flight"]) == (2, 1, 0)
    (paid,) = ledger["paid"]
    assert (paid["prompt"], paid["media"], paid["answers"]) == ("Which cat?", [digest], 2)
    assert ledger["paid_by_item"] == {paid["key"]: 2}
    assert ledger["most_open_upload_sessions"] == 1
    assert [call["route"] for call in gemini_emulator.calls()][-1] == "generate"


def test_most_in_flight_counts_overlapping_calls(gemini_emulator_factory):
    """Calls that overlap are counted together; a latency makes them overlap."""
    from pipeline.emulator import Latency

    emulator = gemini_emulator_factory(Plan(latency=Latency(generate=0.3)))
    api = Http(emulator.base_url)
    threads = [threading.Thread(target=api.generate, args=({"text": "x"},)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger = emulator.ledger()
    assert (ledger["most_in_flight"], ledger["most_in_flight_generate"]) == (5, 5)


def test_clients_that_leave_are_written_down_and_paid_for(gemini_emulator_factory):
    """An answer that was made is paid, though the client had gone before its latency was over."""
    from pipeline.emulator import Latency

    emulator = gemini_emulator_factory(Plan(latency=Latency(generate=30)))
    host, port = emulator.base_url.removeprefix("http://").split(":")
    body = b'{"contents":[{"parts":[{"text":"gone"}]}]}'
    head = f"POST /v1/models/{MODEL}:generateContent?key=k HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body)
        while not emulator.ledger()["paid_answers"]:
            pass
        assert emulator.ledger()["in_flight"] == 1
    while not emulator.ledger()["calls"]:
        pass
    assert emulator.ledger()["calls"] == {"generate": {"client_left": 1}}


def test_control_steers_without_a_key(api, gemini_emulator):
    """The clock, the plan and the reset are calls of their own; a wrong one says what is wrong."""
    api.upload(b"x")
    assert api("POST", "/emulator/clock", {"advance_seconds": 60}, key=None).status == 200
    assert api("POST", "/emulator/clock", {"advance": 60}, key=None).status == 400
    assert api("POST", "/emulator/plan", b"sede = 1", key=None).status == 400
    assert api("GET", "/emulator/nothing", key=None).status == 404
    gemini_emulator.follow('[[fault]]\nkind = "500"\nroute = "file_list"')
    assert api("GET", "/v1beta/files").status == 500
    gemini_emulator.follow("")
    assert len(api("GET", "/v1beta/files").json["files"]) == 1
    gemini_emulator.reset()
    assert gemini_emulator.ledger()["calls"] == {}
    assert api("GET", "/v1beta/files").json == {}


def test_quotas_of_the_plan_are_enforced_over_http(gemini_emulator_factory):
    """Above its requests a minute a model answers 429 until the clock moves on."""
    from pipeline.emulator import Quota

    emulator = gemini_emulator_factory(Plan(quota=[Quota(requests_per_minute=2, window="sliding")]))
    api = Http(emulator.base_url)
    assert [api.generate({"text": "x"}).status for _ in range(3)] == [200, 200, 429]
    emulator.advance(60)
    assert api.generate({"text": "x"}).status == 200


def test_brief_answers_decode_nothing_and_still_tell_the_hash(gemini_emulator_factory):
    """With describe = "brief" sizes in pixels are left out, and the hash is there."""
    api = Http(gemini_emulator_factory(Plan(describe="brief", processing_seconds={})).base_url)
    content = (MEDIA / "coffee.png").read_bytes()
    file = api.upload(content)
    text = api.generate({"fileData": {"fileUri": file["uri"]}}).json["candidates"][0]["content"]["parts"][0]["text"]
    assert hashlib.sha256(content).hexdigest() in text
    assert "512x341" not in text


def test_importing_the_fixtures_loads_nothing_heavy():
    """Registered as a plugin, the fixtures must not cost every test run the import of a web server."""
    script = (
        "import sys, pipeline.emulator, pipeline.emulator.fixture as f;"
        "print([m for m in ('aiohttp', 'PIL', 'av', 'msgspec') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "[]"


def test_emulator_imports_only_the_words_of_the_project():
    """Nothing of the pipeline but limits, clock and errors may be known to the emulator it is judged by."""
    allowed = {"pipeline.limits", "pipeline.clock", "pipeline.errors"}
    for path in (ROOT / "pipeline" / "emulator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = {name for name in names if name.split(".")[0] == "pipeline"}
            foreign = {name for name in ours if not name.startswith("pipeline.emulator")} - allowed
            assert not foreign, f"{path.name} imports {foreign}"


def test_readme_names_every_kind_route_and_key():
    """What a plan can say is documented, all of it."""
    from pipeline.emulator.fault_kinds import KINDS
    from pipeline.emulator.routing import ROUTES

    text = (ROOT / "pipeline" / "emulator" / "README.md").read_text()
    names = {*KINDS, *ROUTES, *Fault.__struct_fields__, *Plan.__struct_fields__} - {
        "limits",
        "latency",
        "quota",
        "fault",
    }
    assert {name for name in names if f"`{name}`" not in text and f"`[{name}]`" not in text} == set()
