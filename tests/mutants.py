"""Bundles as a stranger might send them: a good one with something changed in its card, header or tensors.

`python tests/mutants.py 2000` makes that many and says how each kind ended, what leaked past BundleError, and the
memory that the worst took."""
import copy, json, random, shutil, struct, sys, tempfile, time, traceback, warnings
from collections import Counter
from pathlib import Path
import timm, torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from cxr_fastai.trained.bundle import ensemble_of, load_bundle, save_bundle
from cxr_fastai.trained.card import BundleError
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.trained.hub import model_card
from cxr_fastai.trained.tensors import sha256_of

MAKE = dict(image=image_learner, metadata=metadata_learner, both=fusion_learner)
ODD = [None, True, False, 0, -1, 1, 2, 10**9, 2**70, 10**400, .5, -1e308, 1e308, float("inf"), float("nan"), "", "x",
       "fp16", "a\nb",
       "\ud800", "../../x", "\0", "|<b>=1+1", "x" * 20_000, [], [1], ["a"], ["a", "a"], [[]], {}, {"a": 1}, {"": None}]
SIZES = [1, 2, 7, 31, 33, 224, 512, 2048]

def originals(rows, folder):
    "Good bundles to change: one of each kind, one of them a single file; and one of two members."
    found = []
    for use in MAKE:
        dls = RadiographDataLoaders.from_df(rows, folder, size=32, bs=8, use=use, tfms=[])
        learn = MAKE[use](dls,
                          **({} if use == "metadata" else dict(arch="test_resnet", weights="none", precision="fp32")))
        summary = dict(settings=dict(arm="real-meta", epochs=1, lr=.1, seed=0, protocol="clean", epoch_rule="last"),
                       test=dict(n=9, positives=3, recall=.5, recall_low=.1, recall_high=.9))
        found.append(save_bundle(learn, folder/(use + ".safetensors" * (use == "image")), summary=summary))
    return [*found, save_bundle(ensemble_of([found[-1], learn]), folder/"two")]

def nested(n): return json.loads('{"a":' * n + "1" + "}" * n)

def spot(o, rng):
    "A random place in a tree of tables and lists: its holder and its key there."
    while True:
        key = rng.choice(list(o)) if isinstance(o, dict) else rng.randrange(len(o))
        if not (isinstance(o[key], (dict, list)) and o[key]) or rng.random() < .3: return o, key
        o = o[key]

def change_tree(o, rng):
    holder, key = spot(o, rng)
    how = rng.choice(["odd"] * 5 + ["gone", "more", "deep", "like"])
    if how == "odd": holder[key] = copy.deepcopy(rng.choice(ODD))
    elif how == "gone": del holder[key]
    elif how == "deep": holder[key] = nested(rng.choice([5, 25, 500]))
    elif how == "more" and isinstance(holder, dict): holder[rng.choice(["surprise", "a\nb", "\ud800", ""])] = 1
    elif isinstance(holder[key], bool): holder[key] = not holder[key]
    elif isinstance(holder[key],
                    (int, float)): holder[key] = type(holder[key])(holder[key] * rng.choice([-1, 0, 2, 1000]))
    elif isinstance(holder[key], str): holder[key] = holder[key][::-1]
    elif isinstance(holder[key], list): holder[key] = holder[key] * 2

def change_arch(card, rng):
    huge = ["vit_giant_patch14_dinov2", "eva02_enormous_patch14_clip_224", "vit_7b_patch16_dinov3"]
    if "arch" in card and rng.random() < .7: card["arch"] = rng.choice(rng.choice([ARCHS, huge]))
    if rng.random() < .6: card["size"] = rng.choice(SIZES)
    if "n_meta" in card and rng.random() < .3: card["n_meta"] = rng.choice([1, 31, 4096])
    if "fusion" in card and rng.random() < .3: card["fusion"] = rng.choice(["logits", "gated", "film", "attention"])

ARCHS = [o for o in timm.list_models() if not o.startswith("sequencer2d")] # whose shapes take a minute

def change_tensors(state, rng):
    name = rng.choice([rng.choice(list(state)),
                       rng.choice([k for k in state if "running_var" in k or not state[k].is_floating_point()])])
    o, how = state[name], rng.choice("gone more renamed shape type alike value sign".split())
    if how == "gone": del state[name]
    elif how == "more": state[rng.choice(["../x", "a", name + ".0", ""])] = torch.ones(rng.choice([0, 1, 3]))
    elif how == "renamed": state[name + "x"] = state.pop(name)
    elif how == "shape":
        state[name] = rng.choice([o.flatten()[:1].clone(), o[None].clone(), torch.zeros(0), o.flatten().repeat(2)])
    elif how == "type":
        state[name] = o.to(rng.choice([torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64,
                                       torch.uint8, torch.bool, torch.float8_e4m3fn, torch.complex64]))
    elif how == "alike":
        kind = rng.choice([torch.float64, torch.float16, torch.bfloat16, torch.int32])
        for k, v in state.items(): state[k] = v.to(kind) if v.is_floating_point() else v
    elif how == "value":
        floats, whole = [float("nan"), float("inf"), -float("inf")], [-1, 7, 2**40]
        odd = rng.choice(floats if o.is_floating_point() else whole)
        state[name] = torch.full_like(o, odd) if o.dtype != torch.bool else ~o
    elif how == "sign": state[name] = -o.abs() if o.dtype != torch.bool else o

