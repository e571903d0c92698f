"""Rough tokens of a request."""

import pytest

from pipeline.generation.tokens import estimate
from tests.support.builders import item, media


@pytest.mark.parametrize(
    ("model", "resolution", "expected"),
    [
        ("gemini-3.8-flash", None, 1120),
        ("gemini-3.8-flash", "MEDIA_RESOLUTION_LOW", 280),
        ("gemini-2.5-flash", "MEDIA_RESOLUTION_LOW", 64),
        ("gemini-2.5-flash", None, 1548),
    ],
)
def test_an_image_costs_what_its_table_says(model: str, resolution: str | None, expected: int) -> None:
    """Family and media resolution choose the table's number."""
    generation = {"mediaResolution": resolution} if resolution else {}
    assert estimate(item(model=model, generation=generation, prompt="")) == expected + 1


def test_a_clip_costs_its_seconds_and_frames() -> None:
    """Forty seconds at two frames a second, with sound."""
    clip = media("a.mp4", mime_type="video/mp4", start_seconds=40.0, end_seconds=80.0, fps=2.0)
    assert estimate(item("a", clip, prompt="")) == 40 * (2 * 70 + 32) + 1


def test_text_counts_a_quarter_of_its_characters() -> None:
    """Prompt, system instruction and labels all count."""
    assert estimate(item(media=(), prompt="x" * 400, system="y" * 40)) == 111
