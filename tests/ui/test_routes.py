"""The page's own routes, before a service that is none."""

from __future__ import annotations

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from service.client import Client
from ui.held_files import MIB, HeldFiles
from ui.markup import photo_url
from ui.routes import create_routes
from ui.settings import Settings
from ui.zips import PhotoZips

JPEG = b"\xff\xd8\xff\xe0 a photo"
CATALOG = {
    "items": 3,
    "products": 3,
    "targets": {"colour": {"red": 3}},
    "encoder": "lite0",
    "encoder_card": {},
    "encoder_fingerprint": "f",
    "gallery_version": 7,
    "variant": "exact",
    "unindexed_items": 0,
    "failures": 0,
    "freshness_s": 5,
    "error": None,
    "heads": [],
    "sources": [],
    "encoders": [],
    "groups": {},
    "has_projection": False,
}


class Stand:
    """A page whose service answers as told: `page`, a client of it; `asked`, the paths that the service got."""

    def __init__(self, answer, files, **settings):
        self.asked = []

        def serve(request):
            self.asked.append(request.url.raw_path.decode())
            return answer(request)

        service = Client("http://service", retries=0, transport=httpx.MockTransport(serve))
        app = FastAPI()
        self.files = files
        app.include_router(create_routes(Settings(**settings), service, files, PhotoZips(files)))
        self.page = TestClient(app)


@pytest.fixture
def stand():
    with HeldFiles(8) as files:
        yield lambda answer=lambda _: httpx.Response(200, content=JPEG), **options: Stand(answer, files, **options)


@pytest.mark.parametrize("item_id", ["a/b", "../../etc/passwd", "50% off", "Größe 3 👗", "a?size=9#x", "a.b", "'\"<b>"])
def test_an_item_of_any_name_has_its_photo(stand, item_id):
    one = stand()
    found = one.page.get(photo_url(item_id, 64))
    assert (found.content, found.headers["content-type"]) == (JPEG, "image/jpeg")
    [path] = one.asked
    # One part of the service's path, whatever is in it.
    name = path.removeprefix("/v1/items/").removesuffix("/image?size=64")
    assert httpx.URL("http://s/" + name).path == "/" + item_id
    assert "/" not in name


def test_a_photo_that_is_not_there_says_why(stand):
    problem = httpx.Response(404, json={"detail": "There is no item 'x'."})
    found = stand(lambda _: problem).page.get("/photos/x")
    assert (found.status_code, found.json()["detail"]) == (404, "There is no item 'x'.")
    assert stand().page.get("/photos/").status_code == 404
    assert stand().page.get("/photos/x?size=9000").status_code == 422


def test_a_photo_comes_back_as_a_photo_and_nothing_else_does(stand):
    one = stand()
    token = one.page.post("/uploads?name=../../a.jpg", content=JPEG).json()["token"]
    assert one.files.get(token).name == "a.jpg"
    found = one.page.get(f"/uploads/{token}")
    assert (found.content, found.headers["content-type"]) == (JPEG, "image/jpeg")
    page = one.page.post("/uploads?name=a.jpg", content=b"<script>alert(1)</script>").json()["token"]
    assert one.page.get(f"/uploads/{page}").status_code == 404
    assert one.page.get("/uploads/nothing").status_code == 404


def test_what_is_too_large_is_refused_also_without_a_length(stand):
    one = stand(photo_mb=1, zip_mb=2)
    for content in (bytes(MIB + 1), iter([bytes(MIB), b"x"])):
        found = one.page.post("/uploads?name=a.jpg", content=content)
        assert (found.status_code, found.json()["detail"]) == (413, "'a.jpg' is larger than 1 MB; send a smaller file.")
    zipped = one.page.post("/uploads?name=a.zip", content=b"PK" + bytes(MIB)).json()["token"]
    assert one.page.get(f"/uploads/{zipped}").status_code == 404
    assert one.page.post("/uploads?name=a.jpg", content=b"").status_code == 413


def test_what_was_made_is_saved_and_never_shown(stand):
    one = stand()
    token = one.files.keep('a "b"\r\nx: y <é>.html', b"<script>").token
    found = one.page.get(f"/downloads/{token}")
    assert found.headers["content-type"] == "application/octet-stream"
    disposition = found.headers["content-disposition"]
    assert disposition == "attachment; filename*=UTF-8''a%20%22b%22%0D%0Ax%3A%20y%20%3C%C3%A9%3E.html"
    assert one.page.get("/downloads/nothing").status_code == 404


def test_only_the_pages_scripts_are_scripts(stand):
    page = stand().page
    assert "modern-screenshot 4.7.0" in page.get("/scripts/modern-screenshot.js").text[:200]
    for name in ("page.js", "routes.py", "..%2Fpyproject.toml"):
        assert page.get(f"/scripts/{name}").status_code == 404


def test_the_service_is_asked_once_for_many_pages_and_anew_when_something_changed(stand, monkeypatch):
    catalog = dict(CATALOG)
    one = stand(lambda _: httpx.Response(200, json=catalog))
    now = [100.0]
    monkeypatch.setattr("ui.service_state.time.monotonic", lambda: now[0])
    first = [one.page.get("/status").json() for _ in range(5)]
    assert len(one.asked) == 1
    assert first[0] == first[4]
    assert first[0]["ready"]
    now[0] += 2
    assert one.page.get("/status").json() == first[0]
    states = {first[0]["state"]}
    # Another gallery in its place may have the same version, items and labels.
    for name, value in (("gallery_version", 8), ("encoder_fingerprint", "g"), ("has_projection", True)):
        catalog[name] = value
        now[0] += 2
        states.add(one.page.get("/status").json()["state"])
    assert len(states) == 4


@pytest.mark.parametrize(
    ("answer", "key", "said"),
    [
        (
            httpx.Response(401, json={"detail": "No key."}),
            None,
            "No key. Start the page again with a key in the variable",
        ),
        (httpx.Response(403, json={"detail": "Not this."}), "k", "Not this. Start the page again with another key"),
        (httpx.Response(503, json={"detail": "Full."}), None, "Full. The page looks again every 2 s."),
        (httpx.Response(200, text="<html>a router</html>"), None, "Is it Modiste that listens there"),
        (httpx.Response(200, json={"hello": 1}), None, "Is it Modiste that listens there"),
    ],
)
def test_a_service_that_does_not_answer_says_why(stand, answer, key, said):
    status = stand(lambda _: answer, key=key).page.get("/status").json()
    assert not status["ready"]
    assert said in status["detail"]
