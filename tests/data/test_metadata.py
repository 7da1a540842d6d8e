import pickle, warnings
import numpy as np, pandas as pd, pytest, torch
from hypothesis import assume, given, settings, strategies as st
from cxr_fastai.arms import POLICIES
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.data.metadata import fitted_metadata, image_only, JoinedMetadata, MetadataTransform, TensorMetadata
from cxr_fastai.cohort.words import fold_word, fold_words

TABLE = pd.DataFrame(dict(sex=["F", "M", "F"], view=["PA", "PA", "AP"], age=[20, 60, 40]))

def fitted(table=TABLE, cat_names=("sex", "view"), cont_names=("age",)):
    return MetadataTransform(cat_names, cont_names).fit(table)

def equal(encoded, wanted): np.testing.assert_allclose(np.asarray(encoded), np.asarray(wanted, np.float32), atol=1e-6)

def test_values_by_hand():
    encoded = fitted()(TABLE) # F M unknown missing | AP PA unknown missing | age missing
    assert type(encoded) is TensorMetadata and encoded.dtype == torch.float32
    equal(encoded, [[1, 0, 0, 0,  0, 1, 0, 0,  0., 0],
                    [0, 1, 0, 0,  0, 1, 0, 0,  1., 0],
                    [1, 0, 0, 0,  1, 0, 0, 0,  .5, 0]])

def test_who_is_image_only_is_known_until_rows_may_be_others():
    policy = next(k for k, o in POLICIES.items() if o.image_only)
    encoded = fitted()(TABLE.assign(metadata_policy=["", policy, ""]))
    sure = encoded.only.tolist() == image_only(encoded).tolist() == [False, True, False]
    assert sure and encoded.to("meta").only.tolist() == pickle.loads(pickle.dumps(encoded)).only.tolist() == [0, 1, 0]
    for o in encoded[[1, 0, 2]], encoded.clone(), torch.lerp(encoded, encoded, .5), encoded*2: assert o.only is None
    assert image_only(encoded[[1, 0, 2]]).tolist() == [True, False, False] and encoded.only is not None
    assert image_only(torch.zeros(2, 3)).tolist() == [False]*2
    encoded[0] = torch.nan
    assert encoded.only is None and image_only(encoded).tolist() == [True, True, False]

def test_values_beyond_the_training_range_go_beyond_0_and_1():
    equal(fitted()(TABLE.assign(age=[0, 80, 40]))[:, -2], [-.5, 1.5, .5])

def test_slots_know_their_column_and_which_says_missing():
    tfm = fitted()
    assert tfm.widths == [4, 4, 2]
    assert tfm.column.tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert tfm.missing.nonzero().flatten().tolist() == [3, 7, 9]

def test_unknown_word_has_its_slot_and_one_warning_for_good():
    tfm = fitted()
    with pytest.warns(UserWarning, match="sex: X not among the training words") as seen:
        equal(tfm(TABLE.assign(sex=["X", "F", "X"]))[:, :4], [[0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 1, 0]])
    assert len(seen) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        equal(tfm(TABLE.assign(sex="Y"))[:, :4], [[0, 0, 1, 0]] * 3)
    with pytest.warns(UserWarning, match="view: lateral"): tfm(TABLE.assign(view="lateral")) # each column warns once

@pytest.mark.parametrize("nothing", [None, np.nan, pd.NA])
def test_missing_has_its_slot_and_no_warning(nothing):
    table = pd.DataFrame(dict(sex=[nothing, "F"], view=[nothing, "AP"], age=[nothing, 40]), dtype=object)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded = fitted()(table)
    equal(encoded, [[0, 0, 0, 1,  0, 0, 0, 1,  0., 1], [1, 0, 0, 0,  1, 0, 0, 0,  .5, 0]])

def test_image_only_rows_are_nan_whatever_they_hold_and_read_as_unknown():
    tfm = fitted()
    table = TABLE.assign(metadata_policy=["image-only", np.nan, "matched"])
    encoded = tfm(table)
    assert type(encoded) is TensorMetadata and encoded[0].isnan().all() and tfm(table.iloc[0]).isnan().all()
    equal(encoded[1:], tfm(TABLE)[1:])
    assert str(tfm.decode(encoded[0])) == "?, ?, ?" and str(tfm.decode(encoded[1])) == "M, PA, 60"

