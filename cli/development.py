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
    """Run the test suite on ports and data of its own. Arguments go to pytest.

    A running platform is not touched: the tests have a home of their own inside this one, and share its environment.
    """
    home = Home.current()
    bootstrap = [sys.executable, "-P", "-m", "embedded.bootstrap", "--development"]
    if code := subprocess.run(bootstrap, check=False).returncode:
        sys.exit(code)
    own = {
        "MILLRACE_HOME": str(home.path / "test"),
        "MILLRACE_ENV": str(home.environment),
        "PYTHONPATH": str(ROOT),
        # The second compiler takes a third of a broker's start, and brokers of tests do not live long enough for it.
        "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1",
        **settings.LIBRARIES,
    }
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "-P", "-m", "pytest", *arguments], _without_settings() | own)


def _without_settings() -> dict[str, str]:
    """This process's environment without the variables that connect it to a platform or set its ports."""
    private = ("AIRFLOW_", "MILLRACE_PORT_", "MILLRACE_COMPONENT")
    return {name: value for name, value in os.environ.items() if not name.startswith(private)}
