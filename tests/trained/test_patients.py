import numpy as np, pytest
from cxr_fastai.trained.patients import colourful, count_patients, new_patients, passed_over
from PIL import Image

pydicom = pytest.importorskip("pydicom")
CARD = dict(cat_names=["sex", "view"], cont_names=["age"], stats=dict(sex=["F", "M"], view=["AP", "PA"], age=[1, 90]))

def dicom(file, **words):
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = ExplicitVRLittleEndian, generate_uid()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    ds = FileDataset(str(file), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.Rows = ds.Columns = 48
    ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 1, 8, 8, 7, 0
    ds.PhotometricInterpretation, ds.PixelData = "MONOCHROME2", np.arange(48*48, dtype=np.uint8).tobytes()
    ds.PatientName, ds.PatientID = "Doe^Jane", "SECRET7"
    for k, v in words.items(): setattr(ds, k, v)
    ds.save_as(file)
    return file

def one(source, card=CARD, **kwargs): return next(new_patients(source, card, **kwargs))

@pytest.mark.parametrize("words, age", [
    (dict(PatientAge="054Y"), 54), (dict(PatientAge="018M"), 1.5), (dict(PatientAge="052W"), 52*7/365.25),
    (dict(PatientAge="400D"), 400/365.25), (dict(PatientBirthDate="19700101", StudyDate="20200101"), 50),
    (dict(PatientBirthDate="19700101"), None), ({}, None)])
def test_ages_of_headers_are_years(tmp_path, words, age):
    found = one(dicom(tmp_path/"a.dcm", **words))["age"]
    assert found == pytest.approx(age, rel=1e-3) if age else found is None

def test_a_header_gives_view_and_sex_and_no_name(tmp_path):
    row = one(dicom(tmp_path/"a.dcm", PatientSex="F", ViewPosition="AP", Modality="DX", PatientAge="060Y"))
    assert row == dict(image="a.dcm", file=str(tmp_path/"a.dcm"), sex="F", view="AP", age=60, flag="")
    other = one(dicom(tmp_path/"b.dcm", PatientSex="O"))
    assert other["sex"] == "O" and other["flag"] == "sex 'O' is none of F, M, the training rows'" # as of a csv

@pytest.mark.parametrize("words, flag", [
    (dict(ViewPosition="LL"), "view LL: not frontal"), (dict(Modality="CT"), "modality CT: no radiograph"),
    (dict(PatientAge="095Y"), "age 95 is outside of 1 to 90"),
    (dict(PatientAge="120Y"), "age '120Y' is over 100 years"), (dict(ViewPosition="AP", Modality="CR"), "")])
def test_what_is_no_frontal_radiograph_is_flagged(tmp_path, words, flag):
    found = one(dicom(tmp_path/"a.dcm", **words))["flag"]
    assert flag in found and bool(found) == bool(flag)

def test_a_folder_is_walked_in_order_and_dicom_without_a_suffix_is_found(tmp_path):
    for o in ("b/2.png", "a/9.jpg", "1.TIF", "notes.txt", "a/.hidden.png", ".git/x.png", "README"):
        (tmp_path/o).parent.mkdir(exist_ok=True)
        (tmp_path/o).write_bytes(b"x" * 200)
    dicom(tmp_path/"b"/"IM0001")
    assert [o["image"] for o in new_patients(tmp_path, CARD)] == ["1.TIF", "a/9.jpg", "b/2.png", "b/IM0001"]
    assert count_patients(tmp_path) == 4 and passed_over(tmp_path) == (2, "README, notes.txt")

def test_a_folders_files_are_told_by_their_first_bytes(tmp_path):
    dicom(tmp_path/"1.2.840.113619.2.55")
    dicom(tmp_path/"SCAN.PNG")
    dicom(tmp_path/"x.img", PatientAge="060Y")
    import pydicom
    bare = pydicom.dcmread(tmp_path/"x.img")
    del bare.file_meta
    bare.preamble = None
    bare.save_as(tmp_path/"bare", implicit_vr=True, little_endian=True)
    Image.new("L", (48, 48)).save(tmp_path/"film.jfif", format="JPEG")
    Image.new("L", (48, 48)).save(tmp_path/"film.dat", format="TIFF")
    (tmp_path/"lost.dcm").write_bytes(b"")
    dicom(tmp_path/"DICOMDIR") # the index of a disk
    for o in ("README.md", "table.csv", "film.bmp", "x.dcm.txt"): (tmp_path/o).write_text("BM no image")
    found = {o["image"]: o for o in new_patients(tmp_path, CARD)}
    assert set(found) == {"1.2.840.113619.2.55", "SCAN.PNG", "x.img", "bare", "film.jfif", "film.dat", "lost.dcm"}
    assert found["x.img"]["age"] == found["bare"]["age"] == 60
    assert passed_over(tmp_path) == (5, "DICOMDIR, README.md, film.bmp and 2 more")
    assert passed_over(tmp_path/"table.csv") == (0, "")

def test_a_header_that_pydicom_cannot_convert_is_its_own_rows_error(tmp_path):
    dicom(tmp_path/"b.dcm", PatientAge="060Y")
    file = dicom(tmp_path/"a.dcm", PatientAge="060Y")
    data = bytearray(file.read_bytes())
    at = data.index(bytes((0x10, 0, 0x10, 0x10)) + b"AS")
    data[at+4:at+6] = b"FD" # of another type, in which four bytes are no value
    file.write_bytes(data)
    bad, good = new_patients(tmp_path, CARD)
    assert bad["age"] is None and bad["image"] == "a.dcm"
    assert bad["error"].startswith(f"{file} has a header that lacks or contradicts") and "error" not in good
    assert good["age"] == 60

def test_a_csv_wins_over_the_header_which_fills_in(tmp_path):
    dicom(tmp_path/"a.dcm", PatientSex="F", ViewPosition="AP", PatientAge="060Y")
    (tmp_path/"n.csv").write_text("image,sex,age\na.dcm,M,\n")
    row = one(tmp_path/"n.csv")
    assert (row["sex"], row["view"], row["age"]) == ("M", "AP", 60)

def test_nihs_own_table_is_read_with_its_folders(tmp_path):
    (tmp_path/"images_001"/"images").mkdir(parents=True)
    Image.new("L", (48, 48)).save(tmp_path/"images_001"/"images"/"00000001_000.png")
    (tmp_path/"e.csv").write_text("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,"
                                  "View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
                                  "00000001_000.png,Cardiomegaly,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n")
    row = one(tmp_path/"e.csv")
    assert (row["age"], row["sex"], row["view"]) == (58, "M", "PA")
    assert row["file"].endswith("images_001/images/00000001_000.png")

def test_words_are_known_in_any_case_and_others_are_flagged(tmp_path):
    (tmp_path/"n.csv").write_text("file,sex,view,age\nx.png,male,pa,50\ny.png,diverse,LATERAL,-3\nz.png,F,,nan\n")
    x, y, z = new_patients(tmp_path/"n.csv", CARD)
    assert (x["sex"], x["view"], x["flag"]) == ("M", "PA", "")
    assert all(o in y["flag"]
               for o in ("sex 'diverse' is none of F, M", "view 'LATERAL' is none of", "age '-3' is no age"))
    assert z["view"] is None and z["age"] is None and z["flag"] == ""

@pytest.mark.parametrize("sex, age, known", [
    (" Female ", "058Y", ("F", 58)), ("woman", " 58 ", ("F", 58)), ("m", "18M", ("M", 1.5)),
    ("NA", "N/A", (None, None)), ("M", "1e39", ("M", None)), ("M", "inf", ("M", None)), ("M", "414", ("M", None)),
    ("M", "+5.8e1", ("M", 58))])
def test_a_csv_and_a_header_say_the_same(tmp_path, sex, age, known):
    (tmp_path/"n.csv").write_text(f"image,Patient Gender,Patient Age\nx.png,{sex},{age}\n")
    row = one(tmp_path/"n.csv")
    assert (row["sex"], row["age"]) == known and bool(row["flag"]) == (age in ("1e39", "inf", "414"))

def test_a_category_is_one_number_in_every_writing(tmp_path):
    card = dict(cat_names=["site"], cont_names=[], stats=dict(site=["1", "2"]))
    old = card | dict(stats=dict(site=["1.0", "2.0"])) # of a bundle whose training table had gaps
    (tmp_path/"n.csv").write_text(
        "image,site\n" + "".join(f"{i}.png,{o}\n" for i, o in enumerate(["2", "2.0", "02", " 2 "])))
    assert [o["site"] for o in new_patients(tmp_path/"n.csv", card)] == ["2"] * 4
    assert [o["site"] for o in new_patients(tmp_path/"n.csv", old)] == ["2.0"] * 4

@pytest.mark.parametrize("end", [".csv", ".tsv", ".txt", ".csv.gz", ".csv.xz"])
def test_every_table_that_training_reads_is_read(tmp_path, end):
    import gzip, lzma
    text = "image\tage\na  b.png\t5\n".encode("utf-16")
    (tmp_path/f"n{end}").write_bytes(gzip.compress(text) if end[-2:] == "gz" else lzma.compress(text)
                                     if end[-2:] == "xz" else text)
    assert count_patients(tmp_path/f"n{end}") == 1 and one(tmp_path/f"n{end}")["image"] == "a  b.png" # never squeezed

@pytest.mark.parametrize("text", ["file,sex\nx.png,m\xe4nnlich\n".encode("latin-1"),
                                  b"file,sex\nx.png," + b"x" * 200_000], ids=["latin-1", "long"])
def test_a_csv_that_cannot_be_read_is_one_sentence(tmp_path, text):
    (tmp_path/"n.csv").write_bytes(text)
    with pytest.raises(ValueError, match="n.csv can't be read as a table: "): count_patients(tmp_path/"n.csv")
    (tmp_path/"n.csv").write_text("file,sex\nx.png,M,\n")
    with pytest.raises(ValueError,
                       match="n.csv: 1 of 1 rows have more or fewer fields than the header, which has 2: line 2"):
        count_patients(tmp_path/"n.csv")

def test_a_name_that_no_file_can_have_is_a_row_with_its_words(tmp_path):
    (tmp_path/"n.csv").write_text(f"file,sex\n{'x' * 5000}.png,M\n")
    assert one(tmp_path/"n.csv")["sex"] == "M"

def test_a_model_of_the_image_alone_asks_for_no_words(tmp_path):
    assert set(one(dicom(tmp_path/"a.dcm", PatientSex="F"), None)) == {"image", "file", "flag"}

def test_colours_are_seen_and_gray_in_three_channels_is_none(tmp_path):
    gray = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    for name, x in dict(gray=gray, three=np.stack([gray]*3, 2), sepia=np.stack([gray, gray//2, gray//4], 2)).items():
        for end in ("png", "jpg"):
            Image.fromarray(x).save(tmp_path/f"{name}.{end}")
            assert colourful(tmp_path/f"{name}.{end}") == (name == "sepia")
    (tmp_path/"bad.png").write_bytes(b"bad")
    assert not colourful(tmp_path/"bad.png")
