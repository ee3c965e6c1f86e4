"""The networks behind encoders, which explanations look into; each is loaded when one first needs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cachetools import LRUCache

from indexer.feature_maps import load_patch_encoder

if TYPE_CHECKING:
    from indexer.encoders import EncoderCard
    from indexer.feature_maps import PatchEncoder
    from indexer.networks import PooledNetwork

# The gallery's encoder and a comparator's.
_KEPT = 2


class Networks:
    """Networks by their encoder; the two asked for last are kept. One thread at a time may use a torch network.

    Args:
        load_patches: Loads the patch encoder of a card.
        threads: That torch may use in the thread that loads; None leaves them as they are.
    """

    def __init__(
        self, load_patches: Callable[[EncoderCard], PatchEncoder] = load_patch_encoder, *, threads: int | None = None
    ) -> None:
        self._load_patches, self._threads = load_patches, threads
        self._lock = threading.Lock()
        self._kept: LRUCache[tuple[str, str], Any] = LRUCache(2 * _KEPT)

    def torch(self, card: EncoderCard) -> PooledNetwork:
        """The network in torch, fp32, on the CPU; the first one imports torch.

        Raises:
            EncoderError: Its weights are gone, or others now.
        """
        network: PooledNetwork = self._get("torch", card, self._load_torch)
        return network

    def patches(self, card: EncoderCard) -> PatchEncoder:
        """What gives the parts of an embedding that each patch brings, in the encoder's own runtime.

        Raises:
            EncoderError: Its weights are gone, or others now.
        """
        patches: PatchEncoder = self._get("patches", card, self._load_patches)
        return patches

    def _load_torch(self, card: EncoderCard) -> PooledNetwork:
        import torch

        from indexer.networks import load_network_of

        if self._threads is not None:
            torch.set_num_threads(self._threads)
        return load_network_of(card)

    def _get(self, what: str, card: EncoderCard, load: Callable[[EncoderCard], Any]) -> Any:
        with self._lock:
            key = what, card.fingerprint
            if key not in self._kept:
                self._kept[key] = load(card)
            return self._kept[key]
