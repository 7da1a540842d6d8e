import bz2, gzip, lzma, zipfile
from io import BytesIO
import numpy as np, pandas as pd, pytest
from cxr_fastai.core import csvs
from cxr_fastai.core.csvs import csv_line, read_csv, read_text, write_csv

PLAIN = "image,who,note\na.png,1,x y\nb.png,2,\n"
WANT = {"image": ["a.png", "b.png"], "who": ["1", "2"], "note": ["x y", "?"]}

def read(folder, data, name="t.csv", **kwargs):
    (folder/name).write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_text(folder/name, **kwargs)

def zipped(*names):
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as z:
        for o in names: z.writestr(zipfile.ZipInfo(o), PLAIN) # of no date: both processes name a test alike
    return file.getvalue()

@pytest.mark.parametrize("data", [
    PLAIN, PLAIN.encode("utf-8-sig"), PLAIN.encode("utf-16"),
    PLAIN.replace(",", ";"), PLAIN.replace(",", "\t"), PLAIN.replace("\n", "\r\n"), PLAIN.replace("\n", "\r"),
    gzip.compress(PLAIN.encode(), mtime=0), bz2.compress(PLAIN.encode()), lzma.compress(PLAIN.encode()),
    zipped("t.csv"), zipped("t.csv", "__MACOSX/t.csv"), PLAIN.replace(",", " , "), PLAIN.replace("x y", '"x y"'),
    PLAIN.replace("note", "note,"), PLAIN.replace("\n", ",\n"), "\n\n" + PLAIN + "\n \n", PLAIN[:-1],
    PLAIN.replace("note", "Image[Width, Height]").replace("x y", "x y,9").replace("2,", "2,,9")], ids=range(19))
def test_every_writing_of_a_table_is_the_same_table(tmp_path, data):
    if b"Image[" in (data if isinstance(data, bytes) else data.encode()):
        WANT_ = {"image": WANT["image"], "who": WANT["who"]}
    else: WANT_ = WANT
    assert read(tmp_path, data, columns=list(WANT_)).fillna("?").to_dict("list") == WANT_

@pytest.mark.parametrize("data, words", [
    (PLAIN.replace("x y", "caf\xe9").encode("cp1252"), "line 2 is not in UTF-8 .*save it as CSV UTF-8"),
    (b"", "it is empty"), (b"\n\n", "it is empty"), (PLAIN.encode("utf-16-le"), "zero bytes"),
    (gzip.compress(PLAIN.encode(), mtime=0)[:-9], "end-of-stream"),
    (bz2.compress(PLAIN.encode())[:-9], "end-of-stream"), (lzma.compress(PLAIN.encode())[:-9], "end-of-stream"),
    (zipped("t.csv")[:60], "zip"), (zipped("a.csv", "b.csv"), "the zip holds 2 files .a.csv, b.csv."),
    (zipped("[Content_Types].xml"), "spreadsheet; save it as csv"),
    ("a,b\n\"x,1\n", "unexpected end of data .*begins in line 2"), ('a,b\n"x\ny",1\n"x"z,1\n', "begins in line 4"),
    ("a,b\nx," + "y"*200_000, "field larger than field limit")], ids=range(13))
def test_what_is_no_table_is_one_sentence(tmp_path, data, words):
    with pytest.raises(ValueError, match=f"t.csv can't be read as a table: [^\n]*{words}"): read(tmp_path, data)
    with pytest.raises(FileNotFoundError, match="There is no file '.*none.csv'"): read_text(tmp_path/"none.csv")

@pytest.mark.parametrize("quoted", [False, True])
def test_rows_of_another_length_are_refused_by_line(tmp_path, quoted):
    "A comma at the end of the first row would shift all columns of all rows."
    body = lambda *o: "image,who,note\n" + "\n".join(o) + ('\n"a",1,2\n' if quoted else "\n")
    says = r"t.csv: 1 of . rows have more or fewer fields than the header, which has 3: line 2 \(4\)"
    with pytest.raises(ValueError, match=says):
        read(tmp_path, body("a,1,x,", "b,2,y"))
    with pytest.raises(ValueError, match=r"line 3 \(2\), line 5 \(4\)"):
        read(tmp_path, body("a,1,x", "b,2", "c,1,2", "d,3,y,z"))

def test_two_columns_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="t.csv has more than one column 'who'"):
        read(tmp_path, "image,who, who\na,1,2\n")

