"""test."""

import os
import subprocess
import sys

import click

from embedded import settings
from embedded.home import Home
from include.project import ROOT

_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}


@click.command(context_settings=_PASS_ON, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the test suite on its own ports and state; arguments go to pytest.

    A running platform is left alone: the tests have a home of their own below this one, and share its environment.
    """
    home = Home.current()
    bootstrap = [sys.executable, "-P", "-m", "embedded.bootstrap", "--development"]
    if code := subprocess.run(bootstrap, check=False).returncode:
        sys.exit(code)
    own = {
        "MILLRACE_HOME": str(home.path / "test"),
        "MILLRACE_ENV": str(home.environment),
        "PYTHONPATH": str(ROOT),
        # No broker of a test lives long enough for the second compiler, a third of what a start computes.
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1",
        **settings.LIBRARIES,
    }
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "-P", "-m", "pytest", *arguments], _without_settings() | own)


def _without_settings() -> dict[str, str]:
    """This process's environment without what connects it to a platform or sets that platform's ports."""
    private = ("AIRFLOW_", "MILLRACE_PORT_", "MILLRACE_COMPONENT")
    return {name: value for name, value in os.environ.items() if not name.startswith(private)}
