from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Request
from fastapi.testclient import TestClient

from service import keys
from service.access import Access, Caller, Doorkeeper, administers, reads
from service.keys import add_key, remove_key
from service.problems import Problems, RefusedError, handle_errors
from service.settings import Settings

HERE = ("127.0.0.1", 50000)
BASE = "http://127.0.0.1:8000"


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


@pytest.fixture
def serve() -> Callable[..., TestClient]:
    """A service with a route for each scope, and one for everybody."""

    def build(client: tuple[str, int] = HERE, **settings: Any) -> TestClient:
        settings.setdefault("rate_limit", "none")
        app = FastAPI()
        app.state.access = Access(Settings.read(gallery="a", **settings))

        @app.get("/alive")
        async def _alive() -> str:
            return "alive"

        @app.get("/items")
        async def _items(caller: Annotated[Caller, Depends(reads)]) -> str:
            return caller.name

        @app.post("/ask", dependencies=[Depends(reads)])
        async def _ask(request: Request) -> int:
            return len(await request.body())

        # As where a router depends on one and a route on the other.
        @app.delete("/items", dependencies=[Depends(reads)])
        async def _delete(caller: Annotated[Caller, Depends(administers)]) -> str:
            return caller.name

        handle_errors(app)
        app.add_middleware(Doorkeeper, access=app.state.access)
        app.add_middleware(Problems)
        return TestClient(app, client=client, base_url=BASE)

    return build


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_without_keys_this_machine_may_do_everything(serve):
    client = serve()
    assert (client.get("/items").json(), client.delete("/items").json()) == ("loopback", "loopback")
    assert client.post("/ask", content=b"abc").json() == 3


@pytest.mark.parametrize("address", ["10.0.0.1", "::2", "shop.example"])
def test_without_keys_no_other_machine_is_answered(serve, address):
    # However the server came to listen elsewhere, and where a proxy says whom it asks for.
    client = serve(client=(address, 1))
    answer = client.get("/items")
    assert answer.status_code == 401
    assert answer.json()["detail"].startswith("Without API keys only this machine itself is answered.")
    assert client.get("/alive").status_code == 200


def test_over_a_unix_socket_there_is_no_address(serve):
    assert serve(client=None).get("/items").json() == "loopback"


def test_a_key_comes_in_either_header(serve, keys_file):
    key = add_key(keys_file, "shop", "read")
    client = serve(keys_file=keys_file)
    assert client.get("/items", headers=bearer(key)).json() == "shop"
    assert client.get("/items", headers={"Authorization": f"bearer  {key}"}).json() == "shop"
    assert client.get("/items", headers={"X-API-Key": key}).json() == "shop"
    # A proxy may have a scheme of its own.
    assert client.get("/items", headers={"X-API-Key": key, "Authorization": "Basic eA=="}).json() == "shop"
    assert client.get("/items", headers={"X-API-Key": key, **bearer("x")}).status_code == 401


