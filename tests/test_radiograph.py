import struct, sys, zlib
import numpy as np, pytest
from PIL import Image
from cxr_fastai.radiograph import MAX_PIXELS, RadiographError, read_radiograph
from conftest import SHARED, needs_nih

RGBA = "00001054_002.png", "00000773_001.png", "00004808_003.png"

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

@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.tiff"])
def test_8_bit_gray_is_read_as_it_is(tmp_path, name):
    Image.fromarray(ramp()).save(tmp_path/name)
    got = read_radiograph(tmp_path/name)
    assert got.dtype == np.uint8 and got.flags.writeable
    np.testing.assert_array_equal(got, ramp())

@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_deflate"])
def test_compressed_tiff(tmp_path, compression):
    Image.fromarray(ramp()).save(tmp_path/"x.tif", compression=compression)
    np.testing.assert_array_equal(read_radiograph(tmp_path/"x.tif"), ramp())

@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_gray_in_a_colour_mode_is_the_same_gray(tmp_path, mode):
    Image.fromarray(ramp()).convert(mode).save(tmp_path/"x.png")
    np.testing.assert_array_equal(read_radiograph(tmp_path/"x.png"), ramp())

def test_colour_becomes_luminance(tmp_path):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path/"x.png")
    assert np.all(read_radiograph(tmp_path/"x.png") == 76)  # ITU-R 601: .299 x 255

def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(ramp() > 99).save(tmp_path/"x.png")
    np.testing.assert_array_equal(read_radiograph(tmp_path/"x.png"), (ramp() > 99)*255)

@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_lies_over_black(tmp_path, mode):
    im = Image.new("L", (4, 2), 200).convert(mode)
    im.putalpha(Image.fromarray(np.array([[0, 51, 102, 255]]*2, np.uint8)))
    im.save(tmp_path/"x.png")
    np.testing.assert_array_equal(read_radiograph(tmp_path/"x.png")[0], [0, 40, 80, 200])

def test_a_transparent_palette_entry_is_black(tmp_path):
    im = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    im.putpalette([9, 9, 9, 200, 200, 200])
    im.save(tmp_path/"x.png", transparency=1)
    np.testing.assert_array_equal(read_radiograph(tmp_path/"x.png"), [[9, 0]])

@pytest.mark.parametrize("name", ["x.png", "x.tif"])
def test_16_bit_is_scaled_by_257_not_by_its_brightest_pixel(tmp_path, name):
    x = ramp(dtype=np.uint16, top=30000)
    Image.fromarray(x).save(tmp_path/name)
    np.testing.assert_array_equal(read_radiograph(tmp_path/name), np.rint(x/257))

def test_12_bit_tiff_is_white_at_4095(tmp_path):
    data = bytes([0x00, 0x0F, 0xFF, 0x80, 0x08, 0x00])  # 0, 4095, 2048, 2048
    np.testing.assert_array_equal(read_radiograph(tiff(tmp_path/"x.tif", data, 1, 4, 12)), [[0, 255, 128, 128]])

@pytest.mark.parametrize("bits,dtype", [(8, "u1"), (16, "<u2")])
def test_tiff_where_white_is_zero_is_turned_over(tmp_path, bits, dtype):
    x = ramp(dtype=dtype, top=2**bits-1)
    file = tiff(tmp_path/"x.tif", x.tobytes(), *x.shape, bits, white_is_zero=True)
    np.testing.assert_array_equal(read_radiograph(file), 255 - np.rint(x/(1 if bits == 8 else 257)))

@pytest.mark.parametrize("bits,sample_format,dtype", [(32, 3, "<f4"), (32, 1, "<u4"), (16, 2, "<i2")])
def test_values_without_a_white_are_refused(tmp_path, bits, sample_format, dtype):
    x = ramp().astype(dtype)
    file = tiff(tmp_path/"x.tif", x.tobytes(), *x.shape, bits, sample_format=sample_format)
    with pytest.raises(RadiographError, match="no white.*8 or 16 bits"): read_radiograph(file)

def test_jpeg_gray_and_colour(tmp_path):
    for mode in "L", "RGB", "CMYK":
        Image.fromarray(ramp()).convert(mode).save(tmp_path/"x.jpg", quality=95)
        assert np.abs(read_radiograph(tmp_path/"x.jpg").astype(int) - ramp()).max() <= 3