def change_bytes(data, rng):
    data, n = bytearray(data), max(1, min(len(data), 3000))
    how = rng.choice("flip cut grow swap nest".split())
    if how == "flip":
        for _ in range(rng.choice([1, 8])): data[rng.randrange(n)] ^= 1 << rng.randrange(8)
    elif how == "cut": del data[rng.randrange(len(data)):]
    elif how == "grow":
        i = rng.randrange(n)
        data[i:i] = rng.choice([b"\0", b" " * 4_000_000, b'"', b"[" * 100_000, b"\xff\xfe"])
    elif how == "swap": data[:8] = struct.pack("<Q", rng.choice([0, 1, 2**20, 2**40, 2**64 - 1, len(data)]))
    elif how == "nest": data[:] = b"[" * rng.choice([500, 900_000]) + b"]" * 500
    return bytes(data)

def split(file):
    data = file.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8:8 + n]), data[8 + n:]

def join(file, header, rest):
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + rest)

def mutate(path, rng):
    "Change the bundle at `path`; gives the kind of what was changed. Its checksum is honest more often than not."
    single = path.suffix == ".safetensors"
    file = path if single else path/"model.safetensors"
    kind = rng.choice("card card card arch header tensors tensors tensors bytes".split())
    state = load_file(file)
    if single:
        with safe_open(file, "pt") as f: card = json.loads(f.metadata()["cxr_fastai"])
    else: card = json.loads((path/"bundle.json").read_text())
    if kind == "card": change_tree(card, rng)
    if kind == "arch": change_arch(card, rng)
    if kind == "tensors": change_tensors(state, rng)
    if kind in ("card", "arch", "tensors"):
        if rng.random() < .9 and isinstance(card, dict) and "sha256" in card: card["sha256"] = sha256_of(card, state)
        save_file(state, file, dict(cxr_fastai=json.dumps(card)) if single else None)
        if not single: (path/"bundle.json").write_text(json.dumps(card))
    elif kind == "header":
        header, rest = split(file)
        change_tree(header, rng)
        try: join(file, header, rest)
        except ValueError: kind = "none"
    else:
        at = file if single or rng.random() < .5 else path/"bundle.json"
        at.write_bytes(change_bytes(at.read_bytes(), rng))
    return kind

def types(path):
    file = path if path.is_file() else path/"model.safetensors"
    with safe_open(file, "pt") as f: return {k: f.get_slice(k).get_dtype() for k in f.keys()}

def judge(path, film, before):
    "'refused', 'accepted', or what went wrong; what was accepted must predict, and be described."
    try: learn = load_bundle(path, "cpu")
    except BundleError as e: return "refused" if str(path) in str(e) and "\n" not in str(e) else f"unnamed: {e}"
    except Exception: return "foreign: " + traceback.format_exc()
    now = types(path)
    one = len({now[k] for k, o in before.items() if o == "F32"} | {"F32"}) <= 2
    same = all(now[k] == o or one and o == "F32" and now[k] in ("F16", "BF16") for k, o in before.items() if k in now)
    if not same: return "other types"
    try:
        learn.predict(**({} if learn.settings["kind"] == "metadata" else dict(image=film)))
        model_card(path).encode()
    except Exception: return "foreign after loading: " + traceback.format_exc()
    return "accepted"

def peak():
    "Resident memory at most since the last call, and now, in MB; where Linux tells it."
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return [int(told[k].split()[0]) / 1024 for k in ("VmHWM", "VmRSS")]

def run(rows, folder, n, seed=0, loud=False):
    "(kind, verdict, MB, seconds) of `n` mutants."
    warnings.simplefilter("ignore")
    good = [(o, types(o)) for o in originals(rows, folder)]
    for i in range(n):
        rng = random.Random(f"{seed} {i}")
        source, before = rng.choice(good)
        (folder).mkdir(exist_ok=True)
        path = folder/f"mutant{source.suffix}"
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, path)
        kind = mutate(path, rng)
        _, now = peak()
        start = time.time()
        verdict = judge(path, rows["file"].iloc[0], before)
        yield kind, verdict, peak()[0] - now, time.time() - start
        shutil.rmtree(path) if path.is_dir() else path.unlink()

if __name__ == "__main__":
    from conftest import make_rows
    from cxr_fastai.cohort.sampling import split_patients
    n, seed = (int(o) for o in (sys.argv[1:] + ["2000", "0"][len(sys.argv) - 1:]))
    with tempfile.TemporaryDirectory() as tmp:
        rows = split_patients(make_rows(Path(tmp)), seed=0)
        found, worst, slow = Counter(), 0, 0
        for i, (kind, verdict, mb, seconds) in enumerate(run(rows, Path(tmp)/"b", n, seed)):
            found[kind, verdict.split(":")[0]] += 1
            worst, slow = max(worst, mb), max(slow, seconds)
            if verdict not in ("refused", "accepted"): print(i, kind, verdict, flush=True)
            if mb > 300 or seconds > 20: print(i, kind, verdict, f"{mb:.0f} MB, {seconds:.0f} s", flush=True)
        for (kind, verdict), k in sorted(found.items()): print(f"{kind:<10}{verdict:<12}{k:>6}")
        print(f"{n} mutants of seed {seed}: at most {worst:.0f} MB beyond what was held before, {slow:.1f} s")
