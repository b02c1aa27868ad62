"""The pages on streams."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import Response

from include.airflow.pages import sources
from include.airflow.pages.access import dag_of_stream, on_stream, only_plugins, visible
from include.airflow.pages.rendering import page
from include.pages import streams as data

router = APIRouter()


@router.get("/streams")
def streams(request: Request, _: Annotated[str, Depends(only_plugins)]) -> Response:
    """One line for each stream whose DAG the user may see."""
    paused = sources.paused_by_name("land__")
    with sources.warehouse().connection() as connection:
        topics = data.topics(connection)
    waiting = sources.lag().of(topics)
    with sources.warehouse().connection() as connection:
        lines = {line.row.stream: line for line in data.overview(connection, waiting)}
    seen = visible(request, [dag_of_stream(name) for name in {*lines, *paused}])
    names = [name for name in sorted({*lines, *paused}) if dag_of_stream(name) in seen]
    return page(request, "streams.html", names=names, lines=lines, paused=paused)


@router.get("/streams/{stream}")
def stream(request: Request, stream: Annotated[str, Depends(on_stream("GET"))]) -> Response:
    """One stream."""
    facts = stream_facts(stream)
    paused = sources.paused_by_name("land__")
    if facts is None and stream not in paused:
        raise HTTPException(404, f"There is no stream {stream!r}.")
    return page(request, "stream.html", name=stream, facts=facts, is_paused=paused.get(stream))


def stream_facts(name: str) -> data.StreamFacts | None:
    """What is known of a stream."""
    with sources.warehouse().connection() as connection:
        topic = data.topics(connection).get(name)
    waiting = sources.lag().of({} if topic is None else {name: topic})
    with sources.warehouse().connection() as connection:
        return data.stream(connection, name, waiting.get(name, data.UNKNOWN))
