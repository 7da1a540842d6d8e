import numpy as np, pandas as pd, pytest
from cxr_fastai.cohort.folder import data_digest, load_cohort
from cxr_fastai.cohort.groups import with_groups
from cxr_fastai.cohort.rows import columns_of

@pytest.fixture(scope="module")
def cohort(rows, tmp_path_factory):
    "Of a csv with more columns than are read."
    own = rows.assign(who=rows.patient_id, ill=(rows.label == "Pneumonia")*1,
                      site=np.where(rows.index % 2, "  North ", "süd"),
                      code=np.where(rows.index % 5, rows.index.astype(str), "NA"))
    csv = tmp_path_factory.mktemp("own")/"mine.csv"
    own[["image", "who", "ill", "age", "site", "code"]].to_csv(csv, index=False, lineterminator="\r\n")
    return load_cohort(data=str(csv), images=str(rows.file.iloc[0]).rsplit("/", 1)[0], image="image", patient="who",
                       label="ill", cat="", cont="age")

def test_columns_of_the_csv_join_and_change_no_digest(cohort, rows):
    assert "site" not in cohort
    found = with_groups(cohort, " site, code,site,age")
    assert columns_of(found) == columns_of(cohort) and data_digest(cohort) == data_digest(with_groups(cohort, ""))
    assert set(found.site) == {"North", "süd"} and pd.api.types.is_numeric_dtype(found.code)
    at = rows.set_index("image").index.get_indexer(found.image)
    assert (found.site == np.where(at % 2, "North", "süd")).all()
    assert (found.code.isna() == (at % 5 == 0)).all() and (found.code.dropna() == at[at % 5 > 0]).all()

def test_what_makes_no_groups_is_one_sentence(cohort, rows):
    for wrong in "Site", "label", "image", "who":
        with pytest.raises(ValueError, match=r"--groups: '.*' is no column that makes groups; there are age, .*site"):
            with_groups(cohort, ["site", wrong])
    with pytest.raises(ValueError, match="'site' is no column that makes groups; there are age, sex, view"):
        with_groups(rows, "site") # of no csv
    assert with_groups(rows, "sex,age") is rows and with_groups(rows, None) is rows

def test_nihs_other_columns_make_groups():
    found = with_groups(load_cohort(normals=40), "OriginalImagePixelSpacing[x,follow_up")
    assert found["OriginalImagePixelSpacing[x"].notna().all()
