"""supervisord, which has imported Airflow: its components are forked from it instead of importing Airflow each.

That saves some ten seconds of the start on two cores, four of them whenever a component is restarted, and the memory of
four copies. Programs that are no Airflow (Kafka, PostgreSQL) are executed as supervisord always does.
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

# A component that was killed and comes back must find its port free.
_ports = ports.Hold()


class Options(ServerOptions):
    """supervisord's options, in whose `execve` a forked child becomes the component itself."""

    def execve(self, filename: str, argv: list[str], env: dict[str, str]) -> None:
        """Runs in the child. Returns never, or raises OSError."""
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
    """The part of supervisord's XML-RPC interface that is ours."""

    def __init__(self, supervisor: Any) -> None:
        self._supervisor = supervisor

    def airflow(self) -> bool:
        """Import what all of Airflow's components need. Nothing is answered meanwhile."""
        component.import_airflow()
        # What is frozen is not looked at by a child's garbage collector, and so stays shared.
        gc.freeze()
        return True


def make_preloader(supervisor: Any, **settings: str) -> Preloader:
    """Named in supervisord's configuration; called once it has closed what files it has inherited."""
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
    # The first call finds the memory of the title, which it cannot any more in a child with another environment.
    setproctitle("millrace supervisor")
    supervisord.ServerOptions = Options
    # Of a line that cannot be written, because the disk is full, supervisord would tell on stderr, which lies on the
    # same disk; that error would end it, and nothing would restart what the full disk has killed.
    loggers.Handler.handleError = lambda handler: None
    supervisord.main()
