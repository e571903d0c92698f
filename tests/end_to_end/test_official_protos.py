"""The bodies that our pipeline sends parse strictly with the official protos."""

import base64
import json
from pathlib import Path

from google.ai.generativelanguage_v1beta.types import GenerateContentRequest
from google.protobuf import json_format

from tests.support import generated
from tests.support.processes import emulator, run

ROWS = [
    {"key": "image", "media": "a.png"},
    {"key": "series", "media": ["a.png", "b.png", "c.png"], "template": "compare"},
    {"key": "video", "media": {"path": "clip.mp4", "start": "00:00.2", "end": 0.8, "fps": 2}},
    {"key": "schema", "media": "a.png", "schema": {"type": "object", "properties": {"label": {"type": "string"}}}},
    {"key": "system", "media": "b.png", "system": "Answer in one word."},
    {"key": "safety", "media": "c.png", "safety": {"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"}},
    {"key": "config", "media": "c.png", "generation": {"maxOutputTokens": 2000, "seed": 7, "stopSequences": ["END"]}},
    {"key": "text", "prompt": "No media at all."},
]


def test_every_body_parses_strictly(tmp_path: Path) -> None:
    """Image, series, clip, schema, system instruction, safety and configuration, inline and by file."""
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        (tmp_path / f"{name}.png").write_bytes(generated.image("PNG", seed))
    (tmp_path / "clip.mp4").write_bytes(generated.video("mp4", 1))
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    with emulator("record_bodies = true") as server:
        for via in ("inline", "files"):
            ended = run(tmp_path / "m.jsonl", tmp_path / via, "--via", via, base_url=server.base_url)
            assert ended.exit_code == 0, (tmp_path / via / "results.jsonl").read_text()
        bodies = [json.loads(base64.b64decode(body["body_base64"])) for body in server.bodies()]
    assert len(bodies) == 2 * len(ROWS)
    requests = [json_format.ParseDict(body, GenerateContentRequest()._pb) for body in bodies]
    parts = [part for request in requests for part in request.contents[0].parts]
    assert any(part.HasField("inline_data") for part in parts)
    assert any(part.HasField("file_data") for part in parts)
    assert any(part.HasField("video_metadata") and part.video_metadata.fps == 2 for part in parts)
    assert any(request.HasField("system_instruction") for request in requests)
    assert any(request.safety_settings for request in requests)
    assert any(request.generation_config.max_output_tokens == 2000 for request in requests)
    assert any("properties" in str(request.generation_config) for request in requests)
