"""Files that call themselves pictures, and take the time, the memory or the files of whoever opens them."""

import io
import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

ENDLESS_PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{ } loop\n"


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A black PNG of one bit for a pixel, with more chunks before its pixels."""
    compressor = zlib.compressobj(9)
    left, packed = height * (1 + (width + 7) // 8), []
    while left:
        size = min(left, 2**20)
        packed.append(compressor.compress(bytes(size)))
        left -= size
    pixels = b"".join(packed) + compressor.flush()
    header = struct.pack(">2I5B", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in ((b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b""))
    )


def tiff(entries: list[tuple[int, int, int, int]], rest: bytes = b"") -> bytes:
    """A TIFF of (tag, type, number of values, value), and what stands behind its tags at `tiff_end(len(entries))`."""
    tags = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + tags + bytes(4) + rest


def tiff_end(number: int) -> int:
    return 14 + 12 * number


GREY = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]  # 16 x 16 of 8 bits


def tiff_of_a_tile(side: int) -> bytes:
    """16 x 16 pixels, in a tile that is decoded whole."""
    tile = zlib.compress(bytes(side * side), 1)
    of_tile = [(322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, tiff_end(10)), (325, 4, 1, len(tile))]
    return tiff(sorted([*GREY, (259, 3, 1, 8), *of_tile]), tile)


def tiff_of_the_same_bytes(number: int, size: int) -> bytes:
    """Tags that each have the same bytes, so that they take `number` times as many in memory."""
    tags = [(1000 + index, 7, size, tiff_end(number + 5)) for index in range(number)]
    return tiff([*GREY, *tags], bytes(size))


def tiff_of_strips(number: int) -> bytes:
    """A strip is a Python object of 300 bytes, and a byte in the file."""
    return tiff(sorted([*GREY, (259, 3, 1, 1), (273, 1, number, tiff_end(7))]), bytes(number))


def gif_of_comments(size: int) -> bytes:
    """Each 255 bytes are added to a copy of all before."""
    head = b"GIF89a" + struct.pack("<2H", 8, 8) + b"\0\0\0"
    return head + b"!\xfe" + (b"\xff" + b"c" * 255) * (size // 256) + b"\0;"


def gif_of_a_canvas(side: int) -> bytes:
    content = io.BytesIO()
    Image.new("P", (8, 8)).save(content, "GIF")
    return content.getvalue()[:6] + struct.pack("<2H", side, side) + content.getvalue()[10:]


def webp_of_a_canvas(side: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")])
    content = bytearray(content.getvalue())
    place = content.index(b"VP8X") + 12  # the canvas stands behind size and flags
    content[place : place + 6] = (side - 1).to_bytes(3, "little") * 2
    return bytes(content)


def jpeg_of_scans(side: int, number: int) -> bytes:
    """Progressive, and every scan takes the time of all pixels."""
    content = io.BytesIO()
    Image.new("L", (side, side)).save(content, "JPEG", progressive=True)
    content = content.getvalue()[:-2]
    return content + content[content.rindex(b"\xff\xda") :] * number + b"\xff\xd9"


def jpeg_of_exif(exif: bytes) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), "orange").save(content, "JPEG", exif=b"Exif\0\0" + exif)
    return content.getvalue()


def exif(*entries: tuple[int, int, int, int], rest: bytes = b"") -> bytes:
    return tiff(list(entries), rest)


def hostile_contents() -> Iterator[tuple[str, bytes]]:
    """A name and content each; no prediction of any is expected."""
    yield "pixels.png", png(13_000, 13_000)
    yield "high.png", png(1, 100_000_000)
    yield "wide.png", png(100_000, 1)
    yield "program.jpg", ENDLESS_PROGRAM
    yield (
        "program.png",
        b"\xc5\xd0\xd3\xc6" + struct.pack("<6I", 30, len(ENDLESS_PROGRAM), 0, 0, 0, 0) + b"\xff\xff" + ENDLESS_PROGRAM,
    )
    yield "document.jpg", b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n"
    yield "text.png", png(8, 8, *[(b"zTXt", b"a%d\0\0" % i + zlib.compress(bytes(10**6))) for i in range(80)])
    yield "profile.png", png(8, 8, (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**8))))
    yield "chunks.png", png(8, 8, *[(b"prVt", b"")] * 100_000)
    yield "canvas.gif", gif_of_a_canvas(65_535)
    yield "comments.gif", gif_of_comments(2**23)
    yield "canvas.webp", webp_of_a_canvas(16_383)
    yield "tile.tif", tiff_of_a_tile(6_000)
    yield "tags.tif", tiff_of_the_same_bytes(20_000, 500_000)
    yield "strips.tif", tiff_of_strips(8_000_000)
    yield "scans.jpg", jpeg_of_scans(4000, 3000)
    yield "parts.jpg", b"\xff\xd8" + (b"\xff\xe1" + struct.pack(">H", 65_002) + b"Exif\0\0" + bytes(64_994)) * 400
    yield "empty.jpg", b""
    yield "text.jpg", b"no picture\n" * 100
    yield "cut.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)
    good = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(good, "PNG")
    yield "cut.png", good.getvalue()[: len(good.getvalue()) // 2]


def write_hostile_files(folder: Path) -> list[Path]:
    """Write all, and what is no regular file; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in hostile_contents():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "pipe.jpg")
    for name, target in (("zero.jpg", "/dev/zero"), ("dangling.png", "nowhere.png"), ("loop.png", "loop.png")):
        (folder / name).symlink_to(target)
    (folder / "folder.jpg").mkdir()
    before = Path.cwd()
    os.chdir(folder)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("socket.jpg")
    finally:
        os.chdir(before)
    return sorted(folder.iterdir())
