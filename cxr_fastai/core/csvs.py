"""A csv in and out, as text: one reader for every table that comes in, one writer for every table that goes out.

Read: UTF-8, with or without a mark, and UTF-16 with one; commas, semicolons or tabs; plain, gz, bz2, xz or zip, told by
the first bytes. All else is one ValueError that names the file, and the line. Written: no cell that a spreadsheet would
run. A cell that begins like a formula has an apostrophe before it, which the reader takes away again."""
import bz2, codecs, csv, gzip, lzma, re, zipfile, zlib
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from .files import atomic, few

__all__ = ["csv_line", "read_csv", "read_lines", "read_text", "refuse_values", "write_csv"]

_MARKS = [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF32_BE, "utf-32-be"),
          (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")]
_PACKED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_WORDS = pd.Series(["a word"]).dtype # of columns of words: object, in newer pandas str
_LONGEST = 131_072 # signs of a field, as Python's own csv
_RUNS = "=+-@\t\r＝＋－＠" # what a spreadsheet takes for the beginning of a formula
_FORMULA = re.compile(f"'*[{re.escape(_RUNS)}].", re.S)
_GUARDED = re.compile(f"''*[{re.escape(_RUNS)}].", re.S)
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]inf", re.I)
_BROKEN = EOFError, OSError, RuntimeError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError

def _bad(file, why): return ValueError(f"{file} can't be read as a table: {why}.")

# In

def _zipped(file):
    "The bytes of the one table in a zip."
    with zipfile.ZipFile(file) as z:
        names = [o for o in z.namelist() if not o.endswith("/") and not o.startswith("__MACOSX")]
        if "[Content_Types].xml" in names: raise OSError("it is a spreadsheet; save it as csv")
        if len(names) != 1: raise OSError(f"the zip holds {len(names)} files ({few(names)}), not one table")
        return z.read(names[0])

def _unpacked(file):
    "A file's bytes, unpacked where they are packed."
    if not Path(file).exists(): raise FileNotFoundError(f"There is no file '{file}'.")
    try:
        with open(file, "rb") as f: head = f.read(6)
        if head.startswith(b"PK\x03\x04"): return _zipped(file)
        opened = next((o for mark, o in _PACKED.items() if head.startswith(mark)), open)
        with opened(file, "rb") as f: return f.read()
    except _BROKEN as e:
        raise _bad(file, (getattr(e, "strerror", None) or str(e) or type(e).__name__).rstrip(".")) from e

def _decoded(file):
    "A file's text. What is neither UTF-8 nor marked as UTF-16 is refused: to guess would make other names of it."
    data = _unpacked(file)
    mark, code = next((o for o in _MARKS if data.startswith(o[0])), (b"", "utf-8"))
    try: text = data[len(mark):].decode(code)
    except UnicodeDecodeError as e:
        before = data[:len(mark) + e.start]
        line = 1 + max(before.count(b"\n"), before.count(b"\r"))
        why = f"line {line:,} is not in UTF-8 but maybe in a Windows code page; save it as CSV UTF-8"
        raise _bad(file, why) from None
    if "\0" in text: raise _bad(file, "it holds zero bytes, as no text in UTF-8 does; save it as CSV UTF-8")
    if not text or text.isspace(): raise _bad(file, "it is empty")
    return text

def _separator(text):
    "Of comma, semicolon and tab, the one that the header has most of outside of quotes."
    head = re.sub('"[^"]*"', "", re.match(r'\s*((?:"[^"]*"|[^"\r\n])*)', text)[1])
    return max(",;\t", key=head.count)

def _checked(file, names, widths, lines):
    "Refuse a header with a name twice, and rows of another number of fields; a comma at the header's end is no name."
    if twice := sorted({o for o in names if o and names.count(o) > 1}):
        raise ValueError(f"{file} has more than one column {few(map(repr, twice))}: rename or remove one.")
    n, widths = len(names), np.asarray(widths, int)
    bad = np.flatnonzero((widths != n) & ~((widths == n - 1) & (names[-1] == "")))
    if not len(bad): return
    found = few(f"line {lines[i]:,} ({widths[i]:,})" for i in bad)
    raise ValueError(f"{file}: {len(bad):,} of {len(widths):,} rows have more or fewer fields than the header, which "
                     f"has {n:,}: {found}; is a comma too many, or a field with a comma not quoted?")

