"""A DICOM film to 8-bit gray: modality LUT or rescale, then the first VOI LUT or window, then MONOCHROME1 turned over
(DICOM PS3.3 C.7.6.3, C.11). Done in bands of rows, for a film in floats would be eight times as large.

White is the end of the window, or of the LUT's declared range; of what its data need where they stay below half of
that. Only a film without either is stretched from its least to its greatest value. Padding is left out, and black."""
import os, struct
from importlib.util import find_spec
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np

from ..core.extras import install_command, need
from .signs import check_pixels, HEADER, RadiographError, told

__all__ = ["read_dicom"]

NEEDED = ("Rows Columns SamplesPerPixel BitsAllocated BitsStored PixelRepresentation "
          "PhotometricInterpretation").split()
TAGS = NEEDED + ("SOPClassUID NumberOfFrames HighBit PixelPaddingValue PixelPaddingRangeLimit RescaleSlope "
                 "RescaleIntercept ModalityLUTSequence VOILUTSequence WindowCenter WindowWidth VOILUTFunction").split()
JPEG = {"1.2.840.10008.1.2.4." + o: decoder for decoder, group in dict(
    jpeg8_decode="50 51 57 70", jpegls_decode="80 81", jpeg2k_decode="90 91").items() for o in group.split()}
PIXELS, FLOATS = (0x7FE0, 0x10), ((0x7FE0, 8), (0x7FE0, 9))
DICOMDIR = "1.2.840.10008.1.3.10" # the index of a disk
RLE, DEFLATED = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1.99"
COST = dict(jpeg2k_decode=8, jpegls_decode=4, jpeg8_decode=4) # bytes a pixel at the peak, measured
BAND = 2**18 # pixels that are worked on at a time

# Header

def _header(f):
    "What is known before the pixels, at whose element `f` then stands."
    import pydicom
    f.seek(0)
    if f.read(132)[128:] == b"DICM":
        if pydicom.filereader.read_file_meta_info(f.name).get("TransferSyntaxUID") == DEFLATED:
            raise RadiographError("is deflated DICOM, which could fill the memory when inflated; store it uncompressed")
    f.seek(0)
    ds = pydicom.dcmread(f, stop_before_pixels=True, force=True, specific_tags=TAGS)
    implicit = ds.original_encoding[0]
    plain = pydicom.uid.ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
    uid = pydicom.uid.UID(ds.file_meta.get("TransferSyntaxUID") or plain)
    return ds, uid

def _element(f, uid):
    "The element of the pixels: its tag, None at the file's end, and its length; `f` then stands at its value."
    order = "<" if uid.is_little_endian else ">"
    if len(tag := f.read(4)) < 4: return None, 0
    length = f.read(4) if uid.is_implicit_VR else f.read(8)[4:]
    if len(length) < 4: raise EOFError
    return struct.unpack(f"{order}HH", tag), struct.unpack(f"{order}L", length)[0]

def _ends_early(f, ds):
    "Whether a file without pixels was cut or damaged, rather than never had any."
    from pydicom.filereader import data_element_generator, read_preamble
    f.seek(0)
    read_preamble(f, True)
    try:
        for _ in data_element_generator(f, False, True, stop_when=lambda tag, vr, n: tag >> 16 != 2): pass
        for _ in data_element_generator(f, *ds.original_encoding): pass
    except Exception: return True # EOFError, or of a length that is nonsense
    return "Rows" in ds or "SOPClassUID" not in ds and ds.file_meta.get("MediaStorageSOPClassUID") != DICOMDIR

def _check(ds):
    "RadiographError for what no film's header says."
    if lost := [o for o in NEEDED if ds.get(o) in (None, "")]:
        raise RadiographError(HEADER.format(f"it lacks {', '.join(lost)}"))
    if (n := int(ds.get("NumberOfFrames") or 1)) > 1:
        raise RadiographError(f"has {n} frames; export the one radiograph wanted as a file of its own")
    if ds.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise RadiographError(f"is {ds.PhotometricInterpretation}, where a radiograph is MONOCHROME1 or MONOCHROME2")
    wrong = [f"{k} is {v}" for k, v, good in (
        ("SamplesPerPixel", ds.SamplesPerPixel, ds.SamplesPerPixel == 1), ("Rows", ds.Rows, ds.Rows > 0),
        ("Columns", ds.Columns, ds.Columns > 0),
        ("BitsAllocated", ds.BitsAllocated, ds.BitsAllocated in (1, 8, 16, 32)),
        ("BitsStored", ds.BitsStored, 0 < ds.BitsStored <= ds.BitsAllocated),
        ("HighBit", ds.get("HighBit"), ds.get("HighBit") in (None, ds.BitsStored - 1)),
        ("PixelRepresentation", ds.PixelRepresentation, ds.PixelRepresentation in (0, 1)),
        ("RescaleSlope", ds.get("RescaleSlope"), ds.get("RescaleSlope") != 0)) if not good]
    if wrong: raise RadiographError(HEADER.format(f"{', '.join(wrong)} in a {ds.PhotometricInterpretation} image"))

