import multiprocessing, os, pickle, signal, sys, threading, time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest
from PIL import Image
from filelock import FileLock
import cxr_fastai.cohort.cache as module
from cxr_fastai.cohort.cache import RadiographCache
from cxr_fastai.cohort.duplicates import perceptual_hash
from cxr_fastai.cohort.radiograph import READER_VERSION, decode_radiograph, read_radiograph
from cxr_fastai.cohort.signs import RadiographError
from conftest import SHARED, needs_nih, start_python


def draw(folder, n, seed=0):
    "`n` small radiographs, no two alike; their names."
    rng = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    files = [str(folder/f"{i:03}.png") for i in range(n)]
    for f in files: Image.fromarray(rng.integers(0, 255, (24, 32), dtype=np.uint8)).save(f)
    return files

@pytest.fixture
def files(tmp_path): return draw(tmp_path/"images", 12)

@pytest.fixture
def decoded(monkeypatch):
    "The files decoded since, in the order in which they were."
    log = []
    def reader(file, size, white=None):
        log.append(str(file))
        return decode_radiograph(file, size, white)
    monkeypatch.setattr(module, "decode_radiograph", reader)
    return log

def want(files, size=16): return np.stack([read_radiograph(f, size) for f in files])
def store(tmp_path, size=16): return tmp_path/"cache"/f"{size}px-v{READER_VERSION}"
def open_cache(files, tmp_path, size=16): return RadiographCache(files, size, tmp_path/"cache")

def flip(path, at, n=1):
    with open(path, "r+b") as f:
        f.seek(at)
        old = f.read(n)
        f.seek(at)
        f.write(bytes(255-b for b in old))

def test_gives_the_readers_pixels_in_any_order_and_number(files, tmp_path):
    cache = open_cache(files, tmp_path)
    for batch in (files, files[::-1], [files[3]]*5, files[4:6]):
        got = cache.get(batch)
        assert got.dtype == np.uint8 and type(got) is np.ndarray and got.flags.writeable
        np.testing.assert_array_equal(got, want(batch))
    np.testing.assert_array_equal(cache[files[7]], read_radiograph(files[7], 16))
    assert cache.get([]).shape == (0, 16, 16)
    assert len(cache) == 12 and files[0] in cache and Path(files[0]) in cache and "other.png" not in cache

def test_what_is_given_back_is_a_copy(files, tmp_path):
    cache = open_cache(files, tmp_path)
    cache.get(files)[:] = 0
    np.testing.assert_array_equal(cache.get(files), want(files))

def test_hashes_are_those_of_the_pixels(files, tmp_path):
    cache = open_cache(files, tmp_path)
    np.testing.assert_array_equal(cache.hashes(files[2:9]), perceptual_hash(cache.get(files[2:9])))

def test_the_second_opening_decodes_nothing(files, tmp_path, decoded):
    open_cache(files, tmp_path)
    assert sorted(decoded) == files
    decoded.clear()
    np.testing.assert_array_equal(open_cache(files, tmp_path).get(files), want(files))
    np.testing.assert_array_equal(open_cache(files[5:8], tmp_path).get(files[6:8]), want(files[6:8]))
    assert decoded == []

def test_more_files_join_the_store_and_an_open_cache_is_not_disturbed(files, tmp_path, decoded):
    first = open_cache(files[:5], tmp_path)
    second = open_cache(files[3:], tmp_path)
    assert sorted(decoded) == files
    np.testing.assert_array_equal(first.get(files[:5]), want(files[:5]))
    np.testing.assert_array_equal(second.get(files[3:]), want(files[3:]))

