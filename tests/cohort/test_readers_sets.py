import pytest
from cxr_fastai.cohort.readers import NIH_COLUMNS
from cxr_fastai.cohort.readers_sets import SETS, recognise

SIGNS = """Enlarged Cardiomediastinum,Cardiomegaly,Lung Opacity,Lung Lesion,Edema,Consolidation,Pneumonia,Atelectasis,\
Pneumothorax,Pleural Effusion,Pleural Other,Fracture,Support Devices"""
HEADERS = { # as their publishers write them
    "nih": ",".join(NIH_COLUMNS) + ",OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
    "rsna": "patientId,x,y,width,height,Target",
    "chexpert": f"Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,{SIGNS}",
    "mimic": f"subject_id,study_id,No Finding,{SIGNS}",
    "padchest": "ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,Projection,Labels",
    "vindr": "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
    "openi": "imageid,Patient ID,Patient's Birth Date,Patient's Sex,Study Date,View Position,filename",
    "indiana": "uid,filename,projection",
    "siim": "ImageId, EncodedPixels",
    "covid19": "patientid,offset,sex,age,finding,RT_PCR_positive,view,modality,date,folder,filename,url"}

@pytest.mark.parametrize("name", SETS)
def test_a_header_is_of_its_set_alone(name):
    header = HEADERS[name].split(",")
    assert recognise(header) == name and recognise(header[::-1]) == name and recognise([*header, "more"]) == name
    there = {o.strip() for o in header}
    assert [k for k, o in SETS.items() if there.issuperset(o.marks)] == [name]
    for o in SETS[name].marks: assert recognise([h for h in header if h.strip() != o]) is None, o

@pytest.mark.parametrize("header", [[], ["image", "patient_id", "label"], ["patientId", "class"], [3, None],
    "dicom_id,subject_id,study_id,ViewPosition,StudyDate,StudyTime".split(","), ["image_id", "class_name"]])
def test_another_header_is_of_none(header): assert recognise(header) is None

def test_a_header_of_two_sets_is_of_neither():
    assert recognise(f"{HEADERS['rsna']},{HEADERS['siim']}".split(",")) is None

def test_names_are_of_one_set_each():
    names = [o for k, s in SETS.items() for o in {k, *s.names}]
    assert len(names) == len(set(names)) and all(o.isalnum() and o.islower() for o in names)
