"""The live gallery: one that follows its writers, for a process that answers questions for a long time.

New versions are opened aside and swapped in whole, so a question sees one version and waits for none. Where the FAISS
index has missed too much, it is renewed in the background and swapped in likewise.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self

import faiss

from indexer.faiss_index import FAISS_FOLDER, FaissIndex, IndexCard
from indexer.gallery import Gallery
from indexer.renewal import TAIL_SHARE, is_outdated, renewed, variant_for
from indexer.snapshot import StoreError
from indexer.store import Store

if TYPE_CHECKING:
    from indexer.encoders import EncoderCard

log = logging.getLogger(__name__)


class LiveGallery:
    """A gallery whose newest version is at hand.

    Args:
        folder: The gallery's folder.
        freshness_s: Seconds after which a commit of any process is seen, 0.1 or more; 0 looks at each question, which
            then waits while a new version is opened.
        tail_share: Share of the rows that the FAISS index may lack before it is renewed in the background.

    Raises:
        StoreError: No gallery, another Modiste's, or a damaged one.
    """

    def __init__(self, folder: Path, *, freshness_s: float = 5.0, tail_share: float = TAIL_SHARE) -> None:
        self._folder = folder
        self._freshness_s = freshness_s
        self._tail_share = tail_share
        self._store = Store(folder, freshness_s=0)
        self._advancing = threading.Lock()
        self._closed = threading.Event()
        self._renewing: threading.Thread | None = None
        # What keeps the newest version from being opened; the last good one answers meanwhile.
        self.error: StoreError | None = None
        self._card_on_disk: IndexCard | None = None
        self._gallery = self._open(None)
        self._renew_if_outdated()
        self._following = threading.Thread(target=self._follow, name="follow", daemon=True)
        if freshness_s:
            self._following.start()

    def current(self, *, at_once: bool = False) -> Gallery:
        """The gallery as it is now.

        Args:
            at_once: Whether to look for commits of this moment, whatever `freshness_s` says: after one of our own.
        """
        if at_once or not self._freshness_s:
            self._advance()
        return self._gallery

    def close(self) -> None:
        """Stops following, and waits for a renewal that is under way."""
        self._closed.set()
        for thread in (self._following, self._renewing):
            if thread is not None and thread.is_alive():
                thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _follow(self) -> None:
        # Twice in that time, so that opening a version has the other half.
        while not self._closed.wait(self._freshness_s / 2):
            self._advance()

    def _advance(self) -> None:
        """Opens the newest version and index, where they are others than those at hand."""
        with self._advancing:
            at_hand = self._gallery
            try:
                is_same = self._store.version == at_hand.snapshot.version
                if is_same and self._newest_card(at_hand.card) == self._card_on_disk:
                    return
                self._gallery = self._open(at_hand.searcher.index)
                self.error = None
            except StoreError as error:
                if str(error) != str(self.error):
                    log.warning("%s Version %d answers.", error, at_hand.snapshot.version)
                self.error = error
                return
        self._renew_if_outdated()

    def _open(self, index: FaissIndex | None) -> Gallery:
        """The newest version, with everything read that a question needs.

        Args:
            index: The one at hand, which is taken unless there is a newer one on the disk.
        """
        card = self._store.card
        newest = self._newest_card(card)
        # Where there are many items, reading the index and reading their records take about as long.
        with ThreadPoolExecutor(1, "index") as pool:
            reading = pool.submit(self._newer_index, index, card, newest)
            gallery = Gallery(self._folder, self._store, reading.result, is_resident=True)
            gallery.labels.counts()
            _ = gallery.searcher
        self._card_on_disk = newest
        return gallery

    def _newer_index(
        self, index: FaissIndex | None, encoder: EncoderCard, newest: IndexCard | None
    ) -> FaissIndex | None:
        """The index on the disk where it is newer, else the one at hand."""
        if index is not None and index.card.encoder != encoder.fingerprint:
            index = None
        if newest is None or (index is not None and newest.version <= index.card.version):
            return index
        return FaissIndex.load(self._folder / FAISS_FOLDER, encoder) or index

    def _newest_card(self, encoder: EncoderCard) -> IndexCard | None:
        return FaissIndex.newest_card(self._folder / FAISS_FOLDER, encoder)

    def _renew_if_outdated(self) -> None:
        is_renewing = self._renewing is not None and self._renewing.is_alive()
        if is_renewing or not self._is_outdated(self._gallery):
            return
        self._renewing = threading.Thread(target=self._renew, name="renew", daemon=True)
        self._renewing.start()

    def _is_outdated(self, gallery: Gallery) -> bool:
        index = gallery.searcher.index
        if index is None:
            return variant_for(gallery.snapshot) != "exact"
        return is_outdated(index, gallery.snapshot, self._tail_share, drift=gallery.searcher.drift)

    def _renew(self) -> None:
        """Renews the index for the version at hand and swaps it in; rows that come meanwhile are its tail."""
        # Of this thread alone: the other cores answer.
        faiss.omp_set_num_threads(1)
        try:
            while not self._closed.is_set() and self._is_outdated(gallery := self._gallery):
                index = gallery.searcher.index
                variant = variant_for(gallery.snapshot) if index is None else index.card.variant
                index = renewed(index, gallery.snapshot, variant)
                with self._advancing:
                    self._gallery = self._open(index)
                index.save(self._folder / FAISS_FOLDER)
        except StoreError as error:
            log.warning("%s", error)
