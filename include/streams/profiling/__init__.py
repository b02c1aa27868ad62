"""What a sample of a topic shows: the format of its records, the fields of its events, their types and their time."""

from include.streams.profiling.profile import Profile, profile
from include.streams.profiling.record import Record

__all__ = ["Profile", "Record", "profile"]