# Pixels

def _claims(frame):
    "Height, width and components that a compressed frame's own header claims: JPEG, JPEG-LS or JPEG 2000."
    if frame[:4] == b"\xff\x4f\xff\x51":
        x1, y1, x0, y0 = struct.unpack(">4I", frame[8:24])
        return y1 - y0, x1 - x0, struct.unpack(">H", frame[40:42])[0]
    at = 2
    while frame[at] == 0xFF:
        marker, size = frame[at+1], int.from_bytes(frame[at+2:at+4], "big")
        if marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7): return *struct.unpack(">HH", frame[at+5:at+9]), frame[at+9]
        at += 2 + size
    raise ValueError("the compressed image has no header")

def _decompressed(f, ds, uid):
    "By the decoders of imagecodecs, which a damaged file doesn't crash; else by those that pydicom finds."
    import pydicom
    at = f.tell()
    if (n := len(pydicom.encaps.parse_basic_offsets(f))) > 1:
        raise RadiographError(f"has {n} frames; export the one radiograph wanted as a file of its own")
    f.seek(at)
    frame = pydicom.encaps.get_frame(f, 0, number_of_frames=1)
    if (claimed := _claims(frame)) != (ds.Rows, ds.Columns, 1):
        raise RadiographError(HEADER.format(f"it says {ds.Rows} x {ds.Columns} x 1, and its compressed image "
                                            f"{' x '.join(map(str, claimed))}"))
    if b"\xff\xd9" not in frame[-8:]: raise EOFError("the compressed image is cut")
    try: import imagecodecs
    except ImportError: return pydicom.pixels.pixel_array(f)
    return getattr(imagecodecs, JPEG[uid])(frame)

