"""What the toolkit costs on this machine: medians of alternating runs as a table. Run by hand; nothing asserts a time.

`python recipes/bench.py` draws its inputs; `--originals FOLDER` (png files of 1024 px) adds a comparison with stock
fastai, `--part` measures only the classifiers, only the CycleGAN, only the study or only prediction; three are asked
for by name alone: `--part probe`, a large grid of heads, `--part shared`, a step beside a busy process, and `--part
generators`, the CycleGAN beside CUT: steps, and films of three seeds after equal steps."""
import itertools, resource, subprocess
from copy import deepcopy
from tempfile import TemporaryDirectory
from cxr_fastai.all import *

class TrainTimer(Callback):
    "Seconds of each epoch's training part."
    def before_fit(self): self.seconds = []
    def before_train(self): self.start = now()
    def after_train(self): self.seconds.append(now() - self.start)

def drawn_rows(
    n,      # images
    folder, # where they are drawn
    size,   # pixels
):
    "Phantoms, all in train but for eight of each class in valid."
    if not Path(folder).exists(): make_phantom(folder, n_patients=n, size=size)
    rows = paper_cohort(read_nih(next(Path(folder).glob("*.csv")), images=folder), n_normal=None, first_visit=False)
    rows = rows.drop_duplicates("patient_id", ignore_index=True)
    valid = np.concatenate([np.flatnonzero(positive(rows) == o)[:8] for o in (False, True)])
    return rows.assign(split=np.where(rows.index.isin(valid), "valid", "train"))

def fit_seconds(learn, epochs=1):
    "Seconds a training image through `fit`."
    timer = TrainTimer()
    with learn.no_logging(): learn.fit(epochs, 1e-4, cbs=timer)
    return np.median(timer.seconds) / (len(learn.dls.train) * learn.dls.train.bs)

def now():
    "Seconds, when all that was begun is over."
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return time.perf_counter()

