"""What a user can do on the pages. Each action has a page that says what will happen, with a button that does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NoReturn
from urllib.parse import quote, urlencode
from uuid import UUID, uuid4

from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
from fastapi import APIRouter, Depends, HTTPException, Query, Request
from starlette.datastructures import FormData
from starlette.responses import Response

from include import user_actions
from include.airflow.pages import airflow_runs
from include.airflow.pages.access import on_dag, on_dataset, on_stream, require, user, username
from include.airflow.pages.rendering import page
from include.errors import UserError
from include.landing.choice import Choice
from include.landing.disposition import Disposition
from include.registry import champion_history
from include.user_actions import Action, Outcome
from include.warehouse import queries
from include.warehouse.connection import connected

router = APIRouter()

ACCEPTED = {
    Choice.LOST: "Retention removed records before they were read. They are recorded as lost, and the stream continues "
    "with the first record that Kafka still has.",
    Choice.RECREATED: "The topic was deleted, or is another one. Records of the old topic that were not read are "
    "recorded as lost, and the stream continues with the new topic from offset 0.",
    Choice.TRUNCATED: "Kafka lost records that had landed. Their rows stay, and the stream continues where the log was "
    "cut.",
    Choice.BAD: "Every record that the topic holds now may become a dead letter, and the stream continues.",
}


@dataclass(frozen=True)
class Field:
    """A field of the form.

    Attributes:
        kind: ``choice``, ``choices`` (several), ``number`` or ``moment``.
        options: The values and labels of a choice.
        value: What is chosen or typed; of ``choices``, a list.
    """

    name: str
    label: str
    kind: str
    help: str = ""
    options: Sequence[tuple[str, str]] = ()
    value: Any = ""


@dataclass(frozen=True)
class Question:
    """A page that asks for confirmation.

    Attributes:
        title: What the user is about to do.
        sentences: What will happen.
        buttons: The value and the label of each button.
        back: The page to return to, relative to the app.
    """

    action: Action
    subject: str
    title: str
    sentences: Sequence[str]
    buttons: Sequence[tuple[str, str]]
    back: str
    fields: Sequence[Field] = field(default_factory=tuple)


async def posted(request: Request) -> FormData:
    """The form that the user has sent; a dependency."""
    return await request.form()


Posted = Annotated[FormData, Depends(posted)]
MayChange = Annotated[str, Depends(on_dataset("PUT"))]
MayTrain = Annotated[str, Depends(on_dataset("POST", DagAccessEntity.RUN))]
MaySeeStream = Annotated[str, Depends(on_stream("GET"))]
MayChangeStream = Annotated[str, Depends(on_stream("PUT"))]
MayAnswer = Annotated[str, Depends(on_dag("PUT", DagAccessEntity.HITL_DETAIL))]
MayTrigger = Annotated[str, Depends(on_dag("POST", DagAccessEntity.RUN))]
Run = Annotated[str, Query(max_length=500)]


@router.get("/models/{dataset}/rollback")
def ask_rollback(request: Request, dataset: MayChange) -> Response:
    """Asks whether to roll back the champion."""
    return _ask(request, _champion_question(dataset, Action.ROLLBACK), {"expected": _last_change(dataset)})


@router.post("/models/{dataset}/rollback")
def rollback(request: Request, dataset: MayChange, form: Posted) -> Response:
    """Rolls back the champion."""
    expected = _whole(form, "expected")

    def act() -> str:
        return f"The champion is now {champion_history.roll_back(dataset, username(request), expected)}."

    return _act(request, form, _champion_question(dataset, Action.ROLLBACK), {"number": expected}, act)


@router.get("/models/{dataset}/retire")
def ask_retirement(request: Request, dataset: MayChange) -> Response:
    """Asks whether to retire the champion."""
    return _ask(request, _champion_question(dataset, Action.RETIRE), {"expected": _last_change(dataset)})


@router.post("/models/{dataset}/retire")
def retire(request: Request, dataset: MayChange, form: Posted) -> Response:
    """Retires the champion."""
    expected, reason = _whole(form, "expected"), _text(form, "reason") or "No reason was given."

    def act() -> str:
        return f"Retired: {champion_history.retire(dataset, username(request), reason, expected)}."

    return _act(request, form, _champion_question(dataset, Action.RETIRE), {"number": expected, "reason": reason}, act)


@router.get("/models/{dataset}/train")
def ask_training(request: Request, dataset: MayTrain) -> Response:
    """The form of a training run, with the versions and models to choose from."""
    return _ask(request, _training_question(dataset, {}))


@router.post("/models/{dataset}/train")
def train(request: Request, dataset: MayTrain, form: Posted) -> Response:
    """Starts a training run."""
    models = [str(name) for name in form.getlist("models")]
    question = _training_question(dataset, {**form, "models": models})
    try:
        seed = _whole_or_none(form, "seed", "Seed")
    except UserError as error:
        return _ask(request, question, error=error)
    conf = {"version": _text(form, "version") or None, "models": models or None, "seed": seed}
    return _start(request, form, question, f"train__{dataset}", conf)


@router.get("/again")
def ask_again(request: Request, dag: MayTrigger, run: Run) -> Response:
    """Asks whether to trigger a DAG with the parameters of one of its runs."""
    return _ask(request, _again_question(dag, run))


@router.post("/again")
def again(request: Request, dag: MayTrigger, run: Run, form: Posted) -> Response:
    """Triggers a DAG with the parameters of one of its runs."""
    return _start(request, form, _again_question(dag, run), dag, airflow_runs.conf(dag, run))


@router.get("/approve")
def ask_approval(request: Request, dag: MayAnswer, run: Run) -> Response:
    """Asks whether a model becomes the champion, with the evidence."""
    return _ask(request, _approval_question(dag, run))


@router.post("/approve")
def approve(request: Request, dag: MayAnswer, run: Run, form: Posted) -> Response:
    """Answers the question of a run of ``promote__…``."""
    from include.promotion.approval import APPROVE, DECLINE

    options, model = {Action.APPROVE.value: APPROVE, Action.DECLINE.value: DECLINE}, _text(form, "model") or None
    chosen = _text(form, "answer")
    if chosen not in options:
        _invalid("answer")
    action, option = Action(chosen), options[chosen]

    def act() -> str:
        airflow_runs.answer(dag, run, option, {"model": model}, user(request))
        what = f"Approved: {model or 'the recommended model'}" if option == APPROVE else "Declined: the champion stays"
        return f"{what}. The run {run} of {dag} applies the answer."

    question = _approval_question(dag, run, action)
    return _act(request, form, question, {"model": model}, act, shown=(dag, run))


@router.get("/streams/{stream}/retry")
def ask_retry(request: Request, stream: MaySeeStream) -> Response:
    """Asks whether to retry a stream's dead letters."""
    require(request, "POST", f"retry__{stream}", DagAccessEntity.RUN)
    return _ask(request, _retry_question(stream))


