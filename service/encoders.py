"""The encoders that a state answers through, the gallery's and comparators': each loaded once, kept while needed."""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import Future
from typing import TYPE_CHECKING

from indexer.encoders import check_same_encoder, find_weights_of, load_encoder_of, prepare_encoder
from indexer.feature_maps import PatchEncoder, load_patch_encoder
from indexer.runtimes import is_converted
from service.batching import BatchingEncoder

if TYPE_CHECKING:
    from indexer.encoders import Encoder, EncoderCard

log = logging.getLogger(__name__)


class Encoders:
    """Loaded encoders by their fingerprint.

    Args:
        load: Loads the encoder of a card.
    """

    def __init__(self, load: Callable[[EncoderCard], Encoder]) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._loading: dict[str, Future[Encoder]] = {}

    def get(self, card: EncoderCard) -> Encoder:
        """The encoder of a card; who asks while another loads it waits for that.

        Raises:
            EncoderError: It cannot be loaded; the next who asks tries again.
        """
        with self._lock:
            future = self._loading.get(card.fingerprint)
            is_first = future is None
            if future is None:
                future = self._loading[card.fingerprint] = Future()
        if is_first:
            try:
                encoder = self._load(card)
            except BaseException as error:
                with self._lock:
                    self._loading.pop(card.fingerprint, None)
                future.set_exception(error)
                raise
            future.set_result(BatchingEncoder(encoder) if encoder.batches else encoder)
        return future.result()

    def keep(self, fingerprints: Collection[str]) -> None:
        """Lets go of all others; who still holds one is answered."""
        with self._lock:
            gone = [self._loading.pop(name) for name in [*self._loading] if name not in fingerprints]
        for future in gone:
            future.add_done_callback(_close)

    def close(self) -> None:
        """Lets go of all."""
        self.keep(())


def _close(future: Future[Encoder]) -> None:
    if future.exception() is None and isinstance(encoder := future.result(), BatchingEncoder):
        encoder.close()


def load_serving_encoder(card: EncoderCard) -> Encoder:
    """The encoder of a card, without torch in this process where OpenVINO runs it.

    Raises:
        EncoderError: It cannot be loaded.
    """
    start = time.perf_counter()
    prepared = prepare_encoder(card.name, pooling=card.pooling, runtime=card.runtime, precision=card.precision)
    # Before the work: loading weights that are others now may take torch, and would be refused after all.
    check_same_encoder(card, prepared.card, "The gallery")
    if card.runtime == "openvino" and not is_converted(card):
        _convert_aside(load_encoder_of, card)
    encoder = prepared.load()
    log.info("Loaded encoder %s in %.2f s.", card.name, time.perf_counter() - start)
    return encoder


def load_serving_patch_encoder(card: EncoderCard) -> PatchEncoder:
    """What splits the embeddings of a card's encoder by patch, without torch in this process where OpenVINO runs it.

    Raises:
        EncoderError: It cannot be loaded.
    """
    start = time.perf_counter()
    weights = find_weights_of(card)
    if card.runtime == "openvino" and not is_converted(card, maps=True):
        _convert_aside(load_patch_encoder, card)
    encoder = PatchEncoder(weights, card)
    log.info("Loaded the maps of encoder %s in %.2f s.", card.name, time.perf_counter() - start)
    return encoder


def _convert_aside(load: Callable[[EncoderCard], object], card: EncoderCard) -> None:
    """Loads once in a process of its own, which leaves a converted network behind."""
    # Converting needs torch, for good; a process that ends gives its memory back. Where it fails, loading says why.
    process = multiprocessing.get_context("spawn").Process(target=load, args=(card,), daemon=True)
    process.start()
    process.join()
