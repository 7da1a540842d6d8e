import pytest
from PIL import Image
from cxr_fastai.cohort.signs import is_cut, kind_of, kind_of_file, png_chunks
from films import ramp

@pytest.mark.parametrize("head, kind", [
    (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff\xe0", "JPEG"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"), (b"\0"*128 + b"DICM", "DICOM"), (b"II*\0" + b"\0"*124 + b"DICM", "DICOM"),
    (b"\x08\0\x05\0CS\x0a\0ISO_IR 100".ljust(132, b"\0"), "DICOM"),
    (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100".ljust(132, b"\0"), "DICOM"), (b"", ""), (b"BM", ""), (b"GIF89a", ""),
    (b"\x08\0 or not".ljust(132), ""), (b"image,age\n", "")])
def test_a_file_is_what_it_begins_as(head, kind): assert kind_of(head) == kind

def test_what_cannot_be_opened_is_nothing(tmp_path):
    assert kind_of_file(tmp_path) == kind_of_file(tmp_path/"none") == kind_of_file("a\0b") == ""

@pytest.mark.parametrize("name, kind", [("x.png", "PNG"), ("x.jpg", "JPEG"), ("x.tif", "TIFF")])
def test_what_is_cut_is_known_from_what_is_whole(tmp_path, name, kind):
    Image.fromarray(ramp()).save(tmp_path/name)
    data = (tmp_path/name).read_bytes()
    with open(tmp_path/name, "rb") as f: assert not is_cut(f, kind)
    for n in len(data) - 9, len(data)//2:
        (tmp_path/name).write_bytes(data[:n])
        with open(tmp_path/name, "rb") as f: assert is_cut(f, kind)

def test_a_pngs_chunks_come_with_their_checksums_checked(tmp_path):
    Image.fromarray(ramp()).save(tmp_path/"x.png")
    with open(tmp_path/"x.png", "rb") as f: assert [o for o, _ in png_chunks(f)] == [b"IHDR", b"IDAT", b"IEND"]
    data = bytearray((tmp_path/"x.png").read_bytes())
    data[20] ^= 1
    (tmp_path/"x.png").write_bytes(data)
    with open(tmp_path/"x.png", "rb") as f, pytest.raises(EOFError, match="checksum"): list(png_chunks(f))