def test_columns_that_are_not_there_are_missing_and_others_are_not_read():
    equal(fitted()(pd.DataFrame(dict(other=[1, 2], sex=["M", "F"]))),
          [[0, 1, 0, 0,  0, 0, 0, 1,  0, 1], [1, 0, 0, 0,  0, 0, 0, 1,  0, 1]])

def test_row_and_table_agree():
    table, tfm = pd.DataFrame(dict(sex=["F", None, "M"], view=["PA", "AP", None], age=[np.nan, 31, 47.5])), fitted()
    for i in range(len(table)): equal(tfm(table.iloc[i]), tfm(table)[i])
    assert tfm(table.iloc[0]).shape == (10,)

def test_decodes_to_words():
    tfm = fitted()
    table = pd.DataFrame(dict(sex=["F", None], view=["PA", "AP"], age=[33.5, np.nan]))
    words = [tfm.decode(o) for o in tfm(table)]
    assert words == [dict(sex="F", view="PA", age=33.5), dict(sex=None, view="AP", age=None)]
    assert [str(o) for o in words] == ["F, PA, 33.5", "?, AP, ?"]
    with pytest.warns(UserWarning): assert tfm.decode(tfm(dict_row(sex="X", age=20)))["sex"] == "#unknown"

def dict_row(**values): return pd.Series(values, dtype=object)

def test_zero_is_a_value_not_missing():
    tfm = fitted(pd.DataFrame(dict(visits=[0, 4])), (), ("visits",))
    assert tfm.decode(tfm(dict_row(visits=0))) == dict(visits=0.) and str(tfm.decode(tfm(dict_row(visits=0)))) == "0"

words   = st.one_of(st.none(), st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=5))
numbers = st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-1000, 1000))
table   = st.lists(st.tuples(words, words, numbers, numbers), min_size=1, max_size=12)

@settings(deadline=None, max_examples=80)
@given(table)
def test_any_table_comes_back_from_its_encoding(values):
    rows = pd.DataFrame(values, columns=["a", "b", "x", "y"])
    kept = [[o for o in names if fold_words(rows[o]).notna().any()] for names in (["a", "b"], ["x", "y"])]
    assume(any(kept))
    tfm = fitted(rows, *kept)
    encoded = tfm(rows)
    assert encoded.shape == (len(rows), sum(tfm.widths)) and torch.isfinite(encoded).all()
    for i, row in rows.iterrows():
        back = tfm.decode(encoded[i])
        for o in kept[0]: assert back[o] == fold_word(row[o])
        for o in kept[1]:
            if pd.isna(row[o]): assert back[o] is None
            else: assert abs(back[o] - row[o]) <= 1e-3 + 1e-6 * (rows[o].max() - rows[o].min())
        equal(tfm(row), encoded[i])

def test_constant_number_encodes_to_0_and_back():
    tfm = fitted(pd.DataFrame(dict(age=[50, 50, None])), (), ("age",))
    equal(tfm(pd.DataFrame(dict(age=[50, None]))), [[0, 0], [0, 1]])
    assert tfm.decode(tfm(dict_row(age=50)))["age"] == 50

def test_numbers_written_as_text_have_a_numeric_range():
    tfm = fitted(pd.DataFrame(dict(age=["9", "10", "30"])), (), ("age",))
    assert tfm.stats["age"] == (9, 30)
    equal(tfm(pd.DataFrame(dict(age=["9", "30"])))[:, 0], [0, 1])

def test_text_where_a_number_belongs_names_the_column():
    with pytest.raises(ValueError, match="'age'.*old"): fitted()(dict_row(sex="F", age="old"))

def test_absent_empty_and_unfitted_are_refused():
    with pytest.raises(ValueError, match="No metadata column weight; the table has sex, view, age"):
        fitted(cont_names=("weight",))
    with pytest.raises(ValueError, match="Metadata column age is empty in all 3 training rows"):
        fitted(TABLE.assign(age=np.nan))
    with pytest.raises(ValueError, match="not fitted"): MetadataTransform()(TABLE)

@pytest.mark.parametrize("sex, view, age", [
    ("Female", "PA", 60), (" f ", "pa", "060Y"), ("woman", "posteroanterior", "60.0"), ("F", "Pa ", " 60 ")])
def test_a_patient_is_encoded_alike_in_every_writing(sex, view, age):
    equal(fitted()(dict_row(sex=sex, view=view, age=age)), fitted()(dict_row(sex="F", view="PA", age=60)))

