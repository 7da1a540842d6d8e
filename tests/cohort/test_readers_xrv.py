"Public sets: the counts of the csvs in torchxrayvision, and small tables as each publisher writes them."
import gzip, io, sys, tarfile
from importlib.util import find_spec
import pytest
from pandas.testing import assert_frame_equal
from cxr_fastai.cohort import readers_xrv
from cxr_fastai.cohort.folder import flow_table
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.readers_xrv import read_xrv
from cxr_fastai.cohort.rows import classes, columns_of, read_rows, save_rows
from cxr_fastai.cohort.sampling import paper_cohort, split_patients
from .test_readers_sets import HEADERS

needs_xrv = pytest.mark.skipif(not find_spec("torchxrayvision"), reason="needs torchxrayvision")

def write(path, header, *lines, end="\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (end.join([header, *lines]) + end).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path

def touch(*files):
    for f in files:
        f.parent.mkdir(parents=True, exist_ok=True)
        f.touch()

def steps(rows): return {o["step"]: o["rows"] for o in rows.attrs["flow"]}

def labels(rows): return [None if o != o else o for o in rows["label"]]

# Of torchxrayvision's csvs

@needs_xrv
@pytest.mark.parametrize("name,told,flow,counts", [
    ("CheXpert", dict(positive=6039, negative=2799, uncertain=18770, blank=195806), (223414, 191027, 21570),
     dict(Normal=16895, Pneumonia=4675)),
    ("rsna", dict(positive=6012, negative=20672, uncertain=0, blank=0), (26684, 26684, 26684),
     {"No Pneumonia": 20672, "Pneumonia": 6012}),
    ("Open-I", dict(positive=77, uncertain=0), (7469, 4944, 1924), dict(Normal=1873, Pneumonia=51)),
    ("VinBig", dict(positive=547, uncertain=775), (15000, 15000, 11153), {"Normal": 10606, "Lung Opacity": 547}),
    ("SIIM", dict(positive=2669, negative=9378), (12047, 12047, 12047),
     {"No Pneumothorax": 9378, "Pneumothorax": 2669})])
def test_counts_are_the_publishers(name, told, flow, counts):
    rows = read_xrv(name)
    assert tuple(steps(rows).values()) == flow and len(rows) == flow[1]
    assert rows.attrs["told"].items() >= told.items() and rows["label"].value_counts().to_dict() == counts
    assert list(rows) == "image patient_id follow_up age sex view findings label".split()
    assert rows["image"].is_unique and rows.index.tolist() == list(range(len(rows)))

@needs_xrv
def test_nih_is_as_read_nih_reads_it():
    rows = read_xrv("NIH")
    assert len(rows) == steps(rows)["in the table"] == 112120
    assert_frame_equal(rows, read_nih(readers_xrv._own_csv(readers_xrv.SETS["nih"])))

@needs_xrv
@pytest.mark.slow
def test_padchest_has_lists_of_words_and_years_of_birth(capsys):
    rows = read_xrv("PadChest")
    assert tuple(steps(rows).values())[:2] == (160861, 110633)
    assert "49,579 L, 630 COSTAL, 11 EXCLUDE, 8 UNK" in capsys.readouterr().out
    assert rows["view"].value_counts().to_dict() == {"PA": 91728, "AP Supine": 14346, "AP": 4559}
    assert rows["age"].between(0, 100).mean() > .99 and rows["sex"].isin(["F", "M"]).mean() > .99
    assert rows["label"].value_counts()["Pneumonia"] == 5223

# Of each publisher's own

CHEXPERT = ["""\
v/train/patient00001/study1/view1_frontal.jpg,Female,68,Frontal,AP,1.0,,,,,,,,,0.0,,,,1.0
v/train/patient00002/study12/view1_frontal.jpg,Male,87,Frontal,AP,,,-1.0,1.0,,,,1.0,,,,,,
v/train/patient00002/study3/view1_frontal.jpg,Male,0,Frontal,PA,,,,,,,,-1.0,,,,,,
v/train/patient00002/study3/view2_lateral.jpg,Male,83,Lateral,,,,,,,,,-1.0,,,,,,
v/train/patient00003/study1/view1_frontal.jpg,Unknown,41,Frontal,,,,,,,,,,,,,,,"""]

@pytest.fixture
def chexpert(tmp_path): return write(tmp_path/"train.csv", HEADERS["chexpert"], *CHEXPERT)

def test_chexpert(chexpert, capsys):
    rows = read_xrv("chexpert", chexpert)
    assert rows["patient_id"].tolist() == [1, 2, 2, 3] and rows["follow_up"].tolist() == [0, 1, 0, 0]
    assert rows["age"].tolist()[:2] == [68, 87] and rows["age"].isna().tolist() == [False, False, True, False]
    assert rows["view"].tolist()[:3] == ["AP", "AP", "PA"] and rows["view"].isna().tolist()[3]
    assert rows["sex"].tolist()[:3] == ["F", "M", "M"] and rows["sex"].isna().tolist()[3]
    assert rows["findings"].tolist() == ["No Finding|Support Devices", "Cardiomegaly?|Lung Opacity|Pneumonia",
                                         "Pneumonia?", "Nothing positive"]
    assert labels(rows) == ["Normal", "Pneumonia", None, None]
    assert steps(rows) == {"in the table": 5, "frontal": 4, "with a label": 2}
    assert rows.attrs["told"] == dict(positive=1, negative=0, uncertain=2, blank=2)
    said = capsys.readouterr().out
    assert "1 of 5 films are not frontal and are dropped: 1 Lateral" in said and "2 uncertain" in said

@pytest.mark.parametrize("uncertain,negatives,wanted", [
    ("ones", "clean", ["Normal", "Pneumonia", "Pneumonia", None]),
    ("zeros", "clean", ["Normal", "Pneumonia", None, None]),
    ("ones", "all", ["No Pneumonia", "Pneumonia", "Pneumonia", "No Pneumonia"]),
    ("zeros", "all", ["No Pneumonia", "Pneumonia", "No Pneumonia", "No Pneumonia"]),
    ("drop", "all", ["No Pneumonia", "Pneumonia", None, "No Pneumonia"])])
def test_uncertain_films_and_negatives_are_as_asked(chexpert, uncertain, negatives, wanted):
    assert labels(read_xrv("chexpert", chexpert, uncertain=uncertain, negatives=negatives)) == wanted

def test_another_finding_of_the_columns(chexpert):
    rows = read_xrv("chexpert", chexpert, finding="lung_opacity")
    assert classes(rows) == ("Normal", "Lung Opacity") and labels(rows) == ["Normal", "Lung Opacity", None, None]

@pytest.mark.parametrize("at", ["", "CheXpert-v1.0-small", "CheXpert-v1.0-small/train"])
def test_chexperts_films_are_found_from_any_folder_above(chexpert, tmp_path, at):
    root = tmp_path/"films"/"CheXpert-v1.0-small"/"train"
    names = "patient00001/study1", "patient00002/study12", "patient00002/study3", "patient00003/study1"
    touch(*(root/o/"view1_frontal.jpg" for o in names))
    rows = read_xrv("chexpert", chexpert, images=tmp_path/"films"/at)
    assert rows["file"].tolist() == [str(root/o/"view1_frontal.jpg") for o in names]

RSNA = "a,1,2,3,4,1", "a,5,6,7,8,1", "b,,,,,0", "c,,,,,0"
HEADS = ",BodyPartExamined,PatientAge,PatientID,PatientSex,ViewPosition"

def test_rsna_has_a_line_each_box_and_its_tables_beside(tmp_path):
    csv = write(tmp_path/"stage_2_train_labels.csv", HEADERS["rsna"], *RSNA)
    write(tmp_path/"my_dicom_headers.csv.gz", HEADS, "0,CHEST,43,a,F,PA", "1,CHEST,151,b,M,AP", "2,CHEST,9,c,M,AP")
    info = tmp_path/"stage_2_detailed_class_info.csv"
    write(info, "patientId,class", "a,Lung Opacity", "a,Lung Opacity", "b,Normal", "c,No Lung Opacity / Not Normal")
    touch(*(tmp_path/"stage_2_train_images"/f"{o}.dcm" for o in "abc"))
    rows = read_xrv("RSNA", csv, tmp_path)
    assert rows["image"].tolist() == ["a", "b", "c"] and rows["age"].tolist()[::2] == [43, 9]
    assert rows["sex"].tolist() == ["F", "M", "M"] and rows["view"].tolist() == ["PA", "AP", "AP"]
    assert rows["findings"].tolist() == ["Pneumonia", "No Finding", "Nothing positive"]
    assert labels(rows) == ["Pneumonia", "Normal", None] and rows["file"][0].endswith("images/a.dcm")
    info.unlink()
    rows = read_xrv("RSNA", csv)
    assert labels(rows) == ["Pneumonia", "No Pneumonia", "No Pneumonia"]

META = "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,StudyDate,StudyTime"

@pytest.fixture
def mimic(tmp_path):
    write(tmp_path/"mimic-cxr-2.0.0-metadata.csv.gz", META,
          "d1,10000032,50,CHEST (PA AND LAT),PA,9,21800506,213014.531",
          "d2,10000032,50,CHEST (PA AND LAT),LATERAL,9,21800506,213014.531", "d3,10000032,49,,AP,9,21800506,93000.5",
          "d4,10000764,7,,AP,9,21321015,1500.5", "d5,10000764,6,,,9,21321016,1500.5",
          "d6,10009999,1,,AP,9,21321016,1.5")
    return write(tmp_path/"mimic-cxr-2.0.0-chexpert.csv.gz", HEADERS["mimic"], "10000032,50,,,,,,,,1.0,,,,,,",
                 "10000032,49,1.0,,,,,,,,,,,,,", "10000764,7,,,,,,,,-1.0,,,,,,", "10000764,6,,,,,,,,0.0,,,,,,",
                 "10000898,3,,,,,,,,0.0,,,,,,")

def test_mimic_joins_its_metadata(mimic, tmp_path, capsys):
    rows = read_xrv("MIMIC-CXR", mimic)
    assert rows["image"].tolist() == [f"files/p10/p{o}.jpg" for o in ("10000032/s50/d1", "10000032/s49/d3",
                                                                     "10000764/s7/d4")]
    assert rows["patient_id"].tolist() == [10000032, 10000032, 10000764] and rows["follow_up"].tolist() == [1, 0, 0]
    assert labels(rows) == ["Pneumonia", "Normal", None] and rows["age"].isna().all()
    said = capsys.readouterr().out
    assert "doesn't know 1 of 6 rows" in said
    assert "2 of 5 films are not frontal and are dropped: 1 LATERAL, 1 unknown" in said
    write(tmp_path/"patients.csv", "subject_id,gender,anchor_age,anchor_year", "10000032,F,52,2180",
          "10000764,M,86,2130")
    touch(tmp_path/"p10"/"p10000032"/"s50"/"d1.dcm", *(tmp_path/"jpg"/f"{o}.jpg" for o in ("d3", "d4")))
    rows = read_xrv("mimic", mimic, tmp_path)
    assert rows["age"].tolist() == [52, 52, 88] and rows["sex"].tolist() == ["F", "F", "M"]
    assert [o[-6:] for o in rows["file"]] == ["d1.dcm", "d3.jpg", "d4.jpg"]

def test_padchest(tmp_path):
    csv = write(tmp_path/"padchest.csv", "," + HEADERS["padchest"],
        "0,a.png,0,20140915,1,83986048869429233163798823568146,1930.0,F,PA,['normal']",
        '''1,b.png,0,20130915,2,83986048869429233163798823568146,1930.0,F,AP_horizontal,"['pneumonia', ' nodule']"''',
        "2,c.png,0,20130915,2,83986048869429233163798823568146,1930.0,F,L,['pneumonia']",
        "3,d.png,0,20150101,3,7,,O,AP,['atypical pneumonia']", "4,e.png,0,20150101,4,8,1900,M,PA,['unchanged']",
        "5,f.png,0,20150101,5,9,1950,nan,PA,nan", "6,g.png,0,20150101,6,9,1950,M,PA,['']",
        "7,h.png,0,20150101,7,11,1950,M,PA,['COPD signs']")
    rows = read_xrv("padchest", csv, negatives="all")
    assert rows["follow_up"].tolist()[:2] == [1, 0] and rows["age"].tolist()[:2] == [84, 83]
    assert rows["view"].tolist()[:2] == ["PA", "AP Supine"] and rows["findings"][1] == "pneumonia|nodule"
    assert labels(rows) == ["No Pneumonia", "Pneumonia", "Pneumonia", None, None, None, "No Pneumonia"]
    assert labels(read_xrv("padchest", csv))[6] is None and labels(read_xrv("padchest", csv))[0] == "Normal"
    assert classes(read_xrv("padchest", csv, finding="copd signs")) == ("Normal", "COPD signs")

def test_vindr_counts_its_readers(tmp_path):
    csv = write(tmp_path/"train.csv", HEADERS["vindr"], "a,No finding,14,R1,,,,", "a,No finding,14,R2,,,,",
                "a,Lung Opacity,7,R3,1,2,3,4", "b,Lung Opacity,7,R1,1,2,3,4", "b,Lung Opacity,7,R1,5,6,7,8",
                "b,Lung Opacity,7,R2,1,2,3,4", "b,Nodule/Mass,8,R3,1,2,3,4", "c,No finding,14,R1,,,,")
    rows = read_xrv("VinDr-CXR", csv)
    assert rows["findings"].tolist() == ["Lung Opacity?|No Finding", "Lung Opacity|Nodule/Mass?", "No Finding"]
    assert labels(rows) == [None, "Lung Opacity", "Normal"]
    assert labels(read_xrv("vinbig", csv, uncertain="zeros")) == ["Normal", "Lung Opacity", "Normal"]
    assert labels(read_xrv("vinbig", csv, uncertain="ones")) == ["Lung Opacity", "Lung Opacity", "Normal"]

def test_siim_has_a_mask_each_line(tmp_path):
    csv = write(tmp_path/"train-rle.csv", HEADERS["siim"], "1.2.819,-1", "1.2.9,557374 2 1015 8", "1.2.9,5 2")
    touch(tmp_path/"dicom"/"x"/"y"/"1.2.819.dcm", tmp_path/"dicom"/"z"/"1.2.9.dcm")
    rows = read_xrv("siim-acr", csv, tmp_path)
    assert labels(rows) == ["No Pneumothorax", "Pneumothorax"] and rows["file"][1].endswith("z/1.2.9.dcm")

def test_covid_has_words_within_words(tmp_path):
    csv = write(tmp_path/"metadata.csv", HEADERS["covid19"],
        "2,0,M,65,Pneumonia/Viral/COVID-19,Y,PA,X-ray,2020,images,a.jpg,u",
        "2,,M,65,No Finding,Y,AP Supine,X-ray,,images,b.png,u",
        "2,-3,M,65,Tuberculosis,Y,AP Erect,X-ray,,images,c.png,u", "4,5,,,todo,,PA,X-ray,,images,d.png,u",
        "5,5,F,,Pneumonia,,L,X-ray,,images,e.png,u", "5,5,F,,Pneumonia,,Axial,CT,,volumes,e.nii.gz,u")
    rows = read_xrv("COVID-19", csv, negatives="all")
    assert labels(rows) == ["Pneumonia", "No Pneumonia", "No Pneumonia", None]
    assert rows["follow_up"].tolist() == [1, 2, 0, 0] and rows["view"].tolist() == ["PA", "AP Supine", "AP", "PA"]
    assert labels(read_xrv("covid", csv, finding="COVID-19")) == ["COVID-19", "Normal", None, None]

def test_rows_are_saved_and_read_back(chexpert, tmp_path):
    rows = read_xrv("chexpert", chexpert, negatives="all")
    save_rows(rows, tmp_path/"rows.csv")
    assert_frame_equal(read_rows(tmp_path/"rows.csv"), rows)

def test_metadata_that_a_set_tells_is_what_rows_remember(chexpert, tmp_path):
    assert columns_of(read_xrv("chexpert", chexpert)) == dict(cat_names=["sex", "view"], cont_names=["age"])
    siim = read_xrv("siim", write(tmp_path/"siim.csv", HEADERS["siim"], "a,-1", "b,5 6"))
    assert columns_of(siim) == dict(cat_names=[], cont_names=[]) and siim["age"].isna().all()

def test_indianas_projections_and_reports(tmp_path):
    csv = write(tmp_path/"indiana_projections.csv", HEADERS["indiana"], "1,1_IM-0001-4001.dcm.png,Frontal",
                "1,1_IM-0001-3001.dcm.png,Lateral", "2,2_IM-0652-1001.dcm.png,Frontal", "3,3.dcm.png,Frontal")
    write(tmp_path/"indiana_reports.csv", "uid,MeSH,Problems,findings", "1,normal,normal,x",
          "2,Pneumonia/left,Pneumonia;Opacity,x", "3,No Indexing,No Indexing,x")
    rows = read_xrv("Indiana", csv, negatives="all")
    assert rows["patient_id"].tolist() == [1, 2, 3] and labels(rows) == ["No Pneumonia", "Pneumonia", None]

# Broken ones

CHE, SIGN, PAD = HEADERS["chexpert"], "," * 13, HEADERS["padchest"]
GOOD = f"t/patient1/study1/a.jpg,Male,60,Frontal,AP,1.0{SIGN}"
BROKEN = { # set, header, lines, what is said
    "empty": ("chexpert", CHE, [], "holds no rows below its header"),
    "another set": ("chexpert", HEADERS["siim"], ["a,-1"], "is not CheXpert's table: .*; it is SIIM-ACR .*'siim'"),
    "no set": ("rsna", "a,b", ["1,2"], "has no 'patientId', 'Target'; read_table reads any csv"),
    "a mark": ("chexpert", CHE, [GOOD, GOOD.replace("1.0", "2")], r"'No Finding' are none of .*: '2' \(line 3\)"),
    "a path": ("chexpert", CHE, [GOOD, GOOD.replace("study1", "x")], r"column 'Path' are no paths like .*\(line 3\)"),
    "an age": ("chexpert", CHE, [GOOD.replace("60", "old")], r"column 'Age' are no ages .*: 'old' \(line 2\)"),
    "twice": ("chexpert", CHE, [GOOD, GOOD], r"column 'Path' name an image more than once: .*\(line 2\), .*\(line 3\)"),
    "no frontal": ("chexpert", CHE, [GOOD.replace("Frontal", "Lateral")], "none of 1 films is frontal"),
    "fields": ("chexpert", CHE, [GOOD + ",1"], r"more or fewer fields than the header, which has 19: line 2 \(20\)"),
    "a target": ("rsna", "patientId,Target", ["a,0", "b,2"], r"'Target' are neither 0 nor 1: '2' \(line 3\)"),
    "no target": ("rsna", "patientId,Target", ["a,0", "b,"], r"'Target' don't say whether .*: '' \(line 3\)"),
    "both": ("rsna", "patientId,Target", ["a,0", "a,1"], "that there is Pneumonia and that there is none"),
    "no film": ("rsna", "patientId,Target", ["a,0", ",1"], r"'patientId' name no image: '' \(line 3\)"),
    "a mask": ("siim", HEADERS["siim"], ["a,-1", "b,5 x"], r"'EncodedPixels' are neither -1 nor .*: '5 x' \(line 3\)"),
    "no vote": ("vindr", HEADERS["vindr"], ["a,,,R1,,,,"], r"'class_name' name no finding: '' \(line 2\)"),
    "a list": ("padchest", PAD, ["a,0,20140915,1,1,1930,F,PA,normal"], r"'Labels' are not as .*: 'normal' \(line 2\)"),
    "no list": ("padchest", PAD, ["a,0,20140915,1,1,1930,F,PA,'normal'"], r"'Labels' are not as .*\(line 2\)"),
    "code": ("padchest", PAD, ["a,0,20140915,1,1,1930,F,PA,exit()"], r"'Labels' are not as .*: 'exit\(\)' \(line 2\)"),
    "long": ("padchest", PAD, ["a,0,20140915,1,1,1930,F,PA," + "[" * 500], r"'\[{80}\.\.\.' \(line 2\)"),
    "a date": ("padchest", PAD, ["a,0,15.9.2014,1,1,1930,F,PA,['normal']"], r"are no dates like 20140915: '15.9.2014'"),
    "a month": ("padchest", PAD, ["a,0,20141415,1,1,1930,F,PA,['normal']"], r"are no dates like 20140915: '20141415'"),
    "a year": ("padchest", PAD, ["a,0,20140915,1,1,x,F,PA,['normal']"], r"'PatientBirth' are no years: 'x' \(line 2\)"),
    "unborn": ("padchest", PAD, ["a,0,20140915,1,1,2020,F,PA,['normal']"], r"are no ages .*: '-6' \(line 2\)"),
    "no patient": ("padchest", PAD, ["a,0,20140915,1,,1930,F,PA,['normal']"], r"'PatientID' name no patient"),
    "a finding": ("padchest", PAD, ["a,0,20140915,1,1,1930,F,PA,['pneumoia']"], "'Pneumonia' is none of .* pneumoia"),
    "no table beside": ("mimic", HEADERS["mimic"], ["1,1" + ","*14], "no 'mimic.*' beside .* can't be read without it"),
    "another word": ("nih", ",".join(HEADERS["nih"].split(",")[:7]), ["a,Flu,0,1,50,F,PA"], "'Flu'")}

@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_csv_is_one_sentence(name, tmp_path):
    which, header, lines, said = BROKEN[name]
    with pytest.raises((ValueError, FileNotFoundError), match=said) as e:
        read_xrv(which, write(tmp_path/"some.csv", header, *lines, end="\r\n"))
    assert "\n" not in str(e.value) and str(e.value)[-1] in ".?"

META_BROKEN = {"x,10,1,,AP,9,21800101,late": r"'StudyTime' are no numbers: 'late' \(line 2\)",
               "x,11,1,,AP,9,21800101,10": "have no subject_id, study_id in common",
               ",10,1,,AP,9,21800101,10": r"'dicom_id' are empty: '' \(line 2\)",
               "x,,1,,AP,9,21800101,10": r"'subject_id' are empty"}

@pytest.mark.parametrize("line", META_BROKEN)
def test_a_broken_table_beside_is_one_sentence(line, tmp_path):
    csv = write(tmp_path/"mimic-cxr-2.0.0-chexpert.csv", HEADERS["mimic"], "10,1" + ","*14)
    write(tmp_path/"mimic-cxr-2.0.0-metadata.csv", META, line)
    with pytest.raises(ValueError, match=rf"metadata\.csv.*{META_BROKEN[line]}"): read_xrv("mimic", csv)

def test_rsnas_headers_of_other_films_are_refused(tmp_path):
    csv = write(tmp_path/"stage_2_train_labels.csv", HEADERS["rsna"], "a,,,,,0.0", "b,1,1,1,1,1.0")
    assert labels(read_xrv("rsna", csv)) == ["No Pneumonia", "Pneumonia"] # torchxrayvision's are not refused
    write(tmp_path/"dicom_headers.csv", HEADS, "0,CHEST,43,z,F,PA")
    with pytest.raises(ValueError, match="have no patientId in common"): read_xrv("rsna", csv)

XML = "<r><MeSH><major>normal</major></MeSH><parentImage id='{}'/></r>"

def archive(path, **texts):
    with tarfile.open(path, "w:gz") as tar:
        for k, text in texts.items():
            info = tarfile.TarInfo(f"ecgen-radiology/{k}.xml")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))

