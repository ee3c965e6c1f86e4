from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

import pytest

from service import keys
from service.keys import KeyFileError, KeyRing, add_key, read_keys, remove_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def clock(monkeypatch):
    """Moves the time that a ring goes by."""
    now = [100.0]
    monkeypatch.setattr(keys.time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_a_key_is_known_and_not_kept(path):
    secret = add_key(path, "shop", "read")
    # 32 bytes in base64url are 43 signs.
    assert secret.startswith("modiste_")
    assert len(secret) == len("modiste_") + 43
    assert secret not in path.read_text()
    (key,) = read_keys(path)
    assert (key.name, key.scope, key.sha256) == ("shop", "read", hashlib.sha256(secret.encode()).hexdigest())
    assert datetime.fromisoformat(key.created_at).utcoffset() is not None
    assert KeyRing(path).check(secret) == key


def test_no_two_keys_are_alike(path):
    assert add_key(path, "a", "read") != add_key(path, "b", "read")
    assert [key.name for key in read_keys(path)] == ["a", "b"]


def test_each_key_has_its_own_scope(path):
    secrets = {scope: add_key(path, scope, scope) for scope in ("read", "admin")}
    ring = KeyRing(path)
    for scope, secret in secrets.items():
        key = ring.check(secret)
        assert key is not None
        assert (key.name, key.scope) == (scope, scope)


@pytest.mark.parametrize("presented", ["", "modiste_", "x", "é", "\udcff", "modiste_" + "A" * 43])
def test_what_is_no_key_is_not_known(path, presented):
    secret = add_key(path, "shop", "read")
    ring = KeyRing(path)
    assert ring.check(presented) is None
    assert ring.check(secret[:-1]) is None
    assert ring.check(secret + "A") is None
    # Nor is its digest, which somebody may have read in the file.
    assert ring.check(read_keys(path)[0].sha256) is None


def test_every_key_is_compared_in_constant_time(path, monkeypatch):
    first = add_key(path, "a", "read")
    add_key(path, "b", "read")
    ring, compared = KeyRing(path), []
    compare = keys.hmac.compare_digest

    def count(a: str, b: str) -> bool:
        compared.append(a)
        return compare(a, b)

    monkeypatch.setattr(keys.hmac, "compare_digest", count)
    assert ring.check(first) is not None
    # The first one fits, and the second is looked at all the same.
    assert compared == [key.sha256 for key in read_keys(path)]


@pytest.mark.skipif(os.name == "nt", reason="Modes are Unix's.")
def test_the_file_is_private_from_the_start(path, monkeypatch):
    modes = []
    replace = keys.replace_file

    def look(target: Path, content: bytes) -> None:
        modes.append(target.with_name(target.name + ".tmp").stat().st_mode & 0o777)
        replace(target, content)

    monkeypatch.setattr(keys, "replace_file", look)
    add_key(path, "a", "read")
    add_key(path, "b", "read")
    assert modes == [0o600, 0o600]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name == "nt", reason="Modes are Unix's.")
def test_a_file_that_everybody_can_read_is_told_of(path, caplog):
    add_key(path, "a", "read")
    read_keys(path)
    assert caplog.text == ""
    path.chmod(0o644)
    read_keys(path)
    assert "Everybody on this machine can read the file of keys" in caplog.text


@pytest.mark.parametrize(
    ("name", "scope", "sentence"),
    [
        ("", "read", "name of a key is 1 to 64 letters"),
        ("a b", "read", "got 'a b'"),
        (".a", "read", "got '.a'"),
        ("a\n", "read", "name of a key"),
        ("x" * 65, "read", "name of a key"),
        ("a", "write", "scope of a key is read or admin; got 'write'"),
        ("shop", "read", "has a key 'shop' already; remove it first"),
    ],
)
def test_a_key_that_cannot_be_made_is_a_sentence(path, name, scope, sentence):
    add_key(path, "shop", "read")
    before = path.read_bytes()
    with pytest.raises(KeyFileError, match=sentence):
        add_key(path, name, scope)
    assert path.read_bytes() == before


def test_a_key_can_be_removed(path):
    secret = add_key(path, "a", "read")
    kept = add_key(path, "b", "read")
    remove_key(path, "a")
    ring = KeyRing(path)
    assert ring.check(secret) is None
    assert ring.check(kept) is not None
    with pytest.raises(KeyFileError, match="has no key 'a'; it has b"):
        remove_key(path, "a")
    remove_key(path, "b")
    with pytest.raises(KeyFileError, match="it has none"):
        remove_key(path, "b")
    assert KeyRing(path).is_empty


def test_a_file_that_is_not_there_is_a_sentence(path):
    for use in (read_keys, KeyRing, lambda path: remove_key(path, "a")):
        with pytest.raises(
            KeyFileError, match=r"There is no file of keys .* `modiste key add NAME --scope read --keys"
        ):
            use(path)


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path):
    with pytest.raises(KeyFileError, match="cannot be read: Is a directory"):
        read_keys(tmp_path)


def test_a_file_that_cannot_be_written_is_a_sentence(tmp_path):
    with pytest.raises(KeyFileError, match=r"cannot be written: No such file"):
        add_key(tmp_path / "none" / "keys.json", "a", "read")


GOOD = {"name": "a", "scope": "read", "sha256": "0" * 64, "created_at": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"keys": 1}',
        b'{"keys": [1]}',
        *(
            json.dumps({"keys": entries}).encode()
            for entries in (
                [{**GOOD, "scope": "root"}],
                [{**GOOD, "sha256": "0" * 63}],
                [{**GOOD, "sha256": "Z" * 64}],
                [{**GOOD, "name": 1}],
                [{**GOOD, "name": ""}],
                [{**GOOD, "more": 1}],
                [{"name": "a"}],
                # Which of the two was meant to be removed?
                [GOOD, GOOD],
            )
        ),
    ],
)
def test_a_damaged_file_is_a_sentence(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="is no file of keys as `modiste key` writes it"):
        read_keys(path)


def test_without_a_file_there_is_no_key():
    ring = KeyRing(None)
    assert ring.is_empty
    assert ring.check("") is None


def test_a_removed_key_is_refused_without_a_restart(path, clock):
    secret = add_key(path, "a", "read")
    ring = KeyRing(path)
    added = add_key(path, "b", "read")
    remove_key(path, "a")
    # The file is looked at once a second, and not for each request.
    clock(0.9)
    assert ring.check(secret) is not None
    clock(0.2)
    assert ring.check(secret) is None
    assert ring.check(added) is not None
    remove_key(path, "b")
    clock(1)
    assert ring.is_empty


def test_a_file_that_did_not_change_is_not_read_again(path, clock, monkeypatch):
    add_key(path, "a", "read")
    ring = KeyRing(path)
    add_key(path, "b", "read")
    clock(5)
    assert not ring.is_empty
    monkeypatch.setattr(keys, "read_keys", None)
    clock(5)
    assert not ring.is_empty


def test_nobody_is_let_in_while_the_file_is_damaged(path, clock):
    secret = add_key(path, "a", "read")
    ring, good = KeyRing(path), path.read_bytes()
    path.write_bytes(b"{")
    clock(1)
    for _ in range(2):
        with pytest.raises(KeyFileError, match="is no file of keys"):
            ring.check(secret)
    path.unlink()
    with pytest.raises(KeyFileError, match="There is no file of keys"):
        _ = ring.is_empty
    # It is mended without a restart too.
    path.write_bytes(good)
    assert ring.check(secret) is not None
