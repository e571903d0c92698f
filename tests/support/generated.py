"""Media made on the spot: every accepted image type and two kinds of video, each with bytes of its own."""

import colorsys
import io
import random
from collections.abc import Callable
from pathlib import Path


def _picture(seed: int, side: int):  # type: ignore[no-untyped-def]
    """A small picture whose pixels follow from ``seed``."""
    from PIL import Image, ImageDraw

    chance = random.Random(seed)
    colour = tuple(int(255 * c) for c in colorsys.hsv_to_rgb(chance.random(), 0.8, 0.9))
    picture = Image.new("RGB", (side, side), colour)
    draw = ImageDraw.Draw(picture)
    for _ in range(4):
        box = sorted(chance.choices(range(side), k=2)), sorted(chance.choices(range(side), k=2))
        draw.rectangle((box[0][0], box[1][0], box[0][1], box[1][1]), fill=tuple(chance.choices(range(256), k=3)))
    for bit in range(24):  # the seed itself, so that no two are alike
        picture.putpixel((bit, 0), (255, 255, 255) if seed >> bit & 1 else (0, 0, 0))
    return picture


def image(kind: str, seed: int, side: int = 64) -> bytes:
    """One picture as ``kind`` (JPEG, PNG, WEBP, HEIF)."""
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    out = io.BytesIO()
    options = {"quality": 90} if kind in ("JPEG", "HEIF") else {"lossless": True} if kind == "WEBP" else {}
    _picture(seed, side).save(out, kind, **options)
    return out.getvalue()


def video(container: str, seed: int, frames: int = 5) -> bytes:
    """A clip of ``frames`` frames at 5 a second."""
    import av

    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream("libvpx" if container == "webm" else "mpeg4", rate=5)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        file.metadata["comment"] = f"clip {seed}"
        for number in range(frames):
            for packet in stream.encode(av.VideoFrame.from_image(_picture(seed * 100 + number, 64))):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return out.getvalue()


KINDS: list[tuple[str, Callable[[int], bytes]]] = [
    (".jpg", lambda seed: image("JPEG", seed)),
    (".png", lambda seed: image("PNG", seed)),
    (".webp", lambda seed: image("WEBP", seed)),
    (".jpeg", lambda seed: image("JPEG", seed + 1_000_000)),
    (".heic", lambda seed: image("HEIF", seed)),
    (".mp4", lambda seed: video("mp4", seed)),
    (".png", lambda seed: image("PNG", seed + 2_000_000)),
    (".webm", lambda seed: video("webm", seed)),
]


def folder(path: Path, count: int) -> Path:
    """``count`` media of every kind under ``path``, in sub-folders of a hundred."""
    for number in range(count):
        suffix, make = KINDS[number % len(KINDS)]
        place = path / f"{number // 100:03d}" / f"medium_{number:05d}{suffix}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(make(number))
    return path


def pictures(path: Path, count: int, side: int = 48) -> Path:
    """``count`` small PNG pictures in one folder."""
    path.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (path / f"{number:05d}.png").write_bytes(image("PNG", number, side))
    return path
