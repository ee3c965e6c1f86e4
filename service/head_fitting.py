"""Fitting the heads of a gallery, and how each compares with the one that it replaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from heads.fitting import FitOptions, check_enough, fit_heads
from heads.labels import MIN_COUNT
from service.head_store import save_heads, stored_cards
from service.training_set import labelled_rows, product_groups, training_set

if TYPE_CHECKING:
    from heads.fitted import HeadCard
    from indexer.gallery import Gallery


@dataclass(frozen=True, slots=True)
class Refit:
    """A head that was fitted and stored.

    Args:
        card: What it is.
        before: The card of the head that it replaced, of the same target, kind and encoder; None where there was none,
            or a damaged one.
    """

    card: HeadCard
    before: HeadCard | None

    @property
    def measure(self) -> str:
        """The figure of `card.validation` that heads are compared by."""
        return "micro_f1" if self.card.multi_label else "accuracy"


def fit_gallery(
    gallery: Gallery,
    targets: Sequence[str],
    options: FitOptions,
    *,
    min_count: int = MIN_COUNT,
    progress: Callable[[str], None] = lambda _: None,
) -> Iterator[list[Refit]]:
    """Fits heads on what a gallery holds, without encoding, and stores them with it, target by target.

    Args:
        gallery: Whose items teach; those of the split `test` do not.
        targets: One or more; all are looked at before the first is fitted.
        options: How.
        min_count: Labels of fewer items are left out and reported.
        progress: Called with a sentence now and then.

    Raises:
        FilterError: The gallery has no such target.
        HeadError: Too few labels, photos or products.
    """
    stored = stored_cards(gallery.folder, skip_damaged=True)
    before = {(card.target, card.kind): card for card in stored if card.encoder_fingerprint == gallery.card.fingerprint}
    groups = product_groups(gallery)
    for target in targets:
        labels, rows = labelled_rows(gallery, target, min_count=min_count)
        check_enough(labels, groups[rows])
    for target in targets:
        training = training_set(gallery, target, min_count=min_count)

        def tell(sentence: str, target: str = target) -> None:
            progress(f"{target}: {sentence}")

        fitted = fit_heads(training, replace(options, progress=tell))
        save_heads(gallery.folder, fitted.values())
        yield [Refit(one.card, before.get((target, kind))) for kind, one in fitted.items()]
