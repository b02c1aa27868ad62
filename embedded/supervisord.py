"""supervisord with Airflow imported: it forks Airflow's components, so that none of them has to import Airflow.

On two cores this saves about ten seconds of the platform's start, four seconds of each restart of a component, and the
memory of four copies. Kafka and PostgreSQL are executed as supervisord always does.
"""

import atexit
import gc
import os
import signal
import sys
import traceback
from typing import Any

from setproctitle import setproctitle
from supervisor import loggers, supervisord
from supervisor.options import ServerOptions

from embedded import component, ports, processes
from embedded.home import Home

# Keeps the ports of components that are down, so that they are free when the components restart.
_ports = ports.Hold()


class Options(ServerOptions):  # type: ignore[misc, unused-ignore]
    """supervisord's options. Its `execve`, called in the forked child, runs the component."""

    def execve(self, filename: str, argv: list[str], env: dict[str, str]) -> None:
        """Run the component in the child. Never returns; raises OSError."""
        name = env[processes.COMPONENT_VARIABLE]
        if name not in component.AIRFLOW or "airflow" not in sys.modules:
            super().execve(filename, argv, env)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(env)
        os._exit(_exit_code(name))


class Preloader:
    """Our addition to supervisord's XML-RPC interface."""

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor

    def airflow(self) -> bool:
        """Import the modules that all of Airflow's components need. Other calls wait meanwhile."""
        component.import_airflow()
        # A child's garbage collector does not touch frozen objects, so their memory stays shared.
        gc.freeze()
        return True


def make_preloader(supervisor: Any, **settings: str) -> Preloader:
    """The factory that supervisord's configuration names. It is called after supervisord has closed inherited files."""
    _ports.share(Home.current().state()["ports"].values())
    return Preloader(supervisor)


def _exit_code(name: str) -> int:
    try:
        component.become(name)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    # The first call finds the memory of the process title. A child with another environment could not find it.
    setproctitle("millrace supervisor")
    supervisord.ServerOptions = Options
    # On a full disk, supervisord's log handler reports the failed write on stderr, which is on the same disk. That
    # error would end supervisord, and nothing would restart the services.
    loggers.Handler.handleError = lambda handler: None
    supervisord.main()
