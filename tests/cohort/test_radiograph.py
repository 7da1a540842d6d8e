import os, struct, subprocess, sys, zlib
import numpy as np, pytest
from PIL import Image
from cxr_fastai.cohort.radiograph import decode_radiograph, read_radiograph, white_of
from cxr_fastai.cohort.signs import MAX_PIXELS, RadiographError
from conftest import ROOT, SHARED, needs_nih
from films import CODECS, compressed, dicom, png_header, ramp, tiff

RGBA = "00001054_002.png", "00000773_001.png", "00004808_003.png"

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
    if codec := CODECS.get(name.split(".")[0]):
        frame = getattr(pytest.importorskip("imagecodecs"), codec[0])(x.astype(np.uint16), **codec[1])
        return compressed(folder/name, x.astype(np.uint16), frame, name.split(".")[0])
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
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.tif", "x.dcm", *(f"{o}.dcm" for o in CODECS)])
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

# White of files that don't say

def sbit(file, bits):
    "Put the chunk sBIT into a PNG of gray."
    data, chunk = file.read_bytes(), b"sBIT" + bytes([bits])
    file.write_bytes(data[:33] + struct.pack(">I", 1) + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:])
    return file

def deep(path, values):
    Image.fromarray(np.array([values], np.uint16)).save(path)
    return path

