"""API keys: made here, kept as digests in a JSON file, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from indexer.files import ASIDE, replace_file

Scope = Literal["read", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "admin")
# So that a key is known for one wherever it turns up, by people, logs and scanners.
PREFIX = "modiste_"
# Bytes of chance; sha256 without salt is enough for what nobody can guess.
_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Seconds between two looks at the file.
_LOOK_S = 1.0

log = logging.getLogger(__name__)


class KeyFileError(ValueError):
    """A file of keys that cannot be used, or a change of it that cannot be made."""


@dataclass(frozen=True, slots=True)
class Key:
    """Who may do what.

    Args:
        name: Whom it was made for; unique in its file, and what logs say.
        scope: `read` (questions) or `admin` (edits and jobs too).
        sha256: Digest of the key itself, which is kept nowhere.
        created_at: Date and time, UTC, ISO 8601.
    """

    name: str
    scope: Scope
    sha256: str
    created_at: str


def add_key(path: Path, name: str, scope: Scope) -> str:
    """Makes a key and adds its digest to a file, which is made where there is none.

    Args:
        path: The file.
        name: Whom it is for: 1 to 64 letters, digits, dots, hyphens and underscores.
        scope: `read` or `admin`.

    Returns:
        The key, which cannot be had again.

    Raises:
        KeyFileError: The name is taken or no name, the scope is unknown, the file is damaged or cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise KeyFileError(
            f"The name of a key is 1 to 64 letters, digits, dots, hyphens and underscores; got {name[:80]!r}."
        )
    if scope not in SCOPES:
        raise KeyFileError(f"The scope of a key is read or admin; got {scope!r}.")
    keys = read_keys(path) if path.exists() else []
    if any(key.name == name for key in keys):
        raise KeyFileError(f"{path} has a key {name!r} already; remove it first, or take another name.")
    secret = PREFIX + secrets.token_urlsafe(_BYTES)
    _write(path, [*keys, Key(name, scope, _digest(secret), datetime.now(UTC).isoformat(timespec="seconds"))])
    return secret


def remove_key(path: Path, name: str) -> None:
    """Takes a key out of a file; a running service refuses it a second later.

    Raises:
        KeyFileError: There is no such key or file, or it is damaged or cannot be written.
    """
    keys = read_keys(path)
    rest = [key for key in keys if key.name != name]
    if len(rest) == len(keys):
        known = ", ".join(key.name for key in keys) or "none"
        raise KeyFileError(f"{path} has no key {name!r}; it has {known}.")
    _write(path, rest)


def read_keys(path: Path) -> list[Key]:
    """The keys in a file, in the order in which they were added.

    Raises:
        KeyFileError: There is no such file, it cannot be read, or it holds something else.
    """
    try:
        content = path.read_bytes()
        is_open = bool(path.stat().st_mode & stat.S_IROTH)
    except FileNotFoundError as error:
        raise KeyFileError(
            f"There is no file of keys {path}; make it with `modiste key add NAME --scope read --keys {path}`."
        ) from error
    except OSError as error:
        raise KeyFileError(f"The file of keys {path} cannot be read: {error.strerror}.") from error
    if is_open:
        log.warning("Everybody on this machine can read the file of keys %s; make it private with chmod 600.", path)
    try:
        keys = [Key(**entry) for entry in json.loads(content)["keys"]]
        fits = all(
            _NAME.fullmatch(key.name) and key.scope in SCOPES and _DIGEST.fullmatch(key.sha256) for key in keys
        ) and len({key.name for key in keys}) == len(keys)
    except (ValueError, TypeError, KeyError) as error:
        raise KeyFileError(_damaged(path)) from error
    if not fits:
        raise KeyFileError(_damaged(path))
    return keys


class KeyRing:
    """The keys of a file, as it is now: a key that was removed is refused a second later, without a restart.

    Args:
        path: The file; None has no keys, ever.

    Raises:
        KeyFileError: The file cannot be used.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._looked_at = time.monotonic()
        self._stamp = _stamp(path)
        self._keys: Sequence[Key] = () if path is None else read_keys(path)

    @property
    def is_empty(self) -> bool:
        """Whether there is no key.

        Raises:
            KeyFileError: The file was changed to something that cannot be used; nobody is let in until it is mended.
        """
        return not self._current()

    def check(self, presented: str) -> Key | None:
        """The key that somebody presents, if it is one; how long that takes says nothing about which.

        Raises:
            KeyFileError: As `is_empty`.
        """
        digest = _digest(presented)
        found = None
        for key in self._current():
            # No early exit, and the comparison itself takes the same time whatever differs.
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def _current(self) -> Sequence[Key]:
        with self._lock:
            now = time.monotonic()
            if self._path is not None and now - self._looked_at >= _LOOK_S:
                stamp = _stamp(self._path)
                if stamp != self._stamp:
                    # Where this raises, the stamp stays the old one and the next request looks again.
                    self._keys = read_keys(self._path)
                    self._stamp = stamp
                    log.info("Read %d keys anew.", len(self._keys))
                self._looked_at = now
            return self._keys


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when the file does; None where there is none."""
    if path is None:
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _write(path: Path, keys: Sequence[Key]) -> None:
    content = json.dumps({"keys": [asdict(key) for key in keys]}, indent=2) + "\n"
    try:
        # Private before anything is in it: the file keeps the mode of the one that is written aside.
        aside = path.with_name(path.name + ASIDE)
        aside.touch()
        aside.chmod(0o600)
        replace_file(path, content.encode())
    except OSError as error:
        raise KeyFileError(f"The file of keys {path} cannot be written: {error.strerror}.") from error


def _damaged(path: Path) -> str:
    return (
        f"{path} is no file of keys as `modiste key` writes it. Put back a copy, or remove it and make the keys anew."
    )
