"""The operator that asks a person about a promotion, with the evidence on the form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param

from include.promotion.approval import APPROVE, DECLINE

if TYPE_CHECKING:
    from airflow.sdk import Context


class ApprovalOperator(HITLOperator):
    """Asks in the Airflow UI whether a run's model is to become the champion; waits without a slot.

    Its result has ``chosen_options`` and, in ``params_input``, the ``model`` that was named, if any.
    """

    def __init__(self, **kwargs: Any) -> None:
        model = Param("", type="string", title="Model", description="Left empty: the one recommended.")
        # Airflow puts the DAG's own params among the arguments; the form shows this one alone.
        super().__init__(
            **kwargs
            | {
                "subject": "Promotion",
                "options": [APPROVE, DECLINE],
                # Applies when the time for an answer is up.
                "defaults": DECLINE,
                "params": {"model": model},
            }
        )

    def execute(self, context: Context) -> Any:
        """Puts the evidence on the form, then waits for an answer."""
        from include.airflow import dag_runs
        from include.promotion.approval import form

        with dag_runs.airflow_errors():
            dag_runs.require_known(context)
            self.subject, self.body = form(context["params"]["run"])
        return super().execute(context)
