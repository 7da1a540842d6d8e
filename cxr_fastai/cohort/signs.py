"""What a file is, told by its first bytes, and whether it is whole: names and suffixes are no evidence. No torch."""
import os, struct
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

__all__ = ["HEADER", "MAX_PIXELS", "RadiographError", "check_pixels", "is_cut", "kind_of", "kind_of_file",
           "png_chunks", "told"]

MAX_PIXELS = 100_000_000 # the largest detectors give 20 million; what claims more than this is never decoded
HEAD = 132               # bytes that tell it
SIGNS = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"II+\0": "TIFF",
         b"MM\0+": "TIFF"}

HEADER = "has a header that lacks or contradicts something ({}); have it exported again"

class RadiographError(ValueError): "A file that is no readable radiograph; the message names it, why, and what to do."

def check_pixels(
    n:int,      # pixels that a header claims
    cost:int=4, # bytes a pixel that decoding takes at its peak
):
    "RadiographError where decoding would take more memory than 4 bytes for each of `MAX_PIXELS`."
    if n * cost <= 4 * MAX_PIXELS: return
    kind = "" if cost <= 4 else " of its kind"
    raise RadiographError(f"claims {n/1e6:,.0f} million pixels, more than the {4*MAX_PIXELS/cost/1e6:.0f} million a "
                          f"radiograph{kind} can have; leave it out or export it smaller")

def told(
    error:Exception, # of a parser
) -> str:
    "What an error says, on one line."
    return f"{type(error).__name__}: {' '.join(str(error).split())}"

def _is_bare_dicom(head):
    "A data set without the preamble, as old archives hold it: it begins with group 8, in order."
    if len(head) < HEAD or head[:2] != b"\x08\0" or int.from_bytes(head[2:4], "little") > 0x70: return False
    return head[4:6].isalpha() and head[4:6].isupper() or int.from_bytes(head[4:8], "little") < 256

def kind_of(
    head:bytes, # the first `HEAD` bytes
) -> str:       # 'PNG', 'JPEG', 'TIFF', 'DICOM' or ''
    "What begins like this. DICOM comes first: its preamble may be a TIFF's header."
    if head[128:HEAD] == b"DICM": return "DICOM"
    return next((o for sign, o in SIGNS.items() if head.startswith(sign)), "DICOM" if _is_bare_dicom(head) else "")

def kind_of_file(
    file:str|Path, # a path
) -> str:          # as `kind_of`; '' too for what can't be opened
    "What a file is."
    try:
        if not os.path.isfile(file): return "" # a pipe would wait for ever
        with open(file, "rb") as f: return kind_of(f.read(HEAD))
    except (OSError, ValueError): return "" # ValueError: a name of signs that no name has

# Whole, or cut

def png_chunks(
    f:BinaryIO, # a PNG, open
):
    "Yield (name, data) of each chunk before the pixels, then of the pixels' chunks and those after; EOFError if cut."
    f.seek(8)
    while True:
        size, name = struct.unpack(">I4s", _exactly(f, 8))
        if size > os.fstat(f.fileno()).st_size: raise EOFError("a chunk goes beyond the end of the file")
        data = _exactly(f, size)
        if struct.unpack(">I", _exactly(f, 4))[0] != crc32(data, crc32(name)): raise EOFError("a checksum is wrong")
        yield name, data
        if name == b"IEND": return

def _exactly(f, n):
    if len(data := f.read(n)) < n: raise EOFError("the file ends too early")
    return data

def _whole_png(f): return all(True for _ in png_chunks(f))

def _whole_jpeg(f):
    f.seek(max(0, os.fstat(f.fileno()).st_size - 1024))
    return b"\xff\xd9" in f.read() # the end of the image; some writers add a little

def _whole_tiff(f):
    "Whether its first directory and what that points to lie within the file."
    f.seek(0)
    end, size = "<" if _exactly(f, 4)[:2] == b"II" else ">", os.fstat(f.fileno()).st_size
    f.seek(2)
    if struct.unpack(f"{end}H", _exactly(f, 2))[0] == 43: return True # BigTIFF's: not looked at
    f.seek(struct.unpack(f"{end}I", _exactly(f, 4))[0])
    entries = [struct.unpack(f"{end}HHII", _exactly(f, 12)) for _ in range(struct.unpack(f"{end}H", _exactly(f, 2))[0])]
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
    if any(n*sizes.get(kind, 1) > 4 and at + n*sizes.get(kind, 1) > size for _, kind, n, at in entries): return False
    values = {tag: list(_values(f, end, *rest)) for tag, *rest in entries if tag in (273, 279, 324, 325)}
    starts, counts = (values.get(a) or values.get(b) or [] for a, b in ((273, 324), (279, 325)))
    return all(a + n <= size for a, n in zip(starts, counts))

def _values(f, end, kind, n, at):
    form, n = {3: "H", 4: "I"}.get(kind, "I"), min(n, 100_000)
    if n * struct.calcsize(form) <= 4: data = struct.pack(f"{end}I", at)
    else:
        f.seek(at)
        data = _exactly(f, n * struct.calcsize(form))
    return struct.unpack_from(f"{end}{n}{form}", data)

WHOLE = dict(PNG=_whole_png, JPEG=_whole_jpeg, TIFF=_whole_tiff)

def is_cut(
    f:BinaryIO, # open
    kind:str,   # of `kind_of`: PNG, JPEG or TIFF
) -> bool:
    "Whether a file ends before it says it does, or a checksum in it is wrong; False where its format can't tell."
    try: return not WHOLE[kind](f)
    except EOFError: return True
    except Exception: return False # a header of nonsense
