"Sets of films as their publishers lay them out: 80 drawn films of 64 patients under their names, with their tables."
import io, os, shutil, tarfile
import numpy as np, pandas as pd
from PIL import Image
from films import dicom

def put(film, path):
    "A film under another name, as its ending says."
    path.parent.mkdir(parents=True, exist_ok=True)
    end = path.suffix.lower()
    if end in (".dcm", ".dicom"): return dicom(path, np.asarray(Image.open(film)).astype(np.uint16)*16)
    if end == ".png": return shutil.copy(film, path)
    Image.open(film).save(path, quality=95)

def write(table, path, **kwargs):
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(path, index=False, **kwargs)

def _visits(rows): return rows.groupby("patient_id").cumcount()

def _nih(rows, age="{:.0f}"):
    who, visit = rows.patient_id, _visits(rows)
    hit = rows.label == "Pneumonia"
    return pd.DataFrame({
        "Image Index": [f"{w:08}_{v:03}.png" for w, v in zip(who, visit)],
        "Finding Labels": np.where(hit, "Infiltration|Pneumonia", "No Finding"), "Follow-up #": visit,
        "Patient ID": who,
        "Patient Age": [age.format(o) for o in rows.age.fillna(50)], "Patient Gender": rows.sex,
        "View Position": rows.view})

def nih(rows, root):
    table = _nih(rows)
    write(table.assign(**{"OriginalImage[Width": 48, "Height]": 48}), root/"Data_Entry_2017_v2020.csv")
    write(table[["Image Index"]].assign(**{"Finding Label": "Mass", "Bbox [x": 1}), root/"BBox_List_2017.csv")
    for film, name in zip(rows.file, table["Image Index"]): put(film, root/"images_001"/"images"/name)

def kaggle_sample(rows, root):
    table = _nih(rows, age="{:03.0f}Y")
    write(table.assign(OriginalImageWidth=48, OriginalImageHeight=48), root/"sample_labels.csv")
    for film, name in zip(rows.file, table["Image Index"]): put(film, root/"sample"/"images"/name)

def kermany(rows, root):
    sides = np.array(["train", "train", "val", "test"])[rows.patient_id % 4]
    for o, side in zip(rows.itertuples(), sides):
        who, k = o.patient_id % 1000, int(o.image[-5])
        name = f"person{who}_bacteria_{k + 1}" if o.label == "Pneumonia" else f"IM-{who:04}-{k + 1:04}"
        put(o.file, root/"chest_xray"/side/("PNEUMONIA" if o.label == "Pneumonia" else "NORMAL")/f"{name}.jpeg")
    (root/"__MACOSX").mkdir()
    (root/"chest_xray"/"train"/".DS_Store").touch()
    return root/"chest_xray"

SIGNS = ["No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
         "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
         "Support Devices"]

def _signs(rows):
    table = pd.DataFrame("", rows.index, SIGNS)
    table["Pneumonia"] = np.where(rows.label == "Pneumonia", "1.0", "")
    table["No Finding"] = np.where(rows.label == "Pneumonia", "", "1.0")
    return table

def chexpert(rows, root):
    name = [f"CheXpert-v1.0-small/train/patient{w % 100000:05}/study{v + 1}/view1_frontal.jpg"
            for w, v in zip(rows.patient_id, _visits(rows))]
    about = pd.DataFrame({"Path": name, "Sex": rows.sex.map(dict(F="Female", M="Male")), "Age": rows.age.fillna(50),
                          "Frontal/Lateral": "Frontal", "AP/PA": rows.view})
    table = pd.concat([about, _signs(rows)], axis=1)
    write(table, root/"CheXpert-v1.0-small"/"train.csv")
    other = table.head(3).assign(Path=[o.replace("train/", "valid/") for o in table.Path.head(3)])
    write(other, root/"CheXpert-v1.0-small"/"valid.csv")
    for film, o in zip(rows.file, name): put(film, root/o)
    return root/"CheXpert-v1.0-small"

def mimic(rows, root):
    subject, study = rows.patient_id + 3_000_000, np.arange(len(rows)) + 50_000_000
    name = [f"{i:08x}-aaaa-bbbb-cccc-{i:012x}" for i in range(len(rows))]
    ids = pd.DataFrame(dict(subject_id=subject, study_id=study))
    write(pd.concat([ids, _signs(rows)], axis=1), root/"mimic-cxr-2.0.0-chexpert.csv")
    write(ids.assign(dicom_id=name, ViewPosition=rows.view, StudyDate=21500101 + _visits(rows), StudyTime=101010.5)
          [["dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime"]],
          root/"mimic-cxr-2.0.0-metadata.csv")
    for film, p, s, o in zip(rows.file, subject, study, name):
        put(film, root/"files"/f"p{str(p)[:2]}"/f"p{p}"/f"s{s}"/f"{o}.jpg")

