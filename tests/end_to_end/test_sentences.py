"""What a user does wrong: one clear sentence on stderr and the contract's exit code, never a traceback."""

import json
import re
import socket
import subprocess
from pathlib import Path

import pytest

from pipeline.compose import HAND_OUTAGE_SECONDS
from tests.support import generated
from tests.support.processes import PYTHON, Ended, by_key, emulator, pipeline, run, start


def one_sentence(ended: Ended, exit_code: int, *words: str) -> None:
    """Assert the exit code, and one line on stderr that holds ``words``."""
    assert ended.exit_code == exit_code, ended.stderr
    assert "Traceback" not in ended.stderr
    said = [line for line in ended.stderr.splitlines() if line.startswith("pipeline: ")]
    assert len(said) == 1, ended.stderr
    for word in words:
        assert word in said[0]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Three pictures."""
    return generated.pictures(tmp_path / "media", 3)


def test_no_key_names_both_ways_on(media: Path, tmp_path: Path) -> None:
    """Without a key: exit 2, naming the variable and the emulator."""
    one_sentence(pipeline("run", media, "-o", tmp_path / "run", key=None), 2, "GEMINI_API_KEY", "--emulator")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], ["nowhere"]),
        (["{media}/00000.png"], ["put it in a folder or a manifest"]),
        (["{media}", "--nope"], ["--nope"]),
        (["{media}", "--set", "run.concurency=3"], ["run.concurency", "run.concurrency"]),
        (["{media}", "--set", "nope"], ["KEY=VALUE"]),
        (["{media}", "--set", "upload=3"], ["upload", "section"]),
        (["{media}", "--set", "generation.timeout_seconds=inf"], ["generation.timeout_seconds"]),
        (["{media}", "--set", "run.group=shelf"], ["file, folder"]),
        (["{media}", "--set", "run.include=a"], ["list"]),
        (["{media}", "--set", "run.model="], ["run.model"]),
        (["{media}", "-c", "missing.toml"], ["missing.toml"]),
        (["{media}", "--concurrency", "0"], ["concurrency"]),
        (["{media}", "--deadline", "25:99"], ["25:99"]),
        (["{media}", "--deadline", "06:30+02:00"], ["local time like 06:30"]),
        (["{media}", "--deadline", "06"], ["local time like 06:30"]),
        (["{media}", "--set", "run.deadline=06:30:00"], ["06:30:00", "text in quotes"]),
        (["{media}", "--set", "run.concurrency=2.5"], ["2.5", "a whole number"]),
        (["{media}", "--set", "run.include=[1]"], ["run.include[0] is 1", "text"]),
        (["{media}", "--set", "generation.schema=5"], ["text or a table"]),
        (["{media}", "--set", "generation.config.temperature=nan"], ["generation settings", "nan"]),
        (["{media}", "--set", "limits.file_bytes=-1"], ["limits.file_bytes", ">= 0"]),
        (["{media}", "--max-time", "soon"], ["soon"]),
        (["{media}", "-t", "no_such_template"], ["no_such_template"]),
        (["{media}", "-t", "x" * 5000], ["template"]),
        (["{media}", "-p", ""], ["prompt", "nothing"]),
        (["{media}", "-p", "{# says nothing #}"], ["prompt", "nothing"]),
        ([""], ["SOURCE is empty"]),
        (["a" * 5000], ["File name too long"]),
        (["{media}", "-p", "{{ unclosed"], ["template"]),
        (["{media}", "-p", "a", "-t", "describe"], ["either"]),
        (["{media}", "--base-url", "http://192.0.2.1"], ["https"]),
        (["{media}", "--base-url", "ftp://x"], ["ftp://x"]),
        (["{media}", "--via", "pigeon"], ["pigeon"]),
        ([], ["SOURCE"]),
    ],
)
def test_usage(media: Path, tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    """Wrong arguments end with 2 and a sentence that names what is wrong, before anything is sent."""
    given = [argument.replace("{media}", str(media)) for argument in arguments]
    ended = pipeline("run", *given, "-o", tmp_path / "run", cwd=tmp_path, key="k" * 39)
    one_sentence(ended, 2, *words)


def test_a_variable_that_no_item_has(media: Path, tmp_path: Path) -> None:
    """Each line says what is missing, and where it could come from."""
    run(media, tmp_path / "run", "-p", "{{ nope }}")
    assert {line["error"]["message"] for line in by_key(tmp_path / "run").values()} == {
        "the template asks for what this item doesn't have: 'nope' is undefined"
    }


def test_an_empty_name_is_no_run_folder(media: Path, tmp_path: Path) -> None:
    """What an unset variable of a script gives must not end in the default folder."""
    one_sentence(pipeline("run", media, "--emulator", "-o", "", cwd=tmp_path), 2, "run.output", "not empty")
    assert not (tmp_path / "runs").exists()


def test_json_tells_why_a_run_could_not_begin(media: Path, tmp_path: Path) -> None:
    """With ``--json`` stdout holds one object in any case, with the exit code and the reason."""
    ended = run(media, tmp_path / "run", "--set", "run.nope=1")
    assert ended.exit_code == ended.summary["exit_code"] == 2
    assert "run.nope" in ended.summary["reason"]


def test_unknown_key_in_a_file(media: Path, tmp_path: Path) -> None:
    """An unknown key of a configuration file is an error that names the nearest known one."""
    config = tmp_path / "c.toml"
    config.write_text("[upload]\nvai = 'files'\n")
    one_sentence(
        pipeline("run", media, "-c", config, "--emulator", "-o", tmp_path / "run"), 2, "upload.vai", "upload.via"
    )


def test_what_chooses_files_of_a_folder_is_refused_for_a_manifest(media: Path, tmp_path: Path) -> None:
    """Passed over in silence it would send, and pay for, more than was asked for."""
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"media": "media/00000.png"}))
    for options in (["--include", "*.jpg"], ["--exclude", "*.png"], ["--group", "folder"]):
        ended = pipeline("run", manifest, "-o", tmp_path / "run", "--emulator", *options)
        one_sentence(ended, 2, options[0], "folder SOURCE")


def test_empty_manifest(tmp_path: Path) -> None:
    """A manifest without a usable row ends with 2."""
    manifest = tmp_path / "m.jsonl"
    manifest.write_text("")
    ended = run(manifest, tmp_path / "run")
    assert ended.exit_code == 2
    assert "not one row" in ended.stderr


def test_only_wrong_rows(tmp_path: Path) -> None:
    """Each wrong row has its failed line, and the exit code is 2."""
    manifest = tmp_path / "m.jsonl"
    manifest.write_text('{"media": \n{"key": "k", "media": "missing.jpg", "nonsense"}\n')
    ended = run(manifest, tmp_path / "run")
    assert ended.exit_code == 2
    assert {line["error"]["kind"] for line in by_key(tmp_path / "run").values()} == {"bad_row"}


def test_an_unreadable_file_fails_alone(tmp_path: Path) -> None:
    """A missing and a broken file fail with their kinds; the others are answered."""
    generated.pictures(tmp_path / "media", 2)
    (tmp_path / "media" / "broken.jpg").write_bytes(b"not a picture at all")
    (tmp_path / "media" / "empty.png").write_bytes(b"")
    manifest = tmp_path / "m.jsonl"
    names = ["media/00000.png", "media/00001.png", "media/broken.jpg", "media/empty.png", "media/gone.png"]
    manifest.write_text("".join(json.dumps({"media": name}) + "\n" for name in names))
    ended = run(manifest, tmp_path / "run")
    assert ended.exit_code == 1, ended.stderr
    kinds = {k: (v["error"] or {}).get("kind") for k, v in by_key(tmp_path / "run").items()}
    assert kinds == {
        "media/00000.png": None,
        "media/00001.png": None,
        "media/broken.jpg": "unsupported_type",
        "media/empty.png": "empty_file",
        "media/gone.png": "missing_file",
    }


def test_an_unreadable_manifest_is_told_of_once(tmp_path: Path) -> None:
    """A manifest that turns out to be none ends with 2, one sentence, and its summary."""
    manifest = tmp_path / "m.csv"
    manifest.write_bytes(b"\xff\xfe\x00")
    ended = run(manifest, tmp_path / "run")
    assert ended.exit_code == ended.summary["exit_code"] == 2
    assert len(ended.stderr.splitlines()) == 1
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["exit_code"] == 2


@pytest.mark.parametrize("arguments", [[], ["files"]])
def test_a_command_without_arguments_shows_its_help(arguments: list[str]) -> None:
    """Readable, on stderr, and exit 2."""
    ended = pipeline(*arguments)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert "\nCommands:\n" in ended.stderr


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_folder_that_cannot_be_looked_into(tmp_path: Path, command: str) -> None:
    """Whatever hides a run folder, it is told of as one that is not there."""
    one_sentence(pipeline(command, tmp_path / ("x" * 300)), 2, "run folder")


def test_a_template_file_of_any_name(media: Path, tmp_path: Path) -> None:
    """``-t`` takes a file of any suffix, from here; a bare word is a shipped template's name first."""
    (tmp_path / "mine.txt").write_text("Mine: {{ name }}")
    (tmp_path / "describe").write_text("Not this")
    for given, shown, prompt in (
        ("mine.txt", "mine.txt", "Mine: 00000.png"),
        ("./mine.txt", "mine.txt", "Mine: 00000.png"),
        ("describe", "describe", None),
        ("./describe", "describe", "Not this"),
    ):
        output = tmp_path / f"run {given.replace('/', '-')}"
        ended = run(media, output, "-t", given, "--limit", "1", cwd=tmp_path)
        assert ended.exit_code == 0, ended.stderr
        line = by_key(output)["00000.png"]
        assert line["template"] == shown
        if prompt is None:
            assert "Not this" not in line["text"]
        else:
            assert prompt in line["text"]