def test_one_file_under_two_names_is_decoded_once(files, tmp_path, decoded, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [files[0], "images/000.png", "images/../images/000.png"]
    cache = open_cache(names, tmp_path)
    assert len(decoded) == 1 and len(cache) == 3
    np.testing.assert_array_equal(cache.get(names), want([files[0]]*3))

def test_a_changed_file_is_decoded_again(files, tmp_path, decoded):
    open_cache(files, tmp_path)
    decoded.clear()
    Image.fromarray(np.full((24, 32), 99, np.uint8)).save(files[4])
    cache = open_cache(files, tmp_path)
    assert decoded == [files[4]] and np.all(cache[files[4]] == 99)
    decoded.clear()
    os.utime(files[5], (1, 1))
    open_cache(files, tmp_path)
    assert decoded == [files[5]]

def test_each_size_and_each_reader_version_has_its_own_store(files, tmp_path, decoded, monkeypatch):
    open_cache(files, tmp_path)
    np.testing.assert_array_equal(open_cache(files, tmp_path, 8).get(files), want(files, 8))
    monkeypatch.setattr(module, "READER_VERSION", READER_VERSION+1)
    open_cache(files, tmp_path)
    assert Counter(decoded) == dict.fromkeys(files, 3)
    assert sorted(o.name for o in (tmp_path/"cache").iterdir()) == sorted(
        [f"16px-v{READER_VERSION}", f"8px-v{READER_VERSION}", f"16px-v{READER_VERSION+1}"])

def test_the_environment_names_the_folder(files, tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_FASTAI_CACHE", str(tmp_path/"named"))
    RadiographCache(files, 16)
    assert (tmp_path/"named"/f"16px-v{READER_VERSION}"/"index.npz").exists()

def test_a_build_leaves_only_its_three_files(files, tmp_path):
    store(tmp_path).mkdir(parents=True)
    (store(tmp_path)/".index.1.npz").write_bytes(b"of a process killed while it wrote")
    open_cache(files, tmp_path)
    assert {o.name for o in store(tmp_path).iterdir()} - {"lock"} == {"index.npz", "pixels.u8"}
    assert (store(tmp_path)/"pixels.u8").stat().st_size == 12*16*16

def test_no_files_touch_nothing(tmp_path):
    cache = open_cache([], tmp_path)
    assert len(cache) == 0 and cache.get([]).shape == (0, 16, 16) and not (tmp_path/"cache").exists()

def test_an_impossible_size_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match="side of a square in pixels, not 0"): open_cache(files, tmp_path, 0)

def test_bad_files_are_named_together_and_the_good_ones_kept(files, tmp_path, decoded):
    Path(files[2]).write_bytes(b"")
    Path(files[6]).write_text("no image")
    with pytest.raises(RadiographError, match="2 of 12 .*002.png is empty .*006.png is no PNG.*The others are cached"):
        open_cache(files, tmp_path)
    decoded.clear()
    good = [f for f in files if f not in (files[2], files[6])]
    np.testing.assert_array_equal(open_cache(good, tmp_path).get(good), want(good))
    assert decoded == []

def test_missing_files_are_named_together_before_anything_is_decoded(files, tmp_path, decoded):
    gone = [str(tmp_path/"images"/f"gone{i}.png") for i in range(5)]
    with pytest.raises(FileNotFoundError) as e: open_cache(files + gone, tmp_path)
    assert "5 of 17" in str(e.value) and "gone0.png" in str(e.value) and "2 more" in str(e.value)
    assert f"is {tmp_path/'images'} the folder" in str(e.value) and decoded == []

def test_a_file_the_cache_was_not_made_with_is_named(files, tmp_path):
    with pytest.raises(KeyError, match="005.png is not in this cache"): open_cache(files[:5], tmp_path).get(files)

def test_damaged_pixels_are_decoded_again_and_said(files, tmp_path, decoded, capsys):
    open_cache(files, tmp_path)
    flip(store(tmp_path)/"pixels.u8", 3*256 + 17)
    flip(store(tmp_path)/"pixels.u8", 9*256, 256)
    cache = open_cache(files, tmp_path)
    decoded.clear()
    np.testing.assert_array_equal(cache.get(files[:3]), want(files[:3]))
    assert decoded == []
    np.testing.assert_array_equal(cache.get(files), want(files))
    said = capsys.readouterr().out
    assert sorted(decoded) == [files[3], files[9]]
    assert said.count("\n") == 1 and "003.png" in said and "decoding 2 again" in said
    decoded.clear()
    np.testing.assert_array_equal(open_cache(files, tmp_path).get(files), want(files))
    assert decoded == [] and (store(tmp_path)/"pixels.u8").stat().st_size == 12*256

def test_damaged_pixels_whose_file_is_gone_are_not_given_out(files, tmp_path):
    open_cache(files, tmp_path)
    cache = open_cache(files, tmp_path)
    flip(store(tmp_path)/"pixels.u8", 0)
    os.unlink(files[0])
    with pytest.raises(FileNotFoundError, match="000.png"): cache.get(files[:2])

def test_a_store_that_keeps_returning_other_bytes_is_refused(files, tmp_path, monkeypatch):
    cache = open_cache(files, tmp_path)
    monkeypatch.setattr(module, "crc32", lambda _: time.perf_counter_ns() % 2**32)
    with pytest.raises(OSError, match="check its disk"): cache.get(files)

@pytest.mark.parametrize("damage", [
    lambda p: p.write_bytes(b""), lambda p: p.write_bytes(p.read_bytes()[:200]), lambda p: flip(p, 300, 20),
    lambda p: np.savez(p, slots=np.zeros(12)), lambda p: np.savez(p, other=np.zeros(12)),
    lambda p: np.savez(p, slots=np.zeros((12, 1), module.SLOT)), lambda p: p.write_bytes(pickle.dumps([1]))])
def test_a_damaged_index_is_built_anew_and_said(files, tmp_path, decoded, capsys, damage):
    before = open_cache(files, tmp_path)
    damage(store(tmp_path)/"index.npz")
    decoded.clear()
    np.testing.assert_array_equal(open_cache(files[::-1], tmp_path).get(files), want(files))
    assert sorted(decoded) == files and "index.npz is damaged" in capsys.readouterr().out
    np.testing.assert_array_equal(before.get(files), want(files))  # still reads the array it opened
    assert (store(tmp_path)/"pixels.u8").stat().st_size == 12*256

@pytest.mark.parametrize("keep,lost", [(5*256+100, 7), (0, 12)])
def test_pixels_cut_short_are_decoded_again(files, tmp_path, decoded, keep, lost):
    open_cache(files, tmp_path)
    decoded.clear()
    os.truncate(store(tmp_path)/"pixels.u8", keep)
    np.testing.assert_array_equal(open_cache(files, tmp_path).get(files), want(files))
    assert len(decoded) == lost

def test_repair_finds_the_slot_where_another_process_has_put_it(files, tmp_path, capsys):
    cache = open_cache(files, tmp_path)
    (store(tmp_path)/"index.npz").write_bytes(b"")
    other = open_cache(files[::-1], tmp_path)          # the new array runs the other way round
    cache.rows = cache.rows.copy()
    cache.rows["crc"][0] += 1                          # the first array, no longer on disk, is damaged
    np.testing.assert_array_equal(cache.get(files), want(files))
    np.testing.assert_array_equal(other.get(files), want(files))
    np.testing.assert_array_equal(open_cache(files, tmp_path).get(files), want(files))

def test_a_full_disk_is_seen_before_it_is_full(files, tmp_path, monkeypatch):
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="disk has 0.0 GB left.*CXR_FASTAI_CACHE"): open_cache(files, tmp_path)

