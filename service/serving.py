"""One state of the service: a version of the gallery with its encoder and heads, which an answer takes as a whole."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heads.comparator import ComparatorHead
from heads.storage import StoredHeadError
from service.comparators import encoder_of
from service.head_store import (
    HEADS_FOLDER,
    SELECTION,
    HeadNotFoundError,
    best_card,
    load_head,
    selected_kind,
    selection_warning,
    stored_cards,
    usable,
)

if TYPE_CHECKING:
    from heads.fitted import FittedHead, HeadCard
    from indexer.encoders import Encoder, EncoderCard
    from indexer.gallery import Gallery
    from service.encoders import Encoders
    from service.projected import Projected

log = logging.getLogger(__name__)

# Path, modification time and size of each head's card, and of each selection.
_Signature = tuple[tuple[str, int, int], ...]


class Heads:
    """The fitted heads of a gallery as they were at one moment, each loaded when it is first asked.

    Args:
        folder: The gallery's folder.
        encoder: Of the gallery; heads of another are not among them, but for comparators.
        before: The heads of the moment before; those that are the same are taken from it, and those that it had loaded
            are loaded now, so that no request waits for them.
    """

    def __init__(self, folder: Path, encoder: EncoderCard, before: Heads | None = None) -> None:
        self.signature = signature(folder)
        self._folder, self._encoder = folder, encoder
        cards = stored_cards(folder, skip_damaged=True)
        self.cards = {(card.target, card.kind): card for card in usable(cards, encoder)}
        self._selected = {target: selected_kind(folder, target) for target in self.targets}
        for target in self.targets:
            if warning := selection_warning(target, self._selected[target], self._of(target)):
                log.warning("%s", warning)
        self._loading = threading.Lock()
        self._loaded: dict[tuple[str, str], FittedHead] = {}
        for key in before._loaded if before else ():
            if before is not None and self.cards.get(key) == before.cards.get(key):
                self._loaded[key] = before._loaded[key]
            elif key in self.cards:
                self._preload(*key)

    @property
    def targets(self) -> list[str]:
        """Targets that have a head, in order of name."""
        return sorted({target for target, _ in self.cards})

    def best(self, target: str) -> HeadCard:
        """The card of the head that answers for a target where no kind is named: see service.head_store.best_card.

        Raises:
            HeadNotFoundError: It has none.
        """
        cards = self._of(target)
        if not cards:
            raise HeadNotFoundError(self._missing(f"head of '{target}'"))
        return best_card(cards, self._selected[target])

    @property
    def comparators(self) -> list[HeadCard]:
        """The cards of the comparators."""
        return [card for card in self.cards.values() if card.kind == ComparatorHead.kind]

    def choose(self, targets: Sequence[str] | None, kind: str | None) -> list[FittedHead]:
        """The heads that are asked: of each target the one of that kind, or the `best`.

        Args:
            targets: None for all that have one.
            kind: None for the `best`.

        Raises:
            HeadNotFoundError: A target has none.
            StoredHeadError: It is damaged.
        """
        if targets is None:
            targets = [target for target in self.targets if kind is None or (target, kind) in self.cards]
        if not targets:
            raise HeadNotFoundError(self._missing(f"{kind} head" if kind else "head"))
        return [self.get(target, kind or self.best(target).kind) for target in targets]

    def get(self, target: str, kind: str) -> FittedHead:
        """A fitted head, loaded at most once.

        Raises:
            HeadNotFoundError: There is none.
            StoredHeadError: It is damaged.
        """
        if (target, kind) not in self.cards:
            raise HeadNotFoundError(self._missing(f"{kind} head of '{target}'"))
        with self._loading:
            if (target, kind) not in self._loaded:
                self._loaded[target, kind] = load_head(self._folder, target, kind, self._encoder)
            return self._loaded[target, kind]

    def _of(self, target: str) -> list[HeadCard]:
        return [card for card in self.cards.values() if card.target == target]

    def _preload(self, target: str, kind: str) -> None:
        try:
            self.get(target, kind)
        except (HeadNotFoundError, StoredHeadError) as error:
            log.warning("%s", error)

    def _missing(self, what: str) -> str:
        fitted = "; ".join(
            f"{target}: {', '.join(kind for name, kind in sorted(self.cards) if name == target)}"
            for target in self.targets
        )
        return f"The gallery has no {what}; fitted are {fitted or 'none'}. Fit one with a job of kind 'fit'."


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers a request, from its first stage to its last.

    Args:
        gallery: One version.
        encoder: That version's.
        heads: Fitted on embeddings of that encoder, and comparators.
        encoders: Those of comparators among them.
        projected: The gallery's items at their places of the projection.
    """

    gallery: Gallery
    encoder: Encoder
    heads: Heads
    encoders: Encoders
    projected: Projected

    def encoder_of(self, card: HeadCard) -> Encoder:
        """The encoder that a head answers through; a comparator's is loaded when it is first asked for.

        Raises:
            StoredHeadError: A comparator's run is gone, or another now.
        """
        if card.encoder_fingerprint == self.gallery.card.fingerprint:
            return self.encoder
        return encoder_of(card, self.encoders.get)


def signature(folder: Path) -> _Signature:
    """What changes whenever a head of a gallery is fitted, removed or selected."""
    found = []
    for path in sorted(
        path for pattern in ("*.json", SELECTION) for path in (folder / HEADS_FOLDER).glob(f"*/{pattern}")
    ):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)