def test_a_template_file_of_a_configuration(media: Path, tmp_path: Path) -> None:
    """Named in a file, it lies beside that file; named on the command line, here."""
    for folder in ("there", "here"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.txt").write_text(f"From {folder}")
    (tmp_path / "there" / "c.toml").write_text('[run]\ntemplate = "t.txt"\n')
    config = tmp_path / "there" / "c.toml"
    run(media, tmp_path / "a", "-c", config, "--limit", "1", cwd=tmp_path / "here")
    run(media, tmp_path / "b", "-c", config, "-t", "t.txt", "--limit", "1", cwd=tmp_path / "here")
    assert "From there" in by_key(tmp_path / "a")["00000.png"]["text"]
    assert "From here" in by_key(tmp_path / "b")["00000.png"]["text"]


def test_the_emulator_minds_no_base_url_of_the_environment(media: Path, tmp_path: Path) -> None:
    """``--emulator`` answers from this machine whatever the environment says of another endpoint."""
    ended = run(media, tmp_path / "run", GOOGLE_GEMINI_BASE_URL="http://gateway.example")
    assert ended.exit_code == 0, ended.stderr


def test_two_keys_are_warned_of_once(media: Path, tmp_path: Path) -> None:
    """By ``run`` and by ``files``: which of the two is used."""
    with emulator() as server:
        where = ["--base-url", server.base_url]
        for ended in (
            pipeline("run", media, "-o", tmp_path / "run", *where, GOOGLE_API_KEY="another-key-of-mine"),
            pipeline("files", "list", *where, GOOGLE_API_KEY="another-key-of-mine"),
        ):
            assert ended.exit_code == 0, ended.stderr
            assert ended.stderr.count("using GEMINI_API_KEY") == 1


def test_a_full_storage_by_hand(media: Path) -> None:
    """``files upload`` into a full storage: exit 3, and what to do."""
    with emulator("[limits]\nproject_storage_bytes = 10\n") as server:
        ended = pipeline("files", "upload", media / "00000.png", "--base-url", server.base_url)
    one_sentence(ended, 3, "storage is full", "pipeline files delete")


def test_by_hand_the_reason_for_waiting_is_told() -> None:
    """Nobody sits half an hour before a silent prompt: what is wrong is said as soon as a call is sent again."""
    waiting = start("files", "list", "--base-url", "http://127.0.0.1:1")
    try:
        assert waiting.stderr is not None
        assert "Connection refused; trying again" in waiting.stderr.readline()
    finally:
        waiting.kill()
        waiting.communicate()
    assert HAND_OUTAGE_SECONDS <= 120


def test_a_configuration_with_a_byte_order_mark(media: Path, tmp_path: Path) -> None:
    """As some editors on Windows write it; manifests may have one too."""
    config = tmp_path / "run.toml"
    config.write_text("\ufeff[run]\nmodel = ''\n", "utf-8")
    one_sentence(run(media, tmp_path / "run", "-c", config), 2, "run.model", "not empty")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (None, ["can't read the plan", "plan.toml: No such file or directory"]),
        ("[latency]\ngenrate = 3\n", ["plan.toml: unknown key", "genrate"]),
        ("seed =", ["plan.toml: ", "end of document"]),
    ],
)
def test_a_plan_that_cannot_be_used(plan: str | None, words: list[str], tmp_path: Path) -> None:
    """The emulator doesn't start, and says what is wrong with which file."""
    if plan is not None:
        (tmp_path / "plan.toml").write_text(plan)
    one_sentence(pipeline("emulator", "--port", "0", "--plan", tmp_path / "plan.toml"), 2, *words)


