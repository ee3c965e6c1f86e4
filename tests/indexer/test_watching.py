"""Watching: when it refreshes and what it tells, without waiting; and that real changes of files are seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from watchfiles import Change

from data.catalog import CatalogError, EmptyCatalogError
from data.readers import open_catalog
from indexer.encoders import EncoderError
from indexer.pipeline import PruneRefusedError, RunOptions, Summary
from indexer.snapshot import GalleryLockedError, StoreError
from indexer.watching import FileChanges, Refresher, keep_up
from tests.indexer.fakes import FakeEncoder, draw_photo

NOTHING = Summary(read=3, unchanged=3)


class Script:
    """Ticks at given seconds, as a clock and as what is refreshed.

    Args:
        ticks: Seconds, and whether something had changed.
        answers: What each refresh gives or raises, in turn; the last one ever after.
    """

    def __init__(self, ticks: list[tuple[float, bool]], *answers: Summary | Exception) -> None:
        self.now = 0.0
        self.refreshed: list[float] = []
        self._ticks = ticks
        self._answers = list(answers)

    def ticks(self) -> Iterator[bool]:
        for now, is_changed in self._ticks:
            self.now = now
            yield is_changed

    def refresh(self) -> Summary:
        self.refreshed.append(self.now)
        answer = self._answers[0] if len(self._answers) == 1 else self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def news(self) -> list[Summary | str]:
        return list(keep_up(self.refresh, self.ticks(), clock=lambda: self.now))


def seconds(until: int, *changes: float) -> list[tuple[float, bool]]:
    """A tick each second, True at the first one and at these."""
    return [(second, second in (0, *changes)) for second in range(until + 1)]


def test_it_refreshes_at_first_and_when_something_has_changed():
    script = Script(seconds(100, 7, 50), NOTHING)
    assert script.news() == [NOTHING]
    assert script.refreshed == [0, 7, 50]


def test_it_tells_what_was_done_and_failures_that_are_others_than_before():
    added, failed, pruned = Summary(added=1), replace(NOTHING, failed=1), replace(NOTHING, failed=1, pruned=2)
    script = Script(seconds(10, *range(10)), added, NOTHING, NOTHING, failed, failed, pruned, failed, NOTHING)
    # The failure is told once, and again when it is gone.
    assert script.news() == [added, failed, pruned, NOTHING]


def test_photos_just_written_are_looked_at_once_more_when_they_have_settled():
    fresh = replace(NOTHING, unsettled=1)
    # A file from the future never settles, and is not looked at for ever.
    script = Script(seconds(100, 20, 21, 60), fresh)
    script.news()
    assert script.refreshed == [0, 3, 20, 21, 24, 60, 63]


def test_an_error_is_told_once_and_tried_again_with_the_next_change_and_after_a_minute():
    trouble = StoreError("There is no room.")
    script = Script(seconds(200, 5, 30), NOTHING, trouble, trouble, trouble, NOTHING)
    assert script.news() == [NOTHING, "There is no room."]
    assert script.refreshed == [0, 5, 30, 90, 150]


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (CatalogError("The table is torn."), "The table is torn."),
        (FileNotFoundError(2, "No such file or directory", "/shop"), "/shop: No such file or directory."),
        (OSError("stale handle"), "stale handle."),
        (PruneRefusedError("Too many are gone."), "Too many are gone."),
    ],
)
def test_later_errors_are_told_and_outlived_and_the_first_refresh_may_have_none(error, sentence):
    script = Script(seconds(10, 5, 8), NOTHING, error, Summary(added=1))
    assert script.news() == [NOTHING, sentence, Summary(added=1)]
    with pytest.raises(type(error)):
        Script(seconds(10), error).news()


def test_a_sentence_comes_again_after_it_went_well():
    trouble = CatalogError("The table is torn.")
    script = Script(seconds(10, 2, 4, 6), NOTHING, trouble, NOTHING, trouble)
    assert script.news() == [NOTHING, "The table is torn.", "The table is torn."]


def test_it_waits_for_another_writer_from_the_first_refresh_on():
    locked = GalleryLockedError("pass --wait")
    script = Script(seconds(20, 10), locked, locked, Summary(added=1), locked, NOTHING)
    waiting = "Another process is writing to the gallery; waiting for it to end."
    assert script.news() == [waiting, Summary(added=1), waiting]
    assert script.refreshed == [0, 2, 4, 10, 12]


def test_what_was_written_while_it_waited_is_looked_at_again():
    script = Script(seconds(20), GalleryLockedError(""), replace(NOTHING, unsettled=1))
    script.news()
    assert script.refreshed == [0, 2, 5]


def test_an_empty_folder_may_be_watched_before_the_first_photo_comes():
    script = Script(seconds(10, 5), EmptyCatalogError("It has none."), Summary(added=1))
    assert script.news() == ["It has none.", Summary(added=1)]


def test_another_encoder_ends_it_at_any_time():
    with pytest.raises(EncoderError, match="another encoder"):
        Script(seconds(10, 5), NOTHING, EncoderError("The gallery has another encoder.")).news()


def test_an_interrupted_refresh_is_the_last_and_is_told():
    stopped = replace(NOTHING, interrupted=True)
    script = Script(seconds(10, 3, 5), NOTHING, stopped)
    assert script.news() == [NOTHING, stopped]
    assert script.refreshed == [0, 3]


# With a real catalog and gallery


class Shop:
    """A folder of photos, kept up with by the fake encoder; each step does something and is one tick."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.catalog, self.gallery = folder / "catalog", folder / "gallery"
        self.encoder = FakeEncoder()
        self.now = 2e9
        draw_photo(self.catalog / "a.png", 1)
        monkeypatch.setattr("indexer.manifest.time.time_ns", lambda: int(self.now * 1e9))
        self._steps: list[tuple[Callable[[], object], bool]] = []
        self.refresh = Refresher(
            lambda shown: open_catalog(self.catalog, format=shown),
            self.gallery,
            self.encoder.lazy,
            lambda: RunOptions(prune=True),
        )

    def step(self, do: Callable[[], object], *, after: float = 1.0, is_seen: bool = True) -> None:
        def later() -> None:
            self.now += after
            do()

        self._steps.append((later, is_seen))

    def news(self) -> list[Summary | str]:
        def ticks() -> Iterator[bool]:
            yield True
            for do, is_seen in self._steps:
                do()
                yield is_seen

        return list(keep_up(self.refresh, ticks(), clock=lambda: self.now))


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(tmp_path, monkeypatch)


