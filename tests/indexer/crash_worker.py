"""A process that works on galleries as it is told, so that it can be killed: `python -m tests.indexer.crash_worker`.

It reads an order a line (JSON) and answers with lines: what was acknowledged on the way, and an answer at the end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import faiss
from lancedb.db import LanceDBConnection
from lancedb.merge import LanceMergeInsertBuilder
from lancedb.table import LanceTable

from indexer.checksums import Checksums
from indexer.rows import Row
from indexer.store import Store
from tests.indexer.crash_operations import (
    OPERATIONS,
    NotingEncoder,
    State,
    check_search,
    damage_of,
    draw_photos,
    embedding_key,
    failures_of,
    leftovers_of,
    small_commits,
    state_after_kill,
    state_of,
)

# The steps between which a gallery must be whole: what asks the disk, Lance or FAISS for a change.
_STEPS: tuple[tuple[Any, str], ...] = (
    *((os, name) for name in ("fsync", "rename", "replace", "unlink", "rmdir", "mkdir", "link")),
    *((Checksums, name) for name in ("add", "rewrite")),
    *((LanceTable, name) for name in ("delete", "optimize")),
    (LanceMergeInsertBuilder, "execute"),
    (LanceDBConnection, "create_table"),
    (faiss, "write_index"),
)


class _Steps:
    """Counts the steps of an operation, and ends the process before or after one of them."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._is_counting = False
        self._point: tuple[int, str] | None = None
        for place, name in _STEPS:
            setattr(place, name, self._counted(getattr(place, name), name))

    def count(self, point: Sequence[Any] | None) -> None:
        """From now on, steps are counted from 0; the process dies `before` or `after` the one at the point."""
        self.names, self._is_counting = [], True
        self._point = None if point is None else (int(point[0]), str(point[1]))

    def stop(self) -> None:
        """Steps are not counted any more."""
        self._is_counting = False

    def _counted(self, step: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            if not self._is_counting:
                return step(*args, **options)
            number = len(self.names)
            self.names.append(name)
            if self._point == (number, "before"):
                _die()
            answer = step(*args, **options)
            if self._point == (number, "after"):
                _die()
            return answer

        return counted


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _say(**words: Any) -> None:
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


def _acknowledge_commits() -> None:
    """Makes the store say which items each commit promised, once it has returned."""

    def upsert(store: Store, rows: Sequence[Row]) -> int:
        version = do_upsert(store, rows)
        _say(kept={row.item.item_id: embedding_key(row.embedding) for row in rows}, by=str(store.folder))
        return version

    def delete(store: Store, item_ids: Sequence[str]) -> int:
        version = do_delete(store, item_ids)
        _say(gone=list(item_ids), by=str(store.folder))
        return version

    def overwrite(store: Store, *args: Any) -> int:
        version = do_overwrite(store, *args)
        item_ids = store.snapshot().columns("item_id").column(0).to_pylist()
        _say(kept=dict.fromkeys(item_ids, 0), by=str(store.folder))
        return version

    do_upsert, do_delete, do_overwrite = Store.upsert, Store.delete, Store.overwrite
    for name, said in (("upsert", upsert), ("delete", delete), ("overwrite", overwrite)):
        setattr(Store, name, said)


def run(kind: str, scene: Path, folder: Path, steps: _Steps, point: Sequence[Any] | None) -> dict[str, Any]:
    """Does an operation, to the end where nobody kills it."""
    encoder = NotingEncoder()
    steps.count(point)
    start = time.perf_counter()
    OPERATIONS[kind].run(scene, folder, encoder)
    seconds = time.perf_counter() - start
    steps.stop()
    return {"seconds": seconds, "steps": steps.names}


def describe(folder: Path) -> dict[str, Any]:
    """What is in a gallery at the end of an operation; it is compacted on the way."""
    snapshot = Store(folder, freshness_s=0).snapshot()
    check_search(folder, snapshot)
    return {
        "state": state_of(snapshot),
        "failures": repr(failures_of(folder)),
        "damage": damage_of(folder),
        "half-made": leftovers_of(folder),
        "folder": sorted(path.name for path in folder.iterdir()),
    }


def check(kind: str, scene: Path, folder: Path, expected: dict[str, Any], said: list[dict[str, Any]]) -> list[str]:
    """What is wrong with a gallery after a kill, and with what the same operation makes of it then.

    Args:
        kind: Which operation was killed.
        scene: The photos' folder.
        folder: The gallery.
        expected: `before`, the state that the operation began with, and what `describe` says after one without a kill.
        said: What the killed process had acknowledged.
    """
    before, after = expected["before"], expected["state"]
    found = state_after_kill(folder)
    wrong = _broken_promises(found, after, [words for words in said if words["by"] == str(folder)])
    wrong += [] if found is None else damage_of(folder)
    state = found or {}
    wrong += [
        f"item {item_id} is neither as before nor as after the operation"
        for item_id in before.keys() | after.keys() | state.keys()
        if state.get(item_id) not in (before.get(item_id), after.get(item_id))
    ]
    if OPERATIONS[kind].is_one_step and state not in (before, after):
        wrong.append("half of an operation that is one step is there")
    encoder = NotingEncoder()
    OPERATIONS[kind].run(scene, folder, encoder)
    again = encoder.made & {key for words in said for key in words.get("kept", {}).values()}
    wrong += [f"{len(again)} photos were encoded again whose embeddings were acknowledged"] if again else []
    ended = describe(folder)
    wrong += [f"{name} is other than after a run without a kill" for name in ended if ended[name] != expected[name]]
    return wrong


def _broken_promises(state: State | None, after: State, said: list[dict[str, Any]]) -> list[str]:
    if state is None:
        return ["the gallery is not there"] if said else []
    kept = {item_id for words in said for item_id in words.get("kept", ())}
    gone = {item_id for words in said for item_id in words.get("gone", ())}
    lost = [f"item {item_id} was acknowledged and is lost" for item_id in kept if state.get(item_id) != after[item_id]]
    return lost + [f"item {item_id} was deleted and is back" for item_id in gone if item_id in state]


def _obey(order: dict[str, Any], steps: _Steps) -> Any:
    scene, kind = Path(order["scene"]), order.get("kind", "")
    folder = scene / order.get("folder", "")
    match order["do"]:
        case "draw":
            draw_photos(scene)
        case "prepare":
            OPERATIONS[kind].prepare(scene, folder)
            return state_after_kill(folder) or {}
        case "run":
            return run(kind, scene, folder, steps, order["point"])
        case "describe":
            return describe(folder)
        case "check":
            return check(kind, scene, folder, order["expected"], order["said"])
        case "wait":
            # Its answer tells that all modules are loaded.
            pass
    return None


def main() -> None:
    """Obeys until the input ends."""
    steps = _Steps()
    _acknowledge_commits()
    with small_commits():
        for line in sys.stdin:
            try:
                _say(answer=_obey(json.loads(line), steps))
            except BaseException:
                _say(error=traceback.format_exc())


if __name__ == "__main__":
    main()