def test_port_in_use() -> None:
    """``pipeline emulator`` on a taken port says so and how to go on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ended = pipeline("emulator", "--port", taken.getsockname()[1])
    one_sentence(ended, 2, "in use", "--port")


@pytest.mark.parametrize("fault", ["400_key_invalid", "403_leaked", "404_model", "401"])
def test_a_wrong_key_or_model_stops_before_anything_is_sent(media: Path, tmp_path: Path, fault: str) -> None:
    """Exit 5 after at most three requests; no item is marked failed."""
    with emulator(f'[[fault]]\nkind = "{fault}"\nroute = "*"\n') as server:
        ended = run(media, tmp_path / "run", base_url=server.base_url)
        assert ended.exit_code == 5, ended.stderr
        assert server.ledger()["calls_total"] <= 3
    assert ended.summary["items"]["failed_now"] == 0
    assert by_key(tmp_path / "run") == {}
    assert ended.summary["items"]["left"] == 3


def test_a_wrong_base_url_stops(media: Path, tmp_path: Path) -> None:
    """Where nothing listens, the run ends with 5 and names the base URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ended = run(media, tmp_path / "run", base_url=f"http://127.0.0.1:{port}")
    assert ended.exit_code == 5, ended.stderr
    assert "base" in ended.summary["reason"].lower()
    assert by_key(tmp_path / "run") == {}


