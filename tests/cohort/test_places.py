import os
import pytest
from cxr_fastai.cohort.places import films_below, find_films, csv_header, is_film, tables_in

def touch(root, *names, text="x"):
    for o in names:
        (root/o).parent.mkdir(parents=True, exist_ok=True)
        (root/o).write_text(text)

def test_films_are_found_at_any_depth_hidden_ones_and_other_files_are_not(tmp_path):
    touch(tmp_path, "a.png", "b/c.JPEG", "b/d/e.dcm", "b/notes.txt", ".hidden/f.png", "b/._g.png", "__MACOSX/h.png")
    assert films_below(tmp_path) == ["a.png", "b/c.JPEG", "b/d/e.dcm"]
    assert is_film("x.TIFF") and not is_film("x.csv") and not is_film("png")

def test_a_link_in_a_circle_is_followed_once(tmp_path):
    touch(tmp_path, "far/a.png")
    (tmp_path/"root").mkdir()
    os.symlink(tmp_path/"far", tmp_path/"root"/"near")
    os.symlink(tmp_path/"root", tmp_path/"far"/"back")
    assert films_below(tmp_path/"root") == ["near/a.png"]

@pytest.mark.parametrize("name", ["train/p1/view1.jpg", "Set-v1/train/p1/view1.jpg", "p1/view1.jpg", "./p1/view1.jpg",
                                  r"Set-v1\train\p1\view1.jpg", "train/p1/view1", "p1/view1", "p1/view1.JPG",
                                  "Set-v1/train/p1/view1.dcm"])
def test_a_film_is_found_by_any_way_to_name_it(tmp_path, name):
    touch(tmp_path, "train/p1/view1.jpg", "train/p2/view1.jpg", text="1")
    touch(tmp_path, "train/p2/view1.jpg", text="another")
    assert find_films(tmp_path, [name, "nothing.png"]) == {name: str(tmp_path/"train/p1/view1.jpg")}

def test_two_films_of_one_name_are_refused_and_a_copy_is_the_one_that_lies_higher(tmp_path):
    touch(tmp_path, "s/a.png", "s/s/a.png", text="same")
    assert find_films(tmp_path, ["a.png"]) == {"a.png": str(tmp_path/"s/a.png")}
    touch(tmp_path, "t/a.png", text="another")
    with pytest.raises(ValueError, match="1 images lie in more than one folder .*a.png.*--images"):
        find_films(tmp_path, ["a.png"])

def test_two_films_with_other_endings_than_the_csv_says_are_refused(tmp_path):
    touch(tmp_path, "a.jpg", text="1")
    assert find_films(tmp_path, ["a.png"]) == {"a.png": str(tmp_path/"a.jpg")}
    touch(tmp_path, "a.dcm", text="22")
    with pytest.raises(ValueError, match="a.png"): find_films(tmp_path, ["a.png"])
    assert find_films(tmp_path, ["a.jpg", "b.txt"]) == {"a.jpg": str(tmp_path/"a.jpg")}

def test_tables_are_told_by_their_endings_and_no_half_one(tmp_path):
    touch(tmp_path, "a.csv", "b.TSV", "c.csv.gz", "d.csv.part", "e.csv~", "f.txt", ".g.csv", "h.gz", "i.zip",
          "j.bak.csv", text="x,y\n1,2\n")
    assert [o.name for o in tables_in(tmp_path)] == ["a.csv", "b.TSV", "c.csv.gz", "j.bak.csv"]
    assert csv_header(tmp_path/"a.csv") == ["x", "y"]
    (tmp_path/"bad.csv").write_bytes(b"\xff\xfe\xfa")
    assert csv_header(tmp_path/"bad.csv") == [] == csv_header(tmp_path/"none.csv")

def test_a_film_of_another_folder_is_not_taken_for_one_of_the_same_name(tmp_path):
    touch(tmp_path, "p1/view1.png")
    assert find_films(tmp_path, ["p2/view1.png", "/away/view1.png"]) == {}
