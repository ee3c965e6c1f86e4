"""The API in front of an engine whose answers are known: what reaches it, and what becomes of its answers."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from data.catalog import Box
from data.images import ImageError
from heads.checks import HeadError
from heads.storage import StoredHeadError
from indexer.edits import EditError
from indexer.filters import FilterError
from indexer.snapshot import GalleryLockedError, StoreError
from service import examples
from service.app import create_app
from service.classification import ClassifyOptions
from service.explain import ExplainOptions
from service.head_store import HeadNotFoundError
from service.job_options import (
    CompactJob,
    DuplicatesJob,
    FitJob,
    JobOptionError,
    MigrateJob,
    ProjectJob,
    RefreshJob,
    SuspectsJob,
)
from service.keys import add_key
from service.lanes import OverloadedError, Ticket
from service.questions import ClassifyQuestion, ExplainQuestion, NeighboursQuestion, NewItem
from service.saliency import ExplanationError
from service.shields import SECURITY_HEADERS
from tests.service.engines import settings_of
from tests.service.fake_engine import JPEG, FakeEngine
from tests.service.servers import Line, server_of, until

PHOTO = b"\xff\xd8\xff a photo"
AS_JPEG = {"Content-Type": "image/jpeg"}
ID = examples.ITEM.item_id
# Every route with a request that it answers; those of a job need one.
ROUTES = (
    ("POST", "/v1/neighbours?item_id=a", None),
    ("POST", "/v1/classify?item_id=a", None),
    ("POST", "/v1/explain?item_id=a&target=category", None),
    ("GET", "/v1/catalog", None),
    ("GET", "/v1/projection", None),
    ("GET", "/v1/items", None),
    ("GET", f"/v1/items/{ID}", None),
    ("GET", f"/v1/items/{ID}/image", None),
    ("GET", "/v1/jobs", None),
    ("GET", "/v1/jobs/job-0", None),
    ("GET", "/v1/jobs/job-0/events", None),
    ("PUT", f"/v1/items/{ID}", "photo"),
    ("PATCH", f"/v1/items/{ID}", {"labels": {}}),
    ("DELETE", f"/v1/items/{ID}", None),
    ("POST", "/v1/jobs", {"kind": "compact"}),
    ("POST", "/v1/jobs/job-0/cancel", None),
    ("GET", "/metrics", None),
)
CHANGES = tuple(
    route for route in ROUTES if route[0] in ("PUT", "PATCH", "DELETE") or ("jobs" in route[1] and "POST" in route)
)


class Shop(NamedTuple):
    """A service and what is behind it."""

    client: TestClient
    engine: FakeEngine

    def ask(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        """The answer to a route of ROUTES."""
        if body == "photo":
            options = {"content": PHOTO, **options, "headers": {**AS_JPEG, **options.get("headers", {})}}
        elif body is not None:
            options["json"] = body
        return self.client.request(method, path, **options)


class Panic(BaseException):
    """As pyo3's PanicException: no Exception."""


@pytest.fixture
def open_shop(tmp_path: Path) -> Iterator[Callable[..., Shop]]:
    """Makes services with settings of a test's own."""
    with ExitStack() as stack:

        def make(items: tuple[str, ...] = (ID,), address: str = "127.0.0.1", **settings: Any) -> Shop:
            engine = FakeEngine(settings_of(tmp_path / "gallery", **settings), items)
            stack.callback(engine.close)
            app = create_app(engine.settings, engine)  # type: ignore[arg-type]
            client = TestClient(app, base_url="http://127.0.0.1", client=(address, 5000))
            return Shop(stack.enter_context(client), engine)

        yield make


@pytest.fixture
def shop(open_shop: Callable[..., Shop]) -> Shop:
    return open_shop()