def test_open_i_takes_its_reports_from_beside(tmp_path):
    lines = "CXR1_a,1,19500101,,20100101,PA,x", "CXR1_b,1,19500101,,20100101,,x", "CXR2_a,2,19500630,,20110630,AP,x"
    csv, reports = write(tmp_path/"nlmcxr.csv", HEADERS["openi"], *lines), tmp_path/"NLMCXR_reports.tgz"
    archive(reports, a=XML.format("CXR1_a"), b=XML.replace("normal", "Pneumonia/lung").format("CXR2_a"))
    rows = read_xrv("openi", csv)
    assert labels(rows) == ["Normal", "Pneumonia"] and rows["age"].tolist() == [60, 61]
    archive(reports, a="<r>")
    with pytest.raises(ValueError, match="NLMCXR_reports.tgz can't be read .*: ecgen-.*/a.xml is damaged"):
        read_xrv("openi", csv)
    reports.write_bytes(b"no archive")
    with pytest.raises(ValueError, match="NLMCXR_reports.tgz can't be read .*: the archive is damaged"):
        read_xrv("openi", csv)

def test_lines_beside_that_differ_are_refused(mimic, tmp_path):
    write(tmp_path/"patients.csv", "subject_id,gender,anchor_age,anchor_year", "10000032,F,5,2180", "10000032,M,5,2180")
    with pytest.raises(ValueError, match="patients.csv.*'subject_id' stand in lines that say different things"):
        read_xrv("mimic", mimic)