def _blanks_at_ends(signs, comma):
    "Whether a field of ascii text begins or ends with a blank."
    blank, end = np.zeros(128, bool), np.zeros(128, bool)
    blank[[9, 11, 12, *range(28, 33)]] = True
    end[[ord(comma), 10]] = True
    at = np.flatnonzero(blank[signs] & (signs != ord(comma)))
    return (end[signs[at - 1]] | end[signs[at + 1]]).any() # after the last sign is a line's end

def _quick(file, text, sep, columns, strip):
    """Without quotes: the table, by pandas' parser, after each line's fields were counted; and whether blanks may be
    around."""
    data = text.rstrip("\r\n").replace("\r\n", "\n").replace("\r", "\n").encode() + b"\n"
    signs, comma = np.frombuffer(data, np.uint8), sep.encode()
    ends, seps = np.flatnonzero(signs == 10), np.flatnonzero(signs == ord(sep))
    starts, widths = np.r_[0, ends[:-1] + 1], np.diff(np.searchsorted(seps, ends), prepend=0) + 1
    if (ends - starts).max() > _LONGEST: return _careful(file, text, sep, columns, strip)
    full = np.ones(len(ends), bool)
    full[[i for i in np.flatnonzero(widths == 1) if not data[starts[i]:ends[i]].decode().strip()]] = False
    at = np.flatnonzero(full)
    head, rest = at[0], at[1:]
    names = [o.strip() for o in data[starts[head]:ends[head]].decode().split(sep)]
    _checked(file, names, widths[rest], rest + 1)
    if not len(rest):
        return pd.DataFrame(columns=[o for o in names if o], index=pd.Index([], dtype=int), dtype=_WORDS), True
    body = data[ends[head] + 1:] if full[head:].all() else b"".join(data[starts[i]:ends[i] + 1] for i in rest)
    wide = widths[rest].max()
    use = [i for i, o in enumerate(names[:wide]) if o and (columns is None or o in columns)]
    table = pd.read_csv(BytesIO(body), header=None, names=range(wide), usecols=use, dtype=str, sep=sep,
                        quoting=csv.QUOTE_NONE, keep_default_na=False, na_values=[""], skip_blank_lines=False,
                        index_col=False, encoding="utf-8")
    plain = data.isascii() and not _blanks_at_ends(signs, comma)
    return table.set_axis([names[i] for i in use], axis=1).set_axis(rest + 1), plain

def _careful(file, text, sep, columns, strip):
    "With quotes, which may hold separators and line breaks: the table, by Python's parser, and where each row begins."
    reader = csv.reader(StringIO(text, newline=""), delimiter=sep, strict=True, skipinitialspace=strip)
    records, lines, begin = [], [], 1
    try:
        for o in reader:
            if len(o) > 1 or any(map(str.strip, o)):
                records.append(o)
                lines.append(begin)
            begin = reader.line_num + 1
    except csv.Error as e: raise _bad(file, f"{e} (in the row that begins in line {begin:,})") from None
    names, lines = [o.strip() for o in records[0]], lines[1:]
    _checked(file, names, [*map(len, records[1:])], lines)
    fields = dict(zip(names, zip(*records[1:]) if lines else [()] * len(names)))
    table = {k: pd.Series([o or np.nan for o in v], lines, _WORDS) for k, v in fields.items()
             if k and (columns is None or k in columns)}
    return pd.DataFrame(table, pd.Index(lines, dtype=int)), False

def _unguarded(values):
    hit = values.str.match(_GUARDED).fillna(False).astype(bool)
    return values.where(~hit, values.str[1:]) if hit.any() else values

def _stripped(values):
    values = values.str.strip()
    return values.mask(values == "")

def read_text(
    csv:str|Path,     # a table with a header; packed or not
    columns=None,     # the names that are wanted; None: all
    strip:bool=True,  # take blanks around fields away
) -> pd.DataFrame:    # of words, NaN where a field is empty; its index is the line in which each row begins
    """The fields of a csv as text. ValueError for a file that is no table, a name that two columns have, and rows with
    more or fewer fields than the header; FileNotFoundError."""
    text = _decoded(csv)
    table, clean = (_careful if '"' in text else _quick)(csv, text, _separator(text), columns and {*columns}, strip)
    if strip and not clean: table = table.apply(_stripped)
    return table.apply(_unguarded) if "'" in text and len(table) else table

