"""Files are known by their bytes, under the API's own names."""

import io
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from pipeline.limits import IMAGE_TYPES, VIDEO_TYPES
from pipeline.media.sniff import ACCEPTED_TYPES, HEAD_BYTES, MEDIA_SUFFIXES, may_stand_for, sniff

SAMPLES = Path("sample_manifests/media")


def ftyp(major: bytes, *compatible: bytes) -> bytes:
    brands = b"".join(compatible)
    return (16 + len(brands)).to_bytes(4, "big") + b"ftyp" + major + bytes(4) + brands + bytes(64)


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, kind)
    return file.getvalue()


def video(container: str, codec: str) -> bytes:
    """A short video by PyAV; made in another process, because libav may write to stderr as it pleases."""
    script = f"""
import io, sys, av
file = io.BytesIO()
with av.open(file, "w", format={container!r}) as out:
    stream = out.add_stream({codec!r}, rate=25)
    stream.width, stream.height, stream.pix_fmt = 176, 144, "yuv420p"
    for i in range(5):
        for packet in stream.encode(av.VideoFrame(176, 144, "yuv420p")):
            out.mux(packet)
    for packet in stream.encode():
        out.mux(packet)
sys.stdout.buffer.write(file.getvalue())
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("coffee.png", "image/png"),
        ("coffee.jpg", "image/jpeg"),
        ("coffee.webp", "image/webp"),
        ("coffee.heic", "image/heic"),
        ("coffee_zoom.mp4", "video/mp4"),
        ("coffee_zoom.webm", "video/webm"),
        ("SAMPLES.md", None),
    ],
)
def test_samples_are_known(name: str, expected: str | None) -> None:
    """The sample files have the types that their names promise."""
    assert sniff((SAMPLES / name).read_bytes()[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    ("container", "codec", "expected"),
    [
        ("mp4", "mpeg4", "video/mp4"),
        ("mov", "mpeg4", "video/mov"),
        ("3gp", "h263", "video/3gpp"),
        ("avi", "mpeg4", "video/avi"),
        ("flv", "flv", "video/x-flv"),
        ("asf", "wmv2", "video/wmv"),
        ("vob", "mpeg2video", "video/mpeg"),
        ("mpeg1video", "mpeg1video", "video/mpg"),
        ("matroska", "mpeg4", "video/x-matroska"),
        ("mpegts", "mpeg2video", "video/mp2t"),
    ],
)
def test_real_videos_are_known(container: str, codec: str, expected: str) -> None:
    """What a real muxer writes is recognised, also the types that the API does not take."""
    assert sniff(video(container, codec)[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("PNG", "image/png"),
        ("JPEG", "image/jpeg"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("ICO", "image/x-icon"),
        ("DDS", "image/vnd.ms-dds"),
        ("ICNS", "image/icns"),
    ],
)
def test_real_pictures_are_known(kind: str, expected: str) -> None:
    """What Pillow writes is recognised, also the types that the API does not take."""
    assert sniff(picture(kind)[:HEAD_BYTES]) == expected


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (ftyp(b"heic", b"mif1"), "image/heic"),
        (ftyp(b"heix"), "image/heic"),
        (ftyp(b"mif1", b"heic"), "image/heif"),
        (ftyp(b"msf1"), "image/heif"),
        (ftyp(b"mif1", b"avif"), "image/avif"),
        (ftyp(b"avif", b"mif1"), "image/avif"),
        (ftyp(b"3gp5", b"isom"), "video/3gpp"),
        (ftyp(b"3g2a"), "video/3gpp2"),
        (ftyp(b"M4V "), "video/mp4"),
        (ftyp(b"dash"), "video/mp4"),
        (ftyp(b"qt  "), "video/mov"),
        (ftyp(b"crx "), "image/x-canon-cr3"),
        (ftyp(b"M4A "), None),
        (b"\x00\x00\x00\x08wide\x00\x00\x10\x00mdat", "video/mov"),
        (b"\x00\x00\x01\xba\x44", "video/mpeg"),
        (b"\x00\x00\x01\xb3\x16", "video/mpg"),
        (b"8BPS\x00\x01", "image/vnd.adobe.photoshop"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'>", "image/svg+xml"),
        (b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- x -->\n<svg>", "image/svg+xml"),
        (b"<?xml version='1.0'?><html>", None),
        (b"OggS" + bytes(24) + b"\x80theora", "video/ogg"),
        (b"OggS" + bytes(24) + b"\x01vorbis", None),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", None),
        (b"The free software that never was", None),
        (b"BMW is a car maker, not a bitmap", None),
        (b"GGGGGGGG", None),
        (b"%PDF-1.7", None),
        (b"", None),
        (b"\x00" * 4096, None),
    ],
)
def test_headers_are_told_apart(head: bytes, expected: str | None) -> None:
    """Brands, look-alikes and plain text are told apart by their first bytes."""
    assert sniff(head) == expected


def test_every_accepted_type_has_a_test() -> None:
    """The tables above leave no type of the API out."""
    tested = {"image/png", "image/jpeg", "image/webp", "image/heic", "image/heif", "video/mp4", "video/mov"}
    tested |= {"video/3gpp", "video/avi", "video/x-flv", "video/wmv", "video/mpeg", "video/mpg", "video/webm"}
    assert tested == IMAGE_TYPES | VIDEO_TYPES == ACCEPTED_TYPES


@pytest.mark.parametrize("length", range(64))
def test_a_cut_header_never_crashes(length: int) -> None:
    """Any beginning of any header gives an answer."""
    for head in (ftyp(b"mif1", b"heic"), picture("BMP"), picture("ICO"), b"\x1a\x45\xdf\xa3\x42\x82"):
        sniff(head[:length])


def test_declared_types_stay_in_their_family() -> None:
    """A manifest may use another name of the same container, never another kind of file."""
    assert may_stand_for("video/mpg", "video/mpeg")
    assert may_stand_for("image/heif", "image/heic")
    assert not may_stand_for("image/png", "image/jpeg")
    assert not may_stand_for("video/webm", "video/mp4")


def test_suffixes_claim_media() -> None:
    """Usual suffixes claim to be media, and TypeScript does not."""
    assert {".jpg", ".heic", ".mov", ".gif", ".mkv"} <= MEDIA_SUFFIXES
    assert not {".ts", ".txt", ".mp3", ""} & MEDIA_SUFFIXES
