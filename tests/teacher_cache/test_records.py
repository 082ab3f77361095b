import os
import resource
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tinymim.cli.main import main
from tinymim.errors import TinymimError
from tinymim.teacher_cache import cache as caches
from tinymim.teacher_cache import storage as folders
from tinymim.teacher_cache.cache import Cache, StoredSet
from tinymim.teacher_cache.forms import Form
from tinymim.teacher_cache.records import Records
from tinymim.teacher_cache.storage import KEY, OPEN, entries, remove
from tinymim.vit.taps import NORMED, Tap

FORM = Form(Tap(1, NORMED), 4, 60)
SIZE = FORM.size


def some(numbers, seed=0):
    return np.random.default_rng([seed, len(numbers)]).integers(0, 255, (len(numbers), SIZE), np.uint8)


def numbered(*numbers):
    return np.array(numbers, np.int64)


@pytest.fixture
def told():
    return []


@pytest.fixture
def opened(tmp_path, told):
    return lambda: Records(tmp_path / "a.rec", 10, SIZE, told.append)


def read(records, numbers):
    into = np.empty((len(numbers), SIZE), np.uint8)
    return records.read(numbers, into), into


def test_records__are_read_by_another_process_as_they_were_written(opened, told):
    reader, writer, numbers = opened(), opened(), numbered(7, 0, 3)
    assert not read(reader, numbers)[0].any()
    writer.write(numbers, written := some(numbers))
    there, found = read(reader, numbered(7, 1, 0, 3))  # opened before they were written
    assert there.tolist() == [True, False, True, True]
    assert (found[[0, 2, 3]] == written).all()
    assert not told


def test_records__a_torn_one_is_absent_and_named_once(opened, told, tmp_path):
    writer, numbers = opened(), numbered(1, 2)
    writer.write(numbers, some(numbers))
    with (tmp_path / "a.rec").open("r+b") as file:
        file.seek(2 * SIZE + 5)
        file.write(bytes(9))
    for _ in range(2):
        reader = opened()
        assert read(reader, numbers)[0].tolist() == [True, False]
        read(reader, numbers)
    assert len(told) == 2  # once by each
    assert "damaged at record 2" in told[0]
    writer.write(numbers[1:], some(numbers)[1:])
    assert read(reader, numbers)[0].all()


def test_records__a_file_cut_short_lacks_what_was_cut_off(opened, told, tmp_path):
    numbers = numbered(0, 9)
    opened().write(numbers, written := some(numbers))
    os.truncate(tmp_path / "a.rec", 3 * SIZE + 1)
    there, found = read(records := opened(), numbers)
    assert there.tolist() == [True, False]
    assert (found[0] == written[0]).all()
    assert "bytes instead of" in told[0]
    os.truncate(tmp_path / "a.rec", 0)  # while it is open
    assert not read(records, numbers)[0].any()
    records.write(numbers, written)
    assert read(records, numbers)[0].all()


def test_records__two_writers_leave_whole_ones(opened):
    numbers = numbered(*range(10))
    first, second = some(numbers, 1), some(numbers, 2)
    writers = [
        threading.Thread(target=lambda writer, x: [writer.write(numbers, x) for _ in range(20)], args=(opened(), x))
        for x in (first, second)
    ]
    for thread in writers:
        thread.start()
    reader = opened()
    for _ in range(50):
        there, found = read(reader, numbers)
        right = (found == first).all(1) | (found == second).all(1)
        assert right[there].all()
    for thread in writers:
        thread.join()


def cache(folder, images=10, key="a"):
    return Cache(folder, [FORM], [StoredSet({"k": key}, {"teacher": "t", "data": "d"}, images, 2), None])


def tags(*numbers, view=0):
    return np.array([[0, view, number] for number in numbers])


def tokens(numbers):
    return FORM.encode(torch.stack([torch.full((4, 60), 1.0 + number) for number in numbers]))


def test_cache__fetches_what_was_stored_of_a_batch_of_several_views(tmp_path, capsys):
    one, other = cache(tmp_path), cache(tmp_path)
    view = np.concatenate([tags(3, 5), tags(5, view=1), tags(-1)])
    assert one.fetch(view)[1] == [0, 1, 2, 3]
    one.store(view, {FORM.name: tokens([1, 2, 3, 4])})
    found, missing = other.fetch(view[::-1].copy())
    assert missing == [0]  # a neighbour from elsewhere is never stored
    assert torch.equal(found[FORM.name][1:], tokens([3, 2, 1]))
    assert (one.missing(0), one.missing(0, 1)) == (17, 8)
    assert one.describe().endswith(" 0% of it there"), "when it was opened"
    one.close(), other.close()