@router.post("/streams/{stream}/retry")
def retry(request: Request, stream: MaySeeStream, form: Posted) -> Response:
    """Starts a retry of a stream's dead letters."""
    require(request, "POST", f"retry__{stream}", DagAccessEntity.RUN)
    return _start(request, form, _retry_question(stream), f"retry__{stream}", {})


@router.get("/streams/{stream}/replay")
def ask_replay(request: Request, stream: MaySeeStream) -> Response:
    """The form of a replay."""
    require(request, "POST", f"replay__{stream}", DagAccessEntity.RUN)
    return _ask(request, _replay_question(stream, {}))


@router.post("/streams/{stream}/replay")
def replay(request: Request, stream: MaySeeStream, form: Posted) -> Response:
    """Starts a replay."""
    from include.airflow import dag_runs
    from include.landing import replay_selection

    require(request, "POST", f"replay__{stream}", DagAccessEntity.RUN)
    question = _replay_question(stream, form)
    conf: dict[str, Any] = {name: _text(form, name) or None for name in ("since", "until")}
    try:
        for name, label in (("partition", "Partition"), ("first", "First offset"), ("last", "Last offset")):
            conf[name] = _whole_or_none(form, name, label)
        partitions = [] if conf["partition"] is None else [conf["partition"]]
        since, until = (dag_runs.moment(conf, name) for name in ("since", "until"))
        if "topic" in form:
            conf["topic"] = _text(form, "topic") or None
        replay_selection.choose(partitions, conf["first"], conf["last"], since, until, conf.get("topic"))
    except UserError as error:
        return _ask(request, question, error=error)
    return _start(request, form, question, f"replay__{stream}", conf)


@router.get("/streams/{stream}/accept/{choice}")
def ask_acceptance(request: Request, stream: MayChangeStream, choice: Choice) -> Response:
    """Asks whether a stopped stream continues in this way."""
    return _ask(request, _acceptance_question(stream, choice))


@router.post("/streams/{stream}/accept/{choice}")
def accept(request: Request, stream: MayChangeStream, choice: Choice, form: Posted) -> Response:
    """Lets a stopped stream continue."""
    from include.landing import recovery
    from include.streams import definitions

    def act() -> str:
        with connected("millrace accept") as connection:
            done = recovery.accept(connection, definitions.get(stream), choice, username(request))
        airflow_runs.unpause(f"land__{stream}")
        return f"{'; '.join(done)}. The DAG land__{stream} is unpaused."

    return _act(request, form, _acceptance_question(stream, choice), {"choice": choice.value}, act)