def test_pickles_without_pixels_or_names(files, tmp_path):
    data = pickle.dumps(open_cache(files, tmp_path))
    assert len(data) < 500 and b"000.png" not in data
    again = pickle.loads(data)
    assert (again.size, len(again)) == (16, 0) and files[0] not in again

def _read_in_child(cache, files, queue): queue.put(cache.get(files).copy())

@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_forked_workers_read_and_repair(files, tmp_path):
    cache, fork = open_cache(files, tmp_path), multiprocessing.get_context("fork")
    flip(store(tmp_path)/"pixels.u8", 5*256, 9)
    queue = fork.Queue()
    children = [fork.Process(target=_read_in_child, args=(cache, files, queue)) for _ in range(2)]
    for o in children: o.start()
    for _ in children: np.testing.assert_array_equal(queue.get(timeout=30), want(files))
    for o in children: o.join(30)
    np.testing.assert_array_equal(cache.get(files), want(files))

SCRIPT = """
import sys, time, zlib
import cxr_fastai.cohort.cache as module
log, folder, *files = sys.argv[1:]
real = module.decode_radiograph
def reader(file, size, white):
    time.sleep(.03)
    with open(log, "a") as f: f.write(file + "\\n")
    return real(file, size, white)
module.decode_radiograph, module.COMMIT_EVERY = reader, 0
print("sum", zlib.crc32(module.RadiographCache(files, 16, folder).get(files)))
"""

