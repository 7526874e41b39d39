"""The bytes of image files: what their first picture does not need, and what else they hold."""

import contextlib
import io
import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from PIL import TiffImagePlugin

FURTHER = "{} file(s) hold further pages or frames, which are not used"
UNKNOWN_PIXELS = "unknown pixel mode"  # Pillow's message
_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"")
_JPEG, _EXIF = b"\xff\xd8\xff", b"Exif\0\0"
_JPEG_NEEDED = {0xE0: (b"JFIF\0", 14), 0xEE: (b"Adobe", 12)}  # by marker: begin, fewest bytes
_ORIENTATION = 274
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
_SUBFILE = 254
_TIFF_PIXELS = frozenset(
    {*range(256, 260), 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, *range(322, 326)}
    | {*range(332, 335), 338, 339, 347, *range(512, 522), *range(529, 533)}
)
_MOST_DIRECTORIES = 1000
_OTHERS = {
    "GIF": (b"GIF87a", b"GIF89a"),
    "JPEG 2000": (b"\0\0\0\x0cjP  \r\n", b"\xff\x4f\xff\x51"),
    "JPEG XL": (b"\0\0\0\x0cJXL \r\n", b"\xff\x0a"),
    "Photoshop": (b"8BPS",),
    "OpenEXR": (b"v/1\x01",),
    "PDF": (b"%PDF",),
}


def lean(content: bytes) -> bytes:
    """Returns a PNG, JPEG or TIFF file without metadata and without further frames.

    What defines size, colours and storage of the first picture stays, but not its orientation.
    Another or a damaged file is returned as far as possible.
    """
    with contextlib.suppress(struct.error, IndexError):
        if content.startswith(_PNG):
            kept = [chunk for kind, chunk in _chunks(content) if kind in _PNG_PIXELS]
            return b"".join([_PNG, *kept])
        if content.startswith(_JPEG):
            return _lean_jpeg(content)
        for directory in _directories(content, most=1):
            return _lean_tiff(content, directory)
    return content


def orientation(content: bytes) -> int:
    """Reads the EXIF orientation of a file, else the one in its XMP: 1 to 8.

    It is 1, upright, if there is none or it cannot be read.
    """
    found: list[int] = []
    with contextlib.suppress(struct.error, IndexError, ValueError, zlib.error):
        for is_exif, block in _metadata(content):
            with contextlib.suppress(struct.error):
                if match := None if is_exif else _XMP_ORIENTATION.search(block):
                    found.append(int(match[1]))
                for directory in _directories(block, most=1) if is_exif else ():
                    found.insert(0, directory.value(_ORIENTATION))
    return next((number for number in found if 1 <= number <= 8), 1)


def further_frames(content: bytes) -> int:
    """Counts the pictures of a file after its first: pages of a TIFF, frames of an animation.

    Smaller copies and transparency masks of a page do not count.
    """
    with contextlib.suppress(struct.error):
        if content.startswith(_PNG):
            return _further_png(content)
        if content[:4] == b"RIFF":
            return max(sum(kind == b"ANMF" for kind, _ in _riff(content)) - 1, 0)
        pages = list(_directories(content, _MOST_DIRECTORIES))
        return sum(not page.value(_SUBFILE) & 5 for page in pages[1:])
    return 0


def not_whole(content: bytes, cause: Exception) -> str:
    """Says why a file has no picture that can be decoded, and what to do; `cause` is Pillow's."""
    if not content:
        return "is empty; replace or remove it"
    kinds = [kind for kind, starts in _OTHERS.items() if content.startswith(starts)]
    kinds += ["HEIF or AVIF"] if content[4:8] == b"ftyp" else []
    kinds += _unknown_tiff(content, cause)
    if kinds:
        return f"is a {kinds[0]} file, which is not supported; convert it to PNG"
    return "is not a whole image file; replace or remove it"


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yields the kind and the bytes of each PNG chunk, and last what is too short to be one."""
    at, kind = len(_PNG), b""
    while at + 12 <= len(content) and kind != b"IEND":
        (length,) = struct.unpack_from(">I", content, at)
        kind = content[at + 4 : at + 8]
        yield kind, content[at : at + 12 + length]
        at += 12 + length
    if kind != b"IEND":
        yield b"", content[at:]


def _further_png(content: bytes) -> int:
    frames = first = 0
    for kind, chunk in _chunks(content):
        if kind == b"acTL":
            (frames,) = struct.unpack_from(">I", chunk, 8)
        elif kind == b"fcTL":
            first = 1
        elif kind == b"IDAT":
            break
    return max(frames - first, 0)


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields the marker and the bytes of each JPEG segment, and last all from the pixels on."""
    at = 2
    while content[at] == 0xFF and 0xC0 <= content[at + 1] <= 0xFE:
        marker = content[at + 1]
        if 0xD0 <= marker <= 0xDA:  # the pixels begin
            break
        (length,) = struct.unpack_from(">H", content, at + 2)
        yield marker, content[at : at + 2 + length]
        at += 2 + length
    yield 0, content[at:]


