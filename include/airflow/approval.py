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

    The result has ``chosen_options`` and, in ``params_input``, the ``model`` that the person chose, if any.
    """

    def __init__(self, **kwargs: Any) -> None:
        # A field that may not be null must be filled before either button works, also to decline.
        model = Param(None, type=["null", "string"])
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
        """Writes the evidence and the run's models to the form, then waits for an answer."""
        from include.airflow import dag_runs
        from include.promotion.approval import form

        with dag_runs.airflow_errors():
            dag_runs.require_known(context)
            asked = form(context["params"]["run"])
        self.subject, self.body = asked.title, asked.text
        if asked.recommended:
            empty, help = f"the recommended one, {asked.recommended}", "The model to approve."
        else:
            empty, help = "none", "To approve, choose a model: none is recommended."
        self.params["model"] = Param(
            None,
            type=["null", "string"],
            title="Model",
            description=help,
            enum=[None, *asked.models],
            values_display={"null": empty},
        )
        return super().execute(context)
