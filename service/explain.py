"""Why do you say so: a map of what an answer hangs on, by any method, and how far the map can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from indexer.encoders import EncoderError, find_weights
from service.faithfulness import Faithfulness, measure_faithfulness, rank_correlation
from service.match import Match, match
from service.occlusion import occlude
from service.saliency import ExplanationError, Subject
from service.training_set import staleness

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from heads.fitted import FittedHead
    from heads.logits import Layers
    from indexer.encoders import Encoder, EncoderCard
    from indexer.gallery import Gallery
    from indexer.networks import PooledNetwork
    from service.networks import Networks
    from service.saliency import Encode

# The methods that explain a label, and what their maps say.
LABEL_METHODS = {
    "occlusion": "By how much the label's logit falls when this place of the photo is hidden; where it is below 0, it "
    "rises.",
    "gradcam": "How much this place of the network's map speaks for the label (Grad-CAM); what speaks against is 0.",
    "attention": "How much of what the network attends to here speaks for the label (gradient-weighted attention).",
    "rollout": "How much of what the network sums up comes from here (attention rollout), whatever the label.",
}
METHODS = (*LABEL_METHODS, "match")
# Options that one method has, by the name that they have over HTTP and on the command line.
_OPTIONS = {"layer": "gradcam", "window": "occlusion", "stride": "occlusion", "fill": "occlusion", "relative": "match"}
# What people call them.
NAMES = {"gradcam": "Grad-CAM", "rollout": "attention rollout"}
_MATCH = "The share of the similarity that this place brings; where it is below 0, it takes away from it."
_RELATIVE = (
    "What this place brings to the similarity beyond what it brings to the gallery's items on average; where it is "
    "below 0, it brings less."
)
_APPROXIMATE = (
    " This encoder sums a photo up in a class token, which has no places: the shares are of the mean of its patches "
    "instead, an approximation."
)
# A share of a value that float32 loses on the way.
_ROUNDING = 1e-4
# Of weights, where one more costs next to nothing: the mean says more than one of them.
_SHUFFLES = 8
# Of networks: with one of them the correlation of single photos is -0.66 to 0.61 by chance (docs/experiments.md).
_REDRAWN = 3
# A map, those of randomised weights, which are none where faithfulness is not asked, and whose weights they were.
_Maps = tuple["NDArray[np.float32]", list["NDArray[np.float32]"], str]
# The window is a seventh of the square unless told: 32 of 224 pixels, and it moves by half of itself.
_WINDOWS = 7


@dataclass(frozen=True, slots=True)
class ExplainOptions:
    """How an answer is explained.

    Args:
        method: One of METHODS.
        layer: Of Grad-CAM: name of a module; None for the last that gives a map.
        window: Of occlusion: side of what is hidden, pixels of the letterboxed photo; None for a seventh of its side,
            or as much as fits the photo.
        stride: Of occlusion: its steps; None for half the window.
        fill: Of occlusion: what hidden pixels become, one of service.occlusion.FILLS; None for `mean`.
        links: Of match: pairs of patches that are linked, at most.
        is_relative: Of match: whether shares are what a place brings beyond what it brings to the gallery on average.
        is_checked: Whether faithfulness is measured, which takes longer than most maps.
    """

    method: str = "occlusion"
    layer: str | None = None
    window: int | None = None
    stride: int | None = None
    fill: str | None = None
    links: int = 8
    is_relative: bool = False
    is_checked: bool = True

    def __post_init__(self) -> None:
        """Raises:
        ExplanationError: There is no such method, or it does not have an option that is given.
        """
        if self.method not in METHODS:
            raise ExplanationError(f"A method is one of {', '.join(METHODS)}; got '{self.method}'.")
        given = {"layer": self.layer, "window": self.window, "stride": self.stride, "fill": self.fill}
        for name, value in {**given, "relative": self.is_relative or None}.items():
            if value is not None and _OPTIONS[name] != self.method:
                raise ExplanationError(f"'{name}' is an option of {_OPTIONS[name]}; {self.method} has none.")


@dataclass(frozen=True, slots=True)
class Explained:
    """A map of what an answer hangs on.

    Args:
        method: That found it.
        subject: The photo.
        values: (S, S) float32 over `subject.pixels`.
        score: What is explained, for the whole photo: the label's probability 0..1, or the similarity -1..1.
        meaning: What a number of the map says.
        faithfulness: How far it can be trusted; None where that was not asked.
        label: Of a head's answer, the label that is explained; None for a match.
        embedding: And the photo's embedding, (D,) float32, by the head's encoder.
        match: For a match, the item's map and the links.
        item: And the item's photo.
    """

    method: str
    subject: Subject
    values: NDArray[np.float32]
    score: float
    meaning: str
    faithfulness: Faithfulness | None
    label: str | None = None
    embedding: NDArray[np.float32] | None = None
    match: Match | None = None
    item: Subject | None = None

    @property
    def is_flat(self) -> bool:
        """Whether the map says the same of every place, but for rounding."""
        values = self.on_photo
        return bool(np.ptp(values) <= _ROUNDING * np.abs(values).max())

    @property
    def on_photo(self) -> NDArray[np.float32]:
        """The map without the padding, (h, w): over the photo, or its box."""
        return self.values[self.subject.area.rows, self.subject.area.columns]


class Explainer:
    """Explains what an encoder's embeddings lead to.

    Args:
        encoder: Of the head, or of the gallery for a match.
        networks: Where the methods that look inside find its network.
        options: How.
        encode: Encodes letterboxed photos, if not by `encoder.encode`: over several cores, for example.
        check: Called between batches; what it raises ends the work.
    """

    def __init__(
        self,
        encoder: Encoder,
        networks: Networks,
        options: ExplainOptions,
        *,
        encode: Encode | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> None:
        self._card, self._encode = encoder.card, encode or encoder.encode
        self._networks, self._options, self._check = networks, options, check

    def label(self, subject: Subject, fitted: FittedHead, label: str | None = None) -> Explained:
        """What the probability of a label hangs on.

        Args:
            subject: The photo, letterboxed for the head's encoder.
            fitted: The head.
            label: Which; None for the likeliest.

        Raises:
            ExplanationError: The head has no such label, or it or its encoder cannot be explained so.
            EncoderError: The encoder's network cannot be loaded.
        """
        method = self._options.method
        possible = possible_methods(self._card, has_layers=bool(fitted.head.layers))
        if method not in possible:
            raise ExplanationError(_impossible(method, fitted, self._card, possible))
        # (S, S, 3) to (1, S, S, 3)
        embedding = self._encode(subject.pixels[None])
        probabilities = fitted.answer(embedding).probabilities[0]
        number = int(probabilities.argmax()) if label is None else _number_of(label, fitted)

        def probability(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
            return fitted.answer(self._encode(pixels)).probabilities[:, number]

        make = self._occlusion if method == "occlusion" else self._inside
        values, others, whose = make(subject, fitted, number)
        return Explained(
            method=method,
            subject=subject,
            values=values,
            score=float(probabilities[number]),
            meaning=LABEL_METHODS[method],
            faithfulness=self._measure(subject, values, probability, others, whose) if others else None,
            label=fitted.card.labels[number],
            embedding=embedding[0],
        )

    def match(self, query: Subject, item: Subject, gallery: Gallery) -> Explained:
        """What the similarity of a photo and an item's hangs on.

        Args:
            query: The photo, letterboxed for the gallery's encoder.
            item: The item's likewise.
            gallery: For what is usual in it.

        Raises:
            ExplanationError: A relative match of an encoder whose patches do not add up.
            EncoderError: The encoder's network cannot be loaded, or has no patches.
        """
        options, patches = self._options, self._networks.patches(self._card)
        own, other = (patches.encode_parts(one.pixels[None])[0] for one in (query, item))
        usual = gallery.mean_embedding if options.is_relative else None
        found = match(own, other, query, item, links=options.links, usual=usual)
        faithfulness = None
        if options.is_checked:
            embedding = self._encode(item.pixels[None])[0]

            def similarity(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
                similarities: NDArray[np.float32] = self._encode(pixels) @ embedding
                return similarities

            def reordered(order: NDArray[np.int64]) -> NDArray[np.float32]:
                parts = replace(other, parts=other.parts[:, order])
                common = None if usual is None else usual[order]
                return match(own, parts, query, item, links=0, usual=common).query_map

            # The item's numbers in other orders are those of other weights in the network's last layer.
            others = [reordered(order) for order in _orders(len(embedding))]
            faithfulness = self._measure(query, found.query_map, similarity, others, "the weights on the item's side")
        meaning = _RELATIVE if options.is_relative else _MATCH if found.is_exact else _MATCH + _APPROXIMATE
        return Explained(
            "match", query, found.query_map, found.similarity, meaning, faithfulness, match=found, item=item
        )

    def _measure(
        self,
        subject: Subject,
        values: NDArray[np.float32],
        score: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
        others: Sequence[NDArray[np.float32]],
        whose: str,
    ) -> Faithfulness:
        """The figures of a map, beside others of randomised weights."""
        measured = measure_faithfulness(subject, values, score, check=self._check)
        sanity = float(np.mean([rank_correlation(values, other, subject.area) for other in others]))
        return replace(measured, sanity=sanity, randomised=whose)

    def _occlusion(self, subject: Subject, fitted: FittedHead, number: int) -> _Maps:
        def logit(embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
            return fitted.head.logits(embeddings)[:, number]

        area, options = subject.area, self._options
        window = options.window or min(len(subject.pixels) // _WINDOWS, area.width, area.height)
        found = occlude(
            subject,
            self._encode,
            logit,
            window=window,
            stride=options.stride or max(1, window // 2),
            fill=options.fill or "mean",
            check=self._check,
        )

        # An embedding's numbers in another order come to other weights than were learned for them.
        def reordered(order: NDArray[np.int64]) -> NDArray[np.float32]:
            return found.rescore(lambda embeddings: logit(embeddings[:, order]))

        others = [reordered(order) for order in _orders(len(found.whole))] if options.is_checked else []
        return found.values, others, "the head's weights"

    def _inside(self, subject: Subject, fitted: FittedHead, number: int) -> _Maps:
        from service.attention import gradient_attention, rollout
        from service.gradcam import gradcam
        from service.randomisation import randomised, randomised_layers

        network, layers, options = self._networks.torch(self._card), fitted.head.layers, self._options

        def draw(network: PooledNetwork, layers: Layers) -> NDArray[np.float32]:
            self._check()
            if options.method == "rollout":
                return rollout(network, subject.pixels)
            if options.method == "attention":
                return gradient_attention(network, layers, subject.pixels, number)
            return gradcam(network, layers, subject.pixels, number, layer=options.layer)

        values = draw(network, layers)
        seeds = range(_REDRAWN) if options.is_checked else ()
        others = [draw(randomised(network, seed), randomised_layers(layers, seed)) for seed in seeds]
        whose = "the network's weights" if options.method == "rollout" else "the weights of network and head"
        return values, others, whose


def possible_methods(card: EncoderCard, *, has_layers: bool) -> tuple[str, ...]:
    """The methods that an encoder and a head can be explained by, as far as can be told without loading a network.

    Args:
        card: The encoder's.
        has_layers: Whether the head has a gradient; kNN has none, and an ensemble neither.
    """
    try:
        is_transformer = "cls" in find_weights(card.name, download=False).poolings
    except EncoderError:
        return ("occlusion",)
    inside = (["attention"] if has_layers else []) + ["rollout"] if is_transformer else ["gradcam"] * has_layers
    return ("occlusion", *inside, "match")


def check_question(
    method: str, target: str | None, match_item_id: str | None, *, label: str | None, head: str | None
) -> None:
    """Returns where a method has what it needs, and nothing else: a match the item that is matched, any other a target.

    Raises:
        ExplanationError: It has not.
    """
    if method == "match" and (match_item_id is None or any((target, label, head))):
        raise ExplanationError("A match is with an item of the gallery: name that item, and no target, label or head.")
    if method != "match" and (target is None or match_item_id is not None):
        raise ExplanationError(f"{method} explains what a head says: name its target, and no item to match.")


def stale_remarks(fitted: FittedHead, gallery: Gallery) -> list[str]:
    """What should be known of a head that was fitted on another state of the gallery; nothing of any other."""
    now = staleness(fitted, gallery)
    if not now.is_stale:
        return []
    return [f"The {fitted.card.kind} head of {fitted.card.target} is {now}; fit it again to have the newest labels in."]


def _impossible(method: str, fitted: FittedHead, card: EncoderCard, possible: Sequence[str]) -> str:
    with_layers, way_out = possible_methods(card, has_layers=True), ""
    why = f"encoder '{card.name}' is {'a' if method == 'gradcam' else 'no'} transformer with a class token"
    if len(with_layers) == 1:
        why = f"the network of encoder '{card.name}' is not at hand"
    elif method in with_layers:
        why = "it has no gradient"
        way_out = " Or ask a linear, MLP or comparator head."
    return (
        f"The {fitted.card.kind} head of '{fitted.card.target}' cannot be explained by {method}: {why}. It can be by "
        f"{', '.join(one for one in possible if one != 'match')}.{way_out}"
    )


def _number_of(label: str, fitted: FittedHead) -> int:
    """The class number of a label.

    Raises:
        ExplanationError: The head has no such label.
    """
    known = fitted.card.labels
    if label not in known:
        raise ExplanationError(
            f"The {fitted.card.kind} head of '{fitted.card.target}' has no label '{label}'; it knows "
            f"{', '.join(known[:8])}{' ...' if len(known) > 8 else ''}."
        )
    return known.index(label)


def _orders(count: int) -> list[NDArray[np.int64]]:
    """Orders of the places 0..count-1, always the same."""
    random = np.random.default_rng(0)
    return [random.permutation(count) for _ in range(_SHUFFLES)]
