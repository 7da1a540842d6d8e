import os, shutil, signal, sys, time
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from cxr_fastai.trained import predict as room
from fastai.vision.all import ClassificationInterpretation
from cxr_fastai.trained.bundle import load_bundle, save_bundle
from cxr_fastai.core.csvs import read_csv
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.stats.scoring import METRICS, scores
from cxr_fastai.trained.predict import predict_patients, Predictor
from conftest import ROOT, SIDE, run_python, start_python

MAKE = dict(image=image_learner, metadata=metadata_learner, both=fusion_learner)

def saved(rows, path, use="both", **kwargs):
    dls = RadiographDataLoaders.from_df(rows, path, size=SIDE, bs=8, use=use)
    learn = MAKE[use](dls, **({} if use == "metadata" else dict(arch="test_resnet", weights="none") | kwargs))
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return save_bundle(learn, path/f"{use}-bundle", threshold=.4)

@pytest.fixture(scope="module")
def bundle(rows, tmp_path_factory): return saved(rows, tmp_path_factory.mktemp("bundle"))

@pytest.fixture
def listed(rows, tmp_path):
    "A csv of 21 patients."
    table = rows.iloc[:21][["image", "file", "age", "sex", "view", "patient_id"]]
    table.to_csv(tmp_path/"new.csv", index=False)
    return tmp_path/"new.csv"

def read(file): return pd.read_csv(file, dtype=dict(image=str))

@pytest.mark.parametrize("use", MAKE)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_probabilities_are_the_learners_own_bits(rows, tmp_path, listed, use, precision):
    b = saved(rows, tmp_path, use, **({} if use == "metadata" else dict(precision=precision)))
    learn, found = load_bundle(b), read(predict_patients(b, listed, tmp_path/"out.csv"))
    with learn.no_bar(): prob = learn.get_preds(dl=learn.dls.test_dl(rows.iloc[:21]))[0][:, 1]
    assert torch.equal(prob, torch.tensor(found.probability.to_numpy(np.float32)))
    assert list(found.decision) == ["Pneumonia" if p > .4 else "Normal" for p in prob] and set(found.threshold) == {.4}
    assert found.error.isna().all() and list(found.image) == list(rows.file[:21])

def test_every_door_decides_at_the_bundles_threshold(rows, tmp_path, listed):
    some = rows.iloc[:21]
    dls = RadiographDataLoaders.from_df(rows, tmp_path, size=SIDE, bs=8)
    learn = fusion_learner(dls, arch="test_resnet", weights="none", precision="fp32")
    with learn.no_bar(): prob = learn.get_preds(dl=learn.dls.test_dl(some))[0][:, 1].double()
    # a threshold that is one patient's probability to the bit, and far from .5 for most
    at = float(prob.sort().values[5])
    learn = load_bundle(save_bundle(learn, tmp_path/"b", threshold=at))
    said = read(predict_patients(tmp_path/"b", listed, tmp_path/"out.csv")).decision.tolist()
    assert said == ["Pneumonia" if p > at else "Normal" for p in prob] and said.count("Pneumonia") == 15
    with learn.no_bar():
        one = [learn.predict(o)[:2] for o in some.to_dict("records")]
        decoded = learn.get_preds(dl=learn.dls.test_dl(some), with_decoded=True)[2]
        matrix = ClassificationInterpretation.from_learner(
            learn, dl=learn.dls.test_dl(some, with_labels=True)).confusion_matrix()
    assert [o for o, _ in one] == said and [learn.dls.vocab[o] for o in decoded] == said
    assert [learn.dls.vocab[int(o)] for _, o in one] == said and matrix[:, 1].sum() == 15
    assert learn.threshold == at and load_bundle(save_bundle(learn, tmp_path/"again")).threshold == at
    assert Predictor(learn, .9).threshold == .9 and learn.threshold == at # one run's own