@pytest.mark.parametrize("via", ["inline", "files"])
def test_a_base_url_that_is_a_website_stops(media: Path, tmp_path: Path, via: str) -> None:
    """Something answers there and knows none of the calls, in words of its own: exit 5, and no item is marked."""
    command = [PYTHON, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(media)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1) as website:
        try:
            assert website.stdout is not None
            port = re.findall(r"port (\d+)", website.stdout.readline())[0]
            ended = run(media, tmp_path / "run", "--via", via, base_url=f"http://127.0.0.1:{port}")
        finally:
            website.terminate()
    assert ended.exit_code == 5, ended.stderr
    assert "correct the base URL" in ended.summary["reason"]
    assert by_key(tmp_path / "run") == {}


def test_emulated_lines_never_count_for_a_real_run(media: Path, tmp_path: Path) -> None:
    """A real run sends what only the emulator has answered; the emulator is refused where real answers lie."""
    assert run(media, tmp_path / "run").exit_code == 0
    with emulator() as server:
        ended = run(media, tmp_path / "run", base_url=server.base_url)
        assert (ended.exit_code, ended.summary["requests"]) == (0, 3)
        assert {line["backend"] for line in by_key(tmp_path / "run").values()} == {"127.0.0.1"}
        refused = pipeline("run", media, "-o", tmp_path / "run", "--emulator")
    one_sentence(refused, 2, "--emulator")
    assert {line["backend"] for line in by_key(tmp_path / "run").values()} == {"127.0.0.1"}