@pytest.mark.parametrize("name", ["x.png", "x.tif"])
@pytest.mark.parametrize("top, bits", [(200, 8), (1000, 10), (4000, 12), (16000, 14), (17000, 16)])
def test_16_bits_that_hold_fewer_are_white_where_a_detector_is(tmp_path, name, top, bits):
    got, taken = decode_radiograph(deep(tmp_path/name, [0, top//3, top]))
    np.testing.assert_array_equal(got[0], np.rint(np.array([0, top//3, top]) / (2**bits - 1) * 255))
    assert taken == bits

def test_the_white_of_a_set_is_obeyed_and_what_is_beyond_it_refused(tmp_path):
    files = [deep(tmp_path/"a.png", [0, 500, 1000]), deep(tmp_path/"b.tif", [0, 2000, 4095])]
    Image.fromarray(ramp()).save(tmp_path/"c.png")
    assert white_of([*files, tmp_path/"c.png", tmp_path/"none.png"]) == 12 and white_of([tmp_path/"c.png"]) is None
    np.testing.assert_array_equal(read_radiograph(files[0], white=12)[0], [0, 31, 62])
    with pytest.raises(RadiographError, match="b.tif holds values up to 4,095, where white is 1,023"):
        read_radiograph(files[1], white=10)
    np.testing.assert_array_equal(read_radiograph(tmp_path/"c.png", white=10), ramp()) # says so itself

@pytest.mark.parametrize("values, bits, white", [
    ([0, 1000, 4095], 12, 4095), ([0, 1000, 1500], 12, 4095), ([0, 500], 10, 1023), # as they are
    ([0, 16*1000, 65520], 12, 65535), ([0, 16*10, 16*200], 12, 65535), ([0, 1001], 16, 65535)]) # scaled up
def test_sbit_is_obeyed(tmp_path, values, bits, white):
    for given in None, 10:
        got, taken = decode_radiograph(sbit(deep(tmp_path/"x.png", values), bits), white=given)
        np.testing.assert_array_equal(got[0], np.rint(np.array(values) / white * 255))
        assert taken == 0

def test_a_deep_tiff_where_white_is_zero_is_turned_over_by_its_own_white(tmp_path):
    x = np.array([[0, 4095]], "<u2")
    np.testing.assert_array_equal(read_radiograph(tiff(tmp_path/"x.tif", x.tobytes(), 1, 2, 16, True)), [[255, 0]])

def test_a_transparent_gray_of_16_bits_is_black_and_no_white(tmp_path):
    Image.fromarray(np.array([[0, 4095, 60000]], np.uint16)).save(tmp_path/"x.png", transparency=60000)
    np.testing.assert_array_equal(read_radiograph(tmp_path/"x.png"), [[0, 255, 0]])

def test_colours_of_16_bits_that_hold_12_are_refused(tmp_path):
    def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind+data))
    def save(top):
        rows = b"".join(b"\0" + np.full((5, 3), v, ">u2").tobytes() for v in (0, top//2, top))
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", 5, 3, 16, 2, 0, 0, 0))
        body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
        (tmp_path/"x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + body)
        return tmp_path/"x.png"
    assert read_radiograph(save(65535)).max() == 255
    with pytest.raises(RadiographError, match="16-bit colours that stay below"): read_radiograph(save(4095))

@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_a_film_that_is_transparent_throughout_is_refused(tmp_path, mode):
    im = Image.fromarray(ramp()).convert(mode)
    if mode == "P": im.save(tmp_path/"x.png", transparency=bytes(256))
    else:
        im.putalpha(0)
        im.save(tmp_path/"x.png")
    with pytest.raises(RadiographError, match="transparent throughout"): read_radiograph(tmp_path/"x.png")

# Pages

def test_the_page_that_is_no_thumbnail_is_read_wherever_it_is(tmp_path):
    full, small = Image.fromarray(ramp()), Image.fromarray(ramp(4, 6))
    thumb = {254: 1} # NewSubfileType: reduced
    def save(*pages):
        from PIL.TiffImagePlugin import AppendingTiffWriter
        with open(tmp_path/"x.tif", "w+b") as f, AppendingTiffWriter(f, True) as out:
            for im, tags in pages:
                im.save(out, format="TIFF", tiffinfo=tags)
                out.newFrame()
        return tmp_path/"x.tif"
    np.testing.assert_array_equal(read_radiograph(save((small, thumb), (full, {}))), ramp())
    np.testing.assert_array_equal(read_radiograph(save((full, {}), (small, thumb))), ramp())
    for pages, match in (([(full, {}), (full, {})], "has 2 pages"), ([(full, {}), (small, {})], "has 2 pages"),
                         ([(small, thumb)], "thumbnails alone")):
        with pytest.raises(RadiographError, match=f"x.tif .*{match}"): read_radiograph(save(*pages))

def test_an_animation_is_refused(tmp_path):
    frames = [Image.fromarray(ramp() // k) for k in (1, 2, 3)]
    frames[0].save(tmp_path/"x.png", save_all=True, append_images=frames[1:])
    with pytest.raises(RadiographError, match="has 3 pages or frames"): read_radiograph(tmp_path/"x.png")

# What is wrong with a file

def test_a_header_that_contradicts_its_pixels_is_no_damage(tmp_path):
    x = ramp()
    for file in (tiff(tmp_path/"x.tif", x.tobytes(), 80, 60, 8), png_header(tmp_path/"x.png", 60, 40)):
        with pytest.raises(RadiographError, match=f"{file.name} has a header that lacks or contradicts"):
            read_radiograph(file)
    Image.fromarray(x).save(tmp_path/"y.jpg")
    data = bytearray((tmp_path/"y.jpg").read_bytes())
    data[data.index(b"\xff\xc0") + 4] = 12 # bits
    (tmp_path/"y.jpg").write_bytes(data)
    with pytest.raises(RadiographError, match="y.jpg has a header that lacks or contradicts"):
        read_radiograph(tmp_path/"y.jpg")

MEASURE = """
import resource, sys
import PIL.PngImagePlugin
from cxr_fastai.cohort.radiograph import THREAD_BYTES, read_radiograph
from cxr_fastai.cohort.signs import RadiographError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try: read_radiograph(sys.argv[1])
except RadiographError as e: print(e)
taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
assert taken <= 4 * int(sys.argv[2]), taken
"""

@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
@pytest.mark.slow
def test_a_picture_of_16_bits_takes_four_bytes_a_pixel(tmp_path):
    side = 4000 # 64 MB, beside which Python's own noise is small
    Image.fromarray(np.tile(np.arange(side, dtype=np.uint16)*16, (side, 1))).save(tmp_path/"x.png", compress_level=1)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    shell = f"exec {sys.executable} -c '{MEASURE}' {tmp_path/'x.png'} {side**2}" # a shell's child inherits no peak
    assert subprocess.run(["sh", "-c", shell], env=env, capture_output=True, text=True).stderr == ""

def test_pictures_whose_decoding_takes_more_have_fewer_pixels(tmp_path):
    assert png_header(tmp_path/"g.png", 9000, 9000)
    with pytest.raises(RadiographError, match="contradicts"): read_radiograph(tmp_path/"g.png")
    data = bytearray((tmp_path/"g.png").read_bytes())
    data[25] = 6 # RGBA
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path/"g.png").write_bytes(data)
    with pytest.raises(RadiographError, match="claims 81 million pixels, more than the 50 million"):
        read_radiograph(tmp_path/"g.png")

@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_bands_give_the_same_pixels(tmp_path, monkeypatch, mode):
    import cxr_fastai.cohort.radiograph as module
    rng = np.random.default_rng(0)
    if mode == "I;16": x = rng.integers(0, 2**16, (41, 30), np.uint16)
    else: x = rng.integers(0, 256, (41, 30, len(mode)), np.uint8)
    Image.fromarray(x).save(tmp_path/"x.png")
    whole = read_radiograph(tmp_path/"x.png")
    monkeypatch.setattr(module, "BAND", 64)
    np.testing.assert_array_equal(read_radiograph(tmp_path/"x.png"), whole)
