"""Jobs: long work on the gallery, one at a time, and news of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Path, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from service import answers
from service.access import administers, reads
from service.asking import engine_of, json_of
from service.examples import JOB_REQUESTS
from service.job_options import JobOptions
from service.jobs import JobQueue

router = APIRouter(prefix="/v1", tags=["jobs"], dependencies=[Depends(reads)])
orders = APIRouter(prefix="/v1", tags=["jobs"], dependencies=[Depends(administers)])

# How soon a listener hears of a change.
_NEWS_S = 0.25

JobId = Annotated[str, Path(description="A job's id.", max_length=100)]


@orders.post("/jobs", status_code=202, response_model=answers.Job)
async def submit(
    request: Request,
    options: Annotated[JobOptions, Body(discriminator="kind", openapi_examples=JOB_REQUESTS)],
) -> Response:
    """Queues a job; one runs at a time."""
    job = await asyncio.to_thread(_jobs(request).submit, options)
    return json_of(job, 202, {"Location": f"/v1/jobs/{job.id}"})


@router.get("/jobs", response_model=answers.Jobs)
async def jobs(request: Request) -> Response:
    """The jobs that are remembered, newest first, without the suspects and groups that they have found."""
    return json_of(answers.Jobs([job.listed for job in _jobs(request).all()]))


@router.get("/jobs/{job_id}", response_model=answers.Job)
async def job(request: Request, job_id: JobId) -> Response:
    """One job, and how far it is."""
    return json_of(_jobs(request).get(job_id))


@orders.post("/jobs/{job_id}/cancel", response_model=answers.Job)
async def cancel(request: Request, job_id: JobId) -> Response:
    """Asks a job to stop; what it has committed stays. One that is over is left as it is."""
    return json_of(await asyncio.to_thread(_jobs(request).cancel, job_id))


async def _known(request: Request, job_id: JobId) -> str:
    """The id of a job that there is: an error can only be told before the first event."""
    return _jobs(request).get(job_id).id


@router.get("/jobs/{job_id}/events", response_class=EventSourceResponse)
async def events(request: Request, job_id: Annotated[str, Depends(_known)]) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events: `progress` with the job whenever it has changed, and `end` when it is over."""
    told = None
    while told is None or not told.is_over:
        current = _jobs(request).get(job_id)
        if current != told:
            yield ServerSentEvent(event="end" if current.is_over else "progress", data=current)
            told = current
        else:
            await asyncio.sleep(_NEWS_S)


def _jobs(request: Request) -> JobQueue:
    return engine_of(request).jobs
