"""The public sets of chest radiographs that `read_xrv` reads: an entry each, which says how its csv is to be read.

A film's findings are one text, as NIH writes them: `Edema|Pneumonia`, with a question mark after one that is uncertain
(`Pneumonia?`); 'No Finding' for a film that is said to have none, 'Nothing positive' where the csv names none without
saying so, missing where it says nothing."""
import ast, tarfile, zlib
from collections.abc import Callable
from dataclasses import dataclass
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from ..core.csvs import read_text
from ..core.files import one_line
from .readers import _nih_sex, _refuse, NIH_FINDINGS
from .words import fold_words

__all__ = ["recognise", "Beside", "RadiographSet", "SETS"]

NONE, NOTHING = "No Finding", "Nothing positive"

@dataclass(frozen=True)
class Beside:
    "A second table of a set, beside its csv or in torchxrayvision."
    files:tuple             # patterns of its name, the first of which finds a file
    on:dict                 # {column of the set's csv: the same one here}
    columns:tuple           # of words that are taken from it
    numbers:tuple           # columns of numbers, likewise
    tells:str               # what it is for, as a sentence goes on where it is absent
    needed:bool=False       # nothing can be read without it
    films:bool=False        # its lines are the films, and what has none is left out
    read:Callable=read_text # (file, columns) -> text

@dataclass(frozen=True)
class RadiographSet:
    "How one set's csv is read. A column may be one that `make` adds."
    title:str              # as its publisher writes it
    names:tuple            # more names, in small letters and digits
    marks:tuple            # columns that its csv has, and all together no other set's
    image:str              # column of image names
    findings:Callable      # (text, csv) -> findings, indexed by the first line of each film
    known:tuple=()         # findings that it tells, beside those that stand in it
    finding:str="Pneumonia" # the positive class where none is named
    wheel:str=None         # its csv in torchxrayvision
    patient:str=None       # column of patients; None: it tells none (RSNA's patientId is the film's)
    age:str=None           # column of ages in years
    sex:str=None           # column of sexes
    view:str=None          # column of views; None: all of its films are frontal
    frontal:dict=None      # word of that column that is a frontal film -> view; others are dropped
    visit:str=None         # column of follow-up numbers from 0
    when:tuple=()          # columns of numbers by which a patient's studies are put in order, instead
    more:tuple=()          # columns that are used where they are there
    make:Callable=None     # (text, csv) -> text with columns more
    beside:tuple=()        # tables beside it
    clean:str=""           # column without which its csv doesn't tell films without any finding from the others
    aside:tuple=()         # what is no finding against 'No Finding'
    void:tuple=()          # words of films of which nothing else is known: never negatives
    kinds:dict=None        # finding -> other words for it
    depth:int=1            # folders and name by which a file is found: of patient/study/name 3

# Ways in which a csv tells findings

def _by_columns(names):
    "A column for each finding: 1, 0, -1 for uncertain, or blank for not mentioned."
    def read(text, csv):
        marks = np.zeros((len(text), len(names)), np.int64)
        for i, o in enumerate(names):
            codes, words = text[o].factorize()
            values = pd.to_numeric(pd.Series(words), errors="coerce")
            bad = np.append(~values.isin([1, 0, -1]), False)
            _refuse(bad[codes], csv, text[o], "are none of 1, 0, -1 (uncertain) or blank (not mentioned)")
            marks[:, i] = np.append(values.fillna(0), 0)[codes]
        key, first, back = np.unique((marks + 1) @ 3**np.arange(len(names)), return_index=True, return_inverse=True)
        said = ["|".join(f"{o}?" if m < 0 else o for o, m in zip(names, marks[i]) if m) or NOTHING for i in first]
        return pd.Series(np.array(said, object)[back], text.index)
    return read

def _by_words(column, split, names=None, known=None):
    "Words in one column, by `split(text)`; `names` gives some another word, `known` are all that there may be."
    def read(text, csv):
        codes, words = text[column].factorize()
        found = [_tried(split, o) for o in words]
        bad = [o is None or bool(known) and bool({*o} - known) for o in found] + [False]
        _refuse(np.array(bad)[codes], csv, text[column], "are not as the set writes findings")
        said = ["|".join(dict.fromkeys((names or {}).get(w, w) for w in o if w)) or np.nan for o in found]
        return pd.Series(np.array([*said, np.nan], object)[codes], text.index)
    return read

