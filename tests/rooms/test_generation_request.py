"""The body of a generateContent request."""

import base64

import msgspec
import pytest

from pipeline.errors import ItemError
from pipeline.generation.request import body, duration, request
from pipeline.limits import Limits
from tests.support.builders import item, media, ready, remote


def test_one_medium_comes_before_the_text() -> None:
    """The guide's advice for one image: the text after it."""
    one = item("a", media("a.jpg"), prompt="What is it?")
    parts = request(ready(one, remote("files/x")), {})["contents"][0]["parts"]
    assert [next(iter(part)) for part in parts] == ["fileData", "text"]
    assert parts[0]["fileData"] == {
        "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x",
        "mimeType": "image/jpeg",
    }


def test_a_series_keeps_its_order_with_labels_before_each() -> None:
    """Media come in the row's order, each after its label, the prompt last."""
    one = item("a", media("1.jpg"), media("2.jpg"), labels=("Image 1:", "Image 2:"), prompt="Compare.")
    data = {m.content: m.path.encode() for m in one.media}
    parts = request(ready(one), data)["contents"][0]["parts"]
    assert [part.get("text") or part["inlineData"]["data"] for part in parts] == [
        "Image 1:", b"1.jpg", "Image 2:", b"2.jpg", "Compare.",
    ]  # fmt: skip


def test_video_metadata_uses_durations() -> None:
    """Offsets are protobuf Durations, fps a number, and only what is set is sent."""
    clip = media("a.mp4", mime_type="video/mp4", start_seconds=40.0, end_seconds=80.25, fps=2.0)
    part = request(ready(item("a", clip), remote()), {})["contents"][0]["parts"][0]
    assert part["videoMetadata"] == {"startOffset": "40s", "endOffset": "80.25s", "fps": 2.0}


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0s"), (1e-7, "0.0000001s"), (3600.0, "3600s"), (1.1, "1.1s"), (1e6, "1000000s")]
)
def test_duration(seconds: float, text: str) -> None:
    """A Duration has no exponent and no trailing zeros."""
    assert duration(seconds) == text


def test_settings_are_sent_only_where_set() -> None:
    """An item without settings sends contents alone; with them, each under the API's name."""
    assert set(request(ready(item()), {media().content: b""})) == {"contents"}
    full = item(
        system="Be brief.",
        generation={"maxOutputTokens": 100},
        safety={"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"},
        schema={"type": "object"},
    )
    whole = request(ready(full), {media().content: b""})
    assert whole["systemInstruction"] == {"parts": [{"text": "Be brief."}]}
    assert whole["generationConfig"] == {
        "maxOutputTokens": 100,
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object"},
    }
    assert whole["safetySettings"] == [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]


@pytest.mark.parametrize(
    ("count", "mime_type", "kind"),
    [
        (3600, "image/png", None),
        (3601, "image/png", "too_many_images"),
        (10, "video/mp4", None),
        (11, "video/mp4", "too_many_videos"),
    ],
)
def test_counts_are_checked(count: int, mime_type: str, kind: str | None) -> None:
    """Exactly the limit goes, one more does not."""
    one = item("a", *[media("a", mime_type=mime_type)] * count)
    files = [remote()] * count
    if kind is None:
        assert len(msgspec.json.decode(body(ready(one, *files), {}, Limits()))["contents"][0]["parts"]) == count + 1
        return
    with pytest.raises(ItemError) as caught:
        body(ready(one, *files), {}, Limits())
    assert caught.value.failure.kind == kind


def test_a_body_over_the_limit_never_leaves() -> None:
    """A request that is too large by a byte fails the item, without a retry."""
    one = item(prompt="x" * 1000)
    size = len(body(ready(one, remote()), {}, Limits()))
    assert body(ready(one, remote()), {}, Limits(inline_request_bytes=size))
    with pytest.raises(ItemError) as caught:
        body(ready(one, remote()), {}, Limits(inline_request_bytes=size - 1))
    assert caught.value.failure.kind == "request_too_large"
    assert not caught.value.failure.retryable


def test_inline_media_travel_as_base64() -> None:
    """Standard base64 with its padding (RFC 4648 4), as Blob.data asks for."""
    data = bytes(range(256)) + b"x"
    encoded = msgspec.json.decode(body(ready(item()), {media().content: data}, Limits()))
    blob = encoded["contents"][0]["parts"][0]["inlineData"]
    assert blob["data"] == base64.b64encode(data).decode()
