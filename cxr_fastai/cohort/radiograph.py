"""One reader for PNG, JPEG, TIFF and DICOM: any radiograph becomes one 8-bit gray channel, or is refused by name.

White is the file's own full scale, never the image's brightest pixel, so that two films keep their relative exposure:
255; 2**BitsPerSample-1 for TIFFs of other depths; what `dicom` says. A file of 16 bits may hold 10 or 12, and say so
by PNG's sBIT; where it doesn't, white is that of the set it belongs to (`cache`), or the least of 8, 10, 12, 14 and 16
bits that hold its greatest value. The paper's inputs are whole films squashed to 256x256."""
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from PIL import Image, ImageChops, ImageOps

from .dicom import read_dicom
from .signs import check_pixels, HEADER, is_cut, kind_of, MAX_PIXELS, png_chunks, RadiographError, told

__all__ = ["READER_VERSION", "THREAD_BYTES", "decode_radiograph", "is_one_gray", "read_radiograph", "white_of"]

READER_VERSION = 2            # goes up whenever the same file would give other pixels (or another perceptual hash)
THREAD_BYTES = 4 * MAX_PIXELS # that decoding takes at most
BAND = 2**20                  # pixels that are worked on at a time
DEPTHS = 8, 10, 12, 14, 16    # bits of detectors
PAGES = 100                   # of a TIFF that are looked at

