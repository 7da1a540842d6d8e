"""How many films an arm has beside the real ones; and those of other generators, which are read once, counted alike,
and held against every split before the first cell."""
from pathlib import Path

import pandas as pd
from fastcore.basics import ifnone
from filelock import FileLock

from ..arms import Arm, parse_arm, PARTS
from ..cohort.folder import data_digest
from ..cohort.generated import external_films, film_policy, read_films
from ..cohort.parts import write_films
from ..cohort.rows import classes, columns_of
from ..core.csvs import write_csv
from ..core.files import atomic_folder, few
from ..core.generators import places_of
from ..report.notes import sources_mark
from ..settings import Plan, settings_digest

__all__ = ["Generators", "marked"]

class Generators:
    "Other generators' films by name, as the plan's `--synthetic-from` has them."
    def __init__(self,
        rows:pd.DataFrame, # of the study
        plan:Plan,         # of it
        out:str|Path,      # folder of everything
    ):
        """ValueError or FileNotFoundError for films that can't be read, for a class that an arm needs and they lack,
        for a part of a change where a film's source isn't known."""
        places = places_of(plan.synthetic_from)
        self.rows, self.plan, self.out = rows, plan, Path(out)
        self.names, self.digests = sum(columns_of(rows).values(), []), {}
        self.tables = {name: read_films(place, rows) for name, place in places.items()}
        neg, pos = classes(rows)
        for arm in self._arms():
            for label in [pos, *[neg]*bool(arm.pretraining)]:
                if not self.count(arm.films, label):
                    raise ValueError(f"{places[arm.films]} holds no film of {label}, which an arm of "
                                     f"@{arm.films} needs.")
            if arm.part and (lost := self.tables[arm.films]["source"].isna()).any():
                raise ValueError(f"Arms '+{arm.part}' need the source of each film, and of {lost.sum():,} of "
                                 f"{len(lost):,} films of {arm.films} it isn't known: name them in a column 'source' "
                                 f"of a csv with its films ({few(self.tables[arm.films]['image'][lost])}).")

    def _arms(self): return [o for o in map(parse_arm, self.plan.arms) if o.films]

    def count(self,
        name:str,  # of a generator
        label:str, # of the two
    ) -> int:
        "How many films there are."
        return int((self.tables[name]["label"] == label).sum())

    def numbers(self,
        arm:Arm,           # of the study
        rows:pd.DataFrame, # of a fold, or of its split
    ) -> dict:             # label -> films that are added to the real ones, or come before; positives first
        """As many for every arm: half the majority's training rows, or as many as each other generator has. ValueError
        for a dose where the positives aren't fewer, and for a number that a generator hasn't."""
        names = classes(rows)
        neg, pos = (int(((rows["split"] == "train") & (rows["label"] == o)).sum()) for o in names)
        if arm.dose is None:
            n = ifnone(self.plan.gan.synthetic, min([neg//2, *(self.count(o.films, names[1]) for o in self._arms())]))
        elif (n := round(arm.dose * (neg - pos))) < 1:
            raise ValueError(f"The dose {arm.dose} of the {neg - pos} rows that would balance the classes is no row.")
        if arm.films and n > (there := self.count(arm.films, names[1])):
            raise ValueError(f"{n:,} films of {names[1]} were asked for, and {arm.films} has {there:,}: give a smaller "
                             f"dose, or --synthetic {there}.")
        if not arm.pretraining: return {names[1]: n}
        before = [self.count(o.films, names[0]) for o in self._arms() if o.pretraining]
        return {names[1]: n, names[0]: min([n, pos, *before])} # a CycleGAN makes one of each minority row at most

    def policy(self,
        arm:Arm, # with films of another generator
    ) -> str:
        "Where their metadata comes from: the arm's word, or the plan's where that isn't the one that needs sources."
        asked = arm.policy or (self.plan.gan.metadata if self.plan.gan.metadata != "matched" else None)
        return film_policy(self.tables[arm.films], self.names, arm.films, asked if arm.use == "both" else None)

    def digest(self,
        name:str, # of a generator
        size:int, # of the classifiers' images
    ) -> str:
        "Of its films: pixels, labels, sources and metadata, wherever they lie and whatever they are called."
        if (name, size) not in self.digests:
            self.digests[name, size] = data_digest(self.tables[name].drop(columns="image"), size)
        return self.digests[name, size]

    def _place(self, arm):
        "Where films of a part of the change are, or will be."
        size, key = self.plan.training.size, (arm.films, arm.part)
        if key not in self.digests:
            about = dict(films=self.digest(arm.films, size), size=size, rows=data_digest(self.rows, size))
            self.digests[key] = settings_digest(about)
        return self.out/f"films-{arm.films}-{arm.part}-{self.digests[key]}"

    def films(self,
        arm:Arm, # of the study
    ) -> pd.DataFrame: # as of `read_films`; None where its films are ours, or it has none
        "The films of its generator, or those with a part of what was changed, which `prepare` writes."
        if arm.films is None or not arm.part: return self.tables.get(arm.films)
        table, place = self.tables[arm.films], self._place(arm)
        return table.assign(file=[str(place/f"{i:05}.png") for i in range(len(table))])

    def prepare(self,
        splits:list, # of the study: its rows, or those of each fold
    ):
        """LeakError where one of their films is of a real film of valid or test, on any split. Then films with a part
        of the change are written, once, beside a csv that names the source of each."""
        for name, table in self.tables.items():
            for rows in splits: external_films(rows, table, name, metadata="missing")
        for arm in (o for o in self._arms() if o.part): self.write(arm)

    def write(self,
        arm:Arm, # of the study, with a part of another generator's change
    ):
        "Write its films, unless they are there."
        place = self._place(arm)
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.out/f".{place.name}.lock"):
            if place.exists(): return
            table, made = self.tables[arm.films], self.films(arm)
            names = [Path(o).name for o in made["file"]]
            with atomic_folder(place) as tmp:
                synth = table.rename(columns=dict(source="source_image"))
                write_films(tmp, self.rows, synth, names, self.plan.training.size, PARTS[arm.part].films)
                write_csv(table.assign(file=names).drop(columns="image"), tmp/"films.csv")

    @property
    def about(self):
        "For `settings.json`: films by class, and of how many it is known what they were made from."
        return {name: dict(films={str(k): int(n) for k, n in o["label"].value_counts(sort=False).items()},
                           sources=int(o["source"].notna().sum())) for name, o in self.tables.items()}

def marked(
    table:pd.DataFrame, # of a study's results
    study:object,       # a `Study`
) -> pd.DataFrame:
    "A table that says the protocol 'paper', and in lines of films whose sources aren't known, that they aren't."
    if table.empty: return table
    if study.plan.protocol != "clean" and "protocol" not in table: table = table.assign(protocol=study.plan.protocol)
    mark = sources_mark(dict(generators=study.generators.about), table)
    return table if mark is None else table.assign(sources=mark)
