"""From what the gallery and the heads say to the words of the API."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heads.comparator import ComparatorHead
from heads.groups import DEFAULT_GROUPS
from service import answers

if TYPE_CHECKING:
    from data.catalog import CatalogItem
    from heads.fitted import FittedHead
    from indexer import gallery as indexed
    from indexer.encoders import EncoderCard
    from service import classification
    from service.lanes import Ticket
    from service.serving import Heads, Serving


def item_answer(item: CatalogItem) -> answers.Item:
    """An item in the words of the API."""
    box = None if item.box is None else (item.box.x, item.box.y, item.box.width, item.box.height)
    labels = {target: list(names) for target, names in item.labels.items()}
    return answers.Item(item.item_id, item.product_id, labels, box, item.split)


def neighbour_answer(one: indexed.Neighbour) -> answers.Neighbour:
    """A neighbour in the words of the API."""
    return answers.Neighbour(item_answer(one.item), one.distance, one.similarity)


def photo_answer(
    name: str, predictions: Sequence[classification.Prediction], neighbours: Sequence[indexed.Neighbour]
) -> answers.ClassifiedPhoto:
    """What is said of one photo, in the words of the API."""
    return answers.ClassifiedPhoto(
        name, None, [prediction_answer(one) for one in predictions], [neighbour_answer(one) for one in neighbours]
    )


def prediction_answer(one: classification.Prediction) -> answers.Prediction:
    """A prediction in the words of the API."""
    return answers.Prediction(
        target=one.target,
        head=one.head,
        predicted=list(one.predicted),
        none_of_these=one.none_of_these,
        labels=[answers.LabelProbability(label, probability) for label, probability in one.labels],
        prediction_set=None if one.prediction_set is None else list(one.prediction_set),
        familiarity=one.familiarity,
        votes=[answers.Vote(item_answer(vote.item), vote.similarity, vote.weight) for vote in one.votes],
    )


def encoder_name(card: EncoderCard) -> str:
    """What an encoder is called in answers: one of a folder by the folder's own name, without the path to it."""
    return Path(card.name).name


def receipt_of(serving: Serving, ticket: Ticket, heads: Sequence[FittedHead] = ()) -> answers.Receipt:
    """What answered a request, and how long each stage took until now."""
    gallery = serving.gallery
    return answers.Receipt(
        gallery_version=gallery.snapshot.version,
        items=len(gallery),
        encoder=encoder_name(gallery.card),
        encoder_fingerprint=gallery.card.fingerprint,
        variant=gallery.searcher.variant,
        heads=[
            answers.HeadReceipt(
                target=one.card.target,
                kind=one.card.kind,
                gallery_version=one.card.gallery_version,
                fitted_at=one.card.fitted_at,
                encoder=Path(one.card.encoder).name if one.card.kind == ComparatorHead.kind else None,
            )
            for one in heads
        ],
        timings_ms=ticket.timings_ms(),
    )


def head_answers(heads: Heads) -> list[answers.CatalogHead]:
    """The heads that can be asked, in order of target and kind."""
    return [
        answers.CatalogHead(
            target=card.target,
            kind=card.kind,
            is_default=heads.best(card.target) is card,
            labels=len(card.labels),
            validation=dict(card.validation),
            gallery_version=card.gallery_version,
            fitted_at=card.fitted_at,
        )
        for _, card in sorted(heads.cards.items())
    ]


def group_answers(heads: Heads, targets: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """The labels of each group, of those that a head knows or an item carries; groups without any are left out.

    Args:
        heads: Those that can be asked.
        targets: Labels that items carry, by target.
    """
    known = {
        label for labels in (*targets.values(), *(card.labels for card in heads.cards.values())) for label in labels
    }
    found = {name: [label for label in labels if label in known] for name, labels in DEFAULT_GROUPS.items()}
    return {name: labels for name, labels in found.items() if labels}
