"""Simulated card payments. As in reality, a few merchants receive most of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from include.streams.definition import Instant, Stream


class Payment(msgspec.Struct):
    """One payment by card."""

    payment: Annotated[UUID, Meta(description="The payment's id")]
    ts: Annotated[Instant, Meta(description="When it was authorised")]
    merchant: Annotated[str, Meta(description="The merchant who received it")]
    amount: Annotated[Decimal, Meta(description="The amount, in units of the currency")]
    currency: Annotated[str, Meta(description="ISO 4217 code", min_length=3, max_length=3)]
    approved: Annotated[bool, Meta(description="Whether the bank approved it")]


def pay(random: Random) -> Iterator[Payment]:
    """Yields payments whose merchants and amounts have the long tails of real ones."""
    while True:
        yield Payment(
            payment=UUID(int=random.getrandbits(128), version=4),
            ts=datetime.now(UTC),
            merchant=f"merchant-{min(int(random.paretovariate(1.2)), 9999):04d}",
            amount=Decimal(int(random.lognormvariate(7.5, 1.1)) + 1).scaleb(-2),
            currency=random.choices(("EUR", "USD", "GBP"), (6, 3, 1))[0],
            approved=random.random() < 0.97,
        )


stream = Stream(
    name="payments",
    event=Payment,
    event_time="ts",
    partition="1 day",
    keep="365 days",
    late="7 days",
    early="1 hour",
    key="merchant",
    simulate=pay,
)