def counts(news: Summary | str) -> tuple[int, ...] | str:
    return news if isinstance(news, str) else (news.added, news.changed, news.pruned, news.failed, news.items)


def test_a_photo_rewritten_within_the_clock_s_tick_and_unseen_ends_up_right(shop):
    photo, moment = shop.catalog / "a.png", shop.now

    def rewrite(seed: int) -> None:
        draw_photo(photo, seed)
        os.utime(photo, (moment, moment))

    rewrite(2)
    # The file's time, and to a polled file system the file, is the same as before.
    shop.step(lambda: rewrite(3), after=0.5, is_seen=False)
    shop.step(bool, after=3, is_seen=False)
    shop.step(bool, after=3, is_seen=False)
    assert [counts(news) for news in shop.news()] == [(1, 0, 0, 0, 1), (0, 1, 0, 0, 1)]
    assert shop.encoder.encoded == 2


def test_a_half_copied_photo_is_taken_in_when_it_is_whole(shop):
    content = draw_photo(shop.catalog.parent / "b.png", 2).read_bytes()
    part = shop.catalog / "b.png"
    shop.step(lambda: part.write_bytes(content[: len(content) // 2]))
    shop.step(bool, is_seen=False)
    shop.step(lambda: part.write_bytes(content))
    assert [counts(news) for news in shop.news()] == [(1, 0, 0, 0, 1), (0, 0, 0, 1, 1), (1, 0, 0, 0, 2)]


def test_a_catalog_that_is_gone_for_a_while_costs_nothing(shop):
    away = shop.catalog.with_name("away")
    shop.step(lambda: shop.catalog.rename(away))
    shop.step(bool)
    shop.step(lambda: away.rename(shop.catalog))
    shop.step(lambda: draw_photo(shop.catalog / "b.png", 2))
    shop.step((shop.catalog / "a.png").unlink)
    first, gone, *others = map(counts, shop.news())
    assert first == (1, 0, 0, 0, 1)
    assert gone == f"A catalog was wanted, a folder or a file; there is no {shop.catalog}."
    # Half of the gallery left the catalog: not more than half, so it is pruned.
    assert others == [(1, 0, 0, 0, 2), (0, 0, 1, 0, 1)]
    assert shop.encoder.encoded == 2


def test_a_gallery_that_is_gone_is_not_made_anew(shop):
    away = shop.gallery.with_name("away")
    shop.step(lambda: shop.gallery.rename(away))
    shop.step(lambda: away.rename(shop.gallery))
    shop.step(lambda: draw_photo(shop.catalog / "b.png", 2))
    _, gone, added = map(counts, shop.news())
    assert str(gone).startswith(f"{shop.gallery} is no gallery")
    assert added == (1, 0, 0, 0, 2)


def test_a_table_beside_the_photos_does_not_make_other_items_of_them(shop):
    shop.step(lambda: (shop.catalog / "notes.csv").write_text("id,image\nx,a.png\n"))
    assert [counts(news) for news in shop.news()] == [(1, 0, 0, 0, 1)]


# Events of the system


def test_what_is_hidden_and_the_gallery_do_not_count(tmp_path):
    root = tmp_path / ".stores" / "shop"
    (root / "gallery").mkdir(parents=True)
    (tmp_path / "link").symlink_to(root)
    counts = FileChanges(root, tmp_path / "link" / "gallery")._filter(str(root))
    changes = {
        "a.jpg": True,
        "dress/a.jpg": True,
        "gallery.csv": True,
        "gallery2/a.jpg": True,
        ".a.jpg.x7Yq": False,
        "dress/.thumbs/a.jpg": False,
        "gallery": False,
        "gallery/.writer.lock": False,
        "gallery/items.lance/data/a.lance": False,
    }
    assert {name: counts(Change.modified, str(root / name)) for name in changes} == changes
    # A catalog that lies in the gallery's folder is watched all the same.
    assert FileChanges(root, tmp_path / ".stores")._filter(str(root))(Change.added, str(root / "a.jpg"))


def test_files_that_come_and_folders_that_go_are_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("indexer.watching._TICK_MS", 200)
    monkeypatch.setattr("indexer.watching._QUIET_MS", 50)
    catalog, gallery = tmp_path / "catalog", tmp_path / "catalog" / "gallery"
    table = catalog / "items.csv"
    catalog.mkdir()
    gallery.mkdir()
    table.write_text("id,image\n")
    stopped: list[bool] = []
    ticks = iter(FileChanges(table, gallery, lambda: bool(stopped)))

    def comes() -> bool:
        """Whether a change comes within some ticks."""
        return any(next(ticks) for _ in range(50))

    def is_calm() -> bool:
        """Whether no more changes come, once what is under way has come."""
        return not any([next(ticks) for _ in range(5)][2:])

    assert next(ticks) is True
    (gallery / "row").write_text("ours")
    (catalog / ".hidden").write_text("nobody's")
    assert is_calm()
    (catalog / "dress").mkdir()
    (catalog / "dress" / "a.jpg").write_bytes(b"photo")
    assert comes()
    catalog.rename(tmp_path / "away")
    assert comes()
    assert is_calm()
    catalog.mkdir()
    assert comes()
    (catalog / "b.jpg").write_bytes(b"photo")
    assert comes()
    stopped.append(True)
    assert len(list(ticks)) <= 1
