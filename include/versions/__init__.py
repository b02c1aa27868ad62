"""Sealed versions of datasets: how they are published, listed, found and read."""
