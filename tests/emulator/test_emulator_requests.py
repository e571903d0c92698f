"""What generateContent and its neighbours accept, refuse and count."""

import base64

import pytest
from emulator_http import MEDIA, MODEL, Http

from pipeline.emulator import Plan
from pipeline.limits import Limits

PNG = (MEDIA / "coffee.png").read_bytes()
GENERATE = f"/v1beta/models/{MODEL}:generateContent"


def message_of(answer) -> str:
    return answer.json["error"]["message"]


def test_both_spellings_and_both_alphabets_are_read_at_every_level(api):
    """Snake case with URL-safe base64 and camel case with the standard alphabet give the same count."""
    snake = api.generate(
        {"inline_data": {"mime_type": "image/png", "data": base64.urlsafe_b64encode(PNG).decode()}},
        generation_config={"max_output_tokens": "900", "media_resolution": "MEDIA_RESOLUTION_LOW"},
        system_instruction={"parts": {"text": "x"}},
    )
    camel = api.generate(
        {"inlineData": {"mimeType": "image/png", "data": base64.b64encode(PNG).decode().rstrip("=")}},
        generationConfig={"maxOutputTokens": 900, "mediaResolution": "MEDIA_RESOLUTION_LOW"},
        systemInstruction={"parts": [{"text": "x"}]},
    )
    assert snake.status == 200
    assert snake.json["usageMetadata"] == camel.json["usageMetadata"]
    assert snake.json["usageMetadata"]["promptTokenCount"] == 280 + 1


