"""The gate: decides by evidence whether a challenger replaces the champion. See docs/promotion.md.

Start at ``verdict.decide``. Definitions use ``policy`` and ``metric``, which import nothing heavy.
"""
