"""serve and key from the outside: a real process on a real port, how it begins, answers and ends."""

from __future__ import annotations

import json
import re
import signal
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest

from service.client import Client, RefusedError
from tests.test_cli import modiste, shop, start
from tests.test_docs import documented, keys_of

__all__ = ["shop"]

LONG_S = 60.0
linux = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="/proc is of Linux alone")


class Service:
    """A service in a process of its own.

    Args:
        arguments: Of `modiste serve`.
        environment: Beside this one's.
    """

    def __init__(self, *arguments: object, **environment: str) -> None:
        self.process = start("serve", *arguments, "--port", 0, **environment)
        assert self.process.stdout is not None
        self.greeting = self.process.stdout.readline()
        found = re.search(r"http://\S+?(?=: )", self.greeting)
        assert found, self.end(signal.SIGTERM)
        self.address = found[0]

    def end(self, number: int) -> str:
        """Stops it; what it has said on stderr."""
        self.process.send_signal(number)
        return self.process.communicate(timeout=LONG_S)[1]

    def children(self) -> list[int]:
        """The processes that it has started."""
        # A process is the child of the thread that started it.
        lists = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(number) for listed in lists for number in listed.read_text().split()]


@pytest.fixture(scope="module")
def service(shop):
    fitted = modiste("fit", "--gallery", shop.gallery, "--targets", "colour", "--head", "knn,linear")
    assert fitted.status == 0, fitted.err
    one = Service("--gallery", shop.gallery, "--catalog", shop.catalog)
    yield one
    if one.process.poll() is None:
        one.end(signal.SIGTERM)


def test_it_says_where_it_answers_and_that_only_this_machine_may_ask(service, shop):
    assert "24 items, efficientnet-lite0, exact search" in service.greeting
    assert "only this machine is answered" in service.greeting
    with Client(service.address) as client:
        assert client.ready()
        first = client.neighbours(shop.photo, k=3)
        assert first.neighbours[0].item.item_id == shop.rows[0]["item_id"]
        assert first.neighbours[0].distance == pytest.approx(0, abs=1e-3)
        assert client.classify(shop.photo).photos[0].predictions[0].target == "colour"
        assert client.catalog().sources == ["default"]


@linux
def test_questions_are_answered_without_torch(service, shop):
    with Client(service.address) as client:
        client.neighbours(shop.photo)
        client.classify(shop.photo)
        client.explain(shop.photo, target="colour")
    assert "libtorch" not in Path(f"/proc/{service.process.pid}/maps").read_text()


def test_a_refresh_over_http_is_seen_by_the_next_question(service, shop):
    with Client(service.address) as client:
        client.put_item("guest", shop.photo, labels={"category": ["dress"]})
        assert client.wait(client.submit("refresh", prune=True).id).state == "done"
        assert "guest" not in [near.item.item_id for near in client.neighbours(shop.photo, k=30).neighbours]


