"""Clip offsets and frame rates as a manifest may write them."""

import pytest

from pipeline.errors import ItemError
from pipeline.manifest.times import Clip, clip, clock_text, seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00:45", 45.0),
        ("01:05", 65.0),
        ("1:05", 65.0),
        ("90:00", 5400.0),
        ("1:02:03", 3723.0),
        ("00:01.5", 1.5),
        ("12.5", 12.5),
        ("0", 0.0),
        (" 7 ", 7.0),
        (40, 40.0),
        (2.25, 2.25),
    ],
)
def test_times(text: str | float, expected: float) -> None:
    """MM:SS, H:MM:SS and seconds become seconds."""
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "soon", "1:60", "1:60:00", "-1", "-0:01", -0.5, "1:2:3:4", "40s", "1e3", "nan", "inf", float("nan"),
     float("inf"), "\u0660\u0660:\u0664\u0665", "1:", ":1", "9" * 400, 1e9, 1e300],
)  # fmt: skip
def test_no_times(text: str | float) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"time|MM:SS"):
        seconds(text)


@pytest.mark.parametrize(
    ("start", "end", "fps"),
    [(5, 5, None), (5, 4, None), (None, 0, None), ("soon", None, None), (None, None, 0), (None, None, -1),
     (None, None, 24.1), (None, None, float("nan"))],
)  # fmt: skip
def test_bad_clips(start: str | float | None, end: str | float | None, fps: float | None) -> None:
    """A clip must have a length, and a frame rate must be in (0, 24]."""
    with pytest.raises(ItemError) as caught:
        clip(start, end, fps)
    assert caught.value.failure.kind == "bad_clip"


def test_a_good_clip() -> None:
    """The values are normalised to floats."""
    assert clip("00:01", 3, 24) == Clip(start_seconds=1.0, end_seconds=3.0, fps=24.0)
    assert clip(None, None, None) == Clip()


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, None), (0.0, "00:00"), (65.0, "01:05"), (3723.0, "1:02:03"), (1.5, "00:01.5"), (59.9999, "01:00")],
)
def test_clock_text(value: float | None, expected: str | None) -> None:
    """Templates see times as the API's guide writes them."""
    assert clock_text(value) == expected
