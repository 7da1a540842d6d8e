"""A study as a notebook shows it: the verdict and Table 1 of what was saved, or what there is to run."""
from html import escape
from pathlib import Path

from ..core.csvs import read_csv
from ..core.files import read_json
from ..report.notes import counted, drawn_note
from ..stats.compare import verdict
from ..stats.formats import number
from ..stats.ledger import read_plan

__all__ = ["study_html"]

def _paragraphs(lines): return "\n".join(f"<p>{escape(o)}</p>" for o in lines if o)

def study_html(
    folder:Path, # of its tables
    done:list,   # of its cells, whether they are
) -> str:
    "Verdict and Table 1, with what is missing; without tables, how far the study is and what comes next."
    missing = len(done) - sum(done)
    said = f"{counted(len(done), 'cell')}, {sum(done):,} of them done: " if missing else ""
    if not (folder/"stamp").exists():
        return _paragraphs([f"A study of {said or f'{len(done):,} finished cells: '}"
                            f"{'study.run() does the rest.' if missing else 'save_study(study) makes its tables.'}"])
    table = {o: read_csv(folder/f"{o}.csv") for o in ("table1", "comparisons")}
    what = verdict(table["comparisons"], plan=read_plan(folder/"plan.json")).splitlines()
    html = table["table1"].to_html(index=False, na_rep="-", border=0, float_format=lambda o: number(o, 3))
    short = f"{missing:,} of {counted(len(done), 'cell')} are missing." if missing else ""
    caption = "Table 1: recall on the test rows at .5, with intervals"
    return _paragraphs([*what, drawn_note(read_json(folder/"settings.json")), short, caption]) + "\n" + html
