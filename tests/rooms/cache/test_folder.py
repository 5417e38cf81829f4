"""Entries are found again by other processes; nothing that a disk does reaches the caller."""

import errno
import os
import pathlib
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from attndsl.cache import folder as folder_file
from attndsl.cache import keep, load_bytes, location, recall, store_bytes

KEY = {"pattern": "abc", "width": 64}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def only(folder: Path) -> Path:
    (path,) = (path for path in folder.rglob("*") if path.is_file())
    return path


def test_what_is_kept_is_found_again():
    assert recall("configs", KEY) is None
    assert keep("configs", KEY, {"bq": 64})
    assert recall("configs", KEY) == {"bq": 64}
    assert recall("configs", KEY | {"width": 128}) is None
    assert recall("orders", KEY) is None
    assert keep("configs", KEY, {"bq": 32})
    assert recall("configs", KEY) == {"bq": 32}


def test_the_order_of_a_key_does_not_matter():
    keep("configs", KEY, 1)
    assert recall("configs", dict(reversed(KEY.items()))) == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda entry: b"",
        lambda entry: entry[: len(entry) // 2],
        lambda entry: entry + b"\0",
        lambda entry: entry.replace(b'"bq": 64', b'"bq": 65'),
        lambda entry: bytes(len(entry)),
    ],
    ids=["empty", "cut", "longer", "changed", "zeros"],
)
def test_a_spoiled_entry_is_not_there_and_is_written_anew(folder: Path, spoil):
    keep("configs", KEY, {"bq": 64})
    path = only(folder)
    path.write_bytes(spoil(path.read_bytes()))
    assert recall("configs", KEY) is None
    assert keep("configs", KEY, {"bq": 64})
    assert recall("configs", KEY) == {"bq": 64}


def test_an_entry_under_the_name_of_another_is_not_there(folder: Path):
    keep("configs", KEY, 1)
    first = only(folder)
    keep("configs", KEY | {"width": 128}, 2)
    (other,) = {path for path in folder.rglob("*") if path.is_file()} - {first}
    other.write_bytes(first.read_bytes())
    assert recall("configs", KEY | {"width": 128}) is None


def test_bytes_are_kept_as_they_are():
    for value in (b"", b"\0\xff" * 1_000):
        assert store_bytes("any", KEY, value)
        assert load_bytes("any", KEY) == value


def test_what_is_too_large_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(folder_file, "LARGEST", 10)
    assert store_bytes("any", KEY, bytes(10))
    assert not store_bytes("any", KEY, bytes(11))
    assert load_bytes("any", KEY) == bytes(10)


def test_the_oldest_give_way(monkeypatch: pytest.MonkeyPatch, folder: Path):
    monkeypatch.setattr(folder_file, "MOST", 8)
    for number in range(9):
        keep("configs", {"number": number}, number)
        for path in folder.rglob("*"):  # clocks are coarse: a second between one and the next
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**9))
    assert [recall("configs", {"number": number}) for number in range(9)] == [
        None,
        None,
        *range(2, 9),
    ]


def test_a_full_disk_leaves_the_old_entry_and_no_draft(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    keep("configs", KEY, 1)
    original = os.fdopen

    def full(*args: object, **options: object):
        file = original(*args, **options)

        def write(value: bytes) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        file.write = write
        return file

    monkeypatch.setattr(os, "fdopen", full)
    assert not keep("configs", KEY, 2)
    assert recall("configs", KEY) == 1
    assert only(folder).suffix == ""


def refuse(*args: object, **options: object):
    raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))


def test_where_nothing_can_be_written_nothing_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pathlib.Path, "mkdir", refuse)
    assert not keep("configs", KEY, 1)
    assert recall("configs", KEY) is None


def test_a_file_where_the_folder_should_be(folder: Path):
    folder.write_text("")
    assert not keep("configs", KEY, 1)
    assert recall("configs", KEY) is None


def test_an_entry_that_may_not_be_read_is_not_there(monkeypatch: pytest.MonkeyPatch):
    keep("configs", KEY, 1)
    monkeypatch.setattr(pathlib.Path, "open", refuse)
    assert recall("configs", KEY) is None


def test_what_is_kept_is_private(folder: Path):
    before = os.umask(0)
    try:
        keep("configs", KEY, 1)
    finally:
        os.umask(before)
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    assert modes == {folder: 0o700, folder / "configs": 0o700, only(folder): 0o600}


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o770])
def test_a_folder_that_others_can_write_to_is_not_used_and_a_warning_says_so_once(
    folder: Path, mode: int
):
    keep("configs", KEY, 1)
    folder.chmod(mode)
    with pytest.warns(RuntimeWarning, match="others can write to it") as said:
        assert (recall("configs", KEY), keep("configs", KEY, 2)) == (None, False)
    assert len(said) == 1
    folder.chmod(0o700)
    assert recall("configs", KEY) == 1


def test_a_folder_of_another_user_is_not_used(folder: Path, monkeypatch: pytest.MonkeyPatch):
    keep("configs", KEY, 1)
    monkeypatch.setattr(os, "getuid", lambda: folder.stat().st_uid + 1)
    with pytest.warns(RuntimeWarning, match="it belongs to another user"):
        assert recall("configs", KEY) is None
    assert location() is None


def test_a_link_in_place_of_an_entry_is_replaced_not_followed(folder: Path, tmp_path: Path):
    keep("configs", KEY, 1)
    (tmp_path / "mine").write_text("mine", encoding="utf-8")
    entry = only(folder)
    entry.unlink()
    entry.symlink_to(tmp_path / "mine")
    assert recall("configs", KEY) is None
    assert keep("configs", KEY, 2)
    assert (tmp_path / "mine").read_text(encoding="utf-8") == "mine"
    assert recall("configs", KEY) == 2


def test_an_empty_variable_turns_it_off(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATTNDSL_CACHE_DIR", "")
    assert location() is None
    assert not keep("configs", KEY, 1)
    assert recall("configs", KEY) is None


def test_without_the_variable_it_is_in_the_cache_of_the_user(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("ATTNDSL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert location() == tmp_path / "attndsl"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setattr(pathlib.Path, "home", lambda: tmp_path / "me")
    assert location() == tmp_path / "me" / ".cache" / "attndsl"

    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(pathlib.Path, "home", homeless)
    assert location() is None


WRITER = """
from attndsl.cache import keep, recall
import sys
seen = 0
for turn in range(200):
    assert keep("configs", {"a": 1}, ["x" * 5000, int(sys.argv[1]), turn])
    found = recall("configs", {"a": 1})
    assert found is not None and len(found[0]) == 5000
    seen += found[1] != int(sys.argv[1])
print(seen)
"""


def test_processes_that_write_at_once_never_see_half_an_entry(folder: Path):
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(i)], stdout=pipe, stderr=pipe, text=True
        )
        for i in range(3)
    ]
    for process in running:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert only(folder).suffix == "", "and no draft is left"