@pytest.mark.parametrize("headers", [{}, bearer("modiste_x"), {"X-API-Key": ""}, {"Authorization": "Basic eA=="}])
@pytest.mark.parametrize(("method", "path"), [("GET", "/items"), ("POST", "/ask"), ("DELETE", "/items")])
def test_without_a_known_key_nothing_is_answered(serve, keys_file, headers, method, path):
    add_key(keys_file, "shop", "admin")
    answer = serve(keys_file=keys_file).request(method, path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="modiste"'
    assert "key" in answer.json()["detail"]
    assert "modiste_x" not in answer.text


def test_what_needs_no_key_needs_none(serve, keys_file):
    add_key(keys_file, "shop", "read")
    assert serve(keys_file=keys_file).get("/alive").status_code == 200


def test_a_body_is_not_read_for_whom_has_no_key(serve, keys_file):
    add_key(keys_file, "shop", "read")
    read = []

    def body() -> Any:
        read.append(True)
        yield b"photo"

    client = serve(keys_file=keys_file)
    app = client.app

    async def count(scope: Any, receive: Any, send: Any) -> None:
        async def receive_and_count() -> Any:
            read.append(True)
            return await receive()

        await app(scope, receive_and_count, send)

    counted = TestClient(count, client=HERE, base_url=BASE)
    assert counted.post("/ask", content=b"photo").status_code == 401
    # Nor for a path that does not exist.
    assert counted.post("/none", content=b"photo").status_code == 401
    assert read == []


def test_a_scope_is_not_exceeded(serve, keys_file):
    reader, admin = add_key(keys_file, "shop", "read"), add_key(keys_file, "desk", "admin")
    client = serve(keys_file=keys_file)
    answer = client.delete("/items", headers=bearer(reader))
    assert answer.status_code == 403
    assert answer.json()["detail"] == "The key 'shop' is of scope read; this needs one of scope admin."
    assert client.delete("/items", headers=bearer(admin)).json() == "desk"
    # Admin includes read.
    assert client.get("/items", headers=bearer(admin)).json() == "desk"


def test_a_first_key_closes_an_open_service(serve, keys_file, clock):
    keys_file.write_text('{"keys": []}')
    keys_file.chmod(0o600)
    client = serve(keys_file=keys_file)
    assert client.get("/items").status_code == 200
    key = add_key(keys_file, "shop", "read")
    clock(1)
    assert client.get("/items").status_code == 401
    assert client.get("/items", headers=bearer(key)).status_code == 200


def test_the_last_key_that_goes_does_not_open_the_service(serve, keys_file, clock):
    key = add_key(keys_file, "shop", "read")
    client = serve(keys_file=keys_file)
    assert client.get("/items", headers=bearer(key)).status_code == 200
    remove_key(keys_file, "shop")
    clock(1)
    assert client.get("/items", headers=bearer(key)).status_code == 401
    assert client.get("/items").status_code == 401


def test_a_service_for_other_machines_is_never_open(keys_file):
    add_key(keys_file, "shop", "read")
    settings = Settings.read(gallery="a", keys_file=keys_file, host="0.0.0.0")
    # Between the settings and the start.
    remove_key(keys_file, "shop")
    with pytest.raises(RefusedError, match="This needs an API key"):
        Access(settings).identify({"type": "http", "headers": [], "client": HERE})


def test_a_damaged_file_of_keys_lets_nobody_in_and_tells_nothing(serve, keys_file, clock):
    key = add_key(keys_file, "shop", "read")
    client = serve(keys_file=keys_file)
    keys_file.write_text("{")
    clock(1)
    answer = client.get("/items", headers=bearer(key))
    assert answer.status_code == 500
    assert "keys.json" not in answer.text


def test_the_rate_is_limited_for_each_key(serve, keys_file):
    one, two = add_key(keys_file, "one", "read"), add_key(keys_file, "two", "read")
    # A window of a day: the two counts of the test fall into one.
    client = serve(keys_file=keys_file, rate_limit="3/day")
    assert [client.get("/items", headers=bearer(one)).status_code for _ in range(5)] == [200, 200, 200, 429, 429]
    answer = client.get("/items", headers=bearer(one))
    assert answer.json()["detail"] == "More than 3 per 1 day came from 'one'; ask less often."
    # Until the window ends, at midnight.
    assert 2 <= int(answer.headers["Retry-After"]) <= 86_400
    assert client.get("/items", headers=bearer(two)).status_code == 200
    # What is refused does not count against anybody: without a key there is nobody to count.
    assert [client.get("/items").status_code for _ in range(5)] == [401] * 5
    assert client.get("/alive").status_code == 200


def test_the_rate_is_limited_for_each_address_where_there_are_no_keys(serve):
    client = serve(rate_limit="2/day")
    assert [client.get("/items").status_code for _ in range(3)] == [200, 200, 429]
    other = TestClient(client.app, client=("127.0.0.2", 1), base_url=BASE)
    assert other.get("/items").status_code == 200


def test_a_request_counts_once_however_many_scopes_it_depends_on(serve):
    client = serve(rate_limit="2/day")
    assert [client.delete("/items").status_code for _ in range(3)] == [200, 200, 429]


def test_no_rate_is_no_limit(serve):
    client = serve(rate_limit="none")
    assert {client.get("/items").status_code for _ in range(300)} == {200}


CROSS_SITE = {"Sec-Fetch-Site": "cross-site"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": BASE}, 200),
        # A proxy that speaks TLS.
        ({"Origin": "https://127.0.0.1:8000"}, 200),
        ({"Origin": "https://shop.example"}, 200),
        ({"Origin": "https://SHOP.example", **CROSS_SITE}, 200),
        ({"Origin": "https://evil.example"}, 403),
        # The port and the scheme of a listed origin count.
        ({"Origin": "https://shop.example:8443"}, 403),
        ({"Origin": "http://shop.example"}, 403),
        # Another service on this machine is another site.
        ({"Origin": "http://127.0.0.1:3000"}, 403),
        ({"Origin": "http://127.0.0.1"}, 403),
        ({"Origin": "http://localhost:8000"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Origin": "http://["}, 403),
        (CROSS_SITE, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
def test_a_page_of_another_site_cannot_post(serve, headers, status):
    client = serve(cors_origins=["https://shop.example"])
    answers = [client.post("/ask", headers=headers, content=b"a"), client.delete("/items", headers=headers)]
    assert [answer.status_code for answer in answers] == [status, status]
    if status == 403:
        assert "cors_origins" in answers[0].json()["detail"]
    # What changes nothing may be asked: without CORS headers the page does not see the answer.
    assert client.get("/items", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("origin", "host", "status"),
    [
        ("http://shop.example", "shop.example:80", 200),
        ("https://shop.example", "shop.example:443", 200),
        ("http://shop.example", "shop.example:443", 403),
        ("https://shop.example:444", "shop.example", 403),
        ("null", "", 403),
    ],
)
def test_a_default_port_may_be_left_out(serve, origin, host, status):
    assert serve().post("/ask", headers={"Origin": origin, "Host": host}).status_code == status


def test_the_schema_says_how_keys_come(serve):
    schema = serve().app.openapi()
    schemes = schema["components"]["securitySchemes"]
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    assert (schemes["header"]["type"], schemes["header"]["in"], schemes["header"]["name"]) == (
        "apiKey",
        "header",
        "X-API-Key",
    )
    assert schema["paths"]["/items"]["delete"]["security"] == [{"bearer": []}, {"header": []}]
    assert "security" not in schema["paths"]["/alive"]["get"]