def start(files, tmp_path):
    "Another process that builds the cache slowly, keeps every image at once, and logs what it decodes."
    return start_python(SCRIPT, tmp_path/"log", tmp_path/"cache", *files)

def kept(tmp_path):
    try:
        with np.load(store(tmp_path)/"index.npz") as z: return len(z["slots"])
    except FileNotFoundError: return 0

@pytest.mark.slow
def test_a_killed_build_is_resumed_where_it_was(tmp_path, decoded):
    files = draw(tmp_path/"images", 60)
    process = start(files, tmp_path)
    until = time.monotonic() + 60
    while kept(tmp_path) < 5 and process.poll() is None and time.monotonic() < until: time.sleep(.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    done = kept(tmp_path)
    assert 5 <= done < 60
    cache = open_cache(files, tmp_path)
    assert len(decoded) == len(set(decoded)) == 60 - done
    np.testing.assert_array_equal(cache.get(files), want(files))
    assert {o.name for o in store(tmp_path).iterdir()} - {"lock"} == {"index.npz", "pixels.u8"}
    assert (store(tmp_path)/"pixels.u8").stat().st_size == 60*256

@pytest.mark.slow
def test_two_processes_share_the_work_and_decode_each_file_once(tmp_path, decoded):
    files = draw(tmp_path/"images", 60)
    both = [start(files, tmp_path), start(files[::-1], tmp_path)]
    said = [o.communicate(timeout=60)[0] for o in both]
    assert [o.returncode for o in both] == [0, 0]
    assert Counter((tmp_path/"log").read_text().split()) == dict.fromkeys(files, 1)
    np.testing.assert_array_equal(open_cache(files, tmp_path).get(files), want(files))
    assert decoded == [] and all("sum" in o for o in said)

def test_who_waits_for_another_process_is_told(files, tmp_path, capsys):
    store(tmp_path).mkdir(parents=True)
    held = threading.Event()
    def hold():
        with FileLock(store(tmp_path)/"lock"):
            held.set()
            time.sleep(1.3)
    threading.Thread(target=hold).start()
    held.wait(10)
    np.testing.assert_array_equal(open_cache(files, tmp_path).get(files), want(files))
    assert "Waiting for another process" in capsys.readouterr().out

@needs_nih
def test_nih_originals(tmp_path):
    files = sorted((SHARED/"nih_originals").glob("*.png"))[:8]
    cache = RadiographCache(files, 256, tmp_path)
    sample = [read_radiograph(SHARED/"nih_sample"/"images"/f.name) for f in files]
    np.testing.assert_array_equal(cache.get(files), sample)

def test_a_quiet_cache_says_nothing(files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    RadiographCache(files, 16, tmp_path/"cache", progress=False)
    assert capsys.readouterr().out == ""

# White of 16-bit files that don't say

def deep(folder, tops):
    "A film of 16 bits for each greatest value."
    folder.mkdir(exist_ok=True)
    files = [str(folder/f"{top}.png") for top in tops]
    for f, top in zip(files, tops): Image.fromarray(np.linspace(0, top, 256).astype(np.uint16).reshape(16, 16)).save(f)
    return files

def test_a_set_has_one_white_and_says_which(files, tmp_path, decoded, capsys):
    dark, bright = deep(tmp_path/"deep", [900, 4000])
    cache = open_cache([dark, bright, files[0]], tmp_path)
    assert cache.white == 12 and decoded.count(dark) == 2 and decoded.count(bright) == 1
    for f in dark, bright: np.testing.assert_array_equal(cache[f], read_radiograph(f, 16, 12))
    np.testing.assert_array_equal(cache[files[0]], read_radiograph(files[0], 16))
    says = "2 of 3 radiographs have 16 bits and don't say what white is: 4,095 (12 bits) was taken"
    assert says in capsys.readouterr().out
    alone = open_cache([dark], tmp_path) # another set, of which it is the brightest
    assert alone.white == 10 and len(decoded) == 4
    np.testing.assert_array_equal(alone[dark], read_radiograph(dark, 16))
    again = open_cache([dark, bright], tmp_path)
    assert again.white == 12 and len(decoded) == 4 and capsys.readouterr().out == ""
    np.testing.assert_array_equal(again[dark], cache[dark])

def test_a_given_white_is_kept_and_what_is_beyond_it_refused(files, tmp_path):
    dark, bright = deep(tmp_path/"deep", [900, 4000])
    cache = RadiographCache([dark], 16, tmp_path/"cache", white=12)
    np.testing.assert_array_equal(cache[dark], read_radiograph(dark, 16, 12))
    assert pickle.loads(pickle.dumps(cache)).white == 12
    with pytest.raises(RadiographError, match="1 radiographs hold values beyond 1,023.*4000.png"):
        RadiographCache([dark, bright], 16, tmp_path/"cache", white=10)
    assert open_cache(files, tmp_path).white is None

def test_a_damaged_slot_of_a_dark_film_is_mended_with_its_sets_white(tmp_path):
    files = deep(tmp_path/"deep", [900, 4000])
    open_cache(files, tmp_path)
    flip(store(tmp_path)/"pixels.u8", 2*16*16 + 9) # the third slot: the dark film by the set's white
    np.testing.assert_array_equal(open_cache(files, tmp_path)[files[0]], read_radiograph(files[0], 16, 12))

def test_films_of_one_gray_are_counted(files, tmp_path, capsys):
    for o in files[:2]: Image.new("L", (9, 9), 7).save(o)
    open_cache(files, tmp_path)
    assert f"2 of 12 radiographs are of one gray: {files[0]}, {files[1]}" in capsys.readouterr().out

def test_all_that_cannot_be_read_is_named_in_one_sentence(files, tmp_path):
    pytest.importorskip("pydicom")
    from films import dicom
    bad = dicom(tmp_path/"images"/"bad.dcm", np.arange(64, dtype=np.uint16).reshape(8, 8), RescaleSlope=2,
                RescaleIntercept=1)
    data = bytearray(bad.read_bytes())
    data[data.index(b"\x28\x00\x53\x10DS") + 8] = ord("x")
    bad.write_bytes(data)
    Path(files[3]).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(RadiographError, match="2 of 13 radiographs cannot be read: .*003.png.*bad.dcm"):
        open_cache([*files, str(bad)], tmp_path)
    for o in files[:3]: Path(o).write_bytes(b"")
    with pytest.raises(RadiographError, match="5 of 13 radiographs cannot be read: .*unreadable.txt names all"):
        open_cache([*files, str(bad)], tmp_path)
    listed = (store(tmp_path)/"unreadable.txt").read_text().splitlines()
    assert [o.split(" ")[0] for o in listed] == [*files[:4], str(bad)]
    with pytest.raises(FileNotFoundError, match="1 of 1 radiographs do not exist"): open_cache(["a\0b.png"], tmp_path)