def test_unknown_names_are_all_refused_in_one_body(api):
    """Each unknown name is a violation; the texts are joined by a newline, and a top-level one names no field."""
    answer = api.generate({"text": "x"}, generation_config={"foo": 1}, bar=2)
    first = "Invalid JSON payload received. Unknown name \"foo\" at 'generation_config': Cannot find field."
    second = 'Invalid JSON payload received. Unknown name "bar": Cannot find field.'
    assert (answer.status, answer.json["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert message_of(answer) == f"{first}\n{second}"
    assert answer.json["error"]["details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "generation_config", "description": first}, {"description": second}],
        }
    ]


@pytest.mark.parametrize(
    ("request_body", "part_of_message"),
    [
        ({"contents": [{"parts": [{"text": 5}]}]}, "Invalid value at 'contents[0].parts[0].text' (TYPE_STRING), 5"),
        ({"contents": [{"parts": [{"text": ["x"]}]}]}, "Proto field is not repeating, cannot start list."),
        ({"contents": "x"}, "Invalid value at 'contents[0]'"),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "*"}}]}]},
            "Base64 decoding failed",
        ),
        (
            {"contents": [{"parts": [{"text": "x", "inlineData": {"mimeType": "image/png", "data": "eA=="}}]}]},
            "oneof field 'data' is already set",
        ),
        ({"contents": [{"parts": [{"text": "x", "videoMetadata": {"startOffset": "1"}}]}]}, "protobuf.Duration"),
        ({"contents": [{"parts": [{"text": "x", "videoMetadata": {"fps": 25}}]}]}, "fps"),
        ({"contents": [{"parts": [{"text": "x", "videoMetadata": {"fps": 0}}]}]}, "fps"),
        ({"contents": []}, "contents is not specified"),
        ({"contents": [{"parts": []}]}, "must not be empty"),
        ({"contents": [{"parts": [{}]}]}, "required oneof field 'data'"),
        ({"contents": [{"role": "robot", "parts": [{"text": "x"}]}]}, "Please use a valid role: user, model."),
        ({"contents": [{"role": "model", "parts": [{"text": "x"}]}]}, "the last turn must be the user's"),
        ({"generationConfig": {"temperature": 2.1}}, "temperature"),
        ({"generationConfig": {"temperature": True}}, "TYPE_DOUBLE"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "max_output_tokens"),
        ({"generationConfig": {"maxOutputTokens": 1.5}}, "TYPE_INT64"),
        ({"generationConfig": {"mediaResolution": "HIGHEST"}}, "TYPE_ENUM"),
        ({"generationConfig": {"mediaResolution": "MEDIA_RESOLUTION_ULTRA_HIGH"}}, "only supported per part"),
        ({"generationConfig": {"stopSequences": ["1", "2", "3", "4", "5", "6"]}}, "stop_sequences"),
        ({"generationConfig": {"responseSchema": {"type": "STRING"}}}, "response_mime_type"),
        (
            {
                "generationConfig": {
                    "responseMimeType": "application/json",
                    "responseSchema": {"type": "STRING"},
                    "responseJsonSchema": {"type": "string"},
                }
            },
            "exclude each other",
        ),
        ({"generationConfig": {"thinkingConfig": {"thinkingLevel": "MINIMAL"}}}, "MINIMAL is not supported"),
        ({"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT"}] * 2}, "each category once"),
        ({"contents": [{"parts": [{"fileData": {"fileUri": "https://example.com/a.png"}}]}]}, "Cannot fetch content"),
        (
            {"contents": [{"parts": [{"inlineData": {"mimeType": "application/cu-seeme", "data": "eA=="}}]}]},
            "Unsupported MIME type: application/cu-seeme",
        ),
        ({"generationConfig": {"topP": 0.5, "top_p": 0.5}}, "set twice"),
    ],
)
def test_what_the_api_forbids_is_refused(api, request_body, part_of_message):
    """Wrong types, values out of range and forbidden combinations are INVALID_ARGUMENT and name the place."""
    answer = api("POST", GENERATE, {"contents": [{"parts": [{"text": "x"}]}], **request_body})
    assert (answer.status, answer.json["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert part_of_message in message_of(answer)


def test_broken_json_and_unknown_paths_are_refused(api):
    """Half a JSON body is a 400; a path that is no method is the front end's HTML."""
    assert api("POST", GENERATE, b'{"contents": [').status == 400
    lost = api("GET", "/v1beta/nothing")
    assert (lost.status, lost.headers["Content-Type"]) == (404, "text/html; charset=UTF-8")


def test_authentication_is_as_documented(gemini_emulator_factory):
    """No key is a 403, a bad one a 400 with API_KEY_INVALID, and a good one is taken from header or query."""
    api = Http(gemini_emulator_factory(Plan(accepted_keys=["good"])).base_url)
    none = api("GET", "/v1beta/models", key=None)
    assert (none.status, none.json["error"]["status"]) == (403, "PERMISSION_DENIED")
    assert "unregistered callers" in message_of(none)
    bad = api("GET", "/v1beta/models", key="bad")
    assert (bad.status, message_of(bad)) == (400, "API key not valid. Please pass a valid API key.")
    assert bad.json["error"]["details"][0]["reason"] == "API_KEY_INVALID"
    assert api("GET", "/v1beta/models", key="good").status == 200
    assert api("GET", "/v1/models?key=good", key=None).status == 200


def test_short_server_deadlines_are_refused(api):
    """X-Server-Timeout under ten seconds is a 400 in the service's words; ten is enough."""
    body = {"contents": [{"parts": [{"text": "x"}]}]}
    short = api("POST", GENERATE, body, {"X-Server-Timeout": "8"})
    assert (short.status, message_of(short)) == (
        400,
        "Manually set deadline 8s is too short. Minimum allowed deadline is 10s.",
    )
    assert api("POST", GENERATE, body, {"X-Server-Timeout": "10"}).status == 200


def test_limits_of_a_request_are_kept(gemini_emulator_factory):
    """Body size, images and videos: one within the limit passes, one over is refused with the documented text."""
    limits = Limits(max_images=3, max_videos=2, inline_request_bytes=2000)
    api = Http(gemini_emulator_factory(Plan(limits=limits, describe="brief")).base_url)

    def inline(kind):
        return {"inlineData": {"mimeType": kind, "data": "eA=="}}

    assert api.generate(*[inline("image/png")] * 3).status == 200
    assert message_of(api.generate(*[inline("image/png")] * 4)) == "Please use fewer than 3 images in your request"
    assert api.generate(*[inline("video/mp4")] * 2).status == 200
    assert api.generate(*[inline("video/mp4")] * 3).status == 400
    spare = 2000 - len(b'{"contents": [{"parts": [{"text": ""}]}]}')
    assert api.generate({"text": "x" * spare}).status == 200
    large = api.generate({"text": "x" * (spare + 1)})
    assert (large.status, message_of(large)) == (400, "Request payload size exceeds the limit: 2000 bytes.")


def test_too_many_tokens_are_refused_with_both_numbers(api):
    """A prompt over the model's context names its own count and the limit."""
    answer = api.generate({"text": "x" * (4 * 1_048_577)})
    assert message_of(answer) == (
        "The input token count (1048577) exceeds the maximum number of tokens allowed (1048576)."
    )


def test_small_output_cap_leaves_no_text(api):
    """Thinking uses up a small maxOutputTokens: MAX_TOKENS and a content without parts."""
    answer = api.generate({"text": "x"}, generationConfig={"maxOutputTokens": 10}).json
    assert answer["candidates"][0]["finishReason"] == "MAX_TOKENS"
    assert answer["candidates"][0]["content"] == {"role": "model"}
    assert answer["usageMetadata"]["thoughtsTokenCount"] == 10


def test_undecodable_media_are_said_to_be(api):
    """Bytes that are no image are answered honestly, with their hash."""
    text = api.generate({"inlineData": {"mimeType": "image/png", "data": "bm90"}}).json["candidates"][0]["content"]
    assert "not decodable" in text["parts"][0]["text"]


def test_stream_errors_come_wrapped_without_sse(api):
    """The array form of a stream carries its error in the array; the event form does not."""
    body = {"contents": []}
    path = f"/v1beta/models/{MODEL}:streamGenerateContent"
    assert api("POST", path, body).json[0]["error"]["code"] == 400
    assert api("POST", path + "?alt=sse", body).json["error"]["code"] == 400
    pieces = api("POST", path, {"contents": [{"parts": [{"text": "x"}]}]}).json
    assert [("finishReason" in piece["candidates"][0]) for piece in pieces] == [False, False, True]


def test_count_tokens_takes_a_whole_request_too(api):
    """contents alone and generateContentRequest count alike."""
    contents = [{"parts": [{"text": "x" * 40}]}]
    path = f"/v1/models/{MODEL}:countTokens"
    assert api("POST", path, {"contents": contents}).json["totalTokens"] == 10
    whole = {"generateContentRequest": {"model": f"models/{MODEL}", "contents": contents}}
    assert api("POST", path, whole).json == {
        "totalTokens": 10,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 10}],
    }
