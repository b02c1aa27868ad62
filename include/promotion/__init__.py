"""Promotion: whether a challenger replaces the champion, on evidence, in the order of the versions."""