def _list(word):
    "The words of a list as Python writes it."
    if isinstance(found := ast.literal_eval(word), list): return found
    raise ValueError(word)

def _tried(split, word):
    try: return [o.strip() for o in split(word)]
    except (ValueError, SyntaxError, TypeError, AttributeError): return None

def _by_votes(image, column, reader):
    "A line each box of each radiograph's readers: a finding of more than half of them, uncertain if of fewer."
    def read(text, csv):
        _refuse(text[column].isna(), csv, text[column], "name no finding")
        names = text[column].replace("No finding", NONE)
        votes = pd.DataFrame({"film": text[image], "word": names, "who": text.get(reader, names).fillna("")})
        readers = votes.groupby("film")["who"].nunique() if reader in text else 1
        share = votes.drop_duplicates().groupby(["film", "word"]).size().div(readers, level="film")
        share = share.reset_index(name="n")
        share = share[(share["n"] > .5) | (share["word"] != NONE)]
        words = share["word"].where(share["n"] > .5, share["word"] + "?")
        first = text[image][~text[image].duplicated()]
        return first.map(words.groupby(share["film"]).agg("|".join)).fillna("")
    return read

def _by_target(image, column, word, positive, clean=None):
    "A line each box or mask of one finding: `positive` tells which lines have it; `clean` which films have no other."
    def read(text, csv):
        _refuse(text[column].isna(), csv, text[column], f"don't say whether there is {word}")
        hit = positive(text[column], csv)
        both = text[image].map(hit.groupby(text[image]).nunique()) > 1
        _refuse(both, csv, text[column], f"say of one film that there is {word} and that there is none")
        hit = hit.groupby(text[image]).first()
        first = text[~text[image].duplicated()]
        said = first[image].map(hit).map({True: word, False: NOTHING})
        return said.mask(clean(first) & (said == NOTHING), NONE) if clean else said
    return read

def _is_one(values, csv):
    values = fold_words(values)
    _refuse(~values.isin(["0", "1"]), csv, values, "are neither 0 nor 1")
    return values == "1"

def _has_mask(values, csv):
    _refuse(~values.str.fullmatch(r"-1|[0-9]+( [0-9]+)*"), csv, values, "are neither -1 nor a mask of numbers")
    return values != "-1"

# Columns that a csv doesn't have as such