def test_categories_that_are_numbers_have_one_writing():
    "Trained on 1, 2 and a gap, which pandas reads as 1.0, 2.0 and nan."
    for values in ([1., 2., np.nan], [1, 2, 1], ["1", "02", "NA"], ["1.0", " 2", None]):
        tfm = fitted(pd.DataFrame(dict(site=values)), ("site",), ())
        assert tfm.stats == dict(site=["1", "2"])
        equal(tfm(pd.DataFrame(dict(site=[2, 1]))), tfm(pd.DataFrame(dict(site=["2.0", "01"]))))
    tfm.stats = dict(site=["1.0", "2.0"]) # of a bundle that was trained before
    equal(tfm(pd.DataFrame(dict(site=["2", 1]))), [[0, 1, 0, 0], [1, 0, 0, 0]])

def test_words_for_missing_and_ages_over_100_are_missing():
    tfm = fitted()
    with pytest.warns(UserWarning, match="age: 414 over 100 years; encoded as missing") as seen:
        equal(tfm(pd.DataFrame(dict(sex=["NA", " nan "], view=["", "N/A"], age=[414, "null"]), dtype=object)),
              [[0, 0, 0, 1,  0, 0, 0, 1,  0, 1]] * 2)
    assert len(seen) == 1

@pytest.mark.parametrize("value", [np.inf, -np.inf, 1e39, "inf", -1])
def test_numbers_that_no_model_can_take_are_refused_with_their_rows(rows, value):
    with pytest.raises(ValueError, match="1 of 3 values of metadata column 'age', one of numbers, are .*: .* .1."):
        fitted(TABLE.assign(age=[1, value, 3]))
    with pytest.raises(ValueError, match="1 of 3 values of metadata column 'age'"):
        fitted()(TABLE.assign(age=[1, value, 3]))
    with pytest.raises(ValueError, match=rows["image"][0]):
        RadiographDataLoaders.from_df(rows.assign(age=rows["age"].astype(object).mask(rows.index == 0, value)), size=48,
                                      bs=8, use="metadata")

def test_metadata_named_as_a_column_of_our_own_is_refused_at_from_df(rows):
    with pytest.raises(ValueError, match="'flag' can't name metadata"):
        RadiographDataLoaders.from_df(rows.assign(flag=1), size=48, bs=8, use="metadata", cont_names=("age", "flag"))

def test_from_df_fits_on_training_rows_only(rows, tmp_path):
    "A word and an age that only test rows have are not learned from them."
    few = rows.index.isin(rows.index[rows["split"] == "test"][:3]) # of all, it would tell the sides apart
    rows = rows.assign(age=rows["age"].mask(few, 99.), view=rows["view"].mask(few, "lateral"))
    tfm = RadiographDataLoaders.from_df(rows, tmp_path, size=48, bs=8, use="metadata").metadata
    train = rows[rows["split"] == "train"]
    assert tfm.stats == dict(sex=["F", "M"], view=["AP", "PA"], age=(train["age"].min(), train["age"].max()))
    assert train["age"].max() < 99

def test_encodings_side_by_side_are_each_ones_own():
    policy = next(k for k, o in POLICIES.items() if o.image_only)
    other = fitted(pd.DataFrame(dict(sex=["F", "X"], view=["PA", "AP"], age=[0, 50])))
    parts = [fitted(), fitted_metadata(other.cat_names, other.cont_names, dict(other.stats))]
    joined, rows = JoinedMetadata(parts), TABLE.assign(sex=["F", "M", None], metadata_policy=["", "", policy])
    encoded = joined(rows)
    equal(encoded, torch.cat([o(rows) for o in parts], 1))
    assert encoded.only.tolist() == [False, False, True] and encoded.shape[1] == len(joined.column)
    assert joined.stats == dict(sex=["F", "M", "X"], view=["AP", "PA"], age=(0., 60.))
    assert joined.missing.tolist() == [*parts[0].missing.tolist(), *parts[1].missing.tolist()]
    assert [joined.decode(o)["sex"] for o in encoded[:2]] == ["F", "M"]
    assert joined.decode(encoded[0]) == dict(sex="F", view="PA", age=20.)
    equal(joined(rows.iloc[1]), encoded[1])

def test_of_words_that_some_member_knows_nothing_is_told():
    other = fitted(TABLE.assign(sex=["F", "X", "F"]))
    joined = JoinedMetadata([fitted(), other])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert joined.decode(joined(TABLE.assign(sex="X"))[0])["sex"] == "X"
    with pytest.warns(UserWarning, match="sex: Y not among the training words .'F', 'M', 'X'.") as told:
        joined(TABLE.assign(sex="Y"))
    assert len(told) == 1