def _native(f, ds, uid, length):
    import pydicom
    want, row = -(-ds.Rows * ds.Columns * ds.BitsAllocated // 8), ds.Columns * ds.BitsAllocated // 8
    if f.tell() + length > os.fstat(f.fileno()).st_size: raise EOFError("the pixels go beyond the end of the file")
    if not want <= length < want + max(row, 2):
        raise RadiographError(HEADER.format(f"it describes {want:,} bytes of pixels, and {length:,} follow"))
    return pydicom.pixels.pixel_array(f, view_only=True, correct_unused_bits=False, transfer_syntax_uid=uid)

def _pixels(f, ds, uid, length):
    "Stored values `[Rows, Columns]`, their unused bits as they are."
    import pydicom
    check_pixels(ds.Rows * ds.Columns, COST.get(JPEG.get(uid), 8 if uid == RLE else max(4, ds.BitsAllocated // 8 + 2)))
    if not uid.is_encapsulated: x = _native(f, ds, uid, length)
    elif uid in JPEG: x = _decompressed(f, ds, uid)
    else: x = pydicom.pixels.pixel_array(f)
    if x.shape != (ds.Rows, ds.Columns): raise RadiographError(HEADER.format(f"its pixels are {list(x.shape)}"))
    return x

def _bands(x):
    step = max(1, BAND // x.shape[1])
    return (slice(i, i + step) for i in range(0, len(x), step))

# Gray

def _stored(x, ds):
    "Values without the unused bits, whatever these hold."
    x, bits = x.astype(np.int64) & (1 << ds.BitsStored) - 1, ds.BitsStored
    return x - ((x >> bits - 1) << bits) if ds.PixelRepresentation else x

def _as_stored(o, ds):
    "A header's number as the pixels hold it: some write it with the other sign."
    o = int(o) % 2**ds.BitsAllocated
    return o - 2**ds.BitsAllocated if ds.PixelRepresentation and o >= 2**(ds.BitsAllocated - 1) else o

def _padding(ds):
    "Tells which values are padding: by what is stored, or by all bits where the padding needs the unused ones."
    if ds.get("PixelPaddingValue") is None: return lambda x: np.zeros(x.shape, bool)
    ends = ds.PixelPaddingValue, ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue)
    low, high = sorted(_as_stored(o, ds) for o in ends)
    most = 2**(ds.BitsStored - ds.PixelRepresentation)
    whole = high >= most or low < -most
    def found(x):
        x = x if whole else _stored(x, ds)
        return (x >= low) & (x <= high)
    return found

def _lut(item, ds):
    "Of a LUT's first item: its entries, the value that the first stands for, and white."
    n, first, depth = map(int, item.LUTDescriptor)
    data, n = item.LUTData, n or 2**16
    if isinstance(data, bytes): data = np.frombuffer(data[:n], "u1") if len(data) < 2*n else np.frombuffer(data, "<u2")
    data = np.asarray(data, np.int64).ravel()[:n]
    if len(data) < n: raise RadiographError(HEADER.format(f"a LUT of {n:,} entries has {len(data):,}"))
    if not 1 <= depth <= 16: raise RadiographError(HEADER.format(f"a LUT's entries have {depth} bits"))
    if ds.PixelRepresentation and first >= 2**15: first -= 2**16
    top = int(data.max())
    bits = depth if top < 2**depth <= 2*top else max(1, top.bit_length())
    return SimpleNamespace(data=data, first=first, white=2**bits - 1)

def _looked_up(x, lut): return lut.data[(np.rint(x).astype(np.int64) - lut.first).clip(0, len(lut.data) - 1)]

def _modality(ds):
    "Stored values to what the film measured."
    if ds.get("ModalityLUTSequence"):
        lut = _lut(ds.ModalityLUTSequence[0], ds)
        return lambda x: _looked_up(x, lut).astype(float)
    slope, add = (float(o) if (o := ds.get(name)) is not None else none
                  for name, none in (("RescaleSlope", 1), ("RescaleIntercept", 0)))
    if not np.isfinite([slope, add]).all(): raise RadiographError(HEADER.format("its rescaling is not a number"))
    return lambda x: x * slope + add

def _windowed(ds):
    "What a film measured to what is shown, with black and white; None for a film without LUT and window."
    if ds.get("VOILUTSequence"):
        lut = _lut(ds.VOILUTSequence[0], ds)
        return lambda x: _looked_up(x, lut), 0, lut.white
    if ds.get("WindowCenter") in (None, "") or ds.get("WindowWidth") in (None, ""): return
    from pydicom.pixels import apply_windowing
    show = lambda x: apply_windowing(x, ds)
    with np.errstate(over="ignore"): low, high = show(np.array([-1e9, 1e9])) # its ends
    if not high > low: raise RadiographError(HEADER.format("its window is no range of values"))
    return show, float(low), float(high)

def _ends(parts):
    "The least and the greatest of arrays of which some may be empty."
    ends = [(o.min(), o.max()) for o in parts if o.size]
    if not ends: raise RadiographError("holds nothing but padding; leave it out")
    return float(min(o[0] for o in ends)), float(max(o[1] for o in ends))

def _gray(x, ds, measured, window, is_padding):
    "Twice through the bands: for the range of what was measured, and to draw it."
    def seen(at): return measured(_stored(x[at], ds)), is_padding(x[at])
    least, most = _ends(y[~pad] for y, pad in map(seen, _bands(x)))
    show, low, high = window or (lambda y: y, least, most)
    out = np.empty(x.shape, np.uint8)
    def drawn(at):
        y, pad = seen(at)
        gray = np.clip((show(y) - low) / (high - low or 1), 0, 1) * 255
        if ds.PhotometricInterpretation == "MONOCHROME1": gray = 255 - gray
        out[at] = np.where(pad, 0, np.rint(gray))
        return out[at][~pad]
    black, white = _ends(map(drawn, _bands(x)))
    if black < white or least == most: return out
    raise RadiographError(HEADER.format("its window shows all of its values as one gray"))

def read_dicom(
    f:BinaryIO,  # a DICOM file, open
) -> np.ndarray: # uint8 [h,w]
    "Read a film of one frame and one sample; RadiographError, EOFError where it is cut, or whatever pydicom raises."
    try: need("pydicom", extra="dicom", what="is DICOM and")
    except ImportError as e: raise RadiographError(str(e)) from None
    try:
        ds, uid = _header(f)
        tag, length = _element(f, uid)
        if tag is None:
            if _ends_early(f, ds): raise EOFError("the file ends before its pixels")
            raise RadiographError("is DICOM without an image; leave it out")
        if tag in FLOATS: raise RadiographError("holds float values, which have no white; save it with 8 or 16 bits")
        if tag != PIXELS: raise EOFError(f"its elements can't be followed beyond {tag[0]:04x},{tag[1]:04x}")
        _check(ds)
        steps = _modality(ds), _windowed(ds), _padding(ds)
    except (RadiographError, EOFError, MemoryError): raise
    except Exception as e: raise RadiographError(HEADER.format(told(e))) from e # of a damaged or foreign header
    try: x = _pixels(f, ds, uid, length)
    except (NotImplementedError, RuntimeError) as e:
        if uid in JPEG and not _has_decoders():
            raise RadiographError(f"cannot be decoded here ({uid.name}); {install_command('dicom')}") from e
        if uid in JPEG or uid == RLE: raise
        raise RadiographError(f"cannot be decoded here ({uid.name}); convert it to an uncompressed one") from e
    except (AttributeError, ValueError) as e:
        if uid.is_encapsulated or isinstance(e, RadiographError): raise
        raise RadiographError(HEADER.format(told(e))) from e
    return _gray(x, ds, *steps)

def _has_decoders(): return find_spec("imagecodecs") is not None
