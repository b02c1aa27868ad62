"""The operator that waits for a person's decision about a promotion, with the evidence on the form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param

from include.promotion.approval import APPROVE, DECLINE

if TYPE_CHECKING:
    from airflow.sdk import Context


class ApprovalOperator(HITLOperator):
    """Asks in the Airflow UI whether a model of a run becomes the champion; waits without a worker slot.

    The result has ``chosen_options`` and, in ``params_input``, the ``model`` that the person entered, if any.
    """

    def __init__(self, **kwargs: Any) -> None:
        model = Param("", type="string", title="Model", description="Leave empty to approve the recommended model.")
        # Airflow passes the DAG's own params as an argument; the form must show only this one.
        super().__init__(
            **kwargs
            | {
                "subject": "Promotion",
                "options": [APPROVE, DECLINE],
                # Applies when the time to answer is over.
                "defaults": DECLINE,
                "params": {"model": model},
            }
        )

    def execute(self, context: Context) -> Any:
        """Writes the evidence to the form, then waits for an answer."""
        from include.airflow import dag_runs
        from include.promotion.approval import form

        with dag_runs.airflow_errors():
            dag_runs.require_known(context)
            self.subject, self.body = form(context["params"]["run"])
        return super().execute(context)
