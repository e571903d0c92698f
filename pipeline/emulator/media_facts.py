"""What a medium is, found by decoding it; changes when the answers tell more of a medium.

Pillow, pillow-heif and PyAV are optional and loaded on first use, in a worker thread; facts are cached by SHA-256.
"""

import asyncio
import io
from collections import Counter, OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

SHELF_BYTES = 256 * 1024 * 1024
"""All media that wait to be decoded together."""
THUMBNAIL_PIXELS = 16
SHADES = {
    "black": (15, 15, 15),
    "grey": (128, 128, 128),
    "white": (240, 240, 240),
    "red": (200, 40, 40),
    "orange": (230, 130, 40),
    "brown": (110, 70, 40),
    "yellow": (230, 210, 60),
    "green": (60, 140, 60),
    "cyan": (60, 180, 190),
    "blue": (50, 80, 180),
    "purple": (120, 60, 150),
    "pink": (230, 150, 180),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What decoding found; the fields are None where it found nothing, and ``note`` says why."""

    width: int | None = None
    height: int | None = None
    colour: str | None = None
    duration_seconds: float | None = None
    has_audio: bool = False
    note: str = ""


NOT_DECODED = Facts(note="not decoded")


class MediaFacts:
    """Facts by SHA-256; holds the bytes of a medium only until they are decoded."""

    def __init__(self) -> None:
        self._facts: dict[str, Facts] = {}
        self._shelf: OrderedDict[str, bytes] = OrderedDict()
        self._shelf_bytes = 0
        self._decoding: dict[str, asyncio.Future[Facts]] = {}
        self._threads = ThreadPoolExecutor(max_workers=2, thread_name_prefix="emulator-decode")

    def close(self) -> None:
        """Let the worker threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def keep(self, sha256: str, content: bytes) -> None:
        """Remember the bytes, to be decoded if someone asks."""
        if sha256 in self._facts or sha256 in self._shelf:
            return
        self._shelf[sha256] = content
        self._shelf_bytes += len(content)
        while self._shelf_bytes > SHELF_BYTES:
            self._shelf_bytes -= len(self._shelf.popitem(last=False)[1])

    async def of(self, sha256: str, mime_type: str) -> Facts:
        """The facts of a medium whose bytes were kept."""
        known = self._facts.get(sha256)
        if known is not None:
            return known
        decoding = self._decoding.get(sha256)
        if decoding is None:
            content = self._shelf.pop(sha256, None)
            if content is None:
                return Facts(note="not decoded: too large, or its bytes are no longer kept")
            self._shelf_bytes -= len(content)
            decoding = asyncio.get_running_loop().run_in_executor(self._threads, decode, content, mime_type)
            self._decoding[sha256] = decoding
        # Shielded, because others may wait for the same medium when this caller's client leaves.
        facts = self._facts[sha256] = await asyncio.shield(decoding)
        self._decoding.pop(sha256, None)
        return facts


def decode(content: bytes, mime_type: str) -> Facts:
    """Decode an image or a video; blocking."""
    kind = mime_type.split("/", maxsplit=1)[0]
    if kind not in {"image", "video"}:
        return NOT_DECODED
    try:
        return _decode_image(content) if kind == "image" else _decode_video(content)
    except ImportError as problem:
        return Facts(note=f"not decoded: {problem.name} is not installed")
    except Exception as problem:  # noqa: BLE001 - decoders fail in their own ways, and any bytes may be sent
        return Facts(note=f"not decodable: {type(problem).__name__}")


def _decode_image(content: bytes) -> Facts:
    import PIL.Image

    try:
        import pillow_heif

        pillow_heif.register_heif_opener()
    except ImportError:
        pass  # the other image types are read without it
    with PIL.Image.open(io.BytesIO(content)) as image:
        width, height = image.size
        image.draft("RGB", (4 * THUMBNAIL_PIXELS, 4 * THUMBNAIL_PIXELS))
        thumbnail = image.convert("RGB").resize((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    return Facts(width=width, height=height, colour=dominant_colour(thumbnail.tobytes()))


def _decode_video(content: bytes) -> Facts:
    import av

    with av.open(io.BytesIO(content), mode="r") as container:
        streams = container.streams
        if not streams.video:
            return Facts(note="not decodable: no video stream")
        video = streams.video[0]
        duration_seconds = container.duration / av.time_base if container.duration else None
        return Facts(
            width=video.width,
            height=video.height,
            duration_seconds=duration_seconds,
            has_audio=bool(streams.audio),
        )


def dominant_colour(pixels: bytes) -> str:
    """The name of the shade that most pixels (RGB triples) are nearest to."""
    triples = zip(pixels[0::3], pixels[1::3], pixels[2::3], strict=True)
    return Counter(_nearest_shade(*triple) for triple in triples).most_common(1)[0][0]


def _nearest_shade(red: int, green: int, blue: int) -> str:
    def distance(name: str) -> int:
        shade = SHADES[name]
        return (shade[0] - red) ** 2 + (shade[1] - green) ** 2 + (shade[2] - blue) ** 2

    return min(SHADES, key=distance)
