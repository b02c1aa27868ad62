"""Kinds of values that commands take, refused before anything is begun."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

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
