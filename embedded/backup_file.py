"""The file that `backup` writes and `restore` reads: a tar archive, compressed with zstd, with its SHA-256 at the end.

The digest is in a frame that every decoder of zstd skips, so that ordinary tools can list the archive. `restore` checks
it before it unpacks anything: a file that is cut off, altered or not a backup changes nothing.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from include.error_codes import Code
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
        """Add a file with this content."""
        member = tarfile.TarInfo(name)
        member.size, member.mtime = len(content), int(time.time())
        self._archive.addfile(member, io.BytesIO(content))

    def add_file(self, name: str, path: Path) -> None:
        """Add a regular file, or a directory without its content. Anything else is left out."""
        member = self._archive.gettarinfo(path, name)
        if member.isdir():
            self._archive.addfile(member)
        elif stat.S_ISREG(path.lstat().st_mode):
            # tarfile would store a file with two names as a link.
            member.type = tarfile.REGTYPE
            member.size = path.stat().st_size
            with path.open("rb") as file:
                self._archive.addfile(member, file)
            self._progress.add(member.size)

    def add_tree(self, name: str, directory: Path, leave_out: frozenset[str] = frozenset()) -> None:
        """Add the directories and regular files below a directory, except these names at its top level."""
        for path in sorted(directory.rglob("*")):
            inner = path.relative_to(directory)
            if inner.parts[0] in leave_out:
                continue
            with suppress(FileNotFoundError):
                self.add_file(f"{name}/{inner}", path)

    def add_archive(self, name: str, source: IO[bytes]) -> None:
        """Add the directories and regular files of another tar archive while it is read."""
        with tarfile.open(fileobj=source, mode="r|") as other:
            for member in other:
                content = other.extractfile(member) if member.isreg() else None
                if content or member.isdir():
                    member.name = f"{name}/{member.name}"
                    self._archive.addfile(member, content)
                    self._progress.add(member.size)


class Progress:
    """Reports every few seconds how many bytes are done.

    Args:
        about: The expected number of bytes, or 0 when it is unknown.
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
def writing(file: Path, header: Mapping[str, object], progress: Progress) -> Iterator[Writer]:
    """A new backup, readable by its owner only. The file gets its name when it is complete and on disk.

    Args:
        header: What `read_header` returns later.

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
    """Check that a file is a complete backup, unchanged since it was written.

    Raises:
        UserError: It is not.
    """
    try:
        size = file.stat().st_size
        with file.open("rb") as raw:
            if raw.read(len(_ZSTD)) != _ZSTD or not file.is_file():
                raise _not_a_backup(file)
            raw.seek(max(0, size - _TRAILER_BYTES))
            trailer = raw.read()
            if trailer[: len(_TRAILER)] != _TRAILER:
                raise UserError(
                    f"The file {file} is cut off, or is not a backup of Millrace.",
                    "Copy it again from where it was written.",
                    code=Code.BACKUP_CORRUPT,
                )
            raw.seek(0)
            found = _digest(raw, size - _TRAILER_BYTES, Progress(report, "checking the backup", size))
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise UserError(
            f"The file {file} {'does not exist' if missing else f'cannot be read ({error.strerror})'}.",
            "Name a file that ./millrace backup has written.",
            code=Code.FILE_NOT_FOUND if missing else Code.PERMISSION_DENIED,
        ) from error
    if found != trailer[len(_TRAILER) :]:
        raise UserError(
            f"The file {file} was altered after it was written: its content does not match the checksum at its end.",
            "Copy it again from where it was written.",
            code=Code.BACKUP_CORRUPT,
        )


def read_header(file: Path) -> dict[str, Any]:
    """The header of a backup. Raises UserError when this release cannot read it."""
    with _members(file) as archive:
        first = archive.next()
        content = archive.extractfile(first) if first and first.name == HEADER else None
        if content is None:
            raise _not_a_backup(file)
        header: dict[str, Any] = json.loads(content.read())
    if header["format"] != FORMAT:
        raise UserError(
            f"The backup {file} has format {header['format']}; this release of Millrace reads format {FORMAT}.",
            "Restore it with the release of Millrace that wrote it, or a newer one.",
            code=Code.BACKUP_INCOMPATIBLE,
        )
    return header


def unpack(file: Path, directory: Path, progress: Progress) -> None:
    """Unpack a checked backup into a directory and sync it to disk. Directories get mode 0700, files 0600.

    Raises:
        UserError: A path in it leads out of the directory.
        OSError: The disk is full.
    """
    with _private_umask(), _members(file) as archive:
        for member in archive:
            path = directory / member.name
            if ".." in path.parts or not path.is_relative_to(directory) or not (member.isreg() or member.isdir()):
                raise UserError(
                    f"The file {file} contains {member.name!r}, which is not part of any backup of Millrace.",
                    "Name a file that ./millrace backup has written.",
                    code=Code.BACKUP_CORRUPT,
                )
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
def _private_umask() -> Iterator[None]:
    """Files that are created inside the ``with`` block are readable by their owner only."""
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
        raise UserError(
            f"The file {file} cannot be unpacked: {error}.",
            "Copy it again from where it was written.",
            code=Code.BACKUP_CORRUPT,
        ) from error


def _not_a_backup(file: Path) -> UserError:
    return UserError(
        f"The file {file} is not a complete backup of Millrace: it is damaged, or a file of another kind.",
        "Give the path of a file that ./millrace backup has written.",
        code=Code.BACKUP_CORRUPT,
    )


class _Hashing(io.RawIOBase):
    """Writes through to a file and computes the SHA-256 of what was written."""

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