@pytest.mark.parametrize("name,mode", [("x.jpg", "L"), ("x.png", "L"), ("x.png", "RGBA"), ("x.png", "I;16")])
@pytest.mark.parametrize("orientation,turns", [(3, 2), (6, 3), (8, 1)])
def test_exif_orientation_is_obeyed(tmp_path, name, mode, orientation, turns):
    exif, x = Image.Exif(), ramp(48, 64)
    exif[274] = orientation
    im = Image.fromarray(x.astype(np.uint16)*257) if mode == "I;16" else Image.fromarray(x).convert(mode)
    im.save(tmp_path/name, exif=exif, **({"quality": 95} if name == "x.jpg" else {}))
    got, turned = read_radiograph(tmp_path/name), np.rot90(x, turns).copy()
    assert got.shape == turned.shape and np.abs(got.astype(int) - turned).max() <= 3
    small = np.asarray(Image.fromarray(turned).resize((16, 16), Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(read_radiograph(tmp_path/name, 16) - small).max() <= 3

@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_orientation_is_obeyed_once(tmp_path, bits):
    x = ramp(dtype=f"<u{bits//8}", top=2**bits-1)
    file = tiff(tmp_path/"x.tif", x.tobytes(), *x.shape, bits, orientation=6)
    np.testing.assert_array_equal(read_radiograph(file), np.rot90(np.rint(x/(2**bits-1)*255), -1))

@pytest.mark.parametrize("size", [16, 64, 128])
def test_size_gives_the_whole_film_squashed_to_a_square(tmp_path, size):
    x = np.zeros((100, 200), np.uint8)
    x[:50, 100:] = 255  # the upper right quarter stays the upper right quarter
    Image.fromarray(x).save(tmp_path/"x.png")
    got, h = read_radiograph(tmp_path/"x.png", size), size//2
    assert got.shape == (size, size) and got.dtype == np.uint8
    assert got[:h-2, h+2:].min() > 240 and got[h+2:].max() < 15 and got[:, :h-2].max() < 15

def test_a_jpeg_decoded_small_looks_like_one_decoded_whole(tmp_path):
    y, x = np.mgrid[:512, :512]
    Image.fromarray((127 + 60*np.sin(x/20) + 60*np.cos(y/31)).astype(np.uint8)).save(tmp_path/"x.jpg", quality=95)
    whole = np.asarray(Image.open(tmp_path/"x.jpg").resize((64, 64), Image.Resampling.LANCZOS))
    assert np.abs(read_radiograph(tmp_path/"x.jpg", 64).astype(int) - whole).mean() < 1

@needs_nih
@pytest.mark.parametrize("name", RGBA)
def test_nih_rgba_files_give_their_gray(name):
    file = SHARED/"nih_originals"/name
    with Image.open(file) as im: mode, red = im.mode, np.asarray(im)[..., 0]
    assert mode == "RGBA"
    np.testing.assert_array_equal(read_radiograph(file), red)
    np.testing.assert_array_equal(read_radiograph(file, 256), read_radiograph(SHARED/"nih_sample"/"images"/name))

@needs_nih
def test_nih_originals_at_256_equal_the_sample_resized_by_lanczos():
    for file in sorted((SHARED/"nih_originals").glob("*.png"))[:6]:
        sample = read_radiograph(SHARED/"nih_sample"/"images"/file.name)
        np.testing.assert_array_equal(read_radiograph(file, 256), sample)

def test_dicom_window_is_black_and_white_at_its_ends(tmp_path):
    x = np.array([[0, 999, 1000, 1500, 2000, 4095]], np.uint16)
    for photometric, want in ("MONOCHROME2", [0, 0, 0, 128, 255, 255]), ("MONOCHROME1", [255, 255, 255, 127, 0, 0]):
        file = dicom(tmp_path/"x.dcm", x, photometric, WindowCenter=1500.5, WindowWidth=1001)
        assert np.abs(read_radiograph(file)[0].astype(int) - want).max() <= 1

def test_dicom_takes_the_first_of_several_windows(tmp_path):
    x = ramp(dtype=np.uint16, top=4095)
    one = read_radiograph(dicom(tmp_path/"a.dcm", x, WindowCenter=800, WindowWidth=500))
    two = read_radiograph(dicom(tmp_path/"b.dcm", x, WindowCenter=[800, 3000], WindowWidth=[500, 100]))
    np.testing.assert_array_equal(one, two)
    assert one.min() == 0 and one.max() == 255

def test_dicom_window_wider_than_the_values_does_not_stretch_them(tmp_path):
    x = np.array([[1000, 3000]], np.uint16)
    got = read_radiograph(dicom(tmp_path/"x.dcm", x, WindowCenter=2048, WindowWidth=4096))
    np.testing.assert_allclose(got, [[1000/4095*255, 3000/4095*255]], atol=1)

def test_dicom_sigmoid_window(tmp_path):
    x = np.array([[0, 2000, 4000]], np.uint16)
    got = read_radiograph(dicom(tmp_path/"x.dcm", x, WindowCenter=2000, WindowWidth=400, VOILUTFunction="SIGMOID"))
    assert got[0, 0] == 0 and abs(int(got[0, 1]) - 128) <= 1 and got[0, 2] == 255

@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_dicom_rescale_comes_before_the_window(tmp_path, photometric):
    x = np.array([[0, 500, 1000]], np.uint16)
    got = read_radiograph(dicom(tmp_path/"x.dcm", x, photometric, RescaleSlope=2, RescaleIntercept=-1000,
                                WindowCenter=0, WindowWidth=2001))  # values -1000, 0, 1000
    want = np.array([0, 128, 255])
    assert np.abs(got[0].astype(int) - (255-want if photometric == "MONOCHROME1" else want)).max() <= 1

def test_dicom_without_a_window_spans_its_values(tmp_path):
    x = np.array([[100, 200, 300]], np.uint16)
    np.testing.assert_array_equal(read_radiograph(dicom(tmp_path/"x.dcm", x)), [[0, 128, 255]])
    np.testing.assert_array_equal(read_radiograph(dicom(tmp_path/"y.dcm", x, "MONOCHROME1")), [[255, 128, 0]])
    np.testing.assert_array_equal(read_radiograph(dicom(tmp_path/"z.dcm", x*0+5)), [[0, 0, 0]])

def test_dicom_signed_values_without_a_window_do_not_overflow(tmp_path):
    x = np.array([[-32768, 0, 32767]], np.int16)
    np.testing.assert_array_equal(read_radiograph(dicom(tmp_path/"x.dcm", x, bits=16)), [[0, 128, 255]])

def test_dicom_signed_values(tmp_path):
    x = np.array([[-1000, 0, 1000]], np.int16)
    file = dicom(tmp_path/"x.dcm", x, bits=16, WindowCenter=0.5, WindowWidth=2001)
    assert np.abs(read_radiograph(file)[0].astype(int) - [0, 127, 255]).max() <= 1

@pytest.mark.parametrize("rescale", [{}, dict(RescaleSlope=1, RescaleIntercept=0)])
def test_dicom_voi_lut_goes_before_a_window_and_uses_its_own_depth(tmp_path, rescale):
    x = np.array([[0, 1, 2, 3, 9]], np.uint16)
    window = dict(WindowCenter=1, WindowWidth=1)
    file = dicom(tmp_path/"x.dcm", x, VOILUTSequence=lut([0, 100, 511, 1023], 0, 10), **window, **rescale)
    np.testing.assert_array_equal(read_radiograph(file), [[0, 25, 127, 255, 255]])

def test_dicom_modality_lut(tmp_path):
    x = np.array([[0, 1, 2]], np.uint16)
    item = lut([0, 800, 1000], 0, 16)
    item[0].ModalityLUTType = "US"
    file = dicom(tmp_path/"x.dcm", x, ModalityLUTSequence=item)
    np.testing.assert_array_equal(read_radiograph(file), [[0, 204, 255]])

def test_dicom_is_told_by_its_bytes_and_resized(tmp_path):
    file = dicom(tmp_path/"x.png", ramp(dtype=np.uint16, top=4095))
    assert read_radiograph(file, 32).shape == (32, 32)

@pytest.mark.parametrize("make,match", [
    (lambda p: dicom(p, ramp(dtype=np.uint16), NumberOfFrames=2), "2 frames.*file of its own"),
    (lambda p: dicom(p, ramp(dtype=np.uint16), "PALETTE COLOR"), "is PALETTE COLOR"),
    (lambda p: dicom(p, ramp(dtype=np.uint16), Rows=60000, Columns=60000), "3,600 million pixels"),
    (lambda p: dicom(p, ramp(dtype=np.uint16), deflated=True), "deflated DICOM"),
    (lambda p: dicom(p, None), "without an image"),
    (lambda p: dicom(p, ramp(dtype=np.uint16), WindowCenter=1, WindowWidth=0), "has a header that .*Window Width"),
    (lambda p: dicom(p, ramp(dtype=np.uint16), Rows=400), "contradicts .*48,000 bytes of pixels, and 4,800 follow")])
def test_dicom_refusals_say_why(tmp_path, make, match):
    with pytest.raises(RadiographError, match=f"x.dcm .*{match}"): read_radiograph(make(tmp_path/"x.dcm"))

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

@pytest.mark.parametrize("syntax", CODECS)
def test_compressed_dicom_is_what_was_compressed(tmp_path, syntax):
    x, (encode, options) = ramp(dtype=np.uint16, top=4095), CODECS[syntax]
    frame = getattr(pytest.importorskip("imagecodecs"), encode)(x, **options)
    want = read_radiograph(dicom(tmp_path/"raw.dcm", x, WindowCenter=1500, WindowWidth=2001))
    file = compressed(tmp_path/"x.dcm", x, frame, syntax, WindowCenter=1500, WindowWidth=2001)
    np.testing.assert_array_equal(read_radiograph(file), want)
    other = compressed(tmp_path/"x.dcm", x[:8], frame, syntax)
    with pytest.raises(RadiographError, match="contradicts .*8 x 60 x 1, and its compressed image 40 x 60 x 1"):
        read_radiograph(other)
    cut = compressed(tmp_path/"x.dcm", x, frame[:len(frame)//2], syntax)
    with pytest.raises(RadiographError, match="x.dcm is truncated or damaged"): read_radiograph(cut)

def test_dicom_whose_decoder_is_not_installed_says_so(tmp_path, monkeypatch):
    x, codecs = ramp(dtype=np.uint16), pytest.importorskip("imagecodecs")
    file = compressed(tmp_path/"x.dcm", x, codecs.jpegls_encode(x), "JPEGLSLossless")
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(RadiographError, match=r"x.dcm cannot be decoded here .*JPEG-LS.*pip install .*\[dicom\]"):
        read_radiograph(file)

def test_dicom_without_pydicom_names_the_extra(tmp_path, monkeypatch):
    file = dicom(tmp_path/"x.dcm", ramp(dtype=np.uint16))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(RadiographError, match=r"x.dcm .*pip install 'cxr_fastai\[dicom\]'"): read_radiograph(file)

def test_missing_empty_folder_and_text_are_each_named(tmp_path):
    (tmp_path/"empty.png").touch()
    (tmp_path/"text.png").write_text("a radiograph, honestly\n"*20)
    Image.fromarray(ramp()).save(tmp_path/"x.gif")
    for name, match in (("none.png", "does not exist"), ("empty.png/x.png", "does not exist"), ("empty.png", "0 bytes"),
                        ("text.png", "no PNG, JPEG, TIFF or DICOM"), ("x.gif", "no PNG, JPEG, TIFF or DICOM"),
                        (".", "cannot be opened")):
        with pytest.raises(RadiographError, match=match) as e: read_radiograph(tmp_path/name)
        assert str(e.value).startswith(str(tmp_path/name)) and "\n" not in str(e.value)

def saved(folder, name):
    "A noisy radiograph in each format, so that every byte of the file matters."
    x = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    if name == "x.dcm": return dicom(folder/name, x.astype(np.uint16))
    Image.fromarray(x).save(folder/name)
    return folder/name

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.dcm"])
def test_a_file_cut_anywhere_is_refused_or_whole(tmp_path, name):
    file = saved(tmp_path, name)
    data, whole, refused = file.read_bytes(), read_radiograph(file), 0
    for cut in [*range(1, len(data)-60, max(1, len(data)//60)), *range(len(data)-60, len(data))]:
        file.write_bytes(data[:cut])
        try: np.testing.assert_array_equal(read_radiograph(file), whole)
        except RadiographError as e: refused += name in str(e)
    assert refused > 60
    file.write_bytes(data[:len(data)//2])
    with pytest.raises(RadiographError, match=f"{name} is truncated or damaged .*copy or download it again"):
        read_radiograph(file)

@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.dcm"])
def test_damaged_bytes_give_an_image_or_a_radiograph_error(tmp_path, name):
    file, rng = saved(tmp_path, name), np.random.default_rng(1)
    data = np.frombuffer(file.read_bytes(), np.uint8)
    for i in range(150):
        broken, n = data.copy(), 1 if i % 2 else 20
        broken[rng.integers(0, len(data) if i % 3 else 300, n)] = rng.integers(0, 256, n)
        file.write_bytes(broken.tobytes())
        try: assert read_radiograph(file, 16).shape == (16, 16)
        except RadiographError as e: assert name in str(e)

@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_001, 14_000, 60_000])
@pytest.mark.parametrize("limit", [None, Image.MAX_IMAGE_PIXELS])
def test_a_bomb_is_refused_from_its_header_whatever_pillow_allows(tmp_path, monkeypatch, side, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert side**2 > MAX_PIXELS
    for file in png_header(tmp_path/"b.png", side, side), tiff(tmp_path/"b.tif", b"\0"*100, side, side, 8):
        with pytest.raises(RadiographError, match=f"{file.name} claims .*million pixels"): read_radiograph(file)
    assert Image.MAX_IMAGE_PIXELS == limit