def _champion_question(dataset: str, action: Action) -> Question:
    with connected("millrace pages") as connection:
        present = champion_history.current(connection, dataset)
    now = f"The champion of {dataset} is {present}." if present else f"{dataset} has no champion."
    sentences, title, button, fields = {
        Action.ROLLBACK: (
            [now, "The champion before it becomes the champion again; after a retirement, the retired one."],
            f"Roll back the champion of {dataset}",
            "Roll back",
            (),
        ),
        Action.RETIRE: (
            [now, "Its tenure ends without a successor. The next model that beats the baseline becomes champion."],
            f"Retire the champion of {dataset}",
            "Retire",
            (Field("reason", "Reason", "text", "Stored with the retirement."),),
        ),
    }[action]
    return Question(
        action, f"dataset:{dataset}", title, sentences, [(action, button)], f"models/{quote(dataset, safe='')}", fields
    )


def _last_change(dataset: str) -> int:
    """The number of the last change of the champion, which the user sees; 0 if there was none."""
    with connected("millrace pages") as connection:
        last = queries.load("registry").last_change(connection, dataset=dataset)
    return last.number if last else 0


def _training_question(dataset: str, chosen: Mapping[str, Any]) -> Question:
    from include.datasets import definitions, model_names

    definition = definitions.get(dataset)
    with connected("millrace pages") as connection:
        found = list(queries.load("actions").versions_to_train(connection, dataset=dataset))
    versions = [("", "the newest")]
    for each in found:
        until = f"until {each.interval_end:%Y-%m-%d}, " if each.interval_end else ""
        sealed = f"sealed {each.sealed_at:%Y-%m-%d %H:%M} UTC"
        versions.append((each.version, f"{each.version[:12]}, {until}{each.rows:,} rows, {sealed}"))
    fields = [Field("version", "Version", "choice", options=versions, value=chosen.get("version", ""))]
    if names := model_names.names(definition.models):
        models = [(name, name) for name in names]
        fields.append(Field("models", "Models", "choices", "None chosen: all.", models, chosen.get("models", [])))
    fields.append(Field("seed", "Seed", "number", "Of every random state. Empty: 0.", value=chosen.get("seed", "0")))
    return Question(
        Action.TRIGGER,
        f"dataset:{dataset}",
        f"Train models of {dataset}",
        ["A run trains the models on the version and compares them with the champion."],
        [(Action.TRIGGER, "Train")],
        f"models/{quote(dataset, safe='')}",
        fields,
    )


def _again_question(dag: str, run: str) -> Question:
    conf = airflow_runs.conf(dag, run)
    given = [f"{name}: {value}" for name, value in conf.items() if value is not None]
    sentences = [f"A new run of {dag} starts with the parameters of {run}.", *(given or ["It had no parameters."])]
    return Question(
        Action.TRIGGER,
        f"run:{dag}/{run}",
        "Trigger again",
        sentences,
        [(Action.TRIGGER, "Trigger again")],
        f"run?{urlencode({'dag': dag, 'run': run})}",
    )


def _approval_question(dag: str, run: str, action: Action = Action.APPROVE) -> Question:
    from include.promotion import approval

    number = airflow_runs.conf(dag, run).get("run")
    if not dag.startswith("promote__") or not isinstance(number, int):
        raise HTTPException(404, f"The run {run!r} of {dag!r} asks no question.")
    form = approval.form(number)
    empty = f"the recommended one, {form.recommended}" if form.recommended else "none; to approve, choose one"
    models = [("", empty), *((model, model) for model in form.models)]
    return Question(
        action,
        f"run:{dag}/{run}",
        form.title,
        [f"Champion: {form.champion}.", *form.evidence, form.warning],
        [*([] if form.is_outdated else [(Action.APPROVE, "Approve")]), (Action.DECLINE, "Decline")],
        f"models/{quote(dag.removeprefix('promote__'), safe='')}",
        [] if form.is_outdated else [Field("model", "Model", "choice", options=models)],
    )


def _retry_question(stream: str) -> Question:
    with connected("millrace pages") as connection:
        counts = queries.load("landing").count_dead_letters(connection, stream=stream, reason="")
        letters = sum(row.records for row in counts if row.disposition == Disposition.DEAD_LETTER)
    return Question(
        Action.RETRY,
        f"stream:{stream}",
        f"Retry the dead letters of {stream}",
        [
            f"The stream has {letters:,} dead letters.",
            "A run decodes the bytes of each dead letter again, with the present definition, and lands those that can "
            "land now. Quarantined records stay.",
        ],
        [(Action.RETRY, "Retry")],
        f"streams/{quote(stream, safe='')}",
    )


