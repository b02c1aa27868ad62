"""Profiling: the role of each column of a file, for ``./millrace new dataset``."""

from include.datasets.profiling.profile import Answers, ColumnRole, Profile, Role, likely_target, profile
from include.datasets.profiling.wording import quoted

__all__ = ["Answers", "ColumnRole", "Profile", "Role", "likely_target", "profile", "quoted"]
