"""The service over HTTP: routes in front of an engine, and what keeps them safe."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI

from service import routes_catalog, routes_health, routes_jobs, routes_questions
from service.access import reads
from service.asking import known_parameters
from service.decoding import DecodersError
from service.engine import Engine, ItemNotFoundError, QuestionError
from service.job_options import JobOptionError
from service.jobs import JobNotFoundError
from service.openapi import DescribedAPI
from service.process import prepare_process
from service.projected import ProjectionNotFoundError
from service.saliency import ExplanationError
from service.settings import Settings
from service.shields import shield

# What the engine and the jobs raise, besides problems.STATUSES.
_STATUSES = {
    DecodersError: 503,
    ExplanationError: 422,
    ItemNotFoundError: 404,
    JobNotFoundError: 404,
    JobOptionError: 422,
    ProjectionNotFoundError: 404,
    QuestionError: 422,
}


def create_app(settings: Settings, engine: Engine | None = None) -> FastAPI:
    """The application that a server such as uvicorn runs.

    Args:
        settings: Of the service.
        engine: One that is open, and that whoever opened it closes; None opens one when the server starts.

    Raises:
        StoreError, EncoderError: When the server starts: the gallery cannot be opened.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        opened = None if engine is not None else await asyncio.to_thread(Engine, settings)
        app.state.engine = engine or opened
        prepare_process()
        try:
            yield
        finally:
            app.state.engine = engine
            if opened is not None:
                await asyncio.to_thread(opened.close)

    app = DescribedAPI(
        title="Modiste",
        summary="Visual search and labelling for fashion catalogs.",
        version=version("modiste"),
        lifespan=lifespan,
        # Those pages load scripts from elsewhere; the schema itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        # It would send traces where the environment says so.
        telemetry={"auto_configure": False},
    )
    app.state.engine = engine
    app.include_router(routes_health.router)
    app.include_router(routes_questions.router, dependencies=[Depends(reads), Depends(known_parameters)])
    for router in (routes_catalog.router, routes_catalog.edits, routes_jobs.router, routes_jobs.orders):
        app.include_router(router, dependencies=[Depends(known_parameters)])
    shield(app, settings, statuses=_STATUSES)
    return app