def test_lines_are_right_after_quoted_line_breaks_and_blank_lines(tmp_path):
    assert read(tmp_path, 'a,b\n\n"x\ny",1\nz,2\r\n"u\r\n\r\nv",3\nw,4\n').index.tolist() == [3, 5, 6, 9]
    assert read(tmp_path, "a,b\n\nx,1\n  \nz,2\n").index.tolist() == [3, 5]

def test_both_parsers_agree(tmp_path, monkeypatch):
    "Tables of odd signs, without quotes: pandas' parser and Python's."
    rng = np.random.default_rng(0)
    signs = ["a", "b1", " ", " x", "é", "\u00a0", "|", "'", "'=1", "-", "", "", "7", "\x0b", "=x", "\t"]
    def found(file, strip):
        try: return read_text(file, strip=strip)
        except ValueError as e: return str(e)
    for _ in range(150):
        width, sep, end = int(rng.integers(1, 5)), ",;"[rng.integers(2)], ["\n", "\r\n", "\r"][rng.integers(3)]
        lines = [sep.join(f"c{i}" for i in range(width)) + sep * int(rng.random() < .1)]
        for _ in range(rng.integers(0, 5)):
            lines.append(sep.join("".join(rng.choice(signs, rng.integers(0, 3)))
                                  for _ in range(width + int(rng.random() < .03))))
        text = end * int(rng.random() < .1) + end.join(lines) + end * int(rng.integers(0, 3))
        (tmp_path/"t.csv").write_bytes(text.encode())
        strip = bool(rng.random() < .7)
        quick = found(tmp_path/"t.csv", strip)
        with monkeypatch.context() as m:
            m.setattr(csvs, "_quick", csvs._careful)
            careful = found(tmp_path/"t.csv", strip)
        if isinstance(quick, str): assert quick == careful
        else: pd.testing.assert_frame_equal(quick, careful)

CELLS = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''-x", "=", "-", "+", "a=b", "-0.5",
         "+7", "1e-5", "plain", "a|b",
         "<b>", 'say "hi"', "two\nlines", "a\rb", "a;b", "caf\u00e9", "x  y", " around ", "＝1", "-inf", "'"]

def test_no_cell_runs_as_a_formula_and_all_come_back(tmp_path):
    table = pd.DataFrame({"=name": CELLS, "n": np.linspace(-.5, 1, len(CELLS))})
    write_csv(table, tmp_path/"t.csv")
    seen = pd.read_csv(tmp_path/"t.csv", dtype=str, keep_default_na=False)
    number = lambda o: pd.notna(pd.to_numeric(o, errors="coerce"))
    assert not [o for c in seen for o in [c, *seen[c]] if len(o) > 1 and o[0] in "=+-@\t\r＝" and not number(o)]
    back = read_text(tmp_path/"t.csv", strip=False)
    assert back.iloc[:, 0].tolist() == CELLS and back["n"].astype(float).tolist() == table["n"].tolist()
    assert read_csv(tmp_path/"t.csv").iloc[:, 0].tolist() == CELLS

def test_a_streamed_line_is_as_safe(tmp_path):
    (tmp_path/"t.csv").write_bytes("".join(csv_line([o, -.5]) for o in ["a", *CELLS]).encode())
    assert read_text(tmp_path/"t.csv", strip=False).iloc[:, 0].tolist() == CELLS

def test_ordinary_tables_are_written_as_pandas_writes_them(tmp_path):
    table = pd.DataFrame(dict(image=["a.png", None], p=[.25, np.nan], n=[1, -2], hit=[True, False],
                              c=pd.Categorical(["x", None])))
    write_csv(table, tmp_path/"t.csv.gz", float_format="%.6f")
    written = gzip.decompress((tmp_path/"t.csv.gz").read_bytes()).decode()
    assert written == table.to_csv(index=False, float_format="%.6f")

def test_a_damaged_table_of_results_says_what_to_do(tmp_path):
    (tmp_path/"t.csv").write_text('a,b\n1,2\n3,"')
    with pytest.raises(ValueError,
                       match="t.csv is damaged .*: delete it, and the command that wrote it makes it again"):
        read_csv(tmp_path/"t.csv")
    (tmp_path/"t.csv").write_text("\n")
    assert read_csv(tmp_path/"t.csv").empty
