"""A client of Airflow's REST API, with what the commands and the tests need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx

from embedded.polling import wait_until
from include.error_codes import Code
from include.errors import UserError

if TYPE_CHECKING:
    from embedded.platform import Platform

_PAGE = 100
# Between two looks at something that will change. A request takes 50 ms of a core, which what is waited for may need.
PAUSE_S = 0.5


class RunState(StrEnum):
    """The state of a DAG run."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"


class ApiError(UserError):
    """Airflow's API rejected a request; `status` is the HTTP status."""

    def __init__(self, status: int, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy, code=Code.AIRFLOW_REQUEST_FAILED)
        self.status = status


@dataclass(frozen=True)
class Run:
    """A DAG run."""

    dag_id: str
    run_id: str
    state: RunState
    conf: Mapping[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def finished(self) -> bool:
        return self.state in (RunState.SUCCESS, RunState.FAILED)


@dataclass(frozen=True)
class TaskInstance:
    """A task of a run; `label` is its name in the UI, `map_index` is -1 for a task that is not mapped."""

    task_id: str
    map_index: int
    label: str
    state: str | None
    try_number: int


class AirflowApi:
    """A client that logs in when it has to. Each method raises UserError when Airflow does not answer or rejects it.

    Args:
        url: Base URL of the api-server, without a slash at its end.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url, self._user, self._password = url, user, password
        # The api-server is on this machine: no proxy.
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    @classmethod
    def of(cls, platform: Platform) -> AirflowApi:
        """The client of a platform that is up, as its admin."""
        from embedded.environment import api_url

        platform.environment()
        return cls(api_url(platform.home), "admin", platform.home.password)

    def call(self, method: str, path: str, **options: Any) -> Any:
        """Send a request below /api/v2/ and return the decoded answer, None when it is empty."""
        answer = self._send(method, f"/api/v2/{path}", options)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._log_in()
            answer = self._send(method, f"/api/v2/{path}", options)
        if answer.is_error:
            ours = answer.status_code >= httpx.codes.INTERNAL_SERVER_ERROR
            remedy = "Run ./millrace doctor, which checks the disk and every component." if ours else ""
            raise ApiError(answer.status_code, f"Airflow rejected {method} {path}: {_detail(answer)}.", remedy)
        return answer.json() if answer.content else None

    def unpause(self, dag_id: str) -> None:
        """Let the DAG's runs start."""
        self.call("PATCH", f"dags/{dag_id}", json={"is_paused": False})

    def is_paused(self, dag_id: str) -> bool:
        """Whether the DAG is paused: none of its runs starts."""
        return bool(self.call("GET", f"dags/{dag_id}")["is_paused"])

    def pause(self, dag_id: str) -> None:
        """Let no further task of the DAG start."""
        self.call("PATCH", f"dags/{dag_id}", json={"is_paused": True})

    def dag_ids(self, tags: Sequence[str] = ()) -> list[str]:
        """The ids of all DAGs, or of those with any of the tags."""
        return [dag["dag_id"] for dag in self._pages("dags", "dags", {"tags": list(tags)})]

    def wait_for_dags(self, dag_ids: Sequence[str], timeout: float = 120) -> None:
        """Wait until the dag-processor has parsed the DAGs. The error names the files that it cannot import."""

        def missing() -> set[str]:
            return set(dag_ids) - set(self.dag_ids())

        try:
            _wait_until(lambda: not missing(), timeout)
        except TimeoutError:
            broken = "; ".join(f"{file}: {reason}" for file, reason in self.import_errors().items())
            raise UserError(
                f"Airflow does not list the DAG {', '.join(sorted(missing()))} after {timeout:.0f} s"
                f"{f' ({broken})' if broken else ''}.",
                "Run ./millrace check, and read ./millrace logs dag-processor.",
                code=Code.DAG_MISSING,
            ) from None

    def import_errors(self) -> dict[str, str]:
        """The files of dags/ that cannot be imported, each with the last line of its traceback."""
        errors = self._pages("importErrors", "import_errors", {})
        return {error["filename"]: error["stack_trace"].strip().splitlines()[-1] for error in errors}

    def trigger(self, dag_id: str, conf: Mapping[str, Any] | None = None) -> Run:
        """Start a run."""
        body = {"conf": dict(conf or {}), "logical_date": None}
        return _run(self.call("POST", f"dags/{dag_id}/dagRuns", json=body))

    def backfill(self, dag_id: str, start: datetime, end: datetime, **options: Any) -> int:
        """Start a backfill of the data intervals from `start` to `end`, both included, and return its id.

        Options are those of the API, such as `dag_run_conf`, `max_active_runs`, `reprocess_behavior`.
        """
        dates = {"from_date": start.isoformat(), "to_date": end.isoformat()}
        answer = self.call("POST", "backfills", json={"dag_id": dag_id, **dates, **options})
        return int(answer["id"])

    def run(self, dag_id: str, run_id: str) -> Run:
        """The current state of a run."""
        return _run(self.call("GET", _run_path(dag_id, run_id)))

    def runs(self, dag_id: str = "~", **filters: Any) -> list[Run]:
        """The runs of a DAG, or of all DAGs, latest first. Filters are those of the API, such as `state`."""
        options = {"order_by": "-run_after", **filters}
        return [_run(found) for found in self._pages(f"dags/{dag_id}/dagRuns", "dag_runs", options)]

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """The tasks of a run."""
        return [
            _task_instance(found)
            for found in self._pages(f"{_run_path(dag_id, run_id)}/taskInstances", "task_instances", {})
        ]

    def wait(
        self,
        dag_id: str,
        run_id: str,
        timeout: float = 600,
        progress: Callable[[Run, list[TaskInstance]], None] | None = None,
    ) -> Run:
        """Wait for the end of a run, whether it succeeds or fails.

        Args:
            timeout: Seconds after which UserError names the tasks that have not succeeded.
            progress: Called with the run and its tasks each time the state of one of them has changed.
        """
        run = self.run(dag_id, run_id)
        shown: object = None

        def has_finished() -> bool:
            nonlocal run, shown
            run = self.run(dag_id, run_id)
            if progress:
                tasks = self.task_instances(dag_id, run_id)
                if (states := (run.state, [(task.label, task.state) for task in tasks])) != shown:
                    progress(run, tasks)
                    shown = states
            return run.finished

        try:
            _wait_until(has_finished, timeout)
        except TimeoutError:
            waiting = [task.label for task in self.task_instances(dag_id, run_id) if task.state != "success"]
            raise UserError(
                f"The run {run_id} of {dag_id} is still {run.state} after {timeout:.0f} s, at "
                f"{', '.join(waiting) or 'its start'}.",
                "Look at the run in Airflow's UI, or run ./millrace doctor.",
                code=Code.RUN_TIMEOUT,
            ) from None
        return run

    def log(self, dag_id: str, run_id: str, task: TaskInstance) -> str:
        """The log of a task's last try, one event on each line."""
        lines = self._log(dag_id, run_id, task)
        return "\n".join(line if isinstance(line, str) else line.get("event", "") for line in lines)

    def task_messages(self, run: Run, task: TaskInstance) -> list[str]:
        """The lines that Millrace itself logged in a task's last try, without duplicates."""
        lines = self._log(run.dag_id, run.run_id, task)
        ours = (line for line in lines if str(line.get("logger", "")).startswith("include."))
        return list(dict.fromkeys(line["event"] for line in ours))

    def _log(self, dag_id: str, run_id: str, task: TaskInstance) -> list[Any]:
        path = f"{_run_path(dag_id, run_id)}/taskInstances/{task.task_id}/logs/{max(1, task.try_number)}"
        return list(self.call("GET", path, params={"map_index": task.map_index, "full_content": True})["content"])

    def _pages(self, path: str, key: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            page = self.call("GET", path, params={**parameters, "limit": _PAGE, "offset": len(found)})
            found += page[key]
            if not page[key] or len(found) >= page["total_entries"]:
                return found

    def _send(self, method: str, path: str, options: Mapping[str, Any]) -> httpx.Response:
        try:
            return self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise UserError(
                f"Airflow's API at {self._url} does not answer ({type(error).__name__}).",
                "Start the platform with ./millrace up; ./millrace status shows the state of the api-server.",
                code=Code.AIRFLOW_UNREACHABLE,
            ) from error

    def _log_in(self) -> None:
        answer = self._send("POST", "/auth/token", {"json": {"username": self._user, "password": self._password}})
        if answer.is_error:
            raise ApiError(answer.status_code, f"Airflow rejected the login of user {self._user}: {_detail(answer)}.")
        self._http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


def _wait_until(condition: Callable[[], bool], timeout: float) -> None:
    """Wait until a condition holds. A request that a busy api-server does not answer in time is sent again.

    Raises:
        TimeoutError: It did not hold in time.
    """

    def holds() -> bool:
        try:
            return condition()
        except UserError as error:
            if not isinstance(error.__cause__, httpx.TimeoutException):
                raise
            return False

    wait_until(holds, timeout, pause=PAUSE_S)


def _run_path(dag_id: str, run_id: str) -> str:
    return f"dags/{dag_id}/dagRuns/{quote(run_id, safe='')}"


def _detail(answer: httpx.Response) -> str:
    try:
        detail = answer.json().get("detail", answer.text)
    except ValueError:
        detail = answer.text
    if isinstance(detail, list):
        detail = "; ".join(f"{'.'.join(map(str, part.get('loc', ())))}: {part.get('msg')}" for part in detail)
    reason = str(detail.get("reason", detail) if isinstance(detail, dict) else detail).strip()
    # After the first line of the message about a rejected parameter comes its schema.
    return reason.partition("\n")[0].rstrip(".") or "no reason given"


def _run(found: Mapping[str, Any]) -> Run:
    return Run(
        dag_id=found["dag_id"],
        run_id=found["dag_run_id"],
        state=RunState(found["state"]),
        conf=found.get("conf") or {},
        started_at=_moment(found.get("start_date")),
        ended_at=_moment(found.get("end_date")),
    )


def _task_instance(found: Mapping[str, Any]) -> TaskInstance:
    index = found["map_index"]
    label = found.get("rendered_map_index") or (str(index) if index >= 0 else "")
    return TaskInstance(
        task_id=found["task_id"],
        map_index=index,
        label=f"{found['task_id']} [{label}]" if label else found["task_id"],
        state=found["state"],
        try_number=found["try_number"],
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
