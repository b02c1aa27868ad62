"""The simulated payments: some are corrected, and a correction has the key of its payment."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from random import Random

from include.streams import payments


def test_corrections_are_later_events_of_the_same_payment() -> None:
    events = list(islice(payments.pay(Random(1)), 20_000))
    by_payment = defaultdict(list)
    for event in events:
        by_payment[event.payment].append(event)
    corrected = [found for found in by_payment.values() if len(found) > 1]
    assert 450 < len(events) - len(by_payment) < 750
    for first, *later in corrected:
        for each in later:
            assert each.ts >= first.ts
            assert (each.merchant, each.currency) == (first.merchant, first.currency)
            assert 0 < each.amount <= first.amount
            assert (each.amount, each.approved) != (first.amount, first.approved) or not first.approved
    assert payments.stream.keys == ("payment",) and payments.stream.current