def test_cache__checksums_are_read_once_when_it_is_opened(tmp_path, monkeypatch):
    one = cache(tmp_path)
    one.store(tags(3, 5), {FORM.name: tokens([1, 2])})
    one.store(tags(5, view=1), {FORM.name: tokens([3])})
    looked, stored = [], folders.stored
    monkeypatch.setattr(folders, "stored", lambda path, length: looked.append(path.name) or stored(path, length))
    other = cache(tmp_path)
    assert other.lacking == [17, 0]
    assert "15% of it there" in other.describe()
    assert sorted(looked) == [f"{FORM.name}.view{view}.crc" for view in (0, 1)]
    assert (other.missing(0), other.missing(0, 1)) == (17, 8)
    one.store(tags(*range(10)), {FORM.name: tokens(range(10))})
    assert (other.missing(0), other.lacking[0]) == (9, 17)
    trial = Cache(tmp_path, [FORM], [StoredSet({"k": "a"}, {}, 10, 2)], trial=True)
    assert trial.lacking == [trial.missing(0)] == [9], "a trial says what is there"
    assert trial.fetch(tags(3))[1] == [0], "and has an empty place"
    trial.store(tags(1, 2, view=1), {FORM.name: tokens([1, 2])})
    assert (trial.missing(0), other.missing(0)) == (7, 9)
    one.store(tags(*range(10), view=1), {FORM.name: tokens(range(10))})
    whole = Cache(tmp_path, [FORM], [StoredSet({"k": "a"}, {}, 10, 2)], trial=True)
    assert whole.describe().endswith(" 100% of it there")
    assert (whole.missing(0), whole.fetch(tags(3, 4, view=1))[1]) == (0, []), (
        "what is whole it reads, and writes nothing"
    )
    assert not whole.storing


def test_cache__many_views_keep_few_files_open_and_are_told_by_size_at_once(tmp_path):
    many = 10**9
    part = StoredSet({"k": "a"}, {}, 10, many)
    with pytest.raises(TinymimError, match="would be written to"):
        Cache(tmp_path / "none", [FORM], [part])
    one = Cache(tmp_path, [FORM], [StoredSet({"k": "a"}, {}, 10, 100)])
    before = len([*Path("/proc/self/fd").iterdir()])
    for view in range(100):
        one.store(tags(0, view=view), {FORM.name: tokens([view])})
    assert len([*Path("/proc/self/fd").iterdir()]) - before <= 2 * (OPEN + 1)
    assert one.missing(0) == 100 * 9
    assert one.fetch(tags(0, view=0))[1] == []


def test_cache__a_place_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(TinymimError, match=r"teacher_cache_dir: .*file is no folder"):
            cache(place)


def test_cache__an_infinity_is_not_stored(tmp_path):
    one = cache(tmp_path)
    bad = torch.ones(2, 4, 60)
    bad[1, 0, 0] = torch.inf
    one.store(tags(0, 1), {FORM.name: FORM.encode(bad)})
    assert one.fetch(tags(0, 1))[1] == [1]


def test_cache__another_key_is_another_place_and_a_false_one_is_refused(tmp_path):
    one = cache(tmp_path)
    one.store(tags(0), {FORM.name: tokens([0])})
    assert cache(tmp_path, key="b").fetch(tags(0))[1] == [0]
    (entry,) = [entry for entry in entries(tmp_path) if entry.full]
    assert entry.about == {"teacher": "t", "data": "d"}
    (entry.path / KEY).write_text((entry.path / KEY).read_text().replace('"a"', '"b"'))
    with pytest.raises(TinymimError, match=r"key.json does not say what lies beside it; `tinymim cache clear"):
        cache(tmp_path)


def test_cache__a_full_disk_is_said_once_and_costs_nothing_that_is_there(tmp_path, capsys):
    one = cache(tmp_path)
    one.store(tags(0), {FORM.name: tokens([0])})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE + 10, hard))
        for _ in range(2):
            one.store(tags(5, 0), {FORM.name: tokens([5, 0])})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert said.count("cannot be written") == said.count("going on without storing") == 1
    assert one.fetch(tags(0, 5))[1] == [1]