def _bands(im):
    "Boxes of whole rows."
    step = max(1, BAND // im.width)
    return ((0, i, im.width, min(i + step, im.height)) for i in range(0, im.height, step))

# 16 bits

def _significant(f):
    "What a PNG's sBIT says of its first channel; None where it says nothing."
    for name, data in png_chunks(f):
        if name == b"sBIT" and data: return data[0]
        if name == b"IDAT": return

def _declared(im, f, stored):
    "Bits whose greatest value is white by the file's own word; 0 where it says nothing. `stored`: all its values."
    if im.format == "TIFF": return 0 if (bits := im.tag_v2.get(258, (16,))[0]) == 16 else bits # 258: BitsPerSample
    bits = _significant(f)
    if not bits or bits >= 16: return bits and 16
    if stored[-1] >= 2**bits: return 16 # as the standard wants it, scaled up to all 16 bits
    return bits if (stored % 2**(16 - bits)).any() else 16 # dark, and scaled

def _own_bits(top): return next(o for o in DEPTHS if top < 2**o)

def _deep_gray(im, f, white):
    "Gray deeper than 8 bits to 8, and the bits that were taken for white where the file doesn't declare it; else 0."
    if im.mode == "F" or im.mode == "I" and im.format != "PNG":
        raise RadiographError("holds float, signed or 32-bit values, which have no white; save it with 8 or 16 bits")
    clear, there = im.info.get("transparency"), np.zeros(2**16, bool)
    for o in _bands(im): there[np.asarray(im.crop(o))] = True
    if isinstance(clear, int): there[clear] = False
    if not there.any(): raise RadiographError("is transparent throughout; leave it out")
    stored = np.flatnonzero(there)
    declared = _declared(im, f, stored)
    taken = 0 if declared else white or _own_bits(stored[-1])
    if taken and stored[-1] >= 2**taken:
        raise RadiographError(f"holds values up to {stored[-1]:,}, where white is {2**taken-1:,}, as for the films it "
                              "is to be like; save it with the PNG's sBIT, or with 8 bits")
    gray = (np.arange(2**16) / (2**(declared or taken) - 1) * 255).clip(0, 255)
    if getattr(im, "tag_v2", {}).get(262) == 0: gray = 255 - gray # 0 is white; Pillow turns only 8 bits over
    if isinstance(clear, int): gray[clear] = 0
    gray, out = np.rint(gray).astype(np.uint8), Image.new("L", im.size)
    for o in _bands(im): out.paste(Image.fromarray(gray[np.asarray(im.crop(o))]), o)
    return out, taken

# 8 bits

def _over_black(im):
    gray, alpha = im.convert("RGBA").convert("LA").split()
    return ImageChops.multiply(gray, alpha), alpha.getextrema()[1]

def _shallow_gray(im, deep):
    "Luminance; what is transparent lies over black. `deep`: colours of 16 bits, of which Pillow keeps the upper 8."
    clear = im.has_transparency_data
    if im.mode == "L" and not clear: return im
    def drawn(part): return _over_black(part) if clear else (part.convert("L"), 255)
    if len(boxes := list(_bands(im))) == 1: out, seen = drawn(im) # a film of usual size
    else:
        out, seen = Image.new("L", im.size), 0
        for o in boxes:
            gray, alpha = drawn(im.crop(o))
            out.paste(gray, o)
            seen = max(seen, alpha)
    if not seen: raise RadiographError("is transparent throughout; leave it out")
    if deep and out.getextrema()[1] < 64:
        raise RadiographError("has 16-bit colours that stay below a quarter of white; save it as gray")
    return out

# Pages

def _is_full(im): return not im.tag_v2.get(254, 0) & 5 and im.tag_v2.get(255) != 2 # neither thumbnail nor mask

def _choose_page(im):
    "The one page that is no thumbnail; RadiographError where there is another number of them."
    if im.format != "TIFF":
        n = getattr(im, "n_frames", 1)
    else:
        full = []
        for i in range(PAGES):
            try: im.seek(i)
            except EOFError: break
            if _is_full(im): full.append(i)
        if len(full) == 1: return im.seek(full[0])
        n = len(full)
        if not n: raise RadiographError("holds thumbnails alone; export the radiograph itself")
    if n > 1: raise RadiographError(f"has {n} pages or frames; export the one radiograph wanted as a file of its own")

def _is_deep(im, head):
    "Whether a file's samples have more than 8 bits: by a PNG's IHDR, a TIFF's BitsPerSample."
    if im.format == "PNG": return head[24] == 16
    return im.format == "TIFF" and max(im.tag_v2.get(258, (8,))) > 8

def _check_memory(im, deep):
    """By what Pillow and its decoders keep of a pixel: 4 bytes of any colour, a strip, a progressive JPEG's
    coefficients."""
    cost = 4 if im.mode in ("1", "L", "P") or im.mode[0] == "I" else 8 + 4*deep + 4*("progression" in im.info)
    tile = getattr(im, "tag_v2", {})
    check_pixels(max(im.width * im.height, tile.get(322, 0) * tile.get(323, 0)), cost) # 322, 323: a tile's sides

def _read_image(f, kind, head, size, white):
    "From an open file, not its name: Pillow maps a named TIFF into memory, and garbles it where it has to be turned."
    try: im = Image.open(f, formats=(kind,))
    except Image.UnidentifiedImageError as e:
        if is_cut(f, kind): raise EOFError("its header is not whole") from e
        raise RadiographError(HEADER.format(f"it is no {kind} that can be read here")) from e
    with im:
        _choose_page(im)
        deep = im.mode[0] not in "IF" and _is_deep(im, head)
        _check_memory(im, deep)
        if size and im.format == "JPEG": im.draft("L", (2*size, 2*size)) # at 1/2 to 1/8; Lanczos does the rest
        im.load()
        gray, taken = _deep_gray(im, f, white) if im.mode[0] in "IF" else (_shallow_gray(im, deep), 0)
        orientation = im.getexif().get(274, 1)
    if orientation == 1: return gray, taken
    gray.getexif()[274] = orientation # the tag does not survive every conversion above
    return ImageOps.exif_transpose(gray), taken

# Any

def _is_damage(e, f, kind):
    "Rather than a header that doesn't fit the pixels, in a file that is whole by its lengths and checksums."
    if isinstance(e, EOFError) or kind in ("JPEG", "DICOM") or is_cut(f, kind): return True
    return kind == "TIFF" and isinstance(e, OSError) and "truncated" not in str(e) # what its decompressors say

def _why(e, f, kind):
    "What was wrong and what to do, from whatever the decoders raised."
    if isinstance(e, RadiographError): return " ".join(str(e).split()) # a header's words may have line breaks
    if isinstance(e, MemoryError): return "needs more memory to decode than there is"
    if f is None:
        lost = isinstance(e, (FileNotFoundError, NotADirectoryError))
        if lost: return "does not exist; check the folder and the name"
        return f"cannot be opened ({getattr(e, 'strerror', None) or told(e)}); check what it is"
    if isinstance(e, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"claims more than the {MAX_PIXELS/1e6:.0f} million pixels a radiograph can have; leave it out"
    if _is_damage(e, f, kind): return f"is truncated or damaged ({told(e)}); copy or download it again"
    return HEADER.format(told(e))

def decode_radiograph(
    file:str|Path,  # as of `read_radiograph`; or one that is open
    size:int=None,  # too
    white:int=None, # too
) -> tuple:         # its uint8 pixels; and the bits that were taken for white, 0 where the file says what white is
    "`read_radiograph`, and what was taken."
    f, kind = None, ""
    try:
        with nullcontext(file) if hasattr(file, "read") else open(file, "rb") as f:
            if not (head := f.read(132)): raise RadiographError("is empty (0 bytes); copy or download it again")
            if not (kind := kind_of(head)):
                raise RadiographError("is no PNG, JPEG, TIFF or DICOM image; leave it out or convert it")
            f.seek(0)
            try:
                if kind == "DICOM": gray, taken = Image.fromarray(read_dicom(f)), 0
                else: gray, taken = _read_image(f, kind, head, size, white)
            except Exception as e: raise RadiographError(_why(e, f, kind)) from e # decoders raise of every kind
        # with this gap Pillow shrinks by whole factors first: 3 times as fast from 1024 to 128 px, and within 4 of 255
        if size: gray = gray.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3)
        return np.array(gray), taken
    except Exception as e:
        name = "The picture" if hasattr(file, "read") else Path(file)
        raise RadiographError(f"{name} {_why(e, f, kind)}") from e

def read_radiograph(
    file:str|Path,  # a PNG, JPEG, TIFF or DICOM file; told by its first bytes, not by its name
    size:int=None,  # side of the square it is squashed to (Lanczos, aspect ratio given up); None keeps its own pixels
    white:int=None, # bits of white in a 16-bit file that doesn't say; None: those that its own values need
) -> np.ndarray:    # uint8 [h,w], or [size,size]; black is 0
    "Read one radiograph to gray; raises `RadiographError`, which names the file, for whatever cannot be read as one."
    return decode_radiograph(file, size, white)[0]

def is_one_gray(
    pixels:np.ndarray, # uint8
) -> bool:
    "Whether there is nothing to see."
    return bool((pixels == pixels.flat[0]).all())

def _may_be_open(file):
    "Whether a file may have 16 bits and not say what white is: a PNG's header is looked at, a TIFF is decoded."
    try:
        with open(file, "rb") as f: head = f.read(132)
    except (OSError, ValueError): return False
    return (kind := kind_of(head)) == "TIFF" or kind == "PNG" and head[24:26] == b"\x10\0"

def white_of(
    files:Iterable, # of a set
) -> int:           # bits; None where each file says itself what white is
    "What white is taken for a set's 16-bit files that don't say: the most that one of them needs."
    bits = 0
    for o in filter(_may_be_open, files):
        try: bits = max(bits, decode_radiograph(o, 1)[1])
        except RadiographError: pass # whoever reads it will be told
    return bits or None
