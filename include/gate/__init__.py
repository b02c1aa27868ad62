"""The gate: whether a challenger replaces the champion, decided by evidence. See docs/promotion.md.

Start at ``verdict.decide``. ``policy`` and ``metric`` are what a definition names; they import nothing heavy.
"""
