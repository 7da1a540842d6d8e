import json, os, socket, subprocess, sys
import pandas as pd, pytest, torch
from cxr_fastai.fit.distributed import agreed, begin_distributed, is_first, synced_norms, together
from cxr_fastai.models.backbone import create_backbone
from cxr_fastai.settings import plan_of
from cxr_fastai.study.grid import Study

CODE = """
import sys, pandas as pd
from fastai.vision.all import rank_distrib
from cxr_fastai.fit.distributed import agreed, is_first
from cxr_fastai.settings import plan_of
from cxr_fastai.study.grid import Study
plan = plan_of(backbones="test_resnet", arms="real,meta,real-synth-meta", size=32, epochs=2, bs=8, weights="none",
               gan_epochs=1, epoch_rule="best")
study = Study(pd.read_pickle(sys.argv[1]), plan, sys.argv[2]).run()
assert agreed(lambda: rank_distrib()) == 0
try: agreed(lambda: 1/0)
except ZeroDivisionError: sys.stdout.write(f"told {rank_distrib()}\\n") # at once: both write to one pipe
sys.stdout.flush()
if is_first(): print(len(study.collect()[0]), flush=True)
"""

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]

@pytest.fixture(scope="module")
def launched(rows, tmp_path_factory):
    "The cells of a study, each trained by two processes on this machine's cpu (gloo)."
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("two")
    rows.to_pickle(folder/"rows.pkl")
    (folder/"go.py").write_text(CODE)
    command = [sys.executable, "-W", "ignore", "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes",
               "2", "--num_machines", "1",
               "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", str(free_port()),
               str(folder/"go.py"), str(folder/"rows.pkl"), str(folder/"runs")]
    env = os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder/"runs", done.stdout

def test_accelerate_launch_trains_each_cell_on_two_processes(launched):
    out, said = launched
    cells = sorted(out.glob("cells/*/scores.json"))
    assert len(cells) == 3 and not list(out.glob("cells/*/error.txt"))
    for o in cells:
        found = json.loads(o.read_text())
        assert found["processes"] == 2 and found["n"] == found["tp"] + found["fp"] + found["tn"] + found["fn"]
    assert sorted(o for o in said.splitlines() if o.startswith("told")) == ["told 0", "told 1"]
    assert "FAILED" not in said and said.count("3 of 3") <= 1

def test_one_process_writes_and_predictions_are_whole(launched, rows):
    for o in launched[0].glob("cells/*/predictions.csv"):
        table = pd.read_csv(o)
        for side in "valid", "test":
            assert list(table.image[table.side == side]) == list(rows.image[rows.split == side])
        label = rows.set_index("image").label.eq("Pneumonia")[table.image].to_numpy()
        assert (table.label == label).all() and table.probability.nunique() > len(table) // 2
        assert (o.parent/"log.txt").read_text().count("train_loss") == 1

def test_two_processes_are_another_cell_than_one(launched, rows):
    plan = plan_of(backbones="test_resnet", arms="real", size=32, epochs=2, bs=8, weights="none", epoch_rule="best")
    alone = Study(rows, plan, launched[0])
    assert next(iter(alone.cells.values())).folder.name not in {o.name for o in launched[0].glob("cells/*")}

def test_alone_nothing_is_waited_for():
    begin_distributed()
    assert is_first() and agreed(lambda: 3) == 3 and not torch.distributed.is_initialized()
    with together(None): pass

@pytest.mark.parametrize("arch", ["test_resnet", "densenet121"])
def test_synced_norms_keep_their_activations_and_give_way_to_those_of_before(arch):
    body, x = create_backbone(arch, "none", 32).eval(), torch.randn(2, 1, 32, 32)
    kinds, want = [type(o) for o in body.modules()], body(x)
    own = {k: o.data_ptr() for k, o in body.state_dict().items()}
    with synced_norms(body.train()):
        assert sum(isinstance(o, torch.nn.SyncBatchNorm) for o in body.modules()) > 3
        assert torch.equal(body.eval()(x), want)
    assert [type(o) for o in body.modules()] == kinds and not body.training and torch.equal(body(x), want)
    assert {k: o.data_ptr() for k, o in body.state_dict().items()} == own
