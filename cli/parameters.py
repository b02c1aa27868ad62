"""Types of command-line values, which are validated before a command starts."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click


class Moment(click.ParamType[datetime]):
    """A time in ISO 8601, in UTC unless it has a time zone."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a time; write 2026-11-24, '2026-11-24 10:30' or 2026-11-24T10:30+01:00.")
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class RecordCoordinates(NamedTuple):
    """The coordinates of a record; ``incarnation`` None is the newest topic of the name."""

    incarnation: int | None
    partition: int
    offset: int


class RecordParam(click.ParamType[RecordCoordinates]):
    """The coordinates of a record, as dead-letters prints them."""

    name = "record"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> RecordCoordinates:
        match = re.fullmatch(r"(?:([0-9]{1,4})[/:])?([0-9]{1,9})[/:]([0-9]{1,18})", value)
        if match is None:
            self.fail(
                f"{value!r} is not a record; write PARTITION:OFFSET such as 0:17, or 1/0/17 as dead-letters prints it."
            )
        incarnation, partition, offset = match.groups()
        return RecordCoordinates(int(incarnation) if incarnation else None, int(partition), int(offset))


class WritableFile(click.ParamType[str]):
    """The path of a file that can be written, whether it exists or not."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        file = Path(value).absolute()
        if file.is_dir():
            self.fail(f"{value!r} is a directory.")
        if not file.parent.is_dir():
            self.fail(f"the directory {str(file.parent)!r} does not exist.")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            self.fail(f"{value!r} is not writable.")
        return value