def test_cache__what_would_not_fit_is_refused_before_anything_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda place: type("", (), {"free": 999})())
    with pytest.raises(TinymimError, match=r"5\.1 kB would be written to .*, and the disk has 999 bytes free"):
        cache(tmp_path / "there")
    assert not (tmp_path / "there").exists()
    monkeypatch.undo()
    one = cache(tmp_path / "there")
    one.store(tags(*range(10)), {FORM.name: tokens(range(10))})
    monkeypatch.setattr(caches.shutil, "disk_usage", lambda place: type("", (), {"free": 2600})())
    cache(tmp_path / "there")  # half of it is there


def test_cache__is_not_cleared_under_a_run_and_a_trial_leaves_nothing(tmp_path):
    one = cache(tmp_path / "there")
    (entry,) = entries(tmp_path / "there")
    with pytest.raises(TinymimError, match="is in use by a run"):
        remove(entry.path)
    one.close()
    remove(entry.path)
    assert list((tmp_path / "there").iterdir()) == []
    part = StoredSet({"k": "a"}, {}, 10, 1)
    trial = Cache(tmp_path / "there", [FORM], [part], trial=True)
    trial.store(tags(0), {FORM.name: tokens([0])})
    assert trial.fetch(tags(0))[1] == []
    trial.close()
    assert list((tmp_path / "there").iterdir()) == []


def _a_folder(root):
    cache = Cache(root, [FORM], [StoredSet({"teacher": "t"}, {}, 10, 1)])
    rows = np.array([[0, 0, 1]], np.int64)
    cache.store(rows, {FORM.name: torch.from_numpy(some(rows).view(np.int8))})
    cache.close()
    return next(path for path in root.iterdir())


def _kinds(path, outside):
    """A pipe, a link, and a folder, each in turn where a file belongs."""
    outside.write_bytes(b"precious")
    for make in (lambda: os.mkfifo(path), lambda: path.symlink_to(outside), path.mkdir):
        path.unlink(missing_ok=True)
        make()
        yield
        assert outside.read_bytes() == b"precious"
    path.rmdir()


@pytest.mark.parametrize("suffix", [".crc", ".rec"])
def test_cache__opens_regular_files_alone(tmp_path, suffix, capsys):
    folder = _a_folder(tmp_path / "cache")
    for _ in _kinds(folder / f"x.view0{suffix}", tmp_path / "outside"):
        (entry,) = entries(tmp_path / "cache")
        assert entry.taps == [FORM.name]
    for _ in _kinds(folder / f"{FORM.name}.view0{suffix}", tmp_path / "outside"):
        cache = Cache(tmp_path / "cache", [FORM], [StoredSet({"teacher": "t"}, {}, 10, 1)])
        assert cache.missing(0) == 10
        assert cache.fetch(tags(0))[1] == [0]
        assert not cache.storing
        cache.close()
        with pytest.raises(OSError, match=r"regular|link|directory"):
            Records(folder / f"{FORM.name}.view0.rec", 10, SIZE, print)


@pytest.mark.parametrize("name", ["in_use", "key.json"])
def test_cache__other_files_are_regular_too(tmp_path, name):
    folder = _a_folder(tmp_path / "cache")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert len(entries(tmp_path / "cache")) == 1
    if name == "in_use":
        with pytest.raises(TinymimError, match="cannot be removed: in_use is no regular file"):
            remove(folder)
    assert (folder / f"{FORM.name}.view0.rec").is_file()


def test_clear__refuses_a_link_before_it_touches_anything(tmp_path, capsys):
    folder, outside = _a_folder(tmp_path / "cache"), tmp_path / "outside"
    outside.mkdir()
    (outside / KEY).write_text("{}")
    link = tmp_path / "cache" / "linked"
    link.symlink_to(outside)
    assert [entry.path for entry in entries(tmp_path / "cache")] == [folder]
    assert main(["cache", "clear", "--dir", str(tmp_path / "cache"), folder.name, "linked"]) == 1
    assert "linked is a link to" in capsys.readouterr().err
    with pytest.raises(TinymimError, match="is a link to"):
        remove(link)
    assert folder.is_dir()
    folder.rename(tmp_path / "moved")
    folder.symlink_to(outside)
    with pytest.raises(TinymimError, match="is a link to"):
        Cache(tmp_path / "cache", [FORM], [StoredSet({"teacher": "t"}, {}, 10, 1)])
    assert [path.name for path in outside.iterdir()] == [KEY]
    assert link.is_symlink()