def _lean_jpeg(content: bytes) -> bytes:
    parts = [content[:2]]
    for marker, segment in _segments(content):
        begin, fewest = _JPEG_NEEDED.get(marker, (b"", 0))
        whole = segment[4:].startswith(begin) and len(segment) >= 4 + fewest
        if whole and (marker < 0xE0 or marker in _JPEG_NEEDED):
            parts.append(segment)
    return b"".join(parts)


def _riff(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while at + 8 <= len(content):
        (length,) = struct.unpack_from("<I", content, at + 4)
        yield content[at : at + 4], content[at + 8 : at + 8 + length]
        at += 8 + length + length % 2


def _metadata(content: bytes) -> Iterator[tuple[bool, bytes]]:
    """Yields the parts of a file that may hold its orientation, and whether each is EXIF or XMP."""
    if content.startswith(_PNG):
        for kind, chunk in _chunks(content):
            name, _, text = chunk[8:-4].partition(b"\0")
            if kind == b"eXIf":
                yield True, chunk[8:-4]
            elif name == b"Raw profile type exif":  # as ImageMagick writes it
                if kind == b"zTXt":
                    text = zlib.decompressobj().decompress(text[1:], 1 << 20)
                lines = b"".join(text.split(b"\n")[3:]).decode("ascii", "replace")
                yield True, bytes.fromhex(lines).removeprefix(_EXIF)
            elif name == b"XML:com.adobe.xmp":
                yield False, text
    elif content.startswith(_JPEG):
        for marker, segment in _segments(content):
            if marker == 0xE1:
                yield segment[4:].startswith(_EXIF), segment[4:].removeprefix(_EXIF)
    elif content[:4] == b"RIFF":
        for kind, chunk in _riff(content):
            if kind in (b"EXIF", b"XMP "):
                yield kind == b"EXIF", chunk.removeprefix(_EXIF)
    else:
        yield True, content


class _Directory(NamedTuple):
    """A directory of a TIFF file: its place and its entries, each with its tag."""

    at: int
    entries: list[tuple[int, bytes]]
    counter: str  # formats of the number of entries and of the place of the next directory
    pointer: str

    def value(self, tag: int) -> int:
        """Returns the value of an entry that holds one whole number; 0 if there is none."""
        for own, entry in self.entries:
            if own == tag:
                order = self.pointer[0]
                form = "H" if struct.unpack_from(f"{order}H", entry, 2) == (3,) else "I"
                place = len(entry) - struct.calcsize(self.pointer)
                return int(struct.unpack_from(order + form, entry, place)[0])
        return 0


def _directories(content: bytes, most: int) -> Iterator[_Directory]:
    """Yields at most so many directories of a TIFF file."""
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    version = struct.unpack_from(f"{order}H", content, 2)[0] if order and len(content) > 8 else 0
    if version not in (42, 43):
        return
    counter, pointer = (f"{order}Q", f"{order}Q") if version == 43 else (f"{order}H", f"{order}I")
    size, seen = 20 if version == 43 else 12, set[int]()
    (at,) = struct.unpack_from(pointer, content, struct.calcsize(pointer))
    while 0 < at < len(content) and at not in seen and len(seen) < most:
        seen.add(at)
        (count,) = struct.unpack_from(counter, content, at)
        begin = at + struct.calcsize(counter)
        end = begin + min(count, len(content)) * size
        (following,) = struct.unpack_from(pointer, content, end)
        entries = [content[place : place + size] for place in range(begin, end, size)]
        tags = [(struct.unpack_from(f"{order}H", entry)[0], entry) for entry in entries]
        yield _Directory(at, tags, counter, pointer)
        at = following


def _lean_tiff(content: bytes, directory: _Directory) -> bytes:
    kept = [entry for tag, entry in directory.entries if tag in _TIFF_PIXELS]
    count, end = struct.pack(directory.counter, len(kept)), struct.pack(directory.pointer, 0)
    new = b"".join([count, *kept, end])
    return content[: directory.at] + new + content[directory.at + len(new) :]


def _unknown_tiff(content: bytes, cause: Exception) -> list[str]:
    """Describes the pixels of a TIFF file if Pillow cannot decode such pixels."""
    if content.startswith(b"MM\0+"):
        return ["big-endian BigTIFF"]
    file = io.BytesIO(lean(content))
    try:
        TiffImagePlugin.TiffImageFile(file)
    except SyntaxError as error:
        cause = error
    except Exception:  # damage, which has a sentence of its own
        return []
    if str(cause) != UNKNOWN_PIXELS:
        return []
    tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if content[2] == 43 else 8])
    file.seek(tags.next)
    tags.load(file)
    bits, form = tags.get(258, (1,)), tags.get(339, (1,))[0]
    kind = {2: "signed ", 3: "float "}.get(form, "")
    planes = " in planes" if tags.get(284) == 2 else ""
    samples = f"{tags.get(277, 1)} x {bits[0]}-bit {kind}samples{planes}"
    return [f"TIFF (photometric {tags.get(262)}, {samples})"]
