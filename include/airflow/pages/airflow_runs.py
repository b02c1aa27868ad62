"""Runs of Airflow's DAGs, started and answered inside the api-server in the name of a user who may do so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from fastapi import HTTPException
from sqlalchemy import select

from include.error_codes import Code
from include.errors import NonRetryableError, UserError

if TYPE_CHECKING:
    from airflow.api_fastapi.auth.managers.models.base_user import BaseUser


def conf(dag_id: str, run_id: str) -> dict[str, Any]:
    """The parameters that a run was given. Raises HTTPException with status 404 if there is no such run."""
    with create_session() as session:
        run = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if run is None:
            raise HTTPException(404, f"The DAG {dag_id!r} has no run {run_id!r}.")
        return dict(run.conf or {})


def open_questions(dag_id: str) -> list[str]:
    """The runs of a DAG that wait for an answer, the oldest first."""
    with create_session() as session:
        waiting = (
            select(TaskInstance.run_id)
            .join(HITLDetail, HITLDetail.ti_id == TaskInstance.id)
            .where(TaskInstance.dag_id == dag_id, HITLDetail.responded_at.is_(None))
            .where(TaskInstance.state == TaskInstanceState.AWAITING_INPUT)
            .order_by(HITLDetail.created_at)
        )
        return list(session.scalars(waiting))


def start(dag_id: str, run_id: str, conf: Mapping[str, Any], username: str) -> str:
    """Starts a run, and says so in one line.

    Raises:
        UserError: Airflow does not know the DAG, or a parameter is invalid.
    """
    from airflow.api.common.trigger_dag import trigger_dag
    from airflow.exceptions import DagNotFound
    from airflow.sdk.exceptions import ParamValidationError
    from airflow.utils.types import DagRunTriggeredByType

    try:
        trigger_dag(
            dag_id,
            run_id=run_id,
            conf=dict(conf),
            triggered_by=DagRunTriggeredByType.UI,
            triggering_user_name=username,
        )
    except DagNotFound as error:
        raise UserError(
            f"Airflow does not list the DAG {dag_id}.",
            "Wait half a minute, or read ./millrace logs dag-processor.",
            code=Code.DAG_MISSING,
        ) from error
    except (ParamValidationError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise NonRetryableError(
            f"Airflow rejected the parameters: {reason}.", "Correct them.", code=Code.INVALID_PARAMETER
        ) from error
    with create_session() as session:
        is_paused = session.scalar(select(DagModel.is_paused).where(DagModel.dag_id == dag_id))
    waits = " The DAG is paused, so the run waits until you unpause it." if is_paused else ""
    return f"The run {run_id} of {dag_id} was started.{waits}"


def unpause(dag_id: str) -> None:
    """Lets the runs of a DAG start."""
    with create_session() as session:
        dag = session.scalar(select(DagModel).where(DagModel.dag_id == dag_id))
        if dag is not None:
            dag.is_paused = False


def answer(dag_id: str, run_id: str, option: str, fields: Mapping[str, Any], user: BaseUser) -> None:
    """Answers the question of a run, as Airflow's own form does.

    Raises:
        NonRetryableError: It was answered before.
        HTTPException: There is no such question, or Airflow rejects the answer.
    """
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail

    payload = UpdateHITLDetailPayload(chosen_options=[option], params_input=dict(fields))
    with create_session() as session:
        try:
            update_hitl_detail(dag_id, run_id, "ask", payload, user, session)
        except HTTPException as error:
            if error.status_code != 409:
                raise
        else:
            return
    raise _answered(dag_id, run_id)


def _answered(dag_id: str, run_id: str) -> NonRetryableError:
    with create_session() as session:
        detail = session.scalar(
            select(HITLDetail)
            .join(TaskInstance, TaskInstance.id == HITLDetail.ti_id)
            .where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id, TaskInstance.task_id == "ask")
        )
        who, when, options = "an unknown user", "", ""
        if detail is not None and detail.responded_at is not None:
            who = detail.responded_by["name"] if detail.responded_by else "the end of the time to answer"
            when = f" on {detail.responded_at:%Y-%m-%d %H:%M:%S} UTC"
            options = f" with {', '.join(detail.chosen_options or [])}"
    return NonRetryableError(
        f"The question of run {run_id} was already answered by {who}{options}{when}.",
        "To promote a model all the same, start a new training run.",
        code=Code.ALREADY_ANSWERED,
    )
