"""What the OpenAPI document promises, held against requests that schemathesis makes of it."""

from __future__ import annotations

import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis.engine.events import FatalError, Interrupted, NonFatalError, ScenarioFinished
from schemathesis.specs.openapi.definitions import OPENAPI_31

from indexer.projection import Projection
from service.answers import Job, JobKind
from service.app import create_app
from service.engine import Engine
from service.examples import EXAMPLES, JOB_REQUESTS
from service.job_options import JobOptions
from service.keys import add_key
from tests.indexer.fakes import CARD, FakeEncoder, unit_vectors
from tests.service.engines import settings_of
from tests.service.fake_engine import FakeEngine, FakeJobs
from tests.service.galleries import fit, make_gallery, photo

# Cases of each operation and phase; a nightly run takes more, and other ones.
CASES = int(os.environ.get("MODISTE_API_CASES", "0"))
KNOWN = [f"i{number:05}" for number in range(30)]
WHERES = [
    "type=dress",
    "type=dress|skirt,split=test",
    "type=sock",
    "colour=red",
    "type",
    r"type=a\,b",
    "=",
    "split=test",
]
BOXES = ["0,0,1,1", "0.25,0.25,0.5,0.5", "0.1,0.1,0,0", "1,1,1,1", "a,b,c,d", "1e-9,0,1e-9,1", "0,0,nan,1"]


def small(format: str, **options: Any) -> bytes:  # noqa: A002
    file = io.BytesIO()
    Image.effect_noise((40, 30), 60).convert("RGB").save(file, format, **options)
    return file.getvalue()


SOUND = [photo(3), photo(40), small("JPEG"), small("WEBP"), small("PNG")]
PHOTOS = st.one_of(
    st.sampled_from(SOUND),
    st.binary(max_size=200),
    st.builds(lambda one, end: one[:end], st.sampled_from(SOUND), st.integers(0, 200)),
    st.builds(lambda one, more: one + more, st.sampled_from(SOUND), st.binary(max_size=50)),
)
for kind in ("image/jpeg", "image/png", "image/webp"):
    schemathesis.openapi.media_type(kind, PHOTOS)
schemathesis.openapi.format("binary", PHOTOS)


class EndedJobs(FakeJobs):
    """Jobs that are over at once, so that nobody waits for their events."""

    def submit(self, options: JobOptions) -> Job:
        return self.change(super().submit(options).id, state="done", result={})


@contextmanager
def schema_of(engine: Any, key: str, cases: int) -> Iterator[Any]:
    """The schema of a service over an engine, for requests that have a key."""
    config = schemathesis.Config.from_dict(
        {
            "seed": 5,
            "max-failures": 20,
            "generation": {"max-examples": CASES or cases, "deterministic": not CASES, "database": "none"},
            "phases": {"stateful": {"enabled": False}},
            "headers": {"Authorization": f"Bearer {key}"},
            "checks": {
                # The grammars of `where` and the like are no JSON schema, and a photo may be junk.
                "positive_data_acceptance": {"enabled": False},
            },
            "operations": [
                {
                    # With another method it is the address of an item whose id ends in `/image`.
                    "include-path": "/v1/items/{item_id}/image",
                    "checks": {
                        "unsupported_method": {"enabled": False},
                        "allow_header_conformance": {"enabled": False},
                    },
                },
                {
                    # Numbers and words that mean yes or no are taken for it.
                    "include-path": "/v1/jobs",
                    "checks": {"negative_data_rejection": {"enabled": False}},
                },
            ],
        }
    )
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(engine.settings, engine), config=config)

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        """Half of the items asked for are there."""
        given = (path_parameters or {}).get("item_id")
        if isinstance(given, str) and len(given) % 2:
            path_parameters["item_id"] = KNOWN[len(given) % len(KNOWN)]
        return path_parameters

    @schema.hook
    def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
        """Many texts are in the grammar, or nearly."""
        for name, texts in (
            ("item_id", KNOWN),
            ("where", WHERES),
            ("box", BOXES),
            ("view", BOXES),
            ("targets", ["type"]),
            ("target", ["type"]),
        ):
            given = (query or {}).get(name)
            if isinstance(given, str) and len(given) % 3:
                query[name] = texts[len(given) % len(texts)]
        return query

    yield schema


def settings_with_key(folder: Path, **changes: Any) -> tuple[Any, str]:
    key = add_key(folder / "keys.json", "tester", "admin")
    return settings_of(
        folder / "gallery", keys_file=folder / "keys.json", trusted_hosts=["testserver"], deadline_s=60, **changes
    ), key


@pytest.fixture(scope="module")
def fake_schema(tmp_path_factory):
    made, key = settings_with_key(tmp_path_factory.mktemp("fake"))
    engine = FakeEngine(made, KNOWN)
    engine.jobs = EndedJobs()
    with schema_of(engine, key, 30) as schema:
        yield schema
    engine.close()


