import numpy as np, pandas as pd, pytest
from PIL import Image, ImageEnhance, ImageOps
from cxr_fastai.cohort.generated import copies_of_held, external_films, film_policy, is_external, read_films
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.rows import is_image_only, positive, read_rows, save_rows
from cxr_fastai.cohort.sampling import split_patients
from cxr_fastai.cohort.synthetic import add_synthetic
from conftest import draw, needs_nih, SHARED

@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    "Twelve films by another generator, in class folders."
    root, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(9)
    for i in range(12):
        place = root/["Normal", "Pneumonia"][i % 2]
        place.mkdir(exist_ok=True)
        Image.fromarray(draw(i % 2, rng)).save(place/f"é{i:02}.png")
    return root

def table(folder, csv, sep=",", end="\n", head="file,label", **columns):
    "A csv of these films beside them."
    names = [f"{o.parent.name}/{o.name}" for o in sorted(folder.glob("*/*.png"))]
    lines = [[o, o.split("/")[0], *(v[i] for v in columns.values())] for i, o in enumerate(names)]
    text = end.join([sep.join([*head.split(","), *columns]), *(sep.join(map(str, o)) for o in lines)])
    (folder/csv).write_bytes(text.encode())
    return folder/csv

def test_class_folders_are_rows_of_train(rows, folder):
    synth = external_films(rows, folder, "gan-2")
    assert len(synth) == 12 and synth.label.value_counts().to_dict() == dict(Normal=6, Pneumonia=6)
    assert set(synth.split) == {"train"} and synth.patient_id.is_unique and is_external(synth).all()
    assert not synth.patient_id.isin(rows.patient_id).any() and set(synth.metadata_policy) == {"donor"}
    donors = rows.set_index("image").loc[synth.donor_image]
    assert (donors.split == "train").all() and (donors.label.to_numpy() == synth.label).all()
    assert list(synth.sex) == list(donors.sex) and list(synth.view) == list(donors.view)

def test_they_join_train_and_read_back(rows, folder, tmp_path):
    both = add_synthetic(rows, external_films(rows, folder, "a", dict(Pneumonia=4), seed=3))
    assert len(both) == len(rows) + 4 and positive(both).sum() == positive(rows).sum() + 4
    assert both.synthetic.sum() == 4 and list(both.age[:len(rows)].dropna()) == list(rows.age.dropna())
    save_rows(both, tmp_path/"rows.csv")
    assert is_external(read_rows(tmp_path/"rows.csv")).sum() == 4