def test_a_port_that_is_taken_and_a_folder_that_is_no_gallery_are_told_in_a_sentence(service, shop, tmp_path):
    port = service.address.rsplit(":", 1)[1]
    taken = start("serve", "--gallery", shop.gallery, "--port", port)
    _, errors = taken.communicate(timeout=LONG_S)
    assert taken.returncode == 2
    assert f"cannot listen on 127.0.0.1 port {port}" in errors
    assert "Traceback" not in errors
    nothing = start("serve", "--gallery", tmp_path, "--port", 0)
    _, errors = nothing.communicate(timeout=LONG_S)
    assert nothing.returncode == 1
    assert "is no gallery" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "gallery"),
        (("--gallery", "g", "--host", "0.0.0.0"), "listens on loopback only until there is a key"),
        (("--gallery", "g", "--port", "70000"), "port"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_opened(arguments, sentence):
    done = modiste("serve", *arguments)
    assert done.status == 2
    assert sentence in done.err


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_being_stopped_answers_what_is_under_way_and_leaves_nothing_behind(shop, number, status):
    one = Service("--gallery", shop.gallery)
    children = one.children() if Path("/proc").exists() else []
    answers: list[int] = []

    def ask() -> None:
        photo = shop.photo.read_bytes()
        with httpx.Client(headers={"Content-Type": "image/jpeg"}) as client:
            while True:
                try:
                    answers.append(
                        client.post(f"{one.address}/v1/neighbours", content=photo, timeout=LONG_S).status_code
                    )
                except httpx.TransportError:
                    return

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    while len(answers) < 20:
        time.sleep(0.01)
    errors = one.end(number)
    for asker in askers:
        asker.join()
    assert one.process.returncode == status
    assert set(answers) == {200}
    assert "Traceback" not in errors
    for child in children:
        assert not alive(child)


def test_being_stopped_ends_jobs_and_tells_who_follows_them(shop):
    one = Service("--gallery", shop.gallery, "--catalog", shop.catalog)
    heard = []
    with Client(one.address) as client:
        # One that takes longer than this test.
        job = client.submit("fit", targets=["colour"], heads=["mlp"], trials=1000, timeout=600)
        follower = threading.Thread(target=lambda: heard.extend(client.follow(job.id)))
        follower.start()
        while client.job(job.id).state == "queued":
            time.sleep(0.05)
        one.end(signal.SIGTERM)
        follower.join()
    assert heard[-1].state == "failed"
    assert heard[-1].error == "The service was stopped while this job was running; start it again."


@linux
def test_killed_it_leaves_no_process_behind(shop):
    one = Service("--gallery", shop.gallery)
    children = one.children()
    assert children
    one.end(signal.SIGKILL)
    until = time.monotonic() + LONG_S
    while any(map(alive, children)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not [child for child in children if alive(child)]


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_keys_are_made_listed_used_and_removed(shop, tmp_path):
    keys = tmp_path / "keys.json"
    reader = modiste("key", "add", "search-box", "--keys", keys)
    admin = modiste("key", "add", "desk", "--keys", keys, "--scope", "admin")
    assert "cannot be shown again" in reader.err
    secret, all_powers = reader.out.strip(), admin.out.strip()
    assert secret.startswith("modiste_")
    assert secret not in keys.read_text()
    assert keys.stat().st_mode & 0o077 == 0
    listed = modiste("key", "list", "--keys", keys, "--json").json
    assert [(key["name"], key["scope"]) for key in listed] == [("search-box", "read"), ("desk", "admin")]
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text("utf-8")
    assert keys_of(listed) == documented(page, "modiste key list")
    assert modiste("key", "add", "desk", "--keys", keys).status == 2
    assert modiste("key", "add", "x", "--keys", keys, "--scope", "root").status == 2
    one = Service("--gallery", shop.gallery, "--keys", keys)
    try:
        assert "There are no keys" not in one.greeting
        item_id = shop.rows[0]["item_id"]
        with Client(one.address) as stranger, pytest.raises(RefusedError) as refused:
            stranger.catalog()
        assert refused.value.status == 401
        with Client(one.address, secret) as client:
            assert client.catalog().items == 24
            with pytest.raises(RefusedError) as refused:
                client.delete_item(item_id)
            assert refused.value.status == 403
        with Client(one.address, all_powers) as client:
            client.relabel(item_id, {"category": ["dress"]})
            assert modiste("key", "remove", "desk", "--keys", keys).status == 0
            time.sleep(1.2)  # It looks at the file once a second.
            with pytest.raises(RefusedError) as refused:
                client.catalog()
            assert refused.value.status == 401
    finally:
        errors = one.end(signal.SIGTERM)
    assert secret not in errors
    assert "desk" in [json.loads(line).get("key") for line in errors.splitlines()]


def test_the_address_of_ipv6_is_bracketed(shop):
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    one = Service("--gallery", shop.gallery, "--host", "::1")
    try:
        assert one.address.startswith("http://[::1]:")
        assert httpx.get(f"{one.address}/readyz", timeout=LONG_S).status_code == 200
    finally:
        one.end(signal.SIGTERM)


def test_a_second_service_on_one_gallery_sees_what_the_first_commits(shop, service):
    other = Service("--gallery", shop.gallery, MODISTE_FRESHNESS_S="0.5")
    try:
        with Client(service.address) as first, Client(other.address) as second:
            first.put_item("shared", shop.photo, labels={})
            until = time.monotonic() + LONG_S
            while second.catalog().gallery_version < first.catalog().gallery_version and time.monotonic() < until:
                time.sleep(0.05)
            assert second.item("shared").item_id == "shared"
            second.delete_item("shared")
    finally:
        other.end(signal.SIGTERM)