def bare_seconds(model, bs, size, steps):
    "Seconds a training image in a bare PyTorch loop over one resident batch, fused AdamW."
    opt, device = torch.optim.AdamW(model.parameters(), 1e-4, fused=True), default_device()
    x, y = torch.rand(bs, 1, size, size, device=device), torch.arange(bs, device=device) % 2
    model.train()
    start = now()
    for _ in range(steps):
        F.cross_entropy(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    return (now() - start) / (steps * bs)

def alternate(runs, *timed):
    """Medians of each function, called in turn so that a busy moment hits all; of several rounds, the first isn't
    counted."""
    times = np.array([[f() for f in timed] for _ in range(runs + (runs > 1))])
    return np.median(times[-runs:], 0)

def peak_gb():
    "Of the device's memory, where there is a GPU; else of this process's."
    if torch.cuda.is_available(): return torch.cuda.max_memory_allocated() / 1024**3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2

def overhead(rows, arch, size, bs, runs):
    dls = RadiographDataLoaders.from_df(rows, size=size, bs=bs, use="image")
    learn = image_learner(dls, arch, weights="none")
    fit_seconds(learn)
    peak, bare = peak_gb(), image_learner(dls, arch, weights="none").model
    ours, loop = alternate(runs, lambda: fit_seconds(learn), lambda: bare_seconds(bare, bs, size, len(dls.train)))
    against = f"{loop/ours:.2f} of the bare loop's {1/loop:.1f}"
    return [(f"(a) fit, {arch} {size} px bs {bs}", f"{1/ours:.1f} images/s", against),
            ("(d) peak memory of that fit", f"{peak:.2f} GB", "")]

def against_stock(folder, arch, size, bs, runs):
    files = sorted(Path(folder).glob("*.png"))
    label = [str(i % 2) for i in range(len(files))]
    frame = pd.DataFrame(dict(image=[f.name for f in files], label=label, valid=[i < 4 for i in range(len(files))]))
    rows = frame.assign(patient_id=range(len(files)), file=[str(f) for f in files],
                        split=np.where(frame.valid, "valid", "train"),
                        label=pd.Categorical(label, ["0", "1"], ordered=True))
    stock = ImageDataLoaders.from_df(frame, folder, valid_col="valid", item_tfms=Resize(size), bs=bs,
                                     batch_tfms=aug_transforms(do_flip=False))
    theirs = vision_learner(stock, getattr(models, arch), pretrained=False)
    theirs.remove_cb(ProgressCallback)
    ours = image_learner(RadiographDataLoaders.from_df(rows, size=size, bs=bs, use="image"), arch, weights="none")
    theirs.unfreeze()
    a, b = alternate(runs, lambda: fit_seconds(ours), lambda: fit_seconds(theirs))
    against = f"{b/a:.2f}x stock fastai's {1/b:.1f}"
    return [(f"(b) {arch} {size} px from {len(files)} originals", f"{1/a:.1f} images/s", against)]

def construction(n=112_120):
    "Seconds and MB to make DataLoaders of `n` rows whose files are absent, in a fresh process."
    code = f"""
import resource, time
from cxr_fastai.all import *
r, n = np.random.default_rng(0), {n}
names = ['Normal', 'Pneumonia']
rows = pd.DataFrame(dict(image=[f'{{i:08}}_000.png' for i in range(n)], patient_id=r.integers(0, n//4, n),
    age=r.integers(1, 95, n)*1., sex=r.choice(['F','M'], n), view=r.choice(['AP','PA'], n),
    label=pd.Categorical(r.choice(names, n), names, ordered=True)))
rows = split_patients(rows)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, start = peak(), time.perf_counter()
RadiographDataLoaders.from_df(rows, cache=False, num_workers=0)
print(time.perf_counter() - start, peak() - before)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, mb = map(float, done.stdout.split()[-2:])
    return [(f"(c) DataLoaders of {n:,} rows", f"{seconds:.2f} s", f"{mb:.0f} MB more at the peak")]

def gan_seconds(learn, steps):
    "Seconds a step of the CycleGAN through `fit`."
    timer = TrainTimer()
    with learn.no_logging(): learn.fit(1, 1e-6, cbs=[timer, ShortEpochs(steps)])
    return timer.seconds[0] / steps

def bare_gan_seconds(bs, size, width, steps, precision):
    "Seconds a step of the reference's own order in a bare loop: generators' loss and step, then both discriminators'."
    precision = precision_on(precision, default_device())
    g_ab, g_ba = (Generator(6, width, precision=precision).to(default_device()) for _ in range(2))
    d_a, d_b = (Discriminator(width, precision=precision).to(default_device()) for _ in range(2))
    optimizer = lambda *m: torch.optim.Adam([p for o in m for p in o.parameters()], 1e-6, betas=(.5, .999), fused=True)
    opt_g, opt_d = optimizer(g_ab, g_ba), optimizer(d_a, d_b)
    a, b = torch.rand(2, bs, 1, size, size, device=default_device()) * 2 - 1
    toward = lambda d, x, y: F.mse_loss(o := d(x), torch.full_like(o, y))
    ema = [deepcopy(o).requires_grad_(False) for o in (g_ab, g_ba)]
    start = now()
    for _ in range(steps):
        for d in (d_a, d_b): d.requires_grad_(False)
        fake_b, fake_a = g_ab(a), g_ba(b)
        loss = toward(d_b, fake_b, 1.) + toward(d_a, fake_a, 1.)
        loss = loss + 10*F.l1_loss(g_ba(fake_b), a) + 10*F.l1_loss(g_ab(fake_a), b)
        (loss + 5*F.l1_loss(g_ba(a), a) + 5*F.l1_loss(g_ab(b), b)).backward()
        opt_g.step()
        opt_g.zero_grad()
        for d, real, fake in ((d_a, a, fake_a.detach()), (d_b, b, fake_b.detach())):
            d.requires_grad_(True)
            ((toward(d, real, 1.) + toward(d, fake, 0.)) / 2).backward()
        opt_d.step()
        opt_d.zero_grad()
        for mean, new in zip(ema, (g_ab, g_ba)):
            torch._foreach_lerp_(list(mean.parameters()), [p.detach() for p in new.parameters()], .001)
    return (now() - start) / steps

def gan_learner(rows, size, bs, width, **kwargs):
    dls = UnpairedDataLoaders.from_df(rows, size=size, bs=bs)
    return cyclegan_learner(dls, n_blocks=6, ngf=width, ndf=width, **kwargs)

WAITING = dict(spinning=dict(GOMP_SPINCOUNT="300000"), ours={}, passive=dict(OMP_WAIT_POLICY="PASSIVE"))

def step_elsewhere(env, size, bs, width, images, folder):
    "Seconds a step of the CycleGAN in a new process, whose threads wait as `env` says."
    words = ["--part", "step", "--size", size, "--bs", bs, "--width", width, "--images", images, "--folder", folder]
    left = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True, env=left | env)
    return float(done.stdout.split()[-1])

def shared(size, width, images, runs, folder, bs=4):
    "(l) A step of the CycleGAN alone and beside one busy process, by how threads wait for each other."
    asked = [partial(step_elsewhere, env, size, bs, width, images, folder) for env in WAITING.values()]
    alone = alternate(runs, *asked)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try: beside = alternate(runs, *asked)
    finally: busy.kill()
    return [(f"(l) CycleGAN step, {size} px bs {bs}, threads {name}", f"{a:.2f} s", f"{a/alone[0]:.2f} of spinning; "
             f"beside a busy process {b:.2f} s, {b/a:.1f} times as long") for name, a, b in zip(WAITING, alone, beside)]

def gan_steps(rows, size, bs, width, runs, steps=3):
    "(e) A step in fp32 and in the default precision, each over the bare loop; (f) the default over fp32."
    learns = {o: gan_learner(rows, size, bs, width, precision=o) for o in ("fp32", "auto")}
    ours = [partial(gan_seconds, o, steps) for o in learns.values()]
    bare = [partial(bare_gan_seconds, bs, size, width, steps, o) for o in learns]
    a, b, x, y = alternate(runs, *ours, *bare)
    name = f"CycleGAN step, 6 blocks, ngf {width}, {size} px bs {bs}"
    faster = f"{b/y:.2f} of the bare loop's {y:.3f}; {a/b:.2f}x faster than fp32"
    return [(f"(e) {name}, fp32", f"{a:.3f} s", f"{a/x:.2f} of the bare loop's {x:.3f}"),
            (f"(e) {name}, default", f"{b:.3f} s", faster)]

def gan_switches(rows, size, width, runs, steps=3):
    "(f) What each switch beyond the reference costs a step."
    switches = [{}, dict(residual=True), dict(upsample="resize"), dict(idt_every=4), dict(identity=0.),
                dict(diffaug="translation,cutout")]
    times = alternate(runs, *[partial(gan_seconds, gan_learner(rows, size, 1, width, **o), steps) for o in switches])
    return [(f"(f) CycleGAN step with {', '.join(f'{k}={v}' for k, v in o.items())}, {size} px bs 1", f"{t:.3f} s",
             f"{t/times[0]:.2f} of the reference settings'") for o, t in zip(switches[1:], times[1:])]

def preset_learner(word, rows, size, width, seed=0):
    "As `--gan WORD` trains it, but for its width."
    gan = Gan(word, size=size)
    own = {k: o for k, o in gan.training.items() if k not in ("epochs", "size")}
    dls = UnpairedDataLoaders.from_df(rows, size=size, bs=own.pop("bs"), seed=seed)
    return gan.translator.learner()(dls, **own | dict(ngf=width, ndf=width))

def generator_steps(rows, size, width, runs):
    "(m) A step of CUT over the CycleGAN's, called in turn: by the learners' own settings, and by the presets'."
    bare = lambda make: make(UnpairedDataLoaders.from_df(rows, size=size, bs=1), ngf=width, ndf=width)
    made = {"cyclegan_learner": bare(cyclegan_learner), "cut_learner": bare(cut_learner),
            **{f"--gan {o}": preset_learner(o, rows, size, width) for o in ("fast", "cut")}}
    times = np.array([[gan_seconds(o, 4) for o in made.values()] for _ in range(runs + 1)])[1:] # of idt_every=2, too
    ratio = np.median(times[:, 1::2]/times[:, ::2], 0).repeat(2)
    names = list(made)
    return [(f"(m) step of {o}, {size} px", f"{np.median(times[:, i]):.3f} s",
             f"{ratio[i]:.2f} of {names[i - 1]}'s, median of {runs} pairs" if i % 2 else "")
            for i, o in enumerate(names)]

def generator_films(rows, size, width, steps, n, folder, seeds=(0, 1, 2)):
    "(n) Kernel distance of films after equal steps to the minority's real valid films, over the real ones' own."
    ill, table = rows[(rows["split"] == "valid") & positive(rows)], []
    for word, seed in itertools.product(("fast", "cut"), seeds):
        learn = preset_learner(word, rows, size, width, seed)
        with learn.no_logging(): learn.fit_flat_lin(1, 1, steps=2*(steps//2))
        made = synthesise(learn, rows, n, out=f"{folder}/films/{word}-{seed}", seed=seed)
        found = quality(ill, made, features=features_by(weights="auto", size=size), size=size).set_index("figure")
        o = found.loc["kernel distance"]
        real = f"real {o.floor:.4f} [{o.floor_low:.4f}, {o.floor_high:.4f}], n {o.n}"
        table.append((f"(n) --gan {word}, {2*(steps//2)} steps, seed {seed}, {size} px",
                      f"kernel distance {o.value:.4f}", f"[{o.low:.4f}, {o.high:.4f}]; {real}"))
    return table

def synthesis(rows, size, width, runs, folder, n):
    "(g) Reading, moving, translating, probing and writing `n` images, over the generator alone."
    learn, pixels = gan_learner(rows, size, 1, width), np.zeros((n, size, size), np.uint8)
    def seconds(f):
        start = now()
        f()
        return (now() - start) / n
    a, b = alternate(runs, lambda: seconds(lambda: synthesise(learn, rows, n, out=f"{folder}/synthetic", augment=True)),
                     lambda: seconds(lambda: learn.translate(pixels)))
    against = f"{b/a:.2f} of the generator's {1/b:.1f}"
    return [(f"(g) synthesis of {n} images, {size} px", f"{1/a:.1f} images/s", against)]

def study_of(rows, folder, seeds, arch, size=32, epochs=1, bs=16, arms=("real-meta",)):
    plan = plan_of(backbones=[arch], arms=arms, seeds=seeds, size=size, epochs=epochs, bs=bs, weights="none")
    return Study(rows, plan, folder)

def cell_overhead(rows, arch, size, bs, runs, folder):
    "(h) A whole cell, its model written and its rows predicted, over its training alone; the first isn't counted."
    study, share = study_of(rows, f"{folder}/cells", range(runs + 1), arch, size, 10, bs), []
    for c in study.cells.values():
        run_cell(c)
        found, _ = read_cell(c)
        share.append(found["seconds"]/found["training"] - 1)
    name = f"(h) a cell of {arch}, {size} px, 10 epochs, {len(rows)} rows"
    return [(name, f"{np.median(share[1:]):.1%}", "more than its training")]

def two_workers(rows, arch, size, bs, runs, folder):
    "(i) Four cells by one process with every thread, and by two that share them, workers' start included."
    def seconds(workers):
        start = now()
        with TemporaryDirectory(dir=folder) as out: study_of(rows, out, range(4), arch, size, 4, bs).run(workers)
        return now() - start
    a, b = alternate(runs, lambda: seconds(1), lambda: seconds(2))
    name = f"(i) 4 cells of {arch}, {size} px, 4 epochs, two workers"
    return [(name, f"{b:.1f} s", f"{a/b:.2f}x the throughput of one ({a:.1f} s)")]

def resuming(rows, folder, cells):
    "(j) A finished grid of cells, asked for again: found, read, its tables kept."
    def again():
        start = now()
        save_study(study_of(rows, f"{folder}/grid", range(cells//2), "test_resnet", arms=["real", "real-meta"]).run())
        return now() - start
    again()
    return [(f"(j) resuming a finished grid of {cells} cells", f"{np.median([again() for _ in range(5)]):.2f} s", "")]

def prediction(rows, files, arch, size, bs, runs, folder, n=600):
    """(k) New patients from files to a table: over the bare model's batches in memory, and over these and reading in
    turn."""
    learn = image_learner(RadiographDataLoaders.from_df(rows, size=size, bs=bs, use="image"), arch, weights="none")
    bundle, out = save_bundle(learn, f"{folder}/bundle"), Path(folder)/"predictions.csv"
    files = [Path(o).absolute() for o in itertools.islice(itertools.cycle(files), n)]
    pd.DataFrame(dict(file=files)).to_csv(f"{folder}/new.csv", index=False)
    model, x = load_bundle(bundle).model.eval(), torch.rand(bs, 1, size, size)
    def seconds(f):
        start = now()
        f()
        return (now() - start) / n
    def whole():
        out.unlink(missing_ok=True)
        predict_patients(bundle, f"{folder}/new.csv", out)
    @torch.no_grad()
    def bare():
        for i in range(0, n, bs): model(x[:n - i])
    def reading():
        with ThreadPoolExecutor(os.cpu_count()) as pool: list(pool.map(lambda o: read_radiograph(o, size), files))
    a, b, c = alternate(runs, *(partial(seconds, o) for o in (whole, bare, reading)))
    name = f"(k) prediction of {n} files, {arch} {size} px bs {bs}, loading included"
    told = f"{b/a:.2f} of the bare model's {1/b:.1f}; {(b + c)/a:.2f} of both in turn, {1/(b + c):.1f}"
    return [(name, f"{1/a:.1f} images/s", told)]

PROBED = [f"real-meta+{o}" for o in ("class-weights", "oversample", "focal", "logit-adjust", "mixup", "duplicate")]

def probing(size, bs, folder, archs=("resnet50", "densenet121", "vgg16"), n=912):
    "(o) Three backbones x nine arms x five folds x three seeds as a probe by two processes, features included."
    rows = drawn_rows(2*n, f"{folder}/{2*n}-{size}", size)
    rows = rows.groupby("label", observed=True).head(n//2).reset_index(drop=True).assign(split="train")
    plan = plan_of(backbones=archs, arms=["real", "meta", "real-meta", *PROBED], seeds=range(3), folds=5, size=size,
                   bs=bs, weights="none", mode="probe")
    with TemporaryDirectory(dir=folder) as out:
        start, os.environ["CXR_FASTAI_CACHE"] = now(), f"{out}/cache"
        save_study(Study(rows, plan, out).run(workers=2))
        took = now() - start
    return [(f"(o) a probe of {len(archs)} backbones x 9 arms x 5 folds x 3 seeds, {len(rows)} films, {size} px",
             f"{took/60:.1f} min", "features, decoding and tables included; bar 5 min")]

@call_parse
def main(
    part:str="all",       # 'classifiers gan study predict', 'all' of these; 'probe', 'generators', 'shared', its 'step'
    arch:str="resnet50",  # backbone
    size:int=128,         # side of the square images, pixels
    bs:int=32,            # images a batch of the classifiers
    runs:int=5,           # counted rounds of each comparison
    width:int=32,         # `ngf` and `ndf` of the CycleGAN
    films:int=350,        # that are synthesised; the paper's 350
    steps:int=200,        # of each generator for (n)
    data:str="phantom",   # films of (m) and (n), as the verbs' --data
    images:int=200,       # drawn images
    cells:int=100,        # of the grid that is resumed
    originals:str=None,   # folder of 1024 px png files, for (b) and (k)
    folder:str="runs/bench", # where the images are drawn
):
    "Measure training, construction, memory and synthesis; print a table."
    if part == "generators":
        rows = load_cohort(data)
        table = generator_steps(rows, size, width, runs) + generator_films(rows, size, width, steps, films, folder)
        return print(to_markdown(pd.DataFrame(table, columns=["what", "measured", "against"])))
    rows, table = drawn_rows(images, f"{folder}/{images}-{size}", size), []
    if part == "step": return print(gan_seconds(gan_learner(rows, size, bs, width), 3))
    if part == "probe": table += probing(size, bs, folder)
    if part == "shared": table += shared(size, width, images, runs, folder)
    if part in ("classifiers", "all"):
        table += construction() + overhead(rows, arch, size, bs, runs)
        if originals: table += against_stock(originals, arch, size, min(bs, 16), runs)
    if part in ("gan", "all"):
        for side in size // 2, size:
            for n in 1, 4: table += gan_steps(rows, side, n, width, runs)
        table += gan_switches(rows, size, width, runs) + synthesis(rows, size, width, runs, folder, films)
    if part in ("study", "all"):
        rows = split_patients(rows)
        table += cell_overhead(rows, arch, size, bs, runs, folder) + two_workers(rows, arch, size, bs, runs, folder)
        table += resuming(rows, folder, cells)
    if part in ("predict", "all"):
        files = sorted(Path(originals).rglob("*.png")) if originals else rows["file"]
        table += prediction(rows, files, arch, size, bs, runs, folder)
    print(to_markdown(pd.DataFrame(table, columns=["what", "measured", "against"])))
