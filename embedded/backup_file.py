"""The file that `backup` writes and `restore` reads: a tar archive, compressed with zstd, with its SHA-256 at the end.

The digest lies in a frame that every decoder of zstd skips, so that ordinary tools can list the archive. It is checked
before anything is unpacked: a file that is cut off, altered or not a backup changes nothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from include.errors import UserError

FORMAT = 1
HEADER = "millrace-backup.json"
_ZSTD = bytes.fromhex("28b52ffd")
# A skippable frame of 32 bytes; see RFC 8878, 3.1.2.
_TRAILER = bytes.fromhex("502a4d18") + (32).to_bytes(4, "little")
_TRAILER_BYTES = len(_TRAILER) + 32
_CHUNK = 4 * 1024**2
_SHOW_EVERY_S = 3.0

Report = Callable[[str], None]


class Writer:
    """A backup that is being written; see `writing`."""

    def __init__(self, archive: tarfile.TarFile, progress: Progress) -> None:
        self._archive = archive
        self._progress = progress

    def add_bytes(self, name: str, content: bytes) -> None:
        """Adds a file of this content."""
        member = tarfile.TarInfo(name)
        member.size, member.mtime = len(content), int(time.time())
        self._archive.addfile(member, io.BytesIO(content))

    def add_file(self, name: str, path: Path) -> None:
        """Adds a regular file or a directory by itself; nothing when it is neither."""
        member = self._archive.gettarinfo(path, name)
        if member.isdir():
            self._archive.addfile(member)
        elif stat.S_ISREG(path.lstat().st_mode):
            # Two names of one file would become a link.
            member.type = tarfile.REGTYPE
            member.size = path.stat().st_size
            with path.open("rb") as file:
                self._archive.addfile(member, file)
            self._progress.add(member.size)

    def add_tree(self, name: str, directory: Path, leave_out: frozenset[str] = frozenset()) -> None:
        """Adds the directories and regular files below a directory, but for the names at its top to leave out."""
        for path in sorted(directory.rglob("*")):
            inner = path.relative_to(directory)
            if inner.parts[0] in leave_out:
                continue
            with suppress(FileNotFoundError):
                self.add_file(f"{name}/{inner}", path)

    def add_archive(self, name: str, source: IO[bytes]) -> None:
        """Adds the directories and regular files of another tar archive, as it is read."""
        with tarfile.open(fileobj=source, mode="r|") as other:
            for member in other:
                content = other.extractfile(member) if member.isreg() else None
                if content or member.isdir():
                    member.name = f"{name}/{member.name}"
                    self._archive.addfile(member, content)
                    self._progress.add(member.size)


class Progress:
    """Says every few seconds how much is done.

    Args:
        about: Bytes that are to come, or 0 when that is unknown.
    """

    def __init__(self, report: Report, what: str, about: int) -> None:
        self._report, self._what, self._about = report, what, about
        self._done = 0
        self._shown_at = time.monotonic()

    def add(self, count: int) -> None:
        self._done += count
        if (now := time.monotonic()) - self._shown_at > _SHOW_EVERY_S:
            self._shown_at = now
            of = f" of about {max(self._about, self._done) / 1e6:,.0f}" if self._about else ""
            self._report(f"{self._what}: {self._done / 1e6:,.0f}{of} MB")


@contextmanager
def writing(file: Path, header: dict[str, Any], progress: Progress) -> Iterator[Writer]:
    """A new backup, which has its name only once it is complete and on disk; readable by its owner alone.

    Args:
        header: What `read_header` gives back later.

    Raises:
        OSError: The disk is full, or the file cannot be written.
    """
    import pyarrow

    partial = file.with_name(f"{file.name}.partial")
    with open(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "rb+") as raw:
        try:
            os.fchmod(raw.fileno(), 0o600)
            hashing = _Hashing(raw)
            with ExitStack() as stack:
                compressed = stack.enter_context(
                    pyarrow.CompressedOutputStream(pyarrow.PythonFile(hashing, mode="w"), "zstd")
                )
                archive = stack.enter_context(
                    tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_CHUNK)
                )
                writer = Writer(archive, progress)
                writer.add_bytes(HEADER, json.dumps({"format": FORMAT, **header}, indent=2).encode())
                yield writer
            raw.write(_TRAILER + hashing.digest())
            raw.flush()
            os.fsync(raw.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    partial.replace(file)
    _sync_directory(file.parent)


def check(file: Path, report: Report) -> None:
    """Makes sure that a file is a complete backup, as it was written.

    Raises:
        UserError: It is not.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as raw:
            if raw.read(len(_ZSTD)) != _ZSTD or not file.is_file():
                raise _foreign(file)
            raw.seek(max(0, size - _TRAILER_BYTES))
            trailer = raw.read()
            if trailer[: len(_TRAILER)] != _TRAILER:
                raise UserError(
                    f"{file} is cut off, or not a backup of Millrace.", "Copy it again from where it was written."
                )
            raw.seek(0)
            found = _digest(raw, size - _TRAILER_BYTES, Progress(report, "checking the backup", size))
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}).", "Name a file that you can read.") from error
    if found != trailer[len(_TRAILER) :]:
        raise UserError(
            f"{file} was altered since it was written: its checksum is not the one that it ends with.",
            "Copy it again from where it was written.",
        )