def _replay_question(stream: str, chosen: Mapping[str, Any]) -> Question:
    from include.kafka import position
    from include.streams import definitions

    definition = definitions.get(stream)
    with connected("millrace pages") as connection:
        read = definition.topic_choice.of(position.read_topics(connection, definition.reader))
        found = {p for topic in read for p in position.read_positions(connection, definition.reader, topic)}
    partitions = [("", "all"), *((str(number), str(number)) for number in sorted(found))]
    texts = {name: chosen.get(name, "") for name in ("topic", "partition", "first", "last", "since", "until")}
    topics = [
        Field("topic", "Topic", "choice", options=[("", "all"), *((name, name) for name in read)], value=texts["topic"])
    ]
    return Question(
        Action.REPLAY,
        f"stream:{stream}",
        f"Replay records of {stream}",
        [
            "A run lands records again that landed before and that Kafka still has, as the stream is defined now. The "
            "new rows replace the old ones. The stream continues to land meanwhile.",
        ],
        [(Action.REPLAY, "Replay")],
        f"streams/{quote(stream, safe='')}",
        [
            *(topics if definition.topics is not None else ()),
            Field("partition", "Partition", "choice", options=partitions, value=texts["partition"]),
            Field("first", "First offset", "number", "Needs a partition. Empty: the earliest.", value=texts["first"]),
            Field("last", "Last offset", "number", "Needs a partition. Empty: the latest.", value=texts["last"]),
            Field("since", "Since (UTC)", "moment", "Of the records in Kafka. Empty: all.", value=texts["since"]),
            Field("until", "Until (UTC)", "moment", "Exclusive. Empty: all.", value=texts["until"]),
        ],
    )


def _acceptance_question(stream: str, choice: Choice) -> Question:
    from include.landing import failures

    with connected("millrace pages") as connection:
        stopped = [failure.error for failure in failures.of(connection, stream)]
    return Question(
        Action.ACCEPT,
        f"stream:{stream}",
        f"Accept {choice.value!r} for {stream}",
        [*stopped, ACCEPTED[choice]],
        [(Action.ACCEPT, "Accept and continue")],
        f"streams/{quote(stream, safe='')}",
    )


def _ask(
    request: Request, question: Question, hidden: Mapping[str, Any] | None = None, *, error: UserError | None = None
) -> Response:
    with connected("millrace pages") as connection:
        seen = user_actions.last_seen(connection, question.action, question.subject)
    return page(
        request,
        "confirm.html",
        status=422 if error else 200,
        question=question,
        error=error,
        hidden={"token": uuid4(), "seen": seen, **(hidden or {})},
    )


def _act(
    request: Request,
    form: FormData,
    question: Question,
    parameters: Mapping[str, Any],
    act: Callable[[], str],
    *,
    shown: tuple[str, str] | None = None,
) -> Response:
    """Does an action, unless another user was faster, and says what became of it."""
    try:
        token = UUID(_text(form, "token"))
    except ValueError:
        _invalid("token")
    confirmed = user_actions.Request(
        username(request), question.action, question.subject, token, _whole(form, "seen"), parameters
    )
    result = user_actions.perform(confirmed, act)
    is_done = result.outcome is Outcome.DONE
    return page(
        request,
        "acted.html",
        status=200 if is_done else 409,
        question=question,
        result=result,
        is_done=is_done,
        run=shown,
    )


def _start(request: Request, form: FormData, question: Question, dag: str, conf: Mapping[str, Any]) -> Response:
    """Starts a run of a DAG as an action."""
    run_id = f"{question.action}__{_text(form, 'token')}"

    def act() -> str:
        return airflow_runs.start(dag, run_id, conf, username(request))

    given = {name: value for name, value in conf.items() if value is not None}
    return _act(request, form, question, given, act, shown=(dag, run_id))


def _text(form: FormData, name: str) -> str:
    return str(form.get(name, "")).strip()


def _whole(form: FormData, name: str) -> int:
    text = _text(form, name)
    return int(text) if text.isdecimal() else _invalid(name)


def _whole_or_none(form: FormData, name: str, label: str) -> int | None:
    from include.error_codes import Code

    text = _text(form, name)
    if text and not (text.isdecimal() and len(text) < 19):
        raise UserError(
            f"{label} is {text!r}, which is not a whole number of at least 0.",
            "Correct it, or leave it empty.",
            code=Code.INVALID_PARAMETER,
        )
    return int(text) if text else None


def _invalid(name: str) -> NoReturn:
    raise HTTPException(422, f"The form lacks {name!r}, or it is invalid. Open the page again.")