def rsna(rows, root):
    who = [f"{i:08x}-0000-4000-8000-{i:012x}" for i in range(len(rows))]
    hit = rows.label == "Pneumonia"
    box = np.where(hit, "264.0", "")
    table = pd.DataFrame(dict(patientId=who, x=box, y=box, width=box, height=box, Target=hit*1))
    write(pd.concat([table, table[hit].head(4).assign(x="562.0")]), root/"stage_2_train_labels.csv")
    write(pd.DataFrame({"patientId": who, "class": np.where(hit, "Lung Opacity", "Normal")}),
          root/"stage_2_detailed_class_info.csv")
    for film, o in zip(rows.file, who): put(film, root/"stage_2_train_images"/f"{o}.dcm")

def padchest(rows, root):
    name = [f"{10**20 + i}_{i:06}.png" for i in range(len(rows))]
    hit = rows.label == "Pneumonia"
    write(pd.DataFrame({"": range(len(rows)), "ImageID": name, "ImageDir": 0,
                        "StudyDate_DICOM": 20140915 + _visits(rows), "StudyID": range(len(rows)),
                        "PatientID": rows.patient_id,
                        "PatientBirth": 2014 - rows.age.fillna(50), "PatientSex_DICOM": rows.sex,
                        "ViewPosition_DICOM": "POSTEROANTERIOR", "Projection": rows.view,
                        "Labels": np.where(hit, "['pneumonia', 'infiltrates']", "['normal']")}),
          root/"PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv")
    for film, o in zip(rows.file, name): put(film, root/"0"/o)

def vindr(rows, root):
    name = [f"{i:032x}" for i in range(len(rows))]
    hit = rows.label == "Pneumonia"
    table = pd.DataFrame(dict(image_id=name, class_name=np.where(hit, "Lung Opacity", "No finding"),
                              class_id=np.where(hit, 7, 14), rad_id="R1", x_min=np.where(hit, "20", ""), y_min="",
                              x_max="", y_max=""))
    write(pd.concat([table, table.assign(rad_id="R2"), table.assign(rad_id="R3")]), root/"train.csv")
    for film, o in zip(rows.file, name): put(film, root/"train"/f"{o}.dicom")

def openi(rows, root):
    name = [f"CXR{w % 10000}_IM-{i:04}-1001" for i, w in enumerate(rows.patient_id)]
    write(pd.DataFrame({"imageid": name, "Patient ID": rows.patient_id, "View Position": rows.view,
                        "Study Date": 20140915 + _visits(rows),
                        "Patient's Birth Date": [f"{2014 - o:.0f}0101" for o in rows.age.fillna(50)]}),
          root/"nlmcxr_dicom_metadata.csv")
    with tarfile.open(root/"NLMCXR_reports.tgz", "w:gz") as tar:
        for o, label in zip(name, rows.label):
            word = "Pneumonia" if label == "Pneumonia" else "normal"
            xml = f'<e><MeSH><major>{word}</major></MeSH><parentImage id="{o}"></parentImage></e>'.encode()
            info = tarfile.TarInfo(f"ecgen-radiology/{o}.xml")
            info.size = len(xml)
            tar.addfile(info, io.BytesIO(xml))
    for film, o in zip(rows.file, name): put(film, root/"images"/f"{o}.png")

def covid(rows, root):
    name = [f"film-{i}.jpeg" for i in range(len(rows))]
    write(pd.DataFrame(dict(patientid=rows.patient_id, offset=_visits(rows), sex=rows.sex, age=rows.age,
                            finding=np.where(rows.label == "Pneumonia", "Pneumonia/Viral/COVID-19", "No Finding"),
                            view=rows.view, modality="X-ray", filename=name, location="-",
                            clinical_notes="text, of a kind")),
          root/"metadata.csv")
    for film, o in zip(rows.file, name): put(film, root/"images"/o)

def own_csv(rows, root):
    "What a hospital may write: semicolons, its own words, a column that means nothing, one that tells the answer."
    rng, hit = np.random.default_rng(0), rows.label == "Pneumonia"
    write(pd.DataFrame({"Datei": rows.image, "Fall": range(9000, 9000 + len(rows)), "PatientID": rows.patient_id,
                        "Geschlecht": rows.sex, "Sex": rows.sex.map(dict(F="female", M="male")), "Age": rows.age,
                        "smoker": rng.choice(["yes", "no", "former"], len(rows)),
                        "weight": rng.normal(70, 9, len(rows)).round(1),
                        "treated": hit*1, "diagnosis": np.where(hit, "pneumonia", "normal")}),
          root/"films.csv", sep=";")
    for o in rows.itertuples(): put(o.file, root/"pictures"/"2024"/o.image)

def own_folders(rows, root):
    for o in rows.itertuples(): put(o.file, root/("sick" if o.label == "Pneumonia" else "healthy")/o.image)

LAYOUTS = dict(nih=nih, kaggle_sample=kaggle_sample, kermany=kermany, own_csv=own_csv, own_folders=own_folders,
               chexpert=chexpert, mimic=mimic, rsna=rsna, padchest=padchest, vindr=vindr, openi=openi, covid=covid)

def lay_out(name, rows, root):
    "Draw one of `LAYOUTS`; gives what `--data` takes."
    os.makedirs(root, exist_ok=True)
    return LAYOUTS[name](rows, root) or root
