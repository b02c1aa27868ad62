"""Compressed files. The first bytes of a file decide how it is compressed, not its name."""

from __future__ import annotations

import lzma
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from include.error_codes import Code
from include.errors import NonRetryableError

# Formats that pyarrow decompresses.
_ARROW = {b"\x1f\x8b": "gzip", b"BZh": "bz2", b"\x28\xb5\x2f\xfd": "zstd", b"\x04\x22\x4d\x18": "lz4"}
_XZ, _ZIP = b"\xfd7zXZ\x00", b"PK\x03\x04"
# Errors of a damaged file.
BROKEN = (OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile)


def is_compressed(path: Path) -> bool:
    """Whether the file is compressed."""
    start = beginning(path)
    return start.startswith((*_ARROW, _XZ, _ZIP))


def beginning(path: Path) -> bytes:
    """The first bytes of the file, not decompressed."""
    with path.open("rb") as file:
        return file.read(16)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Opens the file's decompressed content.

    Raises:
        NonRetryableError: The file is an archive of several files.
        OSError: The file cannot be read.
    """
    import pyarrow as pa

    start = beginning(path)
    if start.startswith(_XZ):
        with lzma.open(path) as file:
            yield cast(BinaryIO, file)
    elif start.startswith(_ZIP):
        with _only_one(path) as file:
            yield file
    else:
        compression = next((name for magic, name in _ARROW.items() if start.startswith(magic)), None)
        with pa.input_stream(str(path), compression=compression) as file:
            yield file


@contextmanager
def _only_one(path: Path) -> Iterator[BinaryIO]:
    with zipfile.ZipFile(path) as archive:
        names = [found.filename for found in archive.infolist() if not found.is_dir()]
        names = [name for name in names if not name.startswith("__MACOSX/")]
        if "[Content_Types].xml" in names:
            raise NonRetryableError(
                f"The file {path} is a spreadsheet or a document.", "Save it as CSV.", code=Code.FORMAT_UNSUPPORTED
            )
        if len(names) != 1:
            raise NonRetryableError(
                f"The archive {path} contains {len(names)} files: {', '.join(names[:5])}.",
                "Unpack it, and name one of the files.",
                code=Code.FORMAT_UNSUPPORTED,
            )
        with archive.open(names[0]) as file:
            yield cast(BinaryIO, file)
