import pytest
from cxr_fastai.cohort.classfolders import class_folders, read_class_folders
from cxr_fastai.cohort.rows import classes, columns_of

def films(root, *names):
    for o in names:
        (root/o).parent.mkdir(parents=True, exist_ok=True)
        (root/o).write_bytes(o.encode())
    return root

def kermany(root, top="chest_xray"):
    return films(root, *(f"{top}/{side}/{o}" for side in ("train", "test") for o in (
        f"NORMAL/IM-0115-000{len(side)}.jpeg", f"NORMAL/NORMAL2-IM-0115-000{len(side)}.jpeg",
        f"PNEUMONIA/person1_bacteria_{len(side)}.jpeg", f"PNEUMONIA/person2_virus_{len(side)}.jpeg")))

@pytest.mark.parametrize("top", ["chest_xray", "chest_xray/chest_xray", "a/b/c"])
def test_kermanys_folders_are_found_at_any_depth_and_their_names_tell_patients(tmp_path, top):
    rows = read_class_folders(kermany(tmp_path, top))
    assert classes(rows) == ("NORMAL", "PNEUMONIA") and len(rows) == 8 and columns_of(rows)["cat_names"] == []
    assert set(rows.patient_id) == {"IM-0115", "NORMAL2-IM-0115", "person1", "person2"}
    assert "split" not in rows and rows.image.is_unique
    assert all(open(o).read().endswith(i) for o, i in zip(rows.file, rows.image))

def test_its_own_sides_are_given_where_they_are_asked_for(tmp_path):
    rows = read_class_folders(kermany(tmp_path), own_split=True)
    assert rows.split.tolist() == [o.split("/")[1] for o in rows.image]
    films(tmp_path/"plain", "a/1.png", "normal/2.png")
    with pytest.raises(ValueError, match="no folders train, valid and test"):
        read_class_folders(tmp_path/"plain", own_split=True)

def test_a_file_whose_name_tells_nothing_is_a_patient_which_is_said(tmp_path, capsys):
    rows = read_class_folders(films(tmp_path, "sick/1.png", "sick/person7_a.png", "healthy/1.png", "healthy/sub/2.png"))
    assert rows.patient_id.nunique() == 4 and "1 of 4 films tell the patient" in capsys.readouterr().out
    assert classes(rows) == ("healthy", "sick")

def test_folders_with_numbers_are_patients_and_years_are_not(tmp_path):
    rows = read_class_folders(films(tmp_path, *(f"{c}/{o}.png" for c in ("sick", "healthy") for o in (
        f"10{c}", "0104/1", "0104/2", "2019/1", "2019/2", "7/1"))))
    assert (rows.patient_id == "0104").sum() == 4 and rows.patient_id.nunique() == 9

def test_masks_beside_films_are_left_out_aloud(tmp_path, capsys):
    "As the COVID-19 Radiography Database unpacks."
    rows = read_class_folders(films(tmp_path, *(f"{c}/{o}/{c}-{i}.png" for c in ("COVID", "Normal") for i in (1, 2)
                                                for o in ("images", "masks", "Lung Masks"))))
    assert len(rows) == 4 and not rows.image.str.contains("ask").any()
    assert "8 images in folders of masks are no films" in capsys.readouterr().out

@pytest.mark.parametrize("kwargs, n", [
    (dict(positive="COVID"), (2, 1)), (dict(positive="COVID", negatives="all"), (3, 1)),
    (dict(positive="COVID", negative="Opacity"), (1, 1))])
def test_of_three_classes_two_are_named(tmp_path, kwargs, n):
    films(tmp_path, "COVID/1.png", "Normal/2.png", "NORMAL/3.png", "Opacity/4.png")
    rows = read_class_folders(tmp_path, **kwargs)
    assert tuple(rows.label.value_counts(sort=False)) == n and len(rows) == 4

@pytest.mark.parametrize("names, kwargs, why", [
    (["a/1.png", "b/2.png"], {}, "'a', 'b', which don't say which is which; name it by --positive"),
    (["COVID/1.png", "Normal/2.png", "Opacity/3.png"], {}, "by --positive"),
    (["a/1.png", "b/2.png", "c/3.png"], dict(positive="a"), "by --negative"),
    (["a/1.png", "normal/2.png"], dict(positive="c"), "'c', asked for as positive"),
    (["a/1.png"], {}, "no two class folders"), (["images_001/1.png", "images_002/2.png"], {}, "no two class folders")])
def test_folders_that_do_not_say_which_is_which_are_one_sentence(tmp_path, names, kwargs, why):
    with pytest.raises(ValueError, match=why): read_class_folders(films(tmp_path, *names), **kwargs)

def test_other_folders_are_none(tmp_path):
    assert class_folders(films(tmp_path, "images/1.png", "notes/a.txt")) == {}