@pytest.fixture(scope="module")
def real_schema(tmp_path_factory):
    """30 items of two types with heads; jobs have tests of their own, and would start a process a case here."""
    place = tmp_path_factory.mktemp("real")
    gallery = make_gallery(
        place / "gallery",
        unit_vectors(30, CARD.dimension),
        ["dress", "skirt"] * 15,
        split=lambda number: "test" if number > 27 else None,
    )
    fit(gallery, "knn", "linear")
    Projection.draw(gallery.snapshot, seed=0, tell=lambda *_: None).save(gallery.folder)
    made, key = settings_with_key(place)
    with Engine(made, lambda _: FakeEncoder(CARD)) as engine:
        jobs, engine.jobs = engine.jobs, EndedJobs()  # type: ignore[assignment]
        with schema_of(engine, key, 20) as schema:
            yield schema
        engine.jobs = jobs


def outcome_of(schema: Any) -> tuple[list[str], dict[str, Counter[int]]]:
    """What was wrong, and how often each operation answered with each status."""
    wrong: list[str] = []
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    for event in schemathesis.engine.from_schema(schema).execute():
        if isinstance(event, NonFatalError | FatalError | Interrupted):
            wrong.append(str(event))
        elif isinstance(event, ScenarioFinished):
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.failure_info is not None:
                        wrong.append(
                            f"{event.recorder.label}: {check.failure_info.failure}\n{check.failure_info.code_sample}"
                        )
            for name, interaction in event.recorder.interactions.items():
                if interaction.response is not None:
                    case = event.recorder.cases[name].value
                    statuses[case.operation.label][interaction.response.status_code] += 1
    return wrong, statuses


# Of the photos that it tries.
@pytest.mark.filterwarnings("ignore:Generating overly large repr")
@pytest.mark.parametrize("schema", ["fake_schema", "real_schema"])
def test_every_operation_keeps_its_promises(request, schema):
    wrong, statuses = outcome_of(request.getfixturevalue(schema))
    assert not wrong, "\n\n".join(wrong[:10])
    document = request.getfixturevalue(schema).raw_schema
    for label, counts in statuses.items():
        assert not counts.keys() & set(range(500, 600)), (label, counts)
        # What was asked reached the engine too, and was not only refused; few photos can be explained.
        assert schema == "real_schema" or any(200 <= status < 300 for status in counts), (label, counts)
    operations = {f"{method.upper()} {path}" for path, one in document["paths"].items() for method in one}
    assert statuses.keys() == operations
    assert sum(map(Counter.total, statuses.values())) > 40 * len(operations)


# The document itself


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    made = settings_of(tmp_path_factory.mktemp("document"))
    return create_app(made).openapi()


def test_the_document_is_one(document):
    assert document["openapi"].startswith("3.1.")
    jsonschema_rs.Draft202012Validator(OPENAPI_31).validate(document)
    json.dumps(document, allow_nan=False)
    names = [one["operationId"] for operations in document["paths"].values() for one in operations.values()]
    assert len(set(names)) == len(names) == 19


def test_every_reference_leads_somewhere(document):
    text = json.dumps(document)
    for name in set(re.findall(r"#/components/schemas/(\w+)", text)):
        assert name in document["components"]["schemas"], name
    assert "HTTPValidationError" not in text


def contents(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body that the document describes, with its place."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            bodies = {"request": operation.get("requestBody", {}), **operation["responses"]}
            for status, body in bodies.items():
                for kind, content in body.get("content", {}).items():
                    yield f"{method} {path} {status} {kind}", content


def test_examples_are_what_their_schemas_say(document):
    shown = 0
    for place, content in contents(document):
        examples = [content["example"]] if "example" in content else []
        examples += [one["value"] for one in content.get("examples", {}).values()]
        schema = {**content["schema"], "components": document["components"]}
        for example in examples:
            jsonschema_rs.Draft202012Validator(schema).validate(example)
        shown += len(examples)
        if " application/json" in place and "healthz" not in place and "readyz" not in place and "patch" not in place:
            assert examples, place
    # Fourteen answers, and seven kinds of jobs.
    assert shown == 21
    for schema in document["components"]["schemas"].values():
        for example in schema.get("examples", ()):
            jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}).validate(example)
    assert set(JOB_REQUESTS) == set(get_args(JobKind))


def test_examples_of_parameters_are_what_their_schemas_say(document):
    shown = 0
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                schema = {**parameter["schema"], "components": document["components"]}
                assert parameter["description"]
                for example in parameter["schema"].get("examples", ()):
                    jsonschema_rs.Draft202012Validator(schema).validate(example)
                    shown += 1
    assert shown > 15


def test_answers_are_whole(document):
    """An answer of the service has every field that its schema has, null where there is nothing."""
    for name, example in EXAMPLES.items():
        assert set(asdict(example)) == set(document["components"]["schemas"][name]["properties"]), name


def test_every_operation_says_how_it_is_refused(document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            statuses = set(operation["responses"])
            assert {"400", "500"} <= statuses
            if path.startswith("/v1") or path == "/metrics":
                assert {"401", "429", "503"} <= statuses
                assert operation["security"] == [{"bearer": []}, {"header": []}]
            if "requestBody" in operation:
                assert {"408", "413", "422"} <= statuses
            assert method == "get" or {"403", "409"} <= statuses
