"""Whether the service is alive and ready, and its metrics."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse

from service.access import reads
from service.telemetry import Telemetry

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[Literal["status"], Literal["alive"]]:
    """Whether the process answers."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz(request: Request) -> dict[Literal["status"], Literal["ready"]]:
    """Whether questions can be answered; 503 where not."""
    if request.app.state.engine is None:
        raise HTTPException(503, "The gallery is not open.", {"Retry-After": "1"})
    return {"status": "ready"}


@router.get("/metrics", response_class=PlainTextResponse, dependencies=[Depends(reads)])
async def metrics(request: Request) -> Response:
    """Metrics in Prometheus's text format."""
    telemetry: Telemetry = request.app.state.telemetry
    content, kind = await asyncio.to_thread(telemetry.scrape)
    return Response(content, media_type=kind)
