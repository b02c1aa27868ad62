"""Simulated card payments. As in reality, a few merchants receive most of them, and some payments are corrected.

A correction is a later event with the same payment. ``landing.payments`` has all events, and
``landing.payments_current`` the last one of each payment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from include.streams.definition import Instant, Stream

# The share of events that correct one of the last payments, and how many payments these are.
CORRECTED = 0.03
RECENT = 500


class Payment(msgspec.Struct):
    """One payment by card, or its correction: all fields as they are now."""

    payment: Annotated[UUID, Meta(description="The payment's id")]
    ts: Annotated[Instant, Meta(description="When it was authorised or corrected")]
    merchant: Annotated[str, Meta(description="The merchant who received it")]
    amount: Annotated[Decimal, Meta(description="The amount, in units of the currency")]
    currency: Annotated[str, Meta(description="ISO 4217 code", min_length=3, max_length=3)]
    approved: Annotated[bool, Meta(description="Whether the bank approved it")]


def pay(random: Random) -> Iterator[Payment]:
    """Yields payments whose merchants and amounts have the long tails of real ones, and corrections between them."""
    recent: deque[Payment] = deque(maxlen=RECENT)
    while True:
        if recent and random.random() < CORRECTED:
            yield correct(random, random.choice(recent))
            continue
        payment = Payment(
            payment=UUID(int=random.getrandbits(128), version=4),
            ts=datetime.now(UTC),
            merchant=f"merchant-{min(int(random.paretovariate(1.2)), 9999):04d}",
            amount=Decimal(int(random.lognormvariate(7.5, 1.1)) + 1).scaleb(-2),
            currency=random.choices(("EUR", "USD", "GBP"), (6, 3, 1))[0],
            approved=random.random() < 0.97,
        )
        recent.append(payment)
        yield payment


def correct(random: Random, payment: Payment) -> Payment:
    """A later state of a payment: the bank reverses it, or a part of the amount is paid back."""
    rest = (payment.amount * Decimal(random.randrange(10, 100)) / 100).quantize(Decimal("0.01"))
    is_reversed = random.random() < 0.3
    return msgspec.structs.replace(
        payment,
        ts=datetime.now(UTC),
        amount=payment.amount if is_reversed else max(rest, Decimal("0.01")),
        approved=payment.approved and not is_reversed,
    )


stream = Stream(
    name="payments",
    event=Payment,
    event_time="ts",
    partition="1 day",
    keep="365 days",
    late="7 days",
    early="1 hour",
    key="payment",
    current=True,
    simulate=pay,
)