def test_words_that_are_none_are_refused(chexpert):
    with pytest.raises(ValueError, match="'chexprt' is none of .*; did you mean 'chexpert'"): read_xrv("chexprt")
    with pytest.raises(ValueError, match="csv is not in torchxrayvision"): read_xrv("mimic")
    with pytest.raises(ValueError, match="uncertain='x'"): read_xrv("chexpert", chexpert, uncertain="x")
    with pytest.raises(ValueError, match="negatives='x'"): read_xrv("chexpert", chexpert, negatives="x")
    with pytest.raises(ValueError, match="'Pneumnia' is none of the 13 findings .*: Pneumonia, Pneumothorax"):
        read_xrv("chexpert", chexpert, finding="Pneumnia")

def test_films_that_lie_twice_or_nowhere_are_refused(chexpert, tmp_path):
    with pytest.raises(FileNotFoundError, match="4 of 4 images are not in"): read_xrv("chexpert", chexpert, tmp_path)
    touch(*(tmp_path/o/"patient00001"/"study1"/"view1_frontal.jpg" for o in "ab"))
    with pytest.raises(ValueError, match="1 images lie more than once below"): read_xrv("chexpert", chexpert, tmp_path)
    rows = read_xrv("chexpert", chexpert, tmp_path/"a", missing="drop")
    assert len(rows) == 1 and steps(rows)["frontal"] == 4

