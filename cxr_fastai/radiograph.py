"""One reader for PNG, JPEG, TIFF and DICOM: any radiograph becomes one 8-bit gray channel, or is refused by name.

White is the file's own full scale, never the image's brightest pixel, so that two films keep their relative exposure:
255; 65535 for 16 bits; 2**BitsPerSample-1 for other TIFFs; the end of the first window for DICOM. Only a DICOM without
a window is stretched from its least to its greatest value. The paper's inputs are whole films squashed to 256x256."""
from pathlib import Path
import numpy as np
from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "READER_VERSION", "RadiographError", "read_radiograph"]

READER_VERSION = 1        # goes up whenever the same file would give other pixels (or another perceptual hash)
MAX_PIXELS = 100_000_000  # the largest detectors give 20 million; what claims more than this is never decoded
SIGNS = b"\x89PNG", b"\xff\xd8\xff", b"II*\0", b"MM\0*"

class RadiographError(ValueError): "A file that is no readable radiograph; the message names it, why, and what to do."

def _check_pixels(n):
    if n > MAX_PIXELS: raise RadiographError(f"claims {n/1e6:,.0f} million pixels, more than the {MAX_PIXELS/1e6:.0f} "
                                             "million a radiograph can have; leave it out or export it smaller")

def _deep_gray(im):
    "Gray deeper than 8 bits, `im` as Pillow holds it, to 8: full scale is what the header declares."
    if im.mode == "F" or im.mode == "I" and im.format != "PNG":
        raise RadiographError("holds float, signed or 32-bit values, which have no white; save it with 8 or 16 bits")
    tags = getattr(im, "tag_v2", {})
    gray = np.asarray(im) / (2**tags.get(258, (16,))[0] - 1) * 255  # 258: BitsPerSample
    if tags.get(262) == 0: gray = 255 - gray                        # 262: 0 is white; Pillow turns only 8 bits over
    return Image.fromarray(np.rint(gray).clip(0, 255).astype(np.uint8))

def _gray(im):
    "Luminance as 8-bit gray; what is transparent lies over black."
    if im.mode[0] in "IF": return _deep_gray(im)
    if not im.has_transparency_data: return im.convert("L")
    gray, alpha = im.convert("RGBA").convert("LA").split()
    return ImageChops.multiply(gray, alpha)

def _read_image(f, size):
    "From an open file, not its name: Pillow maps a named TIFF into memory, and garbles it where it has to be turned."
    with Image.open(f, formats=("PNG", "JPEG", "TIFF")) as im:
        _check_pixels(im.width * im.height)
        if size and im.format == "JPEG": im.draft("L", (2*size, 2*size))  # decodes at 1/2 to 1/8; Lanczos does the rest
        gray, orientation = _gray(im), im.getexif().get(274, 1)
    gray.getexif()[274] = orientation  # the tag does not survive every conversion above
    return ImageOps.exif_transpose(gray)

def _read_dicom(file):
    "Modality LUT or rescale, then the first VOI LUT or window, then MONOCHROME1 turned over: DICOM PS3.3 C.7.6.3, C.11"
    try: import pydicom, pydicom.pixels as px
    except ImportError: raise RadiographError("is DICOM and needs pydicom: pip install 'cxr_fastai[dicom]'") from None
    if pydicom.filereader.read_file_meta_info(file).TransferSyntaxUID == pydicom.uid.DeflatedExplicitVRLittleEndian:
        raise RadiographError("is deflated DICOM, which could fill the memory when inflated; store it uncompressed")
    ds = pydicom.dcmread(file)
    if "PixelData" not in ds: raise RadiographError("is DICOM without an image; leave it out")
    if int(ds.get("NumberOfFrames") or 1) > 1:
        raise RadiographError(f"has {ds.NumberOfFrames} frames; export the one radiograph wanted as a file of its own")
    if ds.PhotometricInterpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise RadiographError(f"is {ds.PhotometricInterpretation}, where a radiograph is MONOCHROME1 or MONOCHROME2")
    _check_pixels(ds.Rows * ds.Columns)
    x = px.apply_modality_lut(px.pixel_array(ds), ds)
    if ds.get("VOILUTSequence"):
        x, low, high = px.apply_voi(np.rint(x).astype(int), ds), 0, 2**ds.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif None not in (ds.get("WindowCenter"), ds.get("WindowWidth")):
        with np.errstate(over="ignore"): low, high = px.apply_windowing(np.array([-1e9, 1e9]), ds)  # its ends
        x = px.apply_windowing(x, ds)
    else: low, high = x.min(), x.max()
    gray = np.clip((x - float(low)) / (float(high) - float(low) or 1), 0, 1) * 255
    if ds.PhotometricInterpretation == "MONOCHROME1": gray = 255 - gray
    return Image.fromarray(np.rint(gray).astype(np.uint8))

def _why(e, head):
    "What was wrong and what to do, from whatever the decoders raised."
    if isinstance(e, RadiographError): return str(e)
    if isinstance(e, (FileNotFoundError, NotADirectoryError)): return "does not exist; check the folder and the name"
    if isinstance(e, (PermissionError, IsADirectoryError)): return f"cannot be opened ({e.strerror}); check what it is"
    if isinstance(e, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"claims more than the {MAX_PIXELS/1e6:.0f} million pixels a radiograph can have; leave it out"
    if isinstance(e, UnidentifiedImageError) and not head.startswith(SIGNS):
        return "is no PNG, JPEG, TIFF or DICOM image; leave it out or convert it"
    what = f"({type(e).__name__}: {' '.join(str(e).split())})"
    if head[128:] == b"DICM" and isinstance(e, RuntimeError):  # pydicom's, where a compressed image has no decoder
        return f"cannot be decoded here {what}; install a decoder that is named, or convert it"
    return f"is truncated or damaged {what}; copy or download it again"

def read_radiograph(
    file:str|Path, # a PNG, JPEG, TIFF or DICOM file; told by its first bytes, not by its name
    size:int=None, # side of the square it is squashed to (Lanczos, aspect ratio given up); None keeps its own pixels
) -> np.ndarray:   # uint8 [h,w], or [size,size]; black is 0
    "Read one radiograph to gray; raises `RadiographError`, which names the file, for whatever cannot be read as one."
    head = b""
    try:
        with open(file, "rb") as f:
            head = f.read(132)
            if not head: raise RadiographError("is empty (0 bytes); copy or download it again")
            f.seek(0)
            gray = _read_dicom(file) if head[128:] == b"DICM" else _read_image(f, size)
        # with this gap Pillow shrinks by whole factors first: 3 times as fast from 1024 to 128 px, and within 4 of 255
        if size: gray = gray.resize((size, size), Image.Resampling.LANCZOS, reducing_gap=3)
        return np.array(gray)
    except Exception as e: raise RadiographError(f"{Path(file)} {_why(e, head)}") from e  # decoders raise of every kind
