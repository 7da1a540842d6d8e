import sys
import numpy as np, pytest
from cxr_fastai.cohort.radiograph import read_radiograph
from cxr_fastai.cohort.signs import RadiographError
from films import CODECS, compressed, dicom, lut, ramp

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

def test_padding_is_left_out_and_black(tmp_path):
    x = np.array([[0, 100, 200, 300, 4095]], np.uint16)
    for photometric, want in ("MONOCHROME2", [0, 0, 128, 255, 0]), ("MONOCHROME1", [0, 255, 127, 0, 0]):
        file = dicom(tmp_path/"x.dcm", x, photometric, PixelPaddingValue=4095, PixelPaddingRangeLimit=4095)
        got = read_radiograph(dicom(tmp_path/"y.dcm", x[:, 1:], photometric, PixelPaddingValue=4095))
        assert np.abs(got[0].astype(int) - want[1:]).max() <= 1
        assert read_radiograph(file)[0, 4] == 0
    limits = dict(PixelPaddingValue=300, PixelPaddingRangeLimit=4095, WindowCenter=100.5, WindowWidth=201)
    np.testing.assert_allclose(read_radiograph(dicom(tmp_path/"x.dcm", x, "MONOCHROME1", **limits))[0],
                               [255, 127, 0, 0, 0], atol=1)

@pytest.mark.parametrize("value", [-2000, 63536])
def test_padding_of_either_sign_is_the_same(tmp_path, value):
    x = np.array([[-2000, 0, 1000]], np.int16)
    file = dicom(tmp_path/"x.dcm", x, bits=16)
    import pydicom
    ds = pydicom.dcmread(file)
    ds.add_new("PixelPaddingValue", "SS" if value < 0 else "US", value)
    ds.save_as(file)
    np.testing.assert_array_equal(read_radiograph(file), [[0, 0, 255]])

def test_padding_in_the_unused_bits_blackens_no_white(tmp_path):
    x = np.array([[0, 4095, 65535]], np.uint16)
    np.testing.assert_array_equal(read_radiograph(dicom(tmp_path/"x.dcm", x, PixelPaddingValue=65535)), [[0, 255, 0]])

def test_unused_bits_are_not_read(tmp_path):
    x = np.array([[0, 2048, 4095]], np.uint16)
    np.testing.assert_array_equal(read_radiograph(dicom(tmp_path/"x.dcm", x | 0xA000)), [[0, 128, 255]])

@pytest.mark.parametrize("top, depth, white",
                         [(4095, 16, 4095), (1023, 16, 1023), (40000, 16, 65535), (4095, 10, 4095)])