def test_a_circle_of_links_ends(chexpert, tmp_path):
    touch(tmp_path/"a"/"patient00001"/"study1"/"view1_frontal.jpg")
    (tmp_path/"a"/"patient00001"/"again").symlink_to(tmp_path/"a")
    assert len(read_xrv("chexpert", chexpert, tmp_path, missing="drop")) == 1

def test_without_torchxrayvision_its_csvs_are_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchxrayvision", None)
    with pytest.raises(ImportError, match=r"CheXpert's csv.* needs torchxrayvision: pip install 'cxr_fastai\[xrv\]'"):
        read_xrv("chexpert")

def test_rows_go_on_to_a_cohort_and_a_split(tmp_path):
    lines = [f"t/patient{i:05}/study1/view1_frontal.jpg,Male,{20 + i},Frontal,AP,{'1.0' if i % 3 else ''},,,,,,,"
             f"{'' if i % 3 else '1.0'}{',' * 6}" for i in range(1, 61)]
    rows = read_xrv("chexpert", write(tmp_path/"train.csv", HEADERS["chexpert"], *lines))
    rows = split_patients(paper_cohort(rows, n_normal=None), seed=0)
    table = flow_table(rows)
    assert table["step"].tolist() == ["in the table", "frontal", "with a label", "train", "valid", "test"]
    assert table["rows"].tolist()[:3] == [60, 60, 60] and table["positives"].tolist()[:3] == [20, 20, 20]
    assert table["rows"][3:].sum() == 60 and rows.attrs["told"]["positive"] == 20
