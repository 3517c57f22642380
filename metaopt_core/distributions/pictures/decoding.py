"""From the bytes of pictures to one memory-mapped array of equal squares, decoded in parallel, once.

What can't be decoded, or is too small or too large to be what it says, is left out and named; nothing is decoded that would take
more memory than a photograph.
"""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import BoundedSemaphore

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from metaopt_core import progress
from metaopt_core.distributions.pictures.settings import PicturesSettings
from metaopt_core.distributions.pictures.sources import LARGEST, Source
from metaopt_core.distributions.splits import shown
from metaopt_core.errors import UserError

_MOST_PIXELS = 80_000_000  # of a picture, as large cameras take it; Pillow warns of more
_WAITING = 64  # pictures that are read and not decoded yet

Pixels = npt.NDArray[np.uint8]


def decode_all(spec: PicturesSettings, source: Source, names: Sequence[str], file: Path) -> dict[str, str]:
    """Decode pictures into `file` (.npy, uint8 [pictures, channels, size, size]), in the order of their names.

    Returns why pictures were left out, by their names; their places in the array stay empty. Raises UserError where more are left
    out than the spec lets pass.
    """
    shape = len(names), 3 if spec.channels == "rgb" else 1, spec.size, spec.size
    pixels: Pixels = np.lib.format.open_memmap(file, "w+", np.uint8, shape)
    row = {name: index for index, name in enumerate(names)}
    bad: dict[str, str] = {}
    waiting = BoundedSemaphore(_WAITING)

    def decode(name: str, data: bytes) -> None:
        try:
            pixels[row[name]] = decoded(spec, data)
        except Exception as error:  # Pillow raises many kinds
            bad[name] = _told(error)
        finally:
            waiting.release()

    # Threads, because Pillow lets go of the interpreter's lock where the time is spent.
    with ThreadPoolExecutor(os.cpu_count()) as pool, progress.bar(len(names), "reading pictures") as bar:
        for done, (name, data) in enumerate(source.read(names), 1):
            bar.update(done)
            if isinstance(data, Exception):
                bad[name] = _told(data)
            elif len(data) > LARGEST:
                bad[name] = f"it has more than {LARGEST:,} bytes"
            else:
                waiting.acquire()
                pool.submit(decode, name, data)
    pixels.flush()  # type: ignore[attr-defined]
    if len(bad) > spec.bad_share * len(names):
        told = shown([f"{name}: {why}" for name, why in sorted(bad.items())])
        raise UserError(
            f"generate.bad_share: {len(bad)} of the {len(names)} pictures of {source.place} can't be used ({told}): expected at "
            f"most {spec.bad_share:.3g} of them; replace or remove them, or allow a larger share"
        )
    return dict(sorted(bad.items()))


def decoded(spec: PicturesSettings, data: bytes) -> Pixels:
    """A picture as the square in its middle, [channels, size, size], upright, on white where it is transparent.

    Raises what Pillow raises, and ValueError for a size that can't be.
    """
    with Image.open(io.BytesIO(data)) as picture:
        width, height = picture.size
        if width * height > _MOST_PIXELS:
            raise ValueError(f"{width}×{height} pixels could be a decompression bomb: expected at most {_MOST_PIXELS:,}")
        if min(width, height) < spec.smallest:
            raise ValueError(f"{width}×{height} pixels: expected at least {spec.smallest} a side")
        if picture.format == "JPEG":
            picture.draft("RGB", (2 * spec.size, 2 * spec.size))  # decodes a photograph in a fraction of its size
        upright = ImageOps.exif_transpose(picture)
    mode = "RGB" if spec.channels == "rgb" else "L"
    if upright.mode.startswith("I;16"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise ValueError(f"pixels of {upright.mode}: expected 8 or 16 bits each")
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    square = min(upright.size)
    left, top = ((side - square) // 2 for side in upright.size)
    box = (left, top, left + square, top + square)
    made = upright.convert(mode).resize((spec.size, spec.size), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    pixels: Pixels = np.asarray(made).reshape(spec.size, spec.size, -1).transpose(2, 0, 1)
    return 255 - pixels if spec.invert else pixels


def _told(error: Exception) -> str:
    """An error in a few words, without the address of what was in memory."""
    if isinstance(error, UnidentifiedImageError):
        return "no picture that Pillow can read"
    return (str(error).splitlines() or [""])[0] or type(error).__name__
