"Films that tests write: TIFFs and PNGs that Pillow doesn't, and DICOM."
import struct, zlib
import numpy as np, pytest

def ramp(h=40, w=60, dtype=np.uint8, top=255):
    return np.linspace(0, top, h*w).round().astype(dtype).reshape(h, w)

def tiff(path, data, h, w, bits, white_is_zero=False, sample_format=1, orientation=1):
    "A TIFF of one strip with any BitsPerSample: Pillow writes neither 12 bits nor white-is-zero."
    tags = {256: w, 257: h, 258: bits, 259: 1, 262: 0 if white_is_zero else 1, 273: 8 + 2 + 12*11 + 4, 274: orientation,
            277: 1, 278: h, 279: len(data), 339: sample_format}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, v) for tag,v in sorted(tags.items()))
    path.write_bytes(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + b"\0\0\0\0" + data)
    return path

def png_header(path, w, h):
    def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind+data))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0)) +
                     chunk(b"IDAT", zlib.compress(b"\0"*100)) + chunk(b"IEND", b""))
    return path

def dicom(path, x, photometric="MONOCHROME2", bits=12, deflated=False, **tags):
    pydicom = pytest.importorskip("pydicom")
    uid, ds, meta = pydicom.uid, pydicom.Dataset(), pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian if deflated else uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = uid.DigitalXRayImageStorageForPresentation, "1.2.3"
    ds.file_meta, ds.PatientID = meta, "1"
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    if x is not None:
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PixelRepresentation = *x.shape, 1, int(x.dtype.kind == "i")
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = x.itemsize*8, bits, bits-1
        ds.PhotometricInterpretation, ds.PixelData = photometric, x.tobytes()
    for k,v in tags.items(): setattr(ds, k, v)
    ds.save_as(path, enforce_file_format=True)
    return path

def lut(entries, first, depth):
    "A VOILUTSequence or ModalityLUTSequence item."
    pydicom = pytest.importorskip("pydicom")
    item = pydicom.Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, depth])
    item.add_new("LUTData", "US", list(entries))
    return [item]

def compressed(path, x, frame, syntax, **tags):
    "A DICOM of one compressed frame."
    pydicom = pytest.importorskip("pydicom")
    ds = pydicom.dcmread(dicom(path, x, **tags))
    ds.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    ds.PixelData = pydicom.encaps.encapsulate([bytes(frame)])
    ds["PixelData"].VR, ds["PixelData"].is_undefined_length = "OB", True
    ds.save_as(path)
    return path

CODECS = dict(JPEGLosslessSV1=("ljpeg_encode", dict(bitspersample=12)), JPEGLossless=("ljpeg_encode", {}),
              JPEGLSLossless=("jpegls_encode", {}), JPEG2000Lossless=("jpeg2k_encode", dict(codecformat="j2k")))
