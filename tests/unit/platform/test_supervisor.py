"""The configuration of the supervisor."""

from __future__ import annotations

from configparser import RawConfigParser
from pathlib import Path

from embedded.component import ALL
from embedded.home import Home
from embedded.ports import USUAL
from embedded.supervisor import Supervisor


def test_every_log_is_rotated(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.update_state(ports=dict(USUAL))
    settings = RawConfigParser()
    settings.read_string(Supervisor(home)._configuration())
    programs = [name for name in settings.sections() if name.startswith("program:")]
    assert {name.removeprefix("program:") for name in programs} == {"migrate", *ALL}
    for name in programs:
        assert settings.get(name, "stdout_logfile_maxbytes") == "10MB", name
        assert settings.get(name, "stdout_logfile_backups") == "2", name
    assert settings.get("supervisord", "logfile_maxbytes") == "5MB"