def refuse_values(
    bad:list,         # bool, one a value
    csv:str|Path,     # where they are from
    values:pd.Series, # of one column of `read_text`, whose index is the line of each
    why:str,          # what is wrong with them
    todo:str="",      # what to do, as the sentence ends
):
    "One ValueError that names the lines of a csv where `bad` is true, if any is."
    if not (bad := np.asarray(bad, bool)).any(): return
    shown = lambda v: "" if pd.isna(v) else f"{str(v)[:80]}{'...' * (len(str(v)) > 80)}"
    found = few(f"'{shown(v)}' (line {i:,})" for i, v in values[bad].items())
    raise ValueError(f"{csv}: {bad.sum():,} of {len(bad):,} values of column '{values.name}' {why}: {found}{todo}.")

def read_csv(
    csv:str|Path, # of `write_csv`
    words=(),     # columns of words, even if they look like numbers
) -> pd.DataFrame:
    """A table of results, numbers as numbers. ValueError for one that is damaged, which says what to do;
    FileNotFoundError."""
    data = _unpacked(csv)
    if not data.strip(): return pd.DataFrame()
    try: table = pd.read_csv(BytesIO(data), dtype=dict.fromkeys(words, str), keep_default_na=False, na_values=[""])
    except (UnicodeDecodeError, ValueError) as e:
        why = " ".join(str(e).split()).rstrip(".")
        raise ValueError(f"{csv} is damaged ({why}): delete it, and the command that wrote it makes it again."
                         ) from None
    own = [o for o in table if pd.api.types.is_string_dtype(table[o]) and not pd.api.types.is_numeric_dtype(table[o])]
    return table.assign(**{o: _unguarded(table[o]) for o in own if b"'" in data})

def _rows(text): return csv.reader(StringIO(text, newline=""))

# Out

def _guarded(word):
    "A word that no spreadsheet runs; a number, and a sign alone, are none that it would."
    if not isinstance(word, str) or not _FORMULA.match(word) or _NUMBER.fullmatch(word): return word
    return f"'{word}"

def _guarded_column(values):
    dated = isinstance(values.dtype, np.dtype) and values.dtype.kind in "mM"
    if dated or pd.api.types.is_numeric_dtype(values): return values
    values = values.astype(object)
    risky = values.map(lambda o: isinstance(o, str) and o[:1] in (*_RUNS, "'") and o != "")
    return values.map(_guarded) if risky.any() else values

def write_csv(
    table:pd.DataFrame, # any table; its index is not written
    csv:str|Path,       # written whole or not at all; packed where it ends in .gz, .bz2, .xz or .zip
    **kwargs,           # of `DataFrame.to_csv`
):
    """Write a table as a csv in which no cell runs as a formula in a spreadsheet; `read_csv` and `read_text` read it
    back."""
    safe = table.set_axis([_guarded(o) for o in table], axis=1)
    cells = {i: _guarded_column(safe.iloc[:, i]) for i in range(safe.shape[1])} # by position: names may stand twice
    safe = pd.DataFrame(cells, safe.index).set_axis(safe.columns, axis=1)
    text = safe.select_dtypes(exclude=["number", "bool"])
    breaks = any(text[o].map(lambda o: isinstance(o, str) and "\r" in o).any() for o in text)
    if breaks: kwargs = dict(quoting=2) | kwargs # csv.QUOTE_NONNUMERIC: a bare carriage return would end a line
    with atomic(csv) as tmp: safe.to_csv(tmp, index=False, **kwargs)

def csv_line(
    values:list, # words of one row
) -> str:        # with its line break
    "A row of a csv that is written as a stream, its cells safe as those of `write_csv`."
    words = (_guarded("" if o is None else str(o)) for o in values)
    return ",".join('"' + o.replace('"', '""') + '"' if re.search('[,"\r\n]', o) else o for o in words) + "\n"

def read_lines(
    csv:str|Path, # written as a stream of `csv_line`
):
    "Yield each row's words and the byte at which it ends; a last row that was cut off isn't one."
    row = ""
    with open(csv, newline="", encoding="utf-8") as f:
        try:
            for line in iter(f.readline, ""):
                row += line
                if row.count('"') % 2 or not row.endswith("\n"): continue
                yield [o[1:] if _GUARDED.match(o) else o for o in next(_rows(row))], f.tell()
                row = ""
        except UnicodeDecodeError: raise _bad(csv, "it is not in UTF-8, and so none of ours") from None