def test_a_bad_file_is_a_row_with_its_reason_and_the_others_go_on(rows, tmp_path, bundle):
    folder = tmp_path/"new"
    (folder/"deep").mkdir(parents=True)
    for i, o in enumerate(rows.file[:9]): shutil.copy(o, folder/f"{i}.png")
    shutil.copy(rows.file[9], folder/"deep"/"9.PNG")
    (folder/"3.png").write_bytes((folder/"3.png").read_bytes()[:300])
    (folder/"4.png").write_bytes(b"")
    (folder/"notes.txt").write_text("no image")
    found = read(predict_patients(bundle, folder, tmp_path/"out.csv"))
    assert list(found.image) == [*(f"{i}.png" for i in range(9)), "deep/9.PNG"]
    assert list(found.index[found.error.notna()]) == [3, 4] and found.probability.isna().sum() == 2
    assert "3.png is truncated or damaged" in found.error[3] and "4.png is empty (0 bytes)" in found.error[4]
    assert (found.missing == "sex view age").all() and found.decision.isna().sum() == 2

def test_one_damaged_header_is_one_row_and_what_is_no_image_is_named(rows, tmp_path, bundle, capsys):
    from films import dicom
    folder = tmp_path/"new"
    folder.mkdir()
    film = np.asarray(Image.open(rows.file[0])).astype(np.uint16)
    for name in "1.2.3", "b.dcm", "c.dcm":
        dicom(folder/name, film, bits=8, PatientAge="050Y", RescaleSlope=2, RescaleIntercept=0)
    for name, tag in ("b.dcm", b"\x28\0\x53\x10DS"), ("c.dcm", b"\x10\0\x10\x10AS"):
        data = bytearray((folder/name).read_bytes())
        at = data.index(tag)
        data[at+4:at+10] = data[at+4:at+8] + b"xy" if name == "b.dcm" else b"FD" + data[at+6:at+10] # of no number
        (folder/name).write_bytes(data)
    (folder/"notes.txt").write_text("no image")
    found = read(predict_patients(bundle, folder, tmp_path/"out.csv"))
    assert list(found.image) == ["1.2.3", "b.dcm", "c.dcm"] and found.error.notna().tolist() == [False, True, True]
    assert found.error[1:].str.contains("has a header that lacks or contradicts").all() and found.age[0] == 50
    assert "1 files of" in (said := capsys.readouterr().out) and "passed over" in said and "notes.txt" in said

def test_a_16_bit_film_is_decoded_as_the_training_films_were(rows, tmp_path, bundle):
    def deep(row, top=4095):
        gray = np.asarray(Image.open(row.file)).astype(np.uint16)
        Image.fromarray((gray.astype(float) / 255 * top).astype(np.uint16)).save(tmp_path/row.image)
        return str(tmp_path/row.image)
    some = rows.groupby("split", group_keys=False).head(24)
    bright = some.assign(file=[deep(o) for o in some.itertuples()])
    b = saved(bright, tmp_path, "image")
    assert load_bundle(b).card["white"] == 12
    dark = deep(some.iloc[0], 1000) # alone, it would be taken for 10 bits
    (tmp_path/"n.csv").write_text(f"image\n{dark}\n")
    found = read(predict_patients(b, tmp_path/"n.csv", tmp_path/"out.csv"))
    learn = load_bundle(b)
    with learn.no_bar(): one = learn.predict(image=dark)[2][1]
    assert pd.isna(found.flag[0]) or "white" not in found.flag[0]
    np.testing.assert_allclose(found.probability[0], one, atol=1e-6)
    pixels = Predictor(learn).decode(dict(file=dark, flag=""))["pixels"]
    assert pixels.max() < 70 # of 1000 / 4095
    (tmp_path/"n.csv").write_text(f"image\n{deep(some.iloc[1], 60000)}\n")
    assert "where white is 4,095" in read(predict_patients(b, tmp_path/"n.csv", tmp_path/"o2.csv")).error[0]
    Image.fromarray(np.asarray(Image.open(dark)) * 4).save(tmp_path/"d.png")
    (tmp_path/"n.csv").write_text("image,age,sex,view\nd.png,50,F,PA\n")
    said = read(predict_patients(bundle, tmp_path/"n.csv", tmp_path/"o3.csv")).flag[0] # its training films had 8 bits
    assert "doesn't say what white is: 4,095 was taken" in said

