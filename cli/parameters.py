"""Kinds of values that commands take, refused before anything is begun."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click


class Moment(click.ParamType):
    """A time in ISO 8601, UTC unless it says otherwise."""

    name = "time"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2026-11-24, '2026-11-24 10:30' or 2026-11-24T10:30+01:00.")
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Place(NamedTuple):
    """Where a record is in Kafka; ``incarnation`` numbers the topics of one name, None for the newest."""

    incarnation: int | None
    partition: int
    offset: int


class AtPlace(click.ParamType):
    """The place of a record, as dead-letters lists it."""

    name = "place"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Place:
        match = re.fullmatch(r"(?:([0-9]{1,4})[/:])?([0-9]{1,9})[/:]([0-9]{1,18})", value)
        if match is None:
            self.fail(f"{value!r} is no place such as 0:17 (partition and offset), or 1/0/17 as they are listed.")
        incarnation, partition, offset = match.groups()
        return Place(int(incarnation) if incarnation else None, int(partition), int(offset))


class NewFile(click.ParamType):
    """The path of a file that can be written; it need not be there yet."""

    name = "file"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        file = Path(value).absolute()
        if file.is_dir():
            self.fail(f"{value!r} is a directory.")
        if not file.parent.is_dir():
            self.fail(f"there is no directory {str(file.parent)!r}.")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            self.fail(f"{value!r} cannot be written.")
        return value