def problem_of(response: Any, status: int) -> str:
    """The sentence of an answer that must be a problem of that status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert set(problem) == {"type", "title", "status", "detail", "request_id"}
    assert (problem["status"], problem["type"]) == (status, "about:blank")
    assert problem["request_id"] == response.headers["x-request-id"]
    return str(problem["detail"])


# What reaches the engine


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {}),
        ("k=3&max_distance=0.25", {"k": 3, "max_distance": 0.25}),
        ("group_by=product", {"group_by_product": True}),
        (
            "where=colour%3Dred%7Cnavy%20blue%2Ctype%3Da%5C%2Cb",
            {"where": {"colour": ("red", "navy blue"), "type": ("a,b",)}},
        ),
        ("box=0.1,0.2,0.5,0.6", {"box": Box(0.1, 0.2, 0.5, 0.6)}),
    ],
)
def test_every_option_of_neighbours_reaches_the_engine(shop, query, wanted):
    response = shop.client.post(f"/v1/neighbours?{query}", content=PHOTO, headers=AS_JPEG)
    assert response.status_code == 200
    assert shop.engine.asked == [("neighbours", NeighboursQuestion(PHOTO, **wanted))]
    assert response.json()["neighbours"] == asdict(examples.NEIGHBOURS)["neighbours"]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {}),
        ("targets=a,%20b,a,", {"targets": ("a", "b")}),
        ("head=ensemble", {"head": "ensemble"}),
        ("top=7&coverage=0.5&evidence=0", {"options": ClassifyOptions(top=7, coverage=0.5, evidence=0)}),
        ("allowed=Tops,%3DShirts", {"options": ClassifyOptions(allowed=("Tops", "=Shirts"))}),
        ("weights=Bottoms%3D0.6,a%3D2", {"options": ClassifyOptions(weights={"Bottoms": 0.6, "a": 2.0})}),
        ("box=0,0,1,0.5", {"box": Box(0, 0, 1, 0.5)}),
    ],
)
def test_every_option_of_classify_reaches_the_engine(shop, query, wanted):
    response = shop.client.post(f"/v1/classify?{query}", content=PHOTO, headers={"Content-Type": "image/webp"})
    assert response.status_code == 200
    assert shop.engine.asked == [("classify", ClassifyQuestion((("0", PHOTO),), **wanted))]
    assert response.json() == asdict(examples.CLASSIFICATION)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {}),
        ("method=occlusion&label=a%20dress&head=knn", {"label": "a dress", "head": "knn"}),
        ("method=gradcam&layer=x.1", {"options": ExplainOptions("gradcam", layer="x.1")}),
        ("window=20&stride=4&fill=blur", {"options": ExplainOptions(window=20, stride=4, fill="blur")}),
        ("method=rollout&faithfulness=false", {"options": ExplainOptions("rollout", is_checked=False)}),
        ("method=match&match_item_id=b", {"options": ExplainOptions("match"), "match_item_id": "b"}),
        ("raw=true&box=0,0,1,0.5", {"with_map": True, "box": Box(0, 0, 1, 0.5)}),
    ],
)
def test_every_option_of_explain_reaches_the_engine(shop, query, wanted):
    response = shop.client.post(
        f"/v1/explain?target=type&{query}", content=PHOTO, headers={"Content-Type": "image/png"}
    )
    assert response.status_code == 200
    assert shop.engine.asked == [("explain", ExplainQuestion("type", PHOTO, **wanted))]
    assert response.json() == json.loads(json.dumps(asdict(examples.EXPLANATION)))


def test_an_item_is_asked_for_in_the_place_of_a_photo(shop):
    for path in ("neighbours?", "classify?", "explain?target=type&"):
        assert shop.client.post(f"/v1/{path}item_id=a%2Fb%20c").status_code == 200
    assert [(given.item_id, getattr(given, "photo", None)) for _, given in shop.engine.asked] == [("a/b c", None)] * 3
    assert shop.engine.asked[1][1].photos == ()


def test_a_photo_may_come_in_a_form(shop):
    for path in ("neighbours", "explain?target=type"):
        response = shop.client.post(f"/v1/{path}", files={"photo": ("a.jpg", PHOTO, "image/jpeg")})
        assert response.status_code == 200
    assert [given.photo for _, given in shop.engine.asked] == [PHOTO] * 2
    several = [("photo", ("a b.jpg", b"1")), ("photo", ("ü.png", b"2", "image/png")), ("other", ("c", b"3"))]
    assert shop.client.post("/v1/classify", files=several).status_code == 200
    assert shop.engine.asked[-1][1].photos == (("a b.jpg", b"1"), ("ü.png", b"2"))
    assert shop.client.put(f"/v1/items/{ID}", files={"photo": ("x", PHOTO)}).status_code == 200
    assert shop.engine.asked[-1][1].photo == PHOTO


def test_several_photos_without_names_are_called_by_their_place(shop):
    part = b'--b\r\nContent-Disposition: form-data; name="photo"; filename=""\r\n\r\nx\r\n'
    form = {"Content-Type": "multipart/form-data; boundary=b"}
    response = shop.client.post("/v1/classify", content=part * 2 + b"--b--\r\n", headers=form)
    assert response.status_code == 200
    assert shop.engine.asked[0][1].photos == (("0", b"x"), ("1", b"x"))


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", (50, None, None)),
        ("limit=2&after=a%2Fb", (2, "a/b", None)),
        ("where=colour%3Dred", (50, None, {"colour": ("red",)})),
    ],
)
def test_every_option_of_a_page_reaches_the_engine(shop, query, wanted):
    response = shop.client.get(f"/v1/items?{query}")
    assert response.status_code == 200
    assert shop.engine.asked == [("items", wanted)]


def test_pages_say_how_to_go_on(open_shop):
    shop = open_shop(("a", "b", "c"))
    first = shop.client.get("/v1/items?limit=2").json()
    assert ([item["item_id"] for item in first["items"]], first["total"], first["next_after"]) == (["a", "b"], 3, "b")
    last = shop.client.get("/v1/items?limit=2&after=b").json()
    assert ([item["item_id"] for item in last["items"]], last["next_after"]) == (["c"], None)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", (3000, None, None, None)),
        (
            "target=colour&view=0.5,0,0.25,1&limit=20000&where=colour%3Dred",
            (20_000, "colour", Box(0.5, 0, 0.25, 1), {"colour": ("red",)}),
        ),
    ],
)
def test_every_option_of_a_map_reaches_the_engine(shop, query, wanted):
    response = shop.client.get(f"/v1/projection?{query}")
    assert response.status_code == 200
    assert response.json() == asdict(examples.PROJECTION)
    assert shop.engine.asked == [("projection", wanted)]


@pytest.mark.parametrize(
    "view", ["", "0,0,1", "0,0,0,1", "0,0,1,0", "0.5,0,0.6,1", "-0.1,0,1,1", "nan,0,1,1", "a,b,c,d"]
)
def test_a_view_lies_on_the_map(shop, view):
    response = shop.client.get("/v1/projection", params={"view": view})
    assert "A view is x,y,width,height as fractions 0..1 of the map" in problem_of(response, 422)
    assert shop.engine.asked == []


def test_a_map_has_a_point_and_not_more_than_a_page_can_draw(shop):
    for limit in (0, 20_001, "all"):
        assert "'limit'" in problem_of(shop.client.get(f"/v1/projection?limit={limit}"), 422)


def test_the_catalog_is_that_of_the_engine(shop):
    assert shop.client.get("/v1/catalog").json() == asdict(examples.CATALOG)


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", {}),
        (
            "label=colour%3Dred%7Cblue&label=colour%3Dred&label=type%3Da&label=none%3D",
            {"labels": {"colour": ("red", "blue"), "type": ("a",)}},
        ),
        ("product_id=p1&split=validation", {"product_id": "p1", "split": "validation"}),
        ("box=0,0,1,0.5&new_targets=true", {"box": Box(0, 0, 1, 0.5), "new_targets": True}),
    ],
)
def test_every_option_of_a_new_item_reaches_the_engine(shop, query, wanted):
    response = shop.client.put(f"/v1/items/new?{query}", content=PHOTO, headers=AS_JPEG)
    assert response.status_code == 201
    assert shop.engine.asked == [("put", NewItem("new", PHOTO, **wanted))]
    assert response.json()["created"] is True
    assert shop.client.put("/v1/items/new", content=PHOTO, headers=AS_JPEG).status_code == 200


def test_labels_are_set_and_taken_away(shop):
    body = {"labels": {"colour": ["red", "blue"], "type": []}, "new_targets": True}
    response = shop.client.patch(f"/v1/items/{ID}", json=body)
    assert response.status_code == 200
    assert shop.engine.asked == [("relabel", (ID, {"colour": ("red", "blue"), "type": ()}, True))]
    assert response.json() == {
        "item": {**asdict(examples.ITEM), "labels": {"colour": ["red", "blue"], "type": []}},
        "gallery_version": 8,
        "created": False,
    }
    shop.client.patch(f"/v1/items/{ID}", json={"labels": {}})
    assert shop.engine.asked[-1] == ("relabel", (ID, {}, False))


def test_a_deleted_item_is_gone(shop):
    response = shop.client.delete(f"/v1/items/{ID}")
    assert (response.status_code, response.content) == (204, b"")
    assert "content-type" not in response.headers
    problem_of(shop.client.get(f"/v1/items/{ID}"), 404)
    problem_of(shop.client.delete(f"/v1/items/{ID}"), 404)


@pytest.mark.parametrize(
    "item_id",
    [
        "a/b/c",
        "a b",
        "ü 漢字 👗",
        "100%",
        "50%25",
        "a%2Fb",
        "q?x=1#y",
        "a+b&c",
        ".",
        "..",
        "a/../b",
        "image",
        "a/image",
        "/image",
        "/",
        "a//b",
        "\\",
    ],
)
def test_ids_of_any_signs(open_shop, item_id):
    """As clients send them: every sign that means something in a path is encoded."""
    shop = open_shop(("other",))
    with server_of(shop.client.app) as port, Line(port) as line:
        # Some servers and clients take `%2E%2E` for a folder too; ours must not.
        path = f"/v1/items/{quote(item_id, safe='').replace('.', '%2E')}"
        put = line.ask("PUT", path, {**AS_JPEG, "Content-Length": str(len(PHOTO))}, PHOTO)
        assert put.status == 201
        got = line.ask("GET", path)
        assert got.status == 200
        assert json.loads(got.body)["item_id"] == item_id
        assert line.ask("GET", f"{path}/image?size=16").body == JPEG + f" {item_id} 16".encode()
        assert line.ask("DELETE", path).status == 204
    assert [given for method, given in shop.engine.asked if method in ("item", "delete")] == [item_id] * 2


def test_an_image_is_sent_once(shop):
    first = shop.client.get(f"/v1/items/{ID}/image?size=64")
    assert (first.status_code, first.content) == (200, JPEG + f" {ID} 64".encode())
    assert first.headers["content-type"] == "image/jpeg"
    assert first.headers["cache-control"] == "private, max-age=60"
    tag = first.headers["etag"]
    again = shop.client.get(f"/v1/items/{ID}/image?size=64", headers={"If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    other = shop.client.get(f"/v1/items/{ID}/image", headers={"If-None-Match": tag})
    assert (other.status_code, shop.engine.asked[-1]) == (200, ("image", (ID, 512)))
    # A cache between may have weakened it, or hold several.
    for held in (f"W/{tag}", f'"other", {tag}', "*"):
        assert shop.client.get(f"/v1/items/{ID}/image?size=64", headers={"If-None-Match": held}).status_code == 304
    problem_of(shop.client.get("/v1/items/nobody/image"), 404)


# Jobs


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"kind": "refresh"}, RefreshJob()),
        (
            {"kind": "refresh", "catalog": "other", "prune": True, "force_prune": True, "rehash": True},
            RefreshJob("other", prune=True, force_prune=True, rehash=True),
        ),
        ({"kind": "fit", "targets": ["a"]}, FitJob(("a",))),
        (
            {
                **{"kind": "fit", "targets": ["a", "b"], "heads": ["mlp"], "balance": "weights", "min_count": 3},
                **{"trials": 4, "timeout": 5.5, "seed": 6},
            },
            FitJob(("a", "b"), ("mlp",), "weights", 3, 4, 5.5, 6),
        ),
        ({"kind": "compact", "keep_hours": 2, "forget_previous": True}, CompactJob(2.0, forget_previous=True)),
        (
            {"kind": "migrate", "encoder": "e", "pooling": "mean", "precision": "fp32", "force": True, "discard": True},
            MigrateJob("e", "mean", "fp32", force=True, discard=True),
        ),
        ({"kind": "project"}, ProjectJob()),
        ({"kind": "project", "seed": 5}, ProjectJob(5)),
        ({"kind": "suspects", "target": "a"}, SuspectsJob("a")),
        ({"kind": "suspects", "target": "a", "limit": 5}, SuspectsJob("a", 5)),
        ({"kind": "duplicates"}, DuplicatesJob()),
        ({"kind": "duplicates", "max_distance": 0.5, "limit": 5}, DuplicatesJob(0.5, 5)),
    ],
)
def test_every_option_of_a_job_reaches_the_queue(shop, body, wanted):
    response = shop.client.post("/v1/jobs", json=body)
    assert response.status_code == 202
    assert shop.engine.jobs.asked == [wanted]
    job = response.json()
    assert (job["kind"], job["state"]) == (body["kind"], "queued")
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert shop.client.get(response.headers["location"]).json() == job


def test_jobs_are_listed_and_cancelled(shop):
    for _ in range(2):
        shop.client.post("/v1/jobs", json={"kind": "compact"})
    # What may be long comes with the job itself.
    found = {"found": 1, "max_distance": 0.02, "groups": [[{"item": {"item_id": "a"}}]], "sizes": [2]}
    shop.engine.jobs.change("job-1", state="done", result=found)
    listed = shop.client.get("/v1/jobs").json()["jobs"]
    assert [(job["id"], job["result"]) for job in listed] == [
        ("job-1", {"found": 1, "max_distance": 0.02}),
        ("job-0", None),
    ]
    assert shop.client.get("/v1/jobs/job-1").json()["result"] == found
    response = shop.client.post("/v1/jobs/job-0/cancel")
    assert (response.status_code, response.json()["state"]) == (200, "cancelled")
    for method, path in (("GET", "job-9"), ("POST", "job-9/cancel"), ("GET", "job-9/events")):
        assert "no job 'job-9'" in problem_of(shop.client.request(method, f"/v1/jobs/{path}"), 404)


def events_of(content: bytes) -> list[tuple[str, dict[str, Any]]]:
    """The events in a stream, by name."""
    found = []
    for block in content.decode().replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and not line.startswith(":"))
        if "data" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_two_tabs_follow_one_job(shop):
    job = shop.client.post("/v1/jobs", json={"kind": "compact"}).json()
    heard: dict[int, list[tuple[str, dict[str, Any]]]] = {0: [], 1: []}

    def listen(number: int, port: int) -> None:
        with Line(port) as line:
            line.say(b"GET /v1/jobs/job-0/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            content = b""
            while (more := line.more()) != b"":
                content += more
                heard[number] = events_of(content)

    with server_of(shop.client.app) as port, ThreadPoolExecutor(2) as tabs:
        listening = [tabs.submit(listen, number, port) for number in heard]
        until(lambda: all(len(one) == 1 for one in heard.values()))
        shop.engine.jobs.change("job-0", state="running", started_at="2026-11-01T09:31:00+00:00")
        until(lambda: all(len(one) == 2 for one in heard.values()))
        shop.engine.jobs.change("job-0", state="done", result={"items": 3})
        for tab in listening:
            tab.result()
    assert heard[0] == heard[1]
    assert [name for name, _ in heard[0]] == ["progress", "progress", "end"]
    assert [told["state"] for _, told in heard[0]] == ["queued", "running", "done"]
    assert heard[0][0][1] == job
    assert heard[0][2][1] == shop.client.get("/v1/jobs/job-0").json()


def test_the_events_of_a_job_that_is_over_are_its_end(shop):
    shop.client.post("/v1/jobs", json={"kind": "compact"})
    shop.engine.jobs.change("job-0", state="failed", error="It broke.")
    response = shop.client.get("/v1/jobs/job-0/events")
    assert response.headers["content-type"].startswith("text/event-stream")
    assert [(name, job["error"]) for name, job in events_of(response.content)] == [("end", "It broke.")]


# What is refused


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("POST", "/v1/neighbours?item_id=a&k=0", "'k' should be greater than or equal to 1; '0' came"),
        ("POST", "/v1/neighbours?item_id=a&k=ten", "'k' should be a valid integer"),
        ("POST", "/v1/neighbours?item_id=a&max_distance=nan", "'max_distance' should be"),
        ("POST", "/v1/neighbours?item_id=a&group_by=colour", "'group_by' should be 'product'"),
        ("POST", "/v1/neighbours?item_id=a&where=colour", "A filter is target=label"),
        ("POST", "/v1/neighbours?item_id=a&box=1,2,3", "box"),
        ("POST", "/v1/neighbours?item_id=a&box=0,0,nan,1", "box"),
        ("POST", f"/v1/neighbours?item_id={'x' * 4001}", "'item_id' was refused: String should have at most 4000"),
        ("POST", "/v1/classify?item_id=a&coverage=1", "'coverage' should be less than 1"),
        (
            "POST",
            "/v1/classify?item_id=a&head=tree",
            "'head' should be 'knn', 'linear', 'mlp', 'ensemble' or 'comparator'",
        ),
        ("POST", "/v1/classify?item_id=a&weights=a", "Weights are name=number"),
        ("POST", "/v1/classify?item_id=a&allowed=,", "What is allowed"),
        ("POST", "/v1/explain?item_id=a&target=t&method=magic", "'method' should be 'occlusion', 'gradcam'"),
        ("POST", "/v1/explain?item_id=a&target=t&window=0", "'window' should be greater than or equal to 1"),
        ("POST", "/v1/explain?item_id=a&target=t&fill=red", "'fill' should be 'mean', 'white', 'black' or 'blur'"),
        ("POST", "/v1/explain?item_id=a&target=t&raw=perhaps", "'raw' should be a valid boolean"),
        ("GET", "/v1/items?limit=0", "'limit' should be"),
        ("GET", "/v1/items?where=a%3Db,a%3Dc", "names 'a' twice"),
        ("GET", f"/v1/items/{ID}/image?size=5", "'size' should be"),
        ("GET", f"/v1/jobs/{'x' * 101}", "'job_id' was refused: String should have at most 100 characters."),
    ],
)
def test_parameters_that_make_no_sense(shop, method, path, sentence):
    assert sentence in problem_of(shop.client.request(method, path), 422)
    assert shop.engine.asked == []


@pytest.mark.parametrize(
    ("method", "path", "body", "sentence"),
    [
        ("PATCH", f"/v1/items/{ID}", b"", "body is required"),
        ("PATCH", f"/v1/items/{ID}", b"{", "is no JSON"),
        ("PATCH", f"/v1/items/{ID}", b"[]", "came"),
        ("PATCH", f"/v1/items/{ID}", b"{}", "'labels' is required"),
        ("PATCH", f"/v1/items/{ID}", b'{"labels": {"a": "b"}}', "'labels.a' should be a valid list"),
        ("PATCH", f"/v1/items/{ID}", b'{"labels": {}, "new_target": true}', "'new_target' is not known"),
        ("POST", "/v1/jobs", b"{}", "kind"),
        ("POST", "/v1/jobs", b'{"kind": "sing"}', "kind"),
        ("POST", "/v1/jobs", b'{"kind": "fit"}', "targets' is required"),
        ("POST", "/v1/jobs", b'{"kind": "fit", "targets": []}', "'targets' are 1 to 100"),
        ("POST", "/v1/jobs", b'{"kind": "fit", "targets": ["a"], "heads": ["tree"]}', "heads.0' should be"),
        ("POST", "/v1/jobs", b'{"kind": "compact", "keep_hours": 0}', "'keep_hours' is 1 to"),
        ("POST", "/v1/jobs", b'{"kind": "compact", "keep_hours": NaN}', "keep_hours"),
        ("POST", "/v1/jobs", b'{"kind": "refresh", "purge": true}', "purge' is not known"),
    ],
)
def test_bodies_that_make_no_sense(shop, method, path, body, sentence):
    response = shop.client.request(method, path, content=body, headers={"Content-Type": "application/json"})
    assert sentence in problem_of(response, 422)
    assert shop.engine.asked == shop.engine.jobs.asked == []


@pytest.mark.parametrize("path", ["neighbours", "classify", "explain?target=a"])
def test_photos_of_other_types(shop, path):
    for kind in ("image/gif", "application/json", "text/plain; charset=utf-8", "application/x-www-form-urlencoded"):
        response = shop.client.post(f"/v1/{path}", content=PHOTO, headers={"Content-Type": kind})
        assert f"got {kind.partition(';')[0]}" in problem_of(response, 415)
    assert "got no type" in problem_of(shop.client.post(f"/v1/{path}", content=PHOTO), 415)
    # Upper case and parameters are the same type.
    given = {"Content-Type": "IMAGE/Jpeg; q=1"}
    assert shop.client.post(f"/v1/{path}", content=PHOTO, headers=given).status_code == 200


def test_forms_that_make_no_sense(shop):
    other = shop.client.post("/v1/neighbours", files={"image": ("a", PHOTO)})
    assert "no file field 'photo'" in problem_of(other, 422)
    two = shop.client.post("/v1/neighbours", files=[("photo", ("a", PHOTO)), ("photo", ("b", PHOTO))])
    assert "one photo; got 2" in problem_of(two, 422)
    many = shop.client.post("/v1/classify", files=[("photo", (str(n), PHOTO)) for n in range(17)])
    assert "16" in problem_of(many, 400)
    text = shop.client.post("/v1/classify", data={"photo": "text"}, files={"other": ("a", b"b")})
    problem_of(text, 400)
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=other"):
        response = shop.client.post("/v1/classify", content=b"--b\r\nnothing", headers={"Content-Type": kind})
        assert response.status_code in (400, 422)
        problem_of(response, response.status_code)
    assert shop.engine.asked == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ImageError("It is no photo."), 422),
        (FilterError("There is no target 'a'."), 422),
        (HeadError("No label 'Socks'."), 422),
        (EditError("An item_id is not empty."), 422),
        (ExplanationError("No label 'sock'."), 422),
        (HeadNotFoundError("The gallery has no head of 'a'."), 404),
        (StoredHeadError("The head is damaged."), 409),
    ],
)
def test_what_the_engine_refuses_is_told_in_its_own_words(shop, error, status):
    shop.engine.failure = error
    assert problem_of(shop.client.post("/v1/neighbours?item_id=a"), status) == str(error)


def test_another_writer_is_a_conflict_for_a_while(shop):
    shop.engine.failure = GalleryLockedError("Another process writes.")
    response = shop.client.delete(f"/v1/items/{ID}")
    assert problem_of(response, 409) == "Another process writes."
    assert response.headers["retry-after"] == "5"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("SELECT * FROM /srv/secret"),
        StoreError("/srv/secret is broken"),
        KeyError("secret"),
        Panic("secret"),
    ],
)
def test_a_defect_shows_only_an_id(shop, caplog, error):
    for method, path, body in ROUTES:
        if "jobs" in path or path == "/metrics":
            continue
        shop.engine.failure = error
        response = shop.ask(method, path, body)
        detail = problem_of(response, 500)
        assert detail == f"The request failed; the log knows it as {response.headers['x-request-id']}."
        assert "secret" not in response.text
    assert "secret" in caplog.text
    shop.engine.failure = None
    assert shop.client.get("/v1/catalog").status_code == 200


def test_jobs_past_their_places_or_that_cannot_be(shop):
    shop.engine.jobs.failure = OverloadedError("jobs", 30)
    response = shop.client.post("/v1/jobs", json={"kind": "compact"})
    problem_of(response, 503)
    assert response.headers["retry-after"] == "30"
    shop.engine.jobs.failure = JobOptionError("There is no catalog 'a' for jobs; there are: none.")
    assert "no catalog 'a'" in problem_of(shop.client.post("/v1/jobs", json={"kind": "refresh"}), 422)


def test_addresses_and_methods_that_are_not_there(shop):
    assert "openapi.json" in problem_of(shop.client.get("/v1/nothing"), 404)
    for path in ("/docs", "/redoc", "/", "/v1"):
        problem_of(shop.client.get(path), 404)
    response = shop.client.put("/v1/catalog")
    assert "PUT is not possible at this address; GET is." in problem_of(response, 405)
    assert response.headers["allow"] == "GET"
    response = shop.client.post(f"/v1/items/{ID}")
    assert "GET, PUT, PATCH, DELETE is." in problem_of(response, 405)
    assert response.headers["allow"] == "GET, PUT, PATCH, DELETE"
    assert shop.client.put("/v1/jobs").headers["allow"] == "GET, POST"
    for method in ("OPTIONS", "TRACE", "CONNECT", "HEAD", "PROPFIND"):
        assert shop.client.request(method, "/v1/catalog").status_code == 405


def test_bodies_past_the_limit(open_shop):
    shop = open_shop(max_body_mb=1)
    for path in ("/v1/neighbours", "/v1/jobs", "/v1/classify"):
        response = shop.client.post(path, content=bytes(1_000_001), headers=AS_JPEG)
        assert "may have 1 MB" in problem_of(response, 413)
        chunked = shop.client.post(path, content=(bytes(100_000) for _ in range(11)), headers=AS_JPEG)
        problem_of(chunked, 413)
    assert shop.client.put(f"/v1/items/{ID}", content=bytes(1_000_000), headers=AS_JPEG).status_code == 200
    assert shop.client.post("/v1/neighbours", content=(b"x" for _ in range(5)), headers=AS_JPEG).status_code == 200
    assert [len(given.photo) for _, given in shop.engine.asked] == [1_000_000, 5]


# Overload, deadlines and those who hang up


def test_past_its_places_a_question_is_refused_at_once(open_shop):
    shop = open_shop(places=2)
    shop.engine.gate.clear()
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(shop.client.post, "/v1/neighbours?item_id=a") for _ in range(3)]
        until(lambda: shop.engine.search_lanes.busy == 1 and shop.engine.search_lanes.waiting == 2)
        for method, path in (("POST", "/v1/classify?item_id=a"), ("GET", "/v1/catalog"), ("GET", f"/v1/items/{ID}")):
            response = shop.client.request(method, path)
            assert "All places for questions are taken" in problem_of(response, 503)
            assert int(response.headers["retry-after"]) >= 1
        # Others have places of their own, and whether it is alive is answered whatever else.
        assert shop.client.get("/healthz").status_code == shop.client.get("/v1/jobs").status_code == 200
        assert not any(future.done() for future in asked)
        shop.engine.gate.set()
        assert [future.result().status_code for future in asked] == [200] * 3
    metrics = shop.client.get("/metrics").text
    assert 'modiste_rejections_total{reason="overloaded"} 3.0' in metrics


def test_a_deadline_is_kept(open_shop):
    shop = open_shop(deadline_s=0.1)
    shop.engine.gate.clear()
    for path in ("/v1/neighbours?item_id=a", "/v1/classify?item_id=a"):
        response = shop.client.post(path)
        assert "not answered within 0.1 s" in problem_of(response, 503)
        assert response.headers["retry-after"] == "1"
    # The first is in a lane, and the second was never begun.
    assert [method for method, _ in shop.engine.asked] == ["neighbours"]
    assert shop.engine.search_lanes.waiting == 0
    shop.engine.gate.set()
    until(lambda: shop.engine.search_lanes.busy == 0)
    assert shop.client.post("/v1/neighbours?item_id=a").status_code == 200


def test_who_hangs_up_gives_the_place_back(open_shop):
    shop = open_shop(places=1)
    shop.engine.gate.clear()
    lanes = shop.engine.search_lanes
    question = {"Content-Length": str(len(PHOTO)), **AS_JPEG}
    with server_of(shop.client.app) as port, Line(port) as first, Line(port) as second, Line(port) as third:
        first.say(b"POST /v1/neighbours?item_id=first HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: lanes.busy == 1)
        second.say(b"POST /v1/neighbours?item_id=second HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: lanes.waiting == 1)
        assert third.ask("POST", "/v1/neighbours", question, PHOTO).status == 503
        second.hang_up()
        until(lambda: lanes.waiting == 0)
        third.say(b"POST /v1/neighbours?item_id=third HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: lanes.waiting == 1)
        first.hang_up()
        given_up = 'modiste_request_seconds_count{method="POST",route="/v1/neighbours",status="499"} 2.0'
        until(lambda: given_up in shop.client.get("/metrics").text)
        shop.engine.gate.set()
        assert third.answer().status == 200
        assert [given.item_id for _, given in shop.engine.asked] == ["first", "third"]
        assert third.ask("POST", "/v1/neighbours", question, PHOTO).status == 200


def test_a_body_that_nobody_asked_for_is_limited_too(open_shop, caplog):
    """While a question waits, what else comes is read only to see whether somebody hangs up."""
    shop = open_shop(max_body_mb=1)
    shop.engine.gate.clear()
    with server_of(shop.client.app) as port, Line(port) as line:
        line.say(b"GET /v1/catalog HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + bytes(65_536) + b"\r\n"
        until(lambda: not line.say(chunk * 20) or line.has_answer())
        answer = line.answer()
    # Where much was under way the connection may end before the answer is read.
    assert answer.status in (0, 413)
    shop.engine.gate.set()
    assert "never retrieved" not in caplog.text


# Who may ask


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, str, str]:
    """A file of keys, one that reads and one that administers."""
    file = tmp_path / "keys.json"
    return file, add_key(file, "reader", "read"), add_key(file, "owner", "admin")


def test_keys_and_scopes_of_every_route(open_shop, keys):
    file, reader, owner = keys
    shop = open_shop(keys_file=file, address="203.0.113.9")
    shop.engine.jobs.submit(CompactJob())
    shop.engine.jobs.change("job-0", state="done")
    for method, path, body in ROUTES:
        response = shop.ask(method, path, body)
        assert "needs an API key" in problem_of(response, 401)
        assert response.headers["www-authenticate"] == 'Bearer realm="modiste"'
        for sent in ({"Authorization": "Bearer wrong"}, {"X-API-Key": "wrong"}):
            assert "not known here" in problem_of(shop.ask(method, path, body, headers=sent), 401)
        assert [given for given in shop.engine.asked if given[0] in ("put", "relabel", "delete")] == []
        read = shop.ask(method, path, body, headers={"Authorization": f"Bearer {reader}"})
        if (method, path, body) in CHANGES:
            assert "'reader' is of scope read" in problem_of(read, 403)
        else:
            assert read.status_code == 200
    assert len(CHANGES) == 5
    assert shop.engine.jobs.asked == [CompactJob()]
    for method, path, body in ROUTES:
        assert shop.ask(method, path, body, headers={"X-API-Key": owner}).status_code in (200, 202, 204), path
    for path in ("/healthz", "/readyz"):
        assert shop.client.get(path).status_code == 200


def test_without_keys_only_this_machine_is_answered(open_shop):
    for address in ("203.0.113.9", "testclient"):
        shop = open_shop(address=address)
        for method, path, body in ROUTES:
            problem_of(shop.ask(method, path, body), 401)
        assert shop.engine.asked == []
    assert open_shop(address="::1").client.get("/v1/catalog").status_code == 200


def test_who_asks_too_often_is_told_when_to_go_on(open_shop):
    shop = open_shop(rate_limit="3/hour")
    assert [shop.client.get("/v1/catalog").status_code for _ in range(3)] == [200] * 3
    response = shop.client.post("/v1/neighbours?item_id=a")
    assert "More than 3 per 1 hour" in problem_of(response, 429)
    assert 1 <= int(response.headers["retry-after"]) <= 3600
    assert shop.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_pages_of_other_sites_change_and_ask_nothing(shop, headers):
    for method, path, body in ROUTES:
        if method != "GET":
            assert "another site" in problem_of(shop.ask(method, path, body, headers=headers), 403)
    assert shop.engine.asked == []


def test_listed_pages_may_ask(open_shop):
    shop = open_shop(cors_origins=["https://shop.example"])
    asked = {"Origin": "https://shop.example"}
    response = shop.client.post("/v1/neighbours?item_id=a", headers=asked)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://shop.example"
    early = shop.client.options("/v1/items/a", headers={**asked, "Access-Control-Request-Method": "PUT"})
    assert early.status_code == 200
    assert "PUT" in early.headers["access-control-allow-methods"]
    refused = shop.client.post("/v1/neighbours?k=0", headers=asked)
    # A page can read why.
    assert refused.headers["access-control-allow-origin"] == "https://shop.example"
    assert "access-control-allow-origin" not in shop.client.get("/v1/catalog").headers


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example", "localhost@evil.example"])
def test_other_hosts_are_not_answered(shop, host):
    assert "no name that this service answers to" in problem_of(
        shop.client.get("/v1/catalog", headers={"Host": host}), 400
    )


# What every answer has


def test_every_answer_has_its_headers(shop):
    shop.engine.jobs.submit(CompactJob())
    shop.engine.jobs.change("job-0", state="done")
    answers = [
        shop.ask(*route) for route in (*ROUTES, ("GET", "/nothing"), ("GET", "/healthz"), ("PUT", "/v1/catalog"))
    ]
    ids = set()
    for answer in answers:
        for name, value in SECURITY_HEADERS.items():
            if name != "Cache-Control" or "/image" not in str(answer.url):
                assert answer.headers[name] == value or "events" in str(answer.url), answer.url
        ids.add(answer.headers["x-request-id"])
        assert "server" not in answer.headers
    assert len(ids) == len(answers)


@pytest.mark.parametrize("sent", ["abc-1.2_3", "x" * 64])
def test_a_clients_own_id_is_kept(shop, sent):
    assert shop.client.get("/healthz", headers={"X-Request-ID": sent}).headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", ["x" * 65, "a b", "a;b", "<script>", "ü", ""])
def test_an_id_that_could_break_a_log_is_not(shop, sent):
    response = shop.client.get("/healthz", headers={"X-Request-ID": sent.encode()})
    assert len(response.headers["x-request-id"]) == 32


def test_metrics_know_what_was_asked(shop):
    shop.client.post("/v1/neighbours?item_id=a")
    for name in ("a", "b/c"):
        shop.client.get(f"/v1/items/{name}")
    shop.client.get("/v1/strangers/address")
    shop.engine.jobs.submit(CompactJob())
    response = shop.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = response.text.splitlines()
    for line in (
        'modiste_request_seconds_count{method="POST",route="/v1/neighbours",status="200"} 1.0',
        'modiste_request_seconds_count{method="GET",route="/v1/items/{item_id}",status="404"} 2.0',
        'modiste_request_seconds_count{method="GET",route="unknown",status="404"} 1.0',
        'modiste_stage_seconds_count{stage="search"} 1.0',
        'modiste_lane_waiting{lane="questions"} 0.0',
        'modiste_lane_busy{lane="explanations"} 0.0',
        "modiste_gallery_version 7.0",
        "modiste_gallery_items 1.0",
        "modiste_unindexed_items 11.0",
        "modiste_index_recall_at_10 0.97",
        "modiste_encoder_load_seconds 1.25",
        "modiste_decoder_deaths_total 3.0",
        'modiste_jobs{state="queued"} 1.0',
        "modiste_buffered_bytes 0.0",
    ):
        assert line in lines, line
    assert "process_resident_memory_bytes" in response.text
    assert "strangers" not in response.text


def test_a_service_without_an_engine_is_alive_and_not_ready(tmp_path):
    app = create_app(settings_of(tmp_path))
    client = TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 5000))
    assert client.get("/healthz").json() == {"status": "alive"}
    response = client.get("/readyz")
    assert "not open" in problem_of(response, 503)
    assert response.headers["retry-after"] == "1"
    assert "modiste_gallery_items" not in client.get("/metrics").text


def test_a_ready_service_says_so(shop):
    assert shop.client.get("/readyz").json() == {"status": "ready"}


def test_many_at_once_get_their_own_answers(open_shop):
    names = tuple(f"item {number}" for number in range(64))
    shop = open_shop(names, lanes=4, places=64)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: shop.client.get(f"/v1/items/{quote(name)}").json()["item_id"], names))
    assert tuple(found) == names
    assert threading.active_count() < 100


@pytest.mark.parametrize("path", ["/v1/neighbours?item_id=a&wher=x", "/v1/jobs/1/cancel?force=1"])
def test_a_misspelt_parameter_is_refused_instead_of_passed_over(shop, path):
    detail = problem_of(shop.client.post(path), 422)
    assert "There is no query parameter" in detail
    assert ("wher" in path) == ("group_by, max_distance" in detail)


@pytest.mark.parametrize("is_refused", [False, True])
def test_nothing_of_an_answered_request_is_held(shop, is_refused):
    """Not even until the collector comes round: a photo may have 20 MB, and a thousand requests may be before it."""
    held = []

    def neighbours(_question: Any, ticket: Ticket) -> Any:
        held.append(weakref.ref(ticket))
        if is_refused:
            raise ImageError("It is no photo.")
        return examples.NEIGHBOURS

    shop.engine.neighbours = neighbours
    shop.client.post("/v1/neighbours", content=PHOTO, headers=AS_JPEG)
    gc.collect()
    gc.disable()
    try:
        shop.client.post("/v1/neighbours", content=PHOTO, headers=AS_JPEG)
        until(lambda: held[1]() is None, 5)
    finally:
        gc.enable()