def test_white_of_a_lut_is_what_its_data_need_below_half_of_its_range(tmp_path, top, depth, white):
    x = np.array([[0, 1, 2, 3]], np.uint16)
    file = dicom(tmp_path/"x.dcm", x, VOILUTSequence=lut([0, top//4, top//2, top], 0, depth))
    want = np.rint(np.array([[0, top//4, top//2, top]]) / white * 255)
    np.testing.assert_array_equal(read_radiograph(file), want)

def test_a_lut_of_8_bits_has_any_number_of_entries(tmp_path):
    x = np.array([[0, 300, 1000, 1023]], np.uint16)
    entries = np.arange(1024)//4
    file = dicom(tmp_path/"x.dcm", x, VOILUTSequence=lut(entries, 0, 8))
    np.testing.assert_array_equal(read_radiograph(file)[0], entries[x[0]])
    item = lut(entries, 0, 8)
    item[0].add_new("LUTData", "OW", entries.astype(np.uint8).tobytes()) # two entries a word
    np.testing.assert_array_equal(read_radiograph(dicom(tmp_path/"y.dcm", x, VOILUTSequence=item))[0], entries[x[0]])

def implicit(file):
    "The same, with the types of values left to the reader."
    import pydicom
    ds = pydicom.dcmread(file)
    ds.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    ds.save_as(file, implicit_vr=True, little_endian=True)
    return file

def test_implicit_types_give_the_same_pixels(tmp_path):
    x = np.array([[-5, 0, 1, 2, 9]], np.int16)
    tags = dict(VOILUTSequence=lut([10, 500, 900, 1023], 0, 10), bits=16, PixelPaddingValue=-5)
    want = read_radiograph(dicom(tmp_path/"x.dcm", x, **tags))
    assert want[0, 0] == 0 and want.max() == 255
    np.testing.assert_array_equal(read_radiograph(implicit(tmp_path/"x.dcm")), want)

@pytest.mark.parametrize("syntax", ["explicit", "implicit"])
def test_a_data_set_without_a_preamble_is_read(tmp_path, syntax):
    x = ramp(dtype=np.uint16, top=4095)
    want = read_radiograph(dicom(tmp_path/"x.dcm", x))
    file = implicit(tmp_path/"x.dcm") if syntax == "implicit" else tmp_path/"x.dcm"
    import pydicom
    ds = pydicom.dcmread(file)
    del ds.file_meta
    ds.preamble = None
    ds.save_as(tmp_path/"1.2.840.7", implicit_vr=syntax == "implicit", little_endian=True)
    assert (tmp_path/"1.2.840.7").read_bytes()[:2] == b"\x08\0"
    np.testing.assert_array_equal(read_radiograph(tmp_path/"1.2.840.7"), want)

@pytest.mark.parametrize("tags, match", [
    (dict(RescaleSlope=0, RescaleIntercept=5), "RescaleSlope is 0"), (dict(SamplesPerPixel=3), "SamplesPerPixel is 3"),
    (dict(WindowCenter=9000, WindowWidth=10), "one gray"), (dict(HighBit=15), "HighBit is 15"),
    (dict(BitsStored=17), "BitsStored is 17"), (dict(Rows=20), "2,400 bytes of pixels, and 4,800 follow"),
    (dict(WindowCenter="1e400", WindowWidth=5), "WindowCenter|window"),
    (dict(BitsAllocated=""), "lacks BitsAllocated")])
def test_a_header_that_lacks_or_contradicts_something_is_called_that(tmp_path, tags, match):
    import pydicom
    file = dicom(tmp_path/"x.dcm", ramp(dtype=np.uint16, top=4095))
    ds = pydicom.dcmread(file)
    for k, v in tags.items():
        if v == "": delattr(ds, k)
        elif v == "1e400": ds.add_new(k, "DS", "5"), setattr(ds[k], "_value", v)
        else: setattr(ds, k, v)
    ds.save_as(file)
    with pytest.raises(RadiographError, match=f"x.dcm has a header that lacks or contradicts .*({match})"):
        read_radiograph(file)

def test_padding_alone_is_no_film(tmp_path):
    file = dicom(tmp_path/"x.dcm", np.full((4, 4), 9, np.uint16), PixelPaddingValue=9)
    with pytest.raises(RadiographError, match="nothing but padding"): read_radiograph(file)

def test_two_compressed_frames_are_refused_whatever_the_header_says(tmp_path):
    pydicom, codecs = pytest.importorskip("pydicom"), pytest.importorskip("imagecodecs")
    x = ramp(dtype=np.uint16, top=4095)
    file = compressed(tmp_path/"x.dcm", x, codecs.jpegls_encode(x), "JPEGLSLossless")
    ds = pydicom.dcmread(file)
    ds.PixelData = pydicom.encaps.encapsulate([codecs.jpegls_encode(x)]*2)
    ds.save_as(file)
    with pytest.raises(RadiographError, match="has 2 frames"): read_radiograph(file)

def test_signed_values_survive_compression(tmp_path):
    codecs, x = pytest.importorskip("imagecodecs"), ramp(dtype=np.int16, top=4000) - 2000
    window = dict(bits=16, WindowCenter=0, WindowWidth=3000)
    want = read_radiograph(dicom(tmp_path/"raw.dcm", x, **window))
    file = compressed(tmp_path/"x.dcm", x, codecs.jpegls_encode(x.view(np.uint16)), "JPEGLSLossless", **window)
    np.testing.assert_array_equal(read_radiograph(file), want)

def test_float_pixels_are_refused(tmp_path):
    import pydicom
    file = dicom(tmp_path/"x.dcm", ramp(dtype=np.uint16))
    ds = pydicom.dcmread(file)
    del ds.PixelData
    ds.FloatPixelData = ramp().astype("<f4").tobytes()
    ds.save_as(file)
    with pytest.raises(RadiographError, match="holds float values"): read_radiograph(file)

def test_bands_give_the_same_pixels(tmp_path, monkeypatch):
    import cxr_fastai.cohort.dicom as module
    file = dicom(tmp_path/"x.dcm", ramp(dtype=np.uint16, top=4095), PixelPaddingValue=0)
    whole = read_radiograph(file)
    monkeypatch.setattr(module, "BAND", 100)
    np.testing.assert_array_equal(read_radiograph(file), whole)
