"""The recipes of docs/streams.md: each definition decodes the records that it is shown with."""

from __future__ import annotations

import re
import sys
from types import ModuleType

import pytest

from include.landing.decoder import Decoder
from include.project import ROOT
from include.streams.definition import Stream

# What the definitions of the page import.
_IMPORTS = """
from __future__ import annotations
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID
import msgspec
from include.streams.definition import *
"""
_RECIPE = re.compile(r"^## (?P<title>.+?)$.*?```json\n(?P<records>.*?)```.*?```python\n(?P<source>.*?)```", re.M | re.S)


def recipes() -> list[tuple[str, str, str]]:
    """The title of each recipe, its records and its definition."""
    sections = re.split(r"^(?=## )", (ROOT / "docs/streams.md").read_text(), flags=re.M)
    found = filter(None, map(_RECIPE.match, sections))
    return [(each["title"], each["records"], each["source"]) for each in found]


def test_the_page_has_recipes() -> None:
    assert len(recipes()) >= 10


@pytest.mark.parametrize(("title", "records", "source"), recipes(), ids=[title for title, _, _ in recipes()])
def test_the_definition_decodes_the_records(
    title: str, records: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # msgspec resolves the types of a struct in its module.
    module = ModuleType("recipe")
    monkeypatch.setitem(sys.modules, "recipe", module)
    exec(_IMPORTS + source, module.__dict__)
    stream = module.__dict__["stream"]
    assert isinstance(stream, Stream)
    values = [line.encode() for line in records.splitlines()]
    events, bad = Decoder(stream.event).events(values)
    assert (len(events), bad) == (len(values), {})