def read_header(file: Path) -> dict[str, Any]:
    """What the backup says of itself. Raises UserError when this Millrace cannot read it."""
    with _members(file) as archive:
        first = archive.next()
        content = archive.extractfile(first) if first and first.name == HEADER else None
        if content is None:
            raise _foreign(file)
        header: dict[str, Any] = json.loads(content.read())
    if header["format"] != FORMAT:
        raise UserError(
            f"{file} has format {header['format']}, and this Millrace reads format {FORMAT}.",
            "Restore it with the release of Millrace that wrote it, or a newer one.",
        )
    return header


def unpack(file: Path, directory: Path, progress: Progress) -> None:
    """Unpacks a checked backup into a directory: directories with mode 0700 and files with 0600, on disk at the end.

    Raises:
        UserError: A path in it leads out of the directory.
        OSError: The disk is full.
    """
    with _private(), _members(file) as archive:
        for member in archive:
            path = directory / member.name
            if ".." in path.parts or not path.is_relative_to(directory) or not (member.isreg() or member.isdir()):
                raise UserError(f"{file} holds {member.name!r}, which no backup of Millrace does.")
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            content = archive.extractfile(member)
            assert content
            with path.open("wb") as copy:
                shutil.copyfileobj(content, copy, _CHUNK)
                copy.flush()
                os.fsync(copy.fileno())
            progress.add(member.size)


@contextmanager
def _private() -> Iterator[None]:
    """What is made meanwhile is its owner's alone."""
    usual = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(usual)


@contextmanager
def _members(file: Path) -> Iterator[tarfile.TarFile]:
    import pyarrow

    try:
        with (
            pyarrow.CompressedInputStream(pyarrow.OSFile(str(file)), "zstd") as plain,
            tarfile.open(fileobj=plain, mode="r|", bufsize=_CHUNK) as archive,
        ):
            yield archive
    except (tarfile.TarError, pyarrow.ArrowException, json.JSONDecodeError) as error:
        raise UserError(f"{file} cannot be unpacked: {error}.", "Copy it again from where it was written.") from error


def _foreign(file: Path) -> UserError:
    return UserError(f"{file} is not a backup of Millrace.", "Name a file that ./millrace backup has written.")


class _Hashing(io.RawIOBase):
    """A file that is written through, and the SHA-256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self._hash.update(content)
        self._file.write(content)
        return memoryview(content).nbytes

    def digest(self) -> bytes:
        return self._hash.digest()


def _digest(raw: IO[bytes], count: int, progress: Progress) -> bytes:
    found = hashlib.sha256()
    while count and (chunk := raw.read(min(_CHUNK, count))):
        found.update(chunk)
        count -= len(chunk)
        progress.add(len(chunk))
    return found.digest()


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
