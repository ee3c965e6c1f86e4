"""The OpenAPI document: what FastAPI knows of the routes, and what every answer may be besides."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from service.answers import Problem
from service.examples import EXAMPLES, PROBLEM

_RETRY_AFTER = {
    "Retry-After": {"description": "Seconds after which it is worth asking again.", "schema": {"type": "integer"}}
}
_PROBLEMS = {
    400: "The Host header is not one that is answered, or the form cannot be read.",
    401: "No API key, or one that is not known.",
    403: "The key's scope does not reach so far, or the web page that asks is not listed.",
    404: "There is no such item, head or job.",
    408: "The body did not come in time.",
    409: "Another process writes to the gallery, or a stored head is damaged.",
    413: "The body is too large.",
    415: "The body is of a type that is no photo.",
    422: "What is asked makes no sense; the detail says why.",
    429: "The key asks too often.",
    500: "A defect; the log knows it by the request_id.",
    503: "More is asked than can be answered soon, or it took too long.",
}
_TOLD_WHEN = (409, 429, 503)


class DescribedAPI(FastAPI):
    """An application whose OpenAPI document has examples of every answer, and the problems that one may be."""

    def openapi(self) -> dict[str, Any]:
        """The document, made once."""
        if self.openapi_schema is None:
            describe(super().openapi())
        assert self.openapi_schema is not None
        return self.openapi_schema


def describe(document: dict[str, Any]) -> None:
    """Adds to FastAPI's document what it does not know."""
    schemas = document["components"]["schemas"]
    # FastAPI's own errors are told as problems too.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    box = schemas["Item"]["properties"]["box"]["anyOf"][0]
    # Four alike: what is made from the document knows lists better than tuples.
    box["items"] = box.pop("prefixItems")[0]
    schemas["Problem"] = {**TypeAdapter(Problem).json_schema(), "examples": [asdict(PROBLEM)]}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            for response in operation["responses"].values():
                for content in response.get("content", {}).values():
                    # FastAPI describes events as OpenAPI 3.2 does, in a document of 3.1.
                    if "itemSchema" in content:
                        content["schema"] = content.pop("itemSchema")
                    name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
                    if name in EXAMPLES:
                        content["example"] = asdict(EXAMPLES[name])
            for status in sorted(_problems_of(path, method, operation)):
                operation["responses"][str(status)] = _problem(status)


def _problem(status: int) -> dict[str, Any]:
    response = {
        "description": _PROBLEMS[status],
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    return {**response, "headers": _RETRY_AFTER} if status in _TOLD_WHEN else response


def _problems_of(path: str, method: str, operation: dict[str, Any]) -> Iterator[int]:
    """The statuses of problems that a route may answer with."""
    parameters = {one["name"] for one in operation.get("parameters", ())}
    body = operation.get("requestBody", {}).get("content", {})
    yield from (400, 500)
    if path != "/healthz":
        yield 503
    if "security" in operation:
        yield from (401, 429)
        if method != "get":
            yield from (403, 409)
    if parameters or body:
        yield 422
    if parameters & {"item_id", "job_id"}:
        yield 404
    if body:
        yield from (408, 413)
    if "multipart/form-data" in body:
        yield 415