def test_a_seed_draws_films_and_donors(rows, folder):
    one, same, other = (external_films(rows, folder, "a", dict(Pneumonia=4), seed=o) for o in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert list(one.image) != list(other.image) or list(one.donor_image) != list(other.donor_image)
    with pytest.raises(ValueError, match="7 films of Pneumonia by a were asked for, and there are 6"):
        external_films(rows, folder, "a", dict(Pneumonia=7))

@pytest.mark.parametrize("sep, end", [(",", "\n"), (";", "\r\n"), ("\t", "\r\n")])
def test_a_table_gives_labels_sources_and_metadata(rows, folder, sep, end):
    train = rows[rows.split == "train"]
    csv = table(folder, "films.csv", sep, end, age=range(30, 42), sex=["Female", "m"]*6, view=["AP"]*12,
                source=[*train.image[:11], "elsewhere.png"])
    synth = external_films(rows, csv, "a")
    csv.unlink()
    assert set(synth.metadata_policy) == {"own"} and set(synth.sex) == {"F", "M"}
    assert list(synth.age) == list(range(30, 42))
    assert list(synth.source_image[:11]) == list(train.image[:11]) and synth.source_image.isna().sum() == 1
    assert list(synth.patient_id[:11]) == list(train.patient_id[:11])
    assert len(add_synthetic(rows, synth)) == len(rows) + 12

@pytest.mark.parametrize("metadata, said", [
    ("matched", "chooses the films"), ("source", "12 of 12 it isn't known"), ("any", "'any' is not known")])
def test_metadata_that_is_not_known_is_one_sentence(rows, folder, metadata, said):
    with pytest.raises(ValueError, match=said): external_films(rows, folder, "a", metadata=metadata)

def test_metadata_by_policy(rows, folder):
    train = rows[rows.split == "train"]
    csv = table(folder, "films.csv", source=list(train.image[:12]), age=[50]*12)
    by = {o: external_films(rows, csv, "a", metadata=o) for o in ("source", "missing", "image-only", None)}
    csv.unlink()
    assert list(by["source"].view) == list(train.view[:12])
    assert by["missing"][["age", "sex", "view"]].isna().all(axis=None) and is_image_only(by["image-only"]).all()
    assert set(by[None].metadata_policy) == {"donor"} # an age alone is no patient
    masked = add_synthetic(rows, by["missing"][by["missing"].label == "Pneumonia"])
    assert masked.sex[:len(rows)].isna().sum() > rows.sex.isna().sum()

def test_half_a_metadata_is_said(capsys):
    assert film_policy(pd.DataFrame(dict(age=[1])), ["sex", "age"], "a") == "donor"
    assert "have age and not sex" in capsys.readouterr().out

def test_a_source_outside_train_is_refused(rows, folder):
    held = rows.image[rows.split == "test"].iloc[0]
    csv = table(folder, "films.csv", source=[held]*12)
    with pytest.raises(LeakError, match="12 films of a were made from real films that aren't in train"):
        external_films(rows, csv, "a")
    csv.unlink()

def test_films_without_labels_are_of_the_minority_and_it_is_said(rows, folder, capsys):
    assert set(external_films(rows, folder/"Normal", "a").label) == {"Pneumonia"}
    assert "its 6 films are taken for Pneumonia" in capsys.readouterr().out

@pytest.mark.parametrize("text, said", [
    ("path,label\nx.png,Normal", "no column 'file'"), ("file\nx.png", "no column 'label'"),
    ("file,label\n", "no films below"), ("file,label\nx.png,Normal", "1 of 1 films aren't below"),
    ("file,label\nNormal/é00.png,ill", "neither of Normal.*line 2"),
    ("file,label\nNormal/é00.png,0\nNormal/é00.png,1", "name one film twice"),
    ("file,label\n,1\nNormal/é00.png,1", "are empty")])
def test_a_table_that_is_none_is_one_sentence(rows, folder, text, said):
    (folder/"bad.csv").write_text(text)
    with pytest.raises((ValueError, FileNotFoundError), match=said): read_films(folder/"bad.csv", rows)
    (folder/"bad.csv").unlink()

def test_a_place_that_is_none_is_one_sentence(rows, folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file or folder"): read_films(tmp_path/"x", rows)
    with pytest.raises(FileNotFoundError, match="holds no film"): read_films(tmp_path, rows)
    for o in "ab": (tmp_path/f"{o}.csv").write_text("file,label\n")
    with pytest.raises(ValueError, match="holds 2 tables, a.csv, b.csv"): read_films(tmp_path, rows)
    with pytest.raises(ValueError, match="'a/b' can't name a generator"): external_films(rows, folder, "a/b")

def test_rows_that_nobody_made_are_refused_with_what_to_do(rows):
    plain = pd.DataFrame(dict(file=["x.png"], label=["Pneumonia"]))
    with pytest.raises(ValueError, match="no column 'image'.*external_films"): add_synthetic(rows, plain)

COPIES = {"resized": lambda o: o.resize((70, 70)), "darker": ImageEnhance.Brightness, "mirrored": ImageOps.mirror,
          "inverted": ImageOps.invert, "jpeg": lambda o: o}

@pytest.mark.parametrize("how", COPIES)
def test_a_copy_of_a_scored_film_is_refused_each_by_name(rows, tmp_path, how):
    for i, o in enumerate(rows.file[rows.split != "train"][:2]):
        film = COPIES[how](Image.open(o))
        for k in "ab": # one twice
            (film.enhance(.8) if how == "darker" else film).save(tmp_path/f"{i}{k}.{'jpg' if how == 'jpeg' else 'png'}")
    assert len(copies_of_held(rows, sorted(tmp_path.iterdir()))) == 4
    with pytest.raises(LeakError, match=r"4 of 4 films of @a are copies of real films that models are scored on: .*0a"):
        external_films(rows, tmp_path, "a")

def test_films_checked_on_another_split_are_checked_again(rows, folder, tmp_path):
    train = rows[rows.split == "train"].iloc[0]
    Image.open(train.file).save(tmp_path/"x.png")
    synth = external_films(rows, tmp_path, "a")
    other = rows.assign(split=rows.split.where(rows.patient_id != train.patient_id, "test"))
    with pytest.raises(LeakError, match="1 of 1 films of @a are copies"):
        add_synthetic(other, synth.assign(donor_image=None))

def test_without_rows_to_score_or_films_nothing_is_a_copy(rows, folder):
    assert copies_of_held(rows, []).empty and copies_of_held(rows.assign(split="train"), rows.file).empty

@needs_nih
@pytest.mark.slow
def test_of_real_films_copies_are_refused_and_no_other(tmp_path):
    rows = read_nih(SHARED/"nih_sample"/"Data_Entry_2017_v2020.csv", images=SHARED/"nih_sample"/"images")
    rows = split_patients(rows[rows.label.notna()].reset_index(drop=True), test=.12, valid=.05, seed=0)
    held, planted = rows.file[rows.split != "train"], []
    change = [lambda o: o.resize((384, 384)), lambda o: o, lambda o: ImageEnhance.Brightness(o).enhance(1.2),
              ImageOps.mirror, lambda o: ImageOps.mirror(ImageOps.crop(o, 14))]
    for i, o in enumerate(held[:25]):
        planted.append(str(tmp_path/f"{i:02}.{'jpg' if i % 5 == 1 else 'png'}"))
        change[i % 5](Image.open(o).convert("L")).save(planted[-1])
    others = rows.file[rows.split == "train"].tolist()
    assert len(others) >= 500
    assert set(copies_of_held(rows, planted + others).file) == set(planted)
