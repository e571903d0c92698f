"""The official client, synchronous and asynchronous, in both API versions, works against the emulator."""

import asyncio
import json
import time

import pytest
from emulator_http import MEDIA, MODEL

genai = pytest.importorskip("google.genai")
from google.genai import errors, types  # noqa: E402 - only once it is known to be installed

# The client's own deprecations and its pools' late closing are not ours to mend.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning:google.*"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
VERSIONS = [None, "v1", "v1beta"]


@pytest.fixture
def client_of(gemini_emulator):
    def make(version=None, key="k"):
        options = types.HttpOptions(base_url=gemini_emulator.base_url, api_version=version)
        return genai.Client(api_key=key, http_options=options)

    return make


@pytest.mark.parametrize("version", VERSIONS)
def test_synchronous_client_does_the_whole_round(client_of, version):
    """Upload, poll, list over pages, generate by file and inline, count, stream and delete all work."""
    with client_of(version) as client:
        image = client.files.upload(file=MEDIA / "coffee.jpg", config={"display_name": "cup"})
        assert image.state == types.FileState.ACTIVE
        assert image.display_name == "cup"
        video = client.files.upload(file=MEDIA / "coffee_zoom.mp4")
        assert video.state == types.FileState.PROCESSING
        while video.state == types.FileState.PROCESSING:
            time.sleep(0.05)
            video = client.files.get(name=video.name)
        assert video.state == types.FileState.ACTIVE
        assert video.video_metadata == {"videoDuration": "4s"}
        assert [file.name for file in client.files.list(config={"page_size": 1})] == [video.name, image.name]
        inline = types.Part.from_bytes(data=(MEDIA / "coffee.heic").read_bytes(), mime_type="image/heic")
        answer = client.models.generate_content(model=MODEL, contents=[image, video, inline, "What is it?"])
        assert answer.text.startswith("[emulated]")
        for told in ("image/jpeg, 512x341", "video/mp4, 320x240, 4.0 s", "image/heic, 512x341", "What is it?"):
            assert told in answer.text
        assert answer.model_version == MODEL
        assert answer.response_id
        counted = client.models.count_tokens(model=MODEL, contents=[image, video, inline, "What is it?"])
        assert counted.total_tokens == answer.usage_metadata.prompt_token_count == 3 + 2 * 1120 + 4 * 70
        pieces = list(client.models.generate_content_stream(model=MODEL, contents=[image, "Stream."]))
        assert len(pieces) == 3
        assert "Stream." in "".join(piece.text for piece in pieces)
        assert pieces[-1].candidates[0].finish_reason == types.FinishReason.STOP
        client.files.delete(name=image.name)
        with pytest.raises(errors.APIError) as caught:
            client.files.get(name=image.name)
        assert (caught.value.code, caught.value.status) == (403, "PERMISSION_DENIED")


@pytest.mark.parametrize("version", VERSIONS)
async def test_asynchronous_client_does_the_whole_round(client_of, version):
    """The same round with the asynchronous client."""
    client = client_of(version).aio
    image = await client.files.upload(file=MEDIA / "coffee.webp", config={"mime_type": "image/webp"})
    video = await client.files.upload(file=MEDIA / "coffee_zoom.webm")
    while video.state == types.FileState.PROCESSING:
        await asyncio.sleep(0.05)
        video = await client.files.get(name=video.name)
    answer = await client.models.generate_content(model=MODEL, contents=[image, video, "Compare."])
    assert "image/webp, 512x341" in answer.text
    assert "video/webm, 320x240" in answer.text
    pieces = [
        piece.text async for piece in await client.models.generate_content_stream(model=MODEL, contents="Stream.")
    ]
    assert len(pieces) == 3
    assert [file.name async for file in await client.files.list()] == [video.name, image.name]
    await client.files.delete(name=video.name)
    with pytest.raises(errors.ClientError) as caught:
        await client.models.generate_content(model=MODEL, contents=[video, "Gone."])
    assert caught.value.code == 403
    await client.aclose()


def test_schema_answers_parse_into_the_clients_model(client_of):
    """A pydantic schema sent by the client comes back as an object that satisfies it."""
    import pydantic

    class Label(pydantic.BaseModel):
        name: str
        kind: types.FileState
        score: float = pydantic.Field(ge=0.25, le=0.5)
        tags: list[str] = pydantic.Field(min_length=2, max_length=4)

    config = {"response_mime_type": "application/json", "response_schema": Label}
    with client_of() as client:
        answer = client.models.generate_content(model=MODEL, contents="Label it.", config=config)
    label = Label.model_validate_json(answer.text)
    assert 0.25 <= label.score <= 0.5
    assert len(label.tags) >= 2


def test_everything_the_client_can_configure_is_understood(client_of):
    """Snake-case nested names, offsets, thinking, safety settings, system instruction and seed are all taken."""
    with client_of("v1beta") as client:
        video = types.Part(
            inline_data=types.Blob(data=(MEDIA / "coffee_zoom.mp4").read_bytes(), mime_type="video/mp4"),
            video_metadata=types.VideoMetadata(start_offset="1s", end_offset="3s", fps=2),
        )
        config = types.GenerateContentConfig(
            system_instruction="Be brief.",
            temperature=0.5,
            max_output_tokens=2000,
            seed=7,
            stop_sequences=["END"],
            media_resolution=types.MediaResolution.MEDIA_RESOLUTION_HIGH,
            thinking_config=types.ThinkingConfig(thinking_level="LOW", include_thoughts=True),
            safety_settings=[types.SafetySetting(category="HARM_CATEGORY_HARASSMENT", threshold="BLOCK_NONE")],
        )
        answer = client.models.generate_content(model=MODEL, contents=[video, "What?"], config=config)
    assert "clip from 1 s to 3 s" in answer.text
    details = {item.modality.value: item.token_count for item in answer.usage_metadata.prompt_tokens_details}
    assert details["VIDEO"] == 2 * 2 * 280


def test_errors_arrive_as_the_clients_own(client_of, gemini_emulator):
    """A bad key, an unknown model and a typo each raise ClientError with the documented code and reason."""
    gemini_emulator.follow('refused_keys = ["bad"]')
    with client_of("v1beta", key="bad") as client, pytest.raises(errors.ClientError) as caught:
        client.models.get(model=MODEL)
    assert caught.value.code == 400
    assert caught.value.details["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    with client_of("v1beta") as client:
        with pytest.raises(errors.ClientError) as caught:
            client.models.generate_content(model="gemini-9", contents="x")
        assert caught.value.code == 404
        assert "models/gemini-9 is not found for API version v1beta" in caught.value.message
        assert client.models.get(model=MODEL).input_token_limit == 1_048_576
        assert MODEL in {model.name.removeprefix("models/") for model in client.models.list()}


def test_bodies_of_the_client_are_recorded_when_asked_for(client_of, gemini_emulator_factory):
    """With record_bodies the raw request can be read back."""
    from base64 import b64decode

    from pipeline.emulator import Plan

    emulator = gemini_emulator_factory(Plan(record_bodies=True))
    with genai.Client(api_key="k", http_options=types.HttpOptions(base_url=emulator.base_url)) as client:
        client.models.generate_content(model=MODEL, contents="Keep me.")
    (line,) = emulator.bodies()
    assert line["model"] == MODEL
    assert json.loads(b64decode(line["body_base64"]))["contents"][0]["parts"] == [{"text": "Keep me."}]
