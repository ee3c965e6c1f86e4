"""The state that answers: the newest gallery with its encoder and heads, put together aside and swapped in whole."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import faiss
import numpy as np

from heads.storage import StoredHeadError
from indexer.live import LiveGallery
from indexer.projection import Projection
from indexer.store import Store
from service.encoders import Encoders
from service.projected import Projected
from service.serving import Heads, Serving, signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from indexer.encoders import Encoder, EncoderCard
    from indexer.gallery import Gallery
    from indexer.snapshot import StoreError
    from service.settings import Settings

log = logging.getLogger(__name__)

# Questions of late that the index is measured on.
_SAMPLED = 32
_RECALL_AT = 10


class State:
    """What answers, kept up with whoever writes to the gallery or fits its heads.

    Args:
        settings: Of the service.
        load: Loads the encoder of a card.

    Raises:
        StoreError, EncoderError: The gallery cannot be opened, or its encoder not be loaded.
    """

    def __init__(self, settings: Settings, load: Callable[[EncoderCard], Encoder]) -> None:
        self._settings = settings
        self._encoders = Encoders(load)
        self.encoder_load_s = 0.0
        # Overlap of the index's answers with exact search's, 0..1; None until measured.
        self.index_recall: float | None = None
        self._sample: deque[NDArray[np.float32]] = deque(maxlen=_SAMPLED)
        self._advancing = threading.Lock()
        self._closed = threading.Event()
        with ThreadPoolExecutor(1, "encoder") as pool:
            # While the gallery is read.
            loading = pool.submit(self._encoder_of, Store(settings.gallery).card, None)
            self._live = LiveGallery(settings.gallery, freshness_s=0)
            self._serving = self._assemble(self._live.current(), loading.result(), None)
        self._following = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._following.start()

    @property
    def serving(self) -> Serving:
        """The state of this moment."""
        return self._serving

    @property
    def error(self) -> StoreError | None:
        """What keeps a newer version from answering."""
        return self._live.error

    def sample(self, embedding: NDArray[np.float32]) -> None:
        """Notes a question, (D,), for measuring the index."""
        self._sample.append(embedding)

    def advance(self) -> Serving:
        """Looks for the newest gallery, heads and projection, and swaps them in.

        Raises:
            EncoderError: The gallery has an encoder that cannot be loaded; the state before goes on answering.
        """
        with self._advancing:
            before = self._serving
            gallery = self._live.current()
            if (
                gallery is not before.gallery
                or signature(gallery.folder) != before.heads.signature
                or Projection.signature(gallery.folder) != before.projected.signature
            ):
                self._serving = self._assemble(gallery, before.encoder, before)
                cards = (
                    gallery.card.fingerprint,
                    *(one.encoder_fingerprint for one in self._serving.heads.comparators),
                )
                self._encoders.keep(cards)
            return self._serving

    def close(self) -> None:
        """Stops following."""
        self._closed.set()
        self._following.join()
        self._live.close()
        self._encoders.close()

    def _assemble(self, gallery: Gallery, encoder: Encoder, before: Serving | None) -> Serving:
        """The state of a gallery; what is at hand already is taken where it is the gallery's."""
        encoder = self._encoder_of(gallery.card, encoder)
        heads = Heads(gallery.folder, gallery.card, before.heads if before else None)
        projected = Projected(gallery, before.projected if before else None)
        serving = Serving(gallery, encoder, heads, self._encoders, projected)
        for target in serving.heads.targets:
            # No request waits for the encoder of a comparator that answers unasked; others are loaded when asked for.
            try:
                serving.encoder_of(serving.heads.best(target))
            except StoredHeadError as error:
                log.warning("%s", error)
        return serving

    def _encoder_of(self, card: EncoderCard, at_hand: Encoder | None) -> Encoder:
        if at_hand is not None and at_hand.card.fingerprint == card.fingerprint:
            return at_hand
        start = time.perf_counter()
        encoder = self._encoders.get(card)
        self.encoder_load_s = time.perf_counter() - start
        # Questions of another encoder have other numbers.
        self._sample.clear()
        self.index_recall = None
        return encoder

    def _follow(self) -> None:
        """Advances twice within the time in which a commit is to be seen, and measures the index now and then."""
        faiss.omp_set_num_threads(1)
        measured = time.monotonic()
        interval = self._settings.recall_interval_s
        while not self._closed.wait(self._settings.freshness_s / 2):
            try:
                self.advance()
                if interval and time.monotonic() - measured >= interval:
                    measured = time.monotonic()
                    self.measure_recall()
            except Exception as error:  # Whatever it is, the state before answers, and the next round tries again.
                log.warning("The newest state could not be taken: %s", error)

    def measure_recall(self) -> None:
        """Compares the index's answers to questions of late with exact search's."""
        searcher, sample = self._serving.gallery.searcher, list(self._sample)
        dimension = searcher.snapshot.card.dimension
        queries = np.array([one for one in sample if len(one) == dimension], np.float32)
        if searcher.variant == "exact" or not len(queries):
            return
        found, _ = searcher.search(queries, _RECALL_AT)
        exact, _ = searcher.search_exactly(queries, _RECALL_AT)
        hits = [len(set(a) & set(b) - {-1}) / max(1, len(set(b) - {-1})) for a, b in zip(found, exact, strict=True)]
        self.index_recall = float(np.mean(hits))