def _days(text, csv, column):
    "Years as a number, of a column like 20140915."
    digits = pd.to_numeric(text[column], errors="coerce")
    day = digits.between(1800_01_01, 2999_12_31) & (digits//100 % 100).between(1, 12) & (digits % 100).between(1, 31)
    _refuse(text[column].notna() & ~day, csv, text[column], "are no dates like 20140915")
    return digits//10_000 + (digits//100 % 100 - 1)/12 + (digits % 100 - 1)/365.25

def _words(numbers): return numbers.round(2).map("{:g}".format).mask(numbers.isna())

def _chexpert(text, csv):
    path = text["Path"].str.extract(r"(?:^|/)patient([0-9]+)/study([0-9]+)/[^/]+$")
    _refuse(path[0].isna(), csv, text["Path"], "are no paths like train/patient00001/study1/view1_frontal.jpg")
    view = text["AP/PA"].fillna("Frontal").mask(text["Frontal/Lateral"] != "Frontal", text["Frontal/Lateral"])
    known = dict(Sex=text["Sex"].mask(text["Sex"] == "Unknown"), Age=text["Age"].mask(text["Age"] == "0")) # all adults
    return text.assign(patient=path[0], study=path[1], view=view, **known)

def _padchest(text, csv):
    year, age = _days(text, csv, "StudyDate_DICOM")//1, pd.to_numeric(text["PatientBirth"], errors="coerce")
    _refuse(age.isna() & text["PatientBirth"].notna(), csv, text["PatientBirth"], "are no years")
    return text.assign(age=_words(year - age))

def _mimic(text, csv):
    p, s, name = text["subject_id"], text["study_id"], text["dicom_id"]
    text = text.assign(image="files/p" + p.str[:2] + "/p" + p + "/s" + s + "/" + name + ".jpg", age=np.nan)
    if "anchor_age" not in text: return text.assign(gender=np.nan)
    return text.assign(age=_words(_days(text, csv, "StudyDate")//1 - text["anchor_year"] + text["anchor_age"]))

def _openi(text, csv):
    age = _days(text, csv, "Study Date") - _days(text, csv, "Patient's Birth Date")
    told = text["tsne-view"] if "tsne-view" in text else pd.Series(np.nan, text.index, object)
    sure = text["View Position"].where(text["View Position"].isin(["PA", "AP"]) & (told != "L"), told)
    return text.assign(age=_words(age), view=sure.fillna(text["View Position"]))

def _reports(file, columns):
    "Words of Open-I's reports, a line an image: `imageid mesh`."
    rows, name = [], "the archive"
    try:
        with tarfile.open(file) as tar:
            for o in tar:
                if not (name := o.name).endswith(".xml"): continue
                root = ElementTree.fromstring(tar.extractfile(o).read())
                words = [w.text.split("/")[0].strip() for w in root.iterfind(".//MeSH/major") if w.text]
                rows += [(i.get("id"), "|".join(words) or np.nan) for i in root.iterfind(".//parentImage")]
    except (tarfile.TarError, ElementTree.ParseError, OSError, EOFError, zlib.error) as e:
        raise ValueError(f"{file} can't be read as Open-I's reports: {name} is damaged ({one_line(e)}).") from e
    return pd.DataFrame(rows, columns=["imageid", "mesh"]).astype({"mesh": pd.Series(["a word"]).dtype})

# The sets

_SIGNS = tuple("""Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,
Atelectasis,Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices""".replace("\n", "").split(","))
_FRONTAL = {"PA": "PA", "AP": "AP"}
_bars = lambda word: word.split("|")

SETS = {
    "nih": RadiographSet("NIH ChestX-ray14", ("nihchestxray14", "chestxray14", "nihcxr"),
        ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "View Position"), "Image Index",
        _by_words("Finding Labels", _bars, known={*NIH_FINDINGS, NONE}), tuple(NIH_FINDINGS),
        wheel="Data_Entry_2017_v2020.csv.gz", patient="Patient ID", age="Patient Age", sex="Patient Gender",
        view="View Position", frontal=_FRONTAL, visit="Follow-up #", more=("Patient Gender", "Patient Sex"),
        make=lambda text, csv: _nih_sex(text)),
    "rsna": RadiographSet("RSNA", ("rsnapneumonia", "rsnapneumoniadetectionchallenge"), ("patientId", "Target"),
        "patientId", _by_target("patientId", "Target", "Pneumonia", _is_one,
                                lambda o: o["class"] == "Normal" if "class" in o else False), ("Pneumonia",),
        wheel="kaggle_stage_2_train_labels.csv.zip", age="PatientAge", sex="PatientSex", view="ViewPosition",
        frontal=_FRONTAL,
        beside=(Beside(("*dicom_headers*.csv*",), {"patientId": "PatientID"},
                       ("PatientSex", "ViewPosition"), ("PatientAge",), "age, sex and view"),
                Beside(("*detailed_class_info*.csv*",), {"patientId": "patientId"}, ("class",), (),
                       "which films are Normal")), clean="class"),
    "chexpert": RadiographSet("CheXpert", ("chex",),
        ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", NONE, *_SIGNS), "Path", _by_columns([NONE, *_SIGNS]), _SIGNS,
        wheel="chexpert_train.csv.gz", patient="patient", age="Age", sex="Sex", view="view",
        frontal=_FRONTAL | {"LL": "LL", "RL": "RL", "Frontal": np.nan}, when=("study",),
        make=_chexpert, aside=("Support Devices",), depth=3),
    "mimic": RadiographSet("MIMIC-CXR", ("mimiccxr", "mimiccxrjpg"), ("subject_id", "study_id", NONE, *_SIGNS),
        "image", _by_columns([NONE, *_SIGNS]), _SIGNS, patient="subject_id", age="age", sex="gender",
        view="ViewPosition", frontal=_FRONTAL, when=("StudyDate", "StudyTime"), make=_mimic, aside=("Support Devices",),
        beside=(Beside(("mimic*metadata*.csv*", "metadata.csv*"), {"subject_id": "subject_id", "study_id": "study_id"},
                       ("dicom_id", "ViewPosition"), ("StudyDate", "StudyTime"), "its films and their views",
                       needed=True, films=True),
                Beside(("patients.csv*",), {"subject_id": "subject_id"}, ("gender",), ("anchor_age", "anchor_year"),
                       "age and sex (MIMIC-IV's patients.csv.gz)"))),
    "padchest": RadiographSet("PadChest", ("pc",), ("ImageID", "StudyDate_DICOM", "PatientID", "PatientBirth",
        "PatientSex_DICOM", "Projection", "Labels"), "ImageID", _by_words("Labels", _list, {"normal": NONE}),
        wheel="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz", patient="PatientID", age="age",
        sex="PatientSex_DICOM", view="Projection", frontal=_FRONTAL | {"AP_horizontal": "AP Supine"},
        when=("StudyDate_DICOM",), make=_padchest, void=("exclude", "suboptimal study", "unchanged"),
        kinds={"pneumonia": ("atypical pneumonia",)}),
    "vindr": RadiographSet("VinDr-CXR", ("vindrcxr", "vinbig", "vinbigdata", "vinbrain"),
        ("image_id", "class_name", "x_min"), "image_id", _by_votes("image_id", "class_name", "rad_id"),
        wheel="vinbigdata-train.csv.gz", finding="Lung Opacity", more=("rad_id",)),
    "openi": RadiographSet("Open-I (Indiana University)", ("nlmcxr",),
        ("imageid", "Patient ID", "View Position", "Study Date", "Patient's Birth Date"), "imageid",
        _by_words("mesh", _bars, {"normal": NONE}), wheel="nlmcxr_dicom_metadata.csv.gz", patient="Patient ID",
        age="age", sex="Patient's Sex", view="view", frontal=_FRONTAL, when=("Study Date",), make=_openi,
        void=("No Indexing", "Technical Quality of Image Unsatisfactory"),
        beside=(Beside(("NLMCXR_reports.t*",), {"imageid": "imageid"}, ("mesh",), (), "the findings of its reports",
                       needed=True, read=_reports),
                Beside(("*tsne_pa*.csv*",), {"imageid": "imageid"}, ("tsne-view",), (),
                       "views, which its csv tells badly"))),
    "indiana": RadiographSet("Indiana University (Open-I's films as on Kaggle)", ("indianauniversity", "iu", "iuxray"),
        ("uid", "filename", "projection"), "filename", _by_words("Problems", lambda o: o.split(";"), {"normal": NONE}),
        patient="uid", view="projection", frontal={"Frontal": np.nan},
        void=("No Indexing", "Technical Quality of Image Unsatisfactory"),
        beside=(Beside(("*reports*.csv*",), {"uid": "uid"}, ("Problems",), (), "the findings of its reports",
                       needed=True),)),
    "siim": RadiographSet("SIIM-ACR Pneumothorax", ("siimacr", "siimpneumothorax"), ("ImageId", "EncodedPixels"),
        "ImageId", _by_target("ImageId", "EncodedPixels", "Pneumothorax", _has_mask), ("Pneumothorax",),
        finding="Pneumothorax", wheel="siim-pneumothorax-train-rle.csv.gz", clean="-"),
    "covid19": RadiographSet("COVID-19 Image Data Collection", ("covid", "covidchestxray", "ieee8023"),
        ("patientid", "offset", "sex", "age", "finding", "view", "filename"), "filename",
        _by_words("finding", lambda o: o.split("/")), patient="patientid", age="age", sex="sex", view="view",
        frontal=_FRONTAL | {"AP Supine": "AP Supine", "AP Erect": "AP", "AP semi erect": "AP"}, when=("offset",),
        void=("todo", "Unknown"))}

def recognise(
    header:list, # names of a csv's columns
) -> str:        # the set whose csv has them all, a key of `SETS`; None where none does, or more than one
    "Which public set a csv is of, by its header."
    there = {str(o).strip() for o in header}
    found = [k for k, o in SETS.items() if there.issuperset(o.marks)]
    return found[0] if len(found) == 1 else None