def test_pictures_and_values_unlike_the_training_rows_are_flagged(rows, tmp_path, bundle):
    film = np.asarray(Image.open(rows.file[0]))
    Image.fromarray(np.full_like(film, 90)).save(tmp_path/"blank.png")
    Image.fromarray(np.stack([film, film // 2, film // 4], 2)).save(tmp_path/"colour.png")
    Image.fromarray(np.stack([film]*3, 2)).save(tmp_path/"gray.png")
    (tmp_path/"n.csv").write_text("image,age,sex,view\nblank.png,400,female,pa\ncolour.png,old,X,AP\ngray.png,,,\n")
    found = read(predict_patients(bundle, tmp_path/"n.csv", tmp_path/"out.csv"))
    assert "of one gray" in found.flag[0] and "age '400' is over 100 years" in found.flag[0]
    assert found.sex[0] == "F" and found.view[0] == "PA" and pd.isna(found.age[0]) and found.missing[0] == "age"
    assert "in colour" in found.flag[1] and "age 'old' is no number" in found.flag[1]
    assert "sex 'X' is none of F, M" in found.flag[1]
    assert pd.isna(found.flag[2]) and found.missing[2] == "sex view age" and found.probability.notna().all()

def test_a_finished_table_is_left_and_a_longer_list_goes_on(rows, tmp_path, bundle, listed, capsys, monkeypatch):
    whole = predict_patients(bundle, listed, tmp_path/"whole.csv").read_bytes()
    table = pd.read_csv(listed)
    table.head(10).to_csv(listed, index=False)
    predict_patients(bundle, listed, out := tmp_path/"out.csv")
    before = out.stat().st_mtime_ns
    assert predict_patients(bundle, listed, out) == out and out.stat().st_mtime_ns == before
    assert "out.csv is finished: 10 rows" in capsys.readouterr().out
    table.to_csv(listed, index=False)
    seen, decode = [], Predictor.decode
    monkeypatch.setattr(Predictor, "decode", lambda self, row: seen.append(row["image"]) or decode(self, row))
    predict_patients(bundle, listed, out)
    assert out.read_bytes() == whole and len(seen) == 21 - 8 and not list(tmp_path.glob("*.part"))

def test_a_cut_part_goes_on_after_its_last_whole_batch(tmp_path, bundle, listed):
    whole = predict_patients(bundle, listed, tmp_path/"whole.csv").read_bytes()
    for cut in (len(whole) // 2, 20, 0, len(whole) - 1):
        (tmp_path/"out.csv.part").write_bytes(whole[:cut])
        assert predict_patients(bundle, listed, tmp_path/"out.csv").read_bytes() == whole
        (tmp_path/"out.csv").unlink()

@pytest.mark.slow
def test_a_killed_run_goes_on(rows, tmp_path, bundle):
    new = tmp_path/"new.csv"
    pd.concat([rows[["file", "age", "sex", "view"]]] * 6).to_csv(new, index=False)
    whole = predict_patients(bundle, new, tmp_path/"whole.csv").read_bytes()
    code = f"""
import time
from cxr_fastai.trained import predict
table = predict.Predictor.table
def slow(*args):
    time.sleep(.05)
    return table(*args)
predict.Predictor.table = slow
predict.predict_patients({str(bundle)!r}, {str(new)!r}, {str(tmp_path/"out.csv")!r})"""
    job, part = start_python(code), tmp_path/"out.csv.part"
    while not (part.exists() and part.stat().st_size > 3000): time.sleep(.02); assert job.poll() is None
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert not (tmp_path/"out.csv").exists() and len(part.read_bytes()) < len(whole)
    assert predict_patients(bundle, new, tmp_path/"out.csv").read_bytes() == whole

def test_a_table_of_another_model_threshold_or_list_is_refused(rows, tmp_path, bundle, listed):
    out = predict_patients(bundle, listed, tmp_path/"out.csv")
    before = out.read_bytes()
    with pytest.raises(ValueError, match="out.csv has in row 1 threshold '0.4', not '0.7': it is of another model"):
        predict_patients(bundle, listed, out, threshold=.7)
    other = saved(rows, tmp_path, use="image")
    with pytest.raises(ValueError, match="no table of this model's predictions"): predict_patients(other, listed, out)
    table = pd.read_csv(listed)
    table[::-1].to_csv(listed, index=False)
    with pytest.raises(ValueError, match="out.csv has in row 1 image '.*', not '.*'; "):
        predict_patients(bundle, listed, out)
    assert out.read_bytes() == before and not list(tmp_path.glob("*.part"))

def test_a_table_of_a_longer_list_is_refused_and_left(tmp_path, bundle, listed):
    out = predict_patients(bundle, listed, tmp_path/"out.csv")
    before, table = out.read_bytes(), pd.read_csv(listed)
    table.head(10).to_csv(listed, index=False)
    with pytest.raises(ValueError, match="out.csv has more rows than the 10 images"):
        predict_patients(bundle, listed, out)
    assert out.read_bytes() == before

def test_a_table_shorter_than_a_batch_is_not_overwritten_by_another_list(rows, tmp_path, bundle, listed):
    table = pd.read_csv(listed)
    table.head(5).to_csv(listed, index=False)
    before = predict_patients(bundle, listed, out := tmp_path/"out.csv").read_bytes()
    table[8:18].to_csv(listed, index=False)
    with pytest.raises(ValueError, match="out.csv has in row 1 image"): predict_patients(bundle, listed, out)
    assert out.read_bytes() == before

def test_corrected_metadata_is_predicted_anew(tmp_path, bundle, listed):
    predict_patients(bundle, listed, out := tmp_path/"out.csv")
    pd.read_csv(listed).assign(age=33).to_csv(listed, index=False)
    with pytest.raises(ValueError, match="row 1 age '.*', not '33.0'"): predict_patients(bundle, listed, out)
    assert set(read(predict_patients(bundle, listed, tmp_path/"other.csv")).age) == {33}

def test_no_patient_gets_the_prediction_of_another_of_the_same_name(rows, tmp_path, bundle):
    for ward, film in (("a", 0), ("b", 1)):
        (tmp_path/ward).mkdir()
        shutil.copyfile(rows.file[film], tmp_path/ward/"IM0000.png")
        os.utime(tmp_path/ward/"IM0000.png", (film, film))
    predict_patients(bundle, tmp_path/"a", out := tmp_path/"out.csv")
    with pytest.raises(ValueError, match="row 1 stamp .* of images or metadata that are others now"):
        predict_patients(bundle, tmp_path/"b", out)

def test_odd_names_and_words_neither_end_the_run_nor_break_the_table(rows, tmp_path, bundle):
    film, new = rows.file[0], tmp_path/"new.csv"
    new.write_text(f'file,sex\n{"x" * 5000}.png,M\n"two\nlines.png",M\n,F\n{film},"F\rx"\n{film},F\n')
    text = predict_patients(bundle, new, out := tmp_path/"out.csv").read_text()
    assert list(read(out).image[1:3].fillna("")) == ["two\nlines.png", ""]
    assert list(read(out).error.isna()) == [False] * 3 + [True] * 2
    (tmp_path/"out.csv").rename(tmp_path/"out.csv.part") # the table can be gone on with
    assert predict_patients(bundle, new, out).read_text() == text

def test_no_name_runs_as_a_formula_or_is_squeezed(rows, tmp_path, bundle):
    (tmp_path/"new").mkdir()
    names = ["+1 (2).png", "-1.png", "=cmd|'x'!A0.png", "@a.png", "a  b.png"]
    for o in names: shutil.copyfile(rows.file[0], tmp_path/"new"/o)
    out = predict_patients(bundle, tmp_path/"new", tmp_path/"out.csv")
    assert [o[0] for o in out.read_text().splitlines()[1:]] == ["'", "'", "'", "'", "a"]
    assert list(read_csv(out)["image"]) == names and predict_patients(bundle, tmp_path/"new", out) == out

@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_is_an_error_row_and_no_decision(rows, tmp_path, bundle, listed, monkeypatch, bad):
    probabilities = Predictor.probabilities
    monkeypatch.setattr(Predictor, "probabilities", lambda self, o: [bad, *probabilities(self, o)[1:]] if o else [])
    found = read(out := predict_patients(bundle, listed, tmp_path/"out.csv"))
    assert found.error.notna().sum() == 3 and found.probability.notna().sum() == found.decision.notna().sum() == 18
    whole = out.read_bytes()
    (tmp_path/"out.csv.part").write_bytes(whole[:len(whole) * 2 // 3])
    out.unlink()
    assert predict_patients(bundle, listed, out).read_bytes() == whole

@pytest.mark.skipif(sys.platform != "linux", reason="other systems' names are always text")
def test_a_name_that_is_no_utf8_is_a_row(rows, tmp_path, bundle):
    (tmp_path/"new").mkdir()
    shutil.copyfile(rows.file[0], os.fsencode(tmp_path/"new") + b"/caf\xe9.png")
    for _ in range(2): found = read(predict_patients(bundle, tmp_path/"new", tmp_path/"out.csv"))
    assert list(found.image) == ["caf\\udce9.png"] and found.probability.notna().all()

@pytest.mark.parametrize("kwargs, match", [
    (dict(threshold=7), "threshold is 7 and must be from 0 to 1"), (dict(bs=0), "bs is 0"),
    (dict(threshold=float("nan")), "threshold is nan")])
def test_settings_that_make_no_sense_are_refused(tmp_path, bundle, listed, kwargs, match):
    with pytest.raises(ValueError, match=match): predict_patients(bundle, listed, tmp_path/"out.csv", **kwargs)
    assert not list(tmp_path.glob("out*"))

def test_a_bundle_that_knows_no_films_says_that_it_checks_none(rows, tmp_path, listed, capsys):
    few = rows[(rows["split"] != "train") | (rows.groupby("split").cumcount() < 30)] # fewer than MIN_FILMS
    found = read(predict_patients(saved(few, tmp_path, "image"), listed, tmp_path/"out.csv"))
    assert "doesn't know what films look like" in capsys.readouterr().out and found.flag.isna().all()

@pytest.mark.slow
def test_what_is_no_source_is_one_sentence(tmp_path, bundle):
    with pytest.raises(FileNotFoundError, match="no file or folder .*nowhere"):
        predict_patients(bundle, tmp_path/"nowhere")
    (tmp_path/"void").mkdir()
    with pytest.raises(FileNotFoundError, match="void' holds no png, jpeg, tiff or DICOM"):
        predict_patients(bundle, tmp_path/"void")
    (tmp_path/"a.csv").write_text("name,age\nx,1\n")
    with pytest.raises(ValueError, match="a.csv has no column of images"): predict_patients(bundle, tmp_path/"a.csv")
    done = run_python(ROOT/"recipes"/"predict.py", bundle, tmp_path/"a.csv")
    assert done.returncode == 1 and done.stderr.strip().count("\n") == 0 and "no column of images" in done.stderr

def test_unreadable_files_do_not_fill_the_memory(tmp_path, bundle, monkeypatch):
    (tmp_path/"new").mkdir()
    for i in range(300): (tmp_path/"new"/f"{i:03}.png").write_bytes(b"")
    sizes, batches = [], room._batches
    monkeypatch.setattr(room, "_batches", lambda rows, bs: (sizes.append(len(o)) or o for o in batches(rows, bs)))
    found = read(predict_patients(bundle, tmp_path/"new", tmp_path/"out.csv"))
    assert max(sizes) == 16 * 8 and len(found) == 300 and found.error.notna().all()

def beside(file): return pd.read_csv(file.with_name(f"{file.stem}.summary.csv")).set_index(["kind", "figure"])["value"]

def test_labels_and_patients_are_kept_and_scored_as_scores_does(rows, tmp_path, bundle, capsys):
    test = rows[rows.split == "test"]
    test.drop(columns="split").to_csv(tmp_path/"new.csv", index=False)
    out = predict_patients(bundle, tmp_path/"new.csv", tmp_path/"o.csv")
    found, said = read(out), capsys.readouterr().out
    assert list(found.label) == list(test.label) and list(found.patient_id) == list(test.patient_id)
    own = scores(found.label == "Pneumonia", found.probability, found.patient_id, .4)
    summary = beside(out)
    assert all(summary["score", k] == pytest.approx(own[k], abs=1e-8, nan_ok=True) for k in METRICS)
    assert summary["called positive", "above 0.4"] == pytest.approx((found.probability > .4).mean())
    card = load_bundle(bundle).card["training"]
    assert summary["called positive", "training rows that are"] == pytest.approx(card["positives"]/card["rows"])
    assert all(o in said for o in ("of its training rows", f"By the labels of {len(test)} films", "half of them from"))
    before = out.read_bytes()
    assert predict_patients(bundle, tmp_path/"new.csv", out).read_bytes() == before # finished: said again
    assert "By the labels of" in capsys.readouterr().out

def test_labels_that_cannot_be_scored_are_said(rows, tmp_path, bundle, capsys):
    test, train = rows[rows.split == "test"].head(9), rows[rows.split == "train"].head(9)
    for name, table, why in (("a", train, "9 rows are of patients that the model was trained on"),
                             ("b", test.assign(label="Effusion"), "label Effusion is none of the model's classes")):
        table.drop(columns="split").to_csv(tmp_path/f"{name}.csv", index=False)
        assert "score" not in beside(predict_patients(bundle, tmp_path/f"{name}.csv", tmp_path/f"{name}-o.csv")).index
        assert why in (said := capsys.readouterr().out) and "No scores: " in said
    test.assign(label=(test.label == "Pneumonia")*1).to_csv(tmp_path/"c.csv", index=False) # 0 and 1
    assert "score" in beside(predict_patients(bundle, tmp_path/"c.csv", tmp_path/"c-o.csv")).index
    test.drop(columns="label").to_csv(tmp_path/"d.csv", index=False)
    found = read(predict_patients(bundle, tmp_path/"d.csv", tmp_path/"d-o.csv"))
    assert "label" not in found and "patient_id" in found

def test_a_table_of_new_patients_needs_no_label(rows, tmp_path, bundle, capsys):
    some = rows[rows.split == "test"].head(5)
    own = pd.DataFrame(dict(film=some.file, Age=some.age.map(lambda o: f"{o + .5:.1f}".replace(".", ",")), Sex="female",
                            who=some.patient_id, smoker=["yes", "no"]*2 + ["yes"])) # two words, and no label
    own.to_csv(tmp_path/"new.csv", index=False, sep=";")
    found = read(predict_patients(bundle, out=tmp_path/"o.csv", data=str(tmp_path/"new.csv"), patient="who"))
    assert found.probability.notna().all() and set(found.sex) == {"F"} and found.missing.eq("view").all()
    assert list(found.patient_id) == list(some.patient_id) and "label" not in found
    said = capsys.readouterr().out
    assert "no column is known to be the label, so that nothing is scored; --label names one." in said
    with pytest.raises(ValueError, match="--cat: without labels"):
        predict_patients(bundle, out=tmp_path/"p.csv", data=str(tmp_path/"new.csv"), cat="sex")
    own.assign(film="gone.png").head(1).to_csv(tmp_path/"gone.csv", index=False)
    lost = read(predict_patients(bundle, out=tmp_path/"q.csv", data=str(tmp_path/"gone.csv"), image="film"))
    assert lost.error.notna().all() # as of a list of images

def test_another_tables_labels_are_the_models_by_their_order(rows, tmp_path, bundle, capsys):
    mine = rows[rows.split == "test"].assign(tb=lambda o: (o.label == "Pneumonia")*1).drop(columns=["split", "label"])
    mine.to_csv(tmp_path/"mine.csv", index=False)
    flags = dict(data=str(tmp_path/"mine.csv"), image="file", patient="patient_id", label="tb", cat="sex,view",
                 cont="age")
    out = predict_patients(bundle, out=tmp_path/"o.csv", positive="1", **flags)
    assert set(read(out).label) == {"Normal", "Pneumonia"} and (read(out).label == "Pneumonia").sum() == mine.tb.sum()
    assert "The label 1 is taken for Pneumonia" in capsys.readouterr().out and ("score", "rocauc") in beside(out).index
    mine.assign(tb=mine.tb.map({0: "Normal", 1: "Pneumonia"})).to_csv(tmp_path/"mine.csv", index=False)
    with pytest.raises(ValueError, match="Normal is the positive class of these rows, and Pneumonia the model's"):
        predict_patients(bundle, out=tmp_path/"p.csv", positive="Normal", negative="Pneumonia", **flags)

def test_flags_are_counted_by_kind(rows, tmp_path, bundle):
    some = rows[rows.split == "test"].head(6).drop(columns=["split", "label"])
    odd = dict(age=[999, 99, 100, 50, 50, 50], view=["XX", "PA", "PA", "YY", "PA", "PA"])
    some.assign(**odd).to_csv(tmp_path/"n.csv", index=False)
    flags = beside(predict_patients(bundle, tmp_path/"n.csv", tmp_path/"o.csv"))["flag"]
    assert flags["age that is no value"] == 1 and flags["age outside of the training rows'"] == 2
    assert flags["view that no training row had"] == 2
