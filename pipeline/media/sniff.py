"""What a file is by its first bytes, under the API's own MIME names.

Types that the API does not take are named too (``image/gif``), so that the failure can say what the file is.
Choices where one name would not do: an MPEG program stream is ``video/mpeg`` and a bare MPEG-1/2 video stream
``video/mpg``; a HEIF whose major brand is generic (``mif1``) is ``image/heif`` and one of HEVC images ``image/heic``.
"""

import re
from typing import Final

from pipeline.limits import IMAGE_TYPES, VIDEO_TYPES

HEAD_BYTES: Final = 4096
"""How much of a file's start ``sniff`` wants to see."""

ACCEPTED_TYPES: Final = IMAGE_TYPES | VIDEO_TYPES

_IMAGE_SUFFIXES: Final = (
    "png jpg jpeg jpe jfif webp heic heif hif gif bmp dib tif tiff avif svg ico cur psd jxl jp2 jpx j2k"
    " dng cr2 cr3 nef arw orf rw2 raf exr hdr qoi dds xcf icns"
)
_VIDEO_SUFFIXES: Final = (
    "mp4 m4v mpeg mpg mpe m1v m2v mov qt avi flv webm wmv asf 3gp 3gpp 3g2 mkv mts m2ts vob ogv rm rmvb mxf ivf y4m"
)
MEDIA_SUFFIXES: Final = frozenset("." + suffix for suffix in f"{_IMAGE_SUFFIXES} {_VIDEO_SUFFIXES}".split())
"""Suffixes that claim to be an image or a video. ``.ts`` is left out: it is far more often TypeScript."""

_PREFIXES: Final = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"FLV\x01", "video/x-flv"),
    (b"\x00\x00\x01\xba", "video/mpeg"),
    (b"\x00\x00\x01\xb3", "video/mpg"),
    # not taken by the API
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\x00", "image/tiff"),
    (b"MM\x00*", "image/tiff"),
    (b"II+\x00", "image/tiff"),
    (b"MM\x00+", "image/tiff"),
    (b"IIRO", "image/x-olympus-orf"),
    (b"IIU\x00", "image/x-panasonic-rw2"),
    (b"FUJIFILMCCD-RAW", "image/x-fuji-raf"),
    (b"8BPS", "image/vnd.adobe.photoshop"),
    (b"\x00\x00\x00\x0cjP  ", "image/jp2"),
    (b"\xff\x4f\xff\x51", "image/jp2"),
    (b"\x00\x00\x00\x0cJXL ", "image/jxl"),
    (b"\xff\x0a", "image/jxl"),
    (b"v/1\x01", "image/x-exr"),
    (b"#?RADIANCE", "image/vnd.radiance"),
    (b"qoif", "image/qoi"),
    (b"DDS |", "image/vnd.ms-dds"),
    (b"gimp xcf", "image/x-xcf"),
    (b"icns", "image/icns"),
    (b".RMF\x00", "video/vnd.rn-realvideo"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "application/mxf"),
    (b"DKIF", "video/x-ivf"),
    (b"YUV4MPEG2 ", "video/x-yuv4mpeg"),
)

_HEIC_BRANDS: Final = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"})
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_AUDIO_BRANDS: Final = frozenset({b"M4A ", b"M4B ", b"M4P ", b"F4A ", b"F4B "})
_QUICKTIME_ATOMS: Final = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"})
_BMP_HEADER_SIZES: Final = frozenset({12, 40, 52, 56, 64, 108, 124})

_ASF: Final = bytes.fromhex("3026b2758e66cf11")
_ASF_AUDIO: Final = bytes.fromhex("409e69f84d5bcf11a8fd00805f5c442b")
_ASF_VIDEO: Final = bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")

_SVG: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!--|<!DOCTYPE svg|<svg)", re.IGNORECASE)

_INTERCHANGEABLE: Final = (
    frozenset({"video/mpeg", "video/mpg"}),
    frozenset({"image/heic", "image/heif"}),
    frozenset({"video/mp4", "video/mov", "video/3gpp"}),
)


def sniff(head: bytes) -> str | None:
    """The MIME type of a file that starts with ``head``; None where it is neither image nor video."""
    for prefix, mime_type in _PREFIXES:
        if head.startswith(prefix):
            return mime_type
    if head[4:8] == b"ftyp":
        return _iso_base_media(head)
    return _container(head) or _loosely_marked(head)


def may_stand_for(declared: str, sniffed: str) -> bool:
    """Whether a manifest may call bytes that look like ``sniffed`` by the name ``declared``."""
    return declared == sniffed or any({declared, sniffed} <= names for names in _INTERCHANGEABLE)


def _iso_base_media(head: bytes) -> str | None:
    """By the brands of an ISO base media file: MP4 and its kin."""
    box_bytes = int.from_bytes(head[:4], "big")
    major = head[8:12]
    brands = {major} | {head[at : at + 4] for at in range(16, min(box_bytes, len(head), 512) - 3, 4)}
    if major in _HEIC_BRANDS:
        return "image/heic"
    if major in _AVIF_BRANDS or (major in {b"mif1", b"msf1"} and brands & _AVIF_BRANDS):
        return "image/avif"
    if major in {b"mif1", b"msf1"}:
        return "image/heif"
    if major == b"qt  ":
        return "video/mov"
    if major == b"crx ":
        return "image/x-canon-cr3"
    if major[:3] == b"3g2":
        return "video/3gpp2"
    if major[:2] == b"3g":
        return "video/3gpp"
    return None if major in _AUDIO_BRANDS else "video/mp4"


def _container(head: bytes) -> str | None:
    """By the inner type of containers that hold more than one kind of thing."""
    if head[:4] == b"RIFF":
        return {b"WEBP": "image/webp", b"AVI ": "video/avi"}.get(head[8:12])
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _matroska(head)
    if head[:8] == _ASF:
        return None if _ASF_AUDIO in head and _ASF_VIDEO not in head else "video/wmv"
    if head[:4] == b"OggS":
        return "video/ogg" if b"\x80theora" in head[:512] else None
    if head[4:8] in _QUICKTIME_ATOMS and head[0] < 8:  # text such as "The free ..." has a letter there
        return "video/mov"
    return None


def _matroska(head: bytes) -> str:
    """WebM or Matroska, by the EBML DocType."""
    at = head.find(b"\x42\x82")
    return "video/webm" if at >= 0 and head[at + 3 : at + 7] == b"webm" else "video/x-matroska"


def _loosely_marked(head: bytes) -> str | None:
    """By marks so short that more of the header has to agree."""
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES:
        return "image/bmp"
    if head[:4] in {b"\x00\x00\x01\x00", b"\x00\x00\x02\x00"} and head[4:6] != b"\x00\x00" and head[9:10] == b"\x00":
        return "image/x-icon"
    if head[0:1] == head[188:189] == head[376:377] == b"G" or head[4:5] == head[196:197] == head[388:389] == b"G":
        return "video/mp2t"
    if _SVG.match(head) and b"<svg" in head.lower():
        return "image/svg+xml"
    return None
