"""A backup's file: read as it was written, or rejected before anything is unpacked."""

from __future__ import annotations

import io
import os
import random
import stat
import tarfile
from pathlib import Path

import pyarrow
import pytest

from embedded import backup_file
from embedded.backup_file import Progress
from embedded.home import explain_disk
from include.error_codes import Code
from tests.errors import raises


def silent(step: str) -> None:
    """Discard a step."""


def progress() -> Progress:
    return Progress(silent, "test", 0)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """A backup of two files, one of them empty, and an empty directory."""
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "nothing").touch()
    (tree / "noise").write_bytes(random.Random(1).randbytes(100_000))
    (tree / "left out").touch()
    file = tmp_path / "a.backup"
    with backup_file.writing(file, {"bytes": 1}, progress()) as writer:
        writer.add_bytes("secrets.json", b"{}")
        writer.add_tree("tree", tree, leave_out=frozenset({"left out"}))
    return file


def test_a_backup_is_read_as_it_was_written(written: Path, tmp_path: Path) -> None:
    backup_file.check(written, silent)
    assert backup_file.read_header(written) == {"format": 1, "bytes": 1}
    unpacked = tmp_path / "unpacked"
    backup_file.unpack(written, unpacked, progress())
    found = {str(path.relative_to(unpacked)) for path in unpacked.rglob("*")}
    names = {"millrace-backup.json", "secrets.json", "tree", "tree/empty", "tree/nothing", "tree/noise"}
    assert found == names
    assert (unpacked / "tree/noise").read_bytes() == (tmp_path / "tree/noise").read_bytes()
    for path in (written, unpacked / "secrets.json", unpacked / "tree/noise"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((unpacked / "tree").stat().st_mode) == 0o700


def test_a_cut_off_file_is_rejected(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    short = tmp_path / "short"
    for length in [*range(0, len(whole), 997), *range(len(whole) - 50, len(whole))]:
        short.write_bytes(whole[:length])
        with raises(Code.BACKUP_CORRUPT, short):
            backup_file.check(short, silent)


def test_an_altered_file_is_rejected(written: Path, tmp_path: Path) -> None:
    whole = written.read_bytes()
    altered = tmp_path / "altered"
    draw = random.Random(2)
    for place in [*draw.sample(range(len(whole)), 200), *range(len(whole) - 40, len(whole))]:
        content = bytearray(whole)
        content[place] ^= 1 << draw.randrange(8)
        altered.write_bytes(content)
        with raises(Code.BACKUP_CORRUPT, altered):
            backup_file.check(altered, silent)
    altered.write_bytes(whole + b"more")
    with raises(Code.BACKUP_CORRUPT, altered):
        backup_file.check(altered, silent)


def test_other_files_are_rejected(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    for content in (b"", b"text", bytes(1000), b"\x1f\x8b" + bytes(50), bytes.fromhex("28b52ffd") + bytes(100)):
        foreign.write_bytes(content)
        with raises(Code.BACKUP_CORRUPT, foreign):
            backup_file.check(foreign, silent)
    for path, code in ((tmp_path, Code.PERMISSION_DENIED), (tmp_path / "missing", Code.FILE_NOT_FOUND)):
        with raises(code, path):
            backup_file.check(path, silent)
    with pyarrow.output_stream(str(foreign), compression="zstd") as other:
        other.write(b"no archive")
    with raises(Code.BACKUP_CORRUPT, foreign):
        backup_file.read_header(foreign)


def test_a_newer_format_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "newer"
    with monkeypatch.context() as patch:
        patch.setattr(backup_file, "FORMAT", 2)
        with backup_file.writing(file, {}, progress()):
            pass
    with raises(Code.BACKUP_INCOMPATIBLE, file, "format 2", "format 1"):
        backup_file.read_header(file)


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "tree/../../outside"])
def test_nothing_is_unpacked_outside(tmp_path: Path, name: str) -> None:
    file = tmp_path / "hostile"
    with backup_file.writing(file, {}, progress()) as writer:
        writer.add_bytes(name, b"")
    with raises(Code.BACKUP_CORRUPT, file, name):
        backup_file.unpack(file, tmp_path / "unpacked", progress())


def test_links_of_another_archive_are_left_out(tmp_path: Path) -> None:
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    other.seek(0)
    file = tmp_path / "file"
    with backup_file.writing(file, {}, progress()) as writer:
        writer.add_archive("postgres", other)
    backup_file.unpack(file, tmp_path / "unpacked", progress())
    assert [path.name for path in (tmp_path / "unpacked").iterdir()] == ["millrace-backup.json"]


def test_an_interrupted_backup_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), backup_file.writing(tmp_path / "file", {}, progress()) as writer:
        writer.add_bytes("a", bytes(1000))
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "file.partial").symlink_to("/dev/full")
    with (
        raises(Code.DISK_FULL, tmp_path),
        explain_disk(tmp_path),
        backup_file.writing(tmp_path / "file", {}, progress()) as writer,
    ):
        writer.add_bytes("a", os.urandom(20_000_000))
    assert list(tmp_path.iterdir()) == []


def test_progress_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr(backup_file, "_SHOW_EVERY_S", 0.0)
    found = Progress(shown.append, "writing", 10_000_000)
    found.add(1_000_000)
    assert shown == ["writing: 1 of about 10 MB"]
