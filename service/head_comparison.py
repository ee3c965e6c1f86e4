"""Which head is best on the same photos: figures, cost, a test for each pair, and a verdict. See docs/metrics.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from heads.metrics_paired import (
    SIGNIFICANCE,
    McNemar,
    PairedDifference,
    chance,
    holm,
    mcnemar,
    paired_bootstrap,
    photos_needed,
    points,
)
from service.head_evaluation import TargetAnswers, measure_target, rank_heads, right_by_head
from service.phrases import photos as so_many

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEAD, COMPARATOR = "head", "comparator"


@dataclass(frozen=True, slots=True)
class Contender:
    """What a head is and costs; a name of it is its `HeadAnswers.kind`.

    Args:
        family: `head`, on the gallery's embeddings, or `comparator`, fine-tuned with its encoder.
        encoder: Name of the encoder.
        labels: That it knows.
        encoding_milliseconds: To read, decode and encode one photo.
        encoder_parameters: Trained numbers of the encoder's network.
        head_parameters: Numbers that the head learned or keeps, the photos of a kNN head among them.
        encoder_bytes: Of the encoder's weights file.
        head_bytes: Of the head as it is stored.
    """

    family: str
    encoder: str
    labels: tuple[str, ...]
    encoding_milliseconds: float
    encoder_parameters: int
    head_parameters: int
    encoder_bytes: int
    head_bytes: int


@dataclass(frozen=True, slots=True)
class Pair:
    """Two heads on the same photos.

    Args:
        first: Its name.
        second: Its name.
        mcnemar: The test.
        corrected: Its p value after Holm's correction for all pairs of the target.
        difference: In accuracy, second less first.
    """

    first: str
    second: str
    mcnemar: McNemar
    corrected: float
    difference: PairedDifference

    @property
    def is_shown(self) -> bool:
        """Whether the test tells them apart."""
        return self.corrected < SIGNIFICANCE


@dataclass(frozen=True, slots=True)
class Agreement:
    """Where heads agree, as numbers of queries.

    Args:
        only: By head, the queries that it alone is right about.
        wrong: That all get wrong.
        right: That all get right.
    """

    only: Mapping[str, NDArray[np.int64]]
    wrong: NDArray[np.int64]
    right: NDArray[np.int64]


def compare_target(answers: TargetAnswers, contenders: Mapping[str, Contender], *, features: str) -> dict[str, Any]:
    """What each head achieves and costs, each pair of heads, and which family is better; JSON-ready.

    Args:
        answers: Of one label an item; the labels are all that any head knows, and one that a head does not know
            counts as wrong for it.
        contenders: Of each head, one of each family or more.
        features: What the heads of the gallery stand on, for the verdict: `frozen features`.

    Raises:
        ValueError: No head of a family, two of one name, or no query.
        MetricError: Arrays that do not fit together.
    """
    families = {one.family for one in contenders.values()}
    if families != {HEAD, COMPARATOR}:
        raise ValueError(f"Heads of '{answers.target}' are compared with a comparator; got {', '.join(contenders)}.")
    measured = measure_target(answers)
    ranking = rank_heads(measured["heads"])
    pairs = compare_pairs(right_by_head(answers), ranking)
    agreement = find_agreement(answers)
    heads = {
        name: _cost(contenders[name], measured["heads"][name])
        | {"labels_unknown": [label for label in answers.labels if label not in contenders[name].labels]}
        | {"only_this_right": len(agreement.only[name])}
        | measured["heads"][name]
        for name in ranking
    }
    return measured | {
        "heads": heads,
        "pairs": [_pair_record(pair) for pair in pairs],
        "verdict": judge(pairs, ranking, contenders, features=features, count=len(answers.truth)),
        "agreement": {
            "only_one_right": {name: _ids(answers, rows) for name, rows in agreement.only.items()},
            "all_wrong": _ids(answers, agreement.wrong),
            "all_right": len(agreement.right),
        },
    }


def _cost(contender: Contender, figures: Mapping[str, Any]) -> dict[str, Any]:
    encoding = round(contender.encoding_milliseconds, 4)
    return {
        "family": contender.family,
        "encoder": contender.encoder,
        "milliseconds_encoding": encoding,
        "milliseconds_whole": round(encoding + figures["milliseconds"], 4),
        "parameters_encoder": contender.encoder_parameters,
        "parameters_head": contender.head_parameters,
        "parameters": contender.encoder_parameters + contender.head_parameters,
        "bytes_encoder": contender.encoder_bytes,
        "bytes_head": contender.head_bytes,
        "bytes": contender.encoder_bytes + contender.head_bytes,
    }


def compare_pairs(right: Mapping[str, NDArray[np.bool_]], ranking: Sequence[str]) -> list[Pair]:
    """Every pair of heads, the better one second, the clearest difference first.

    Args:
        right: By head, (Q,) whether it is right, on the same queries.
        ranking: Names of the heads, the best first.
    """
    names = [(worse, better) for better, worse in combinations(ranking, 2)]
    tests = [mcnemar(right[worse], right[better]) for worse, better in names]
    pairs = [
        Pair(worse, better, test, corrected, paired_bootstrap(right[worse], right[better]))
        for (worse, better), test, corrected in zip(names, tests, holm([test.p_value for test in tests]), strict=True)
    ]
    return sorted(pairs, key=lambda pair: pair.mcnemar.p_value)


def judge(
    pairs: Sequence[Pair], ranking: Sequence[str], contenders: Mapping[str, Contender], *, features: str, count: int
) -> dict[str, Any]:
    """The best head on the gallery's embeddings against the best comparator, in one sentence, and which one to serve.

    Both were chosen on these photos. Holm's correction is for every pair, so that it holds for this one too.

    Args:
        pairs: Of `compare_pairs`.
        ranking: Names of the heads, the best first.
        contenders: By name.
        features: As `compare_target`.
        count: Queries.
    """
    best = {
        family: next(name for name in ranking if contenders[name].family == family) for family in (HEAD, COMPARATOR)
    }
    pair = next(pair for pair in pairs if {pair.first, pair.second} == set(best.values()))
    more = None if pair.is_shown else _more_photos(pair, pairs, count)
    said = _Saying(pair, len(pairs), count, features, contenders)
    winner = pair.second if pair.is_shown else None
    return {
        "sentence": said.shown() if pair.is_shown else said.not_shown(more),
        "best_head": best[HEAD],
        "best_comparator": best[COMPARATOR],
        "is_shown": pair.is_shown,
        "winner": winner,
        # The gallery's embedding is at hand whoever answers; a comparator takes a second network.
        "to_serve": winner or best[HEAD],
        **{key: value for key, value in _pair_record(pair).items() if key != "is_shown"},
        "more_photos": more,
    }


@dataclass(frozen=True, slots=True)
class _Saying:
    """A verdict in words."""

    pair: Pair
    tests: int
    count: int
    features: str
    contenders: Mapping[str, Contender]

    def shown(self) -> str:
        better, worse = self.pair.second, self.pair.first
        what = "Fine-tuning" if self.contenders[better].family == COMPARATOR else self.features
        return (
            f"{what[:1].upper()}{what[1:]} won on {so_many(self.count)}: {better} is right more often than {worse}, "
            f"the best of the other kind, by {points(self.pair.difference)}; {self._test()}."
        )

    def not_shown(self, more: int | None) -> str:
        better, worse, difference = self.pair.second, self.pair.first, self.pair.difference
        how = f"{better} is ahead of {worse} by {points(difference)}"
        if not difference.mean:
            how = f"{better} and {worse} are right equally often, a difference of {points(difference)}"
        start = f"No difference between {self.features} and fine-tuning was shown on {so_many(self.count)}: {how}; "
        if more is None:
            return f"{start}{self._test()}."
        needed = f"about {more:,} more photos" if more > 1 else "one more photo"
        return f"{start}{self._test()}; were that the true difference, it would take {needed} to show it."

    def _test(self) -> str:
        correction = f", corrected for {self.tests} pairs" if self.tests > 1 else ""
        return f"{chance(self.pair.corrected)}{correction}"


def _more_photos(pair: Pair, pairs: Sequence[Pair], count: int) -> int | None:
    """How many more photos it takes, to two figures; None where heads win equally many."""
    # The level of Holm's step at which the pairs that are not shown yet stand.
    level = SIGNIFICANCE / sum(not one.is_shown for one in pairs)
    needed = photos_needed(pair.mcnemar.only_first, pair.mcnemar.only_second, count, significance=level)
    if needed is None:
        return None
    more = max(1, needed - count)
    step: int = 10 ** max(0, len(str(more)) - 2)
    return -(-more // step) * step


def find_agreement(answers: TargetAnswers) -> Agreement:
    """The queries that one head alone is right about, and those that all get wrong or right, the most telling first.

    First is what the only right head is surest about, of mistakes those that heads are surest about, and of what all
    get right that which they are least sure about.
    """
    right = right_by_head(answers)
    # One row a head, (M, Q).
    votes = np.array(list(right.values()))
    sure = np.array([head.probabilities.max(axis=1) for head in answers.heads])
    count, mean = votes.sum(axis=0), sure.mean(axis=0)

    def ordered(among: NDArray[np.bool_], by: NDArray[np.float32]) -> NDArray[np.int64]:
        order = np.argsort(by, kind="stable")
        return np.asarray(order[among[order]], np.int64)

    return Agreement(
        {name: ordered(votes[row] & (count == 1), -sure[row]) for row, name in enumerate(right)},
        ordered(count == 0, -mean),
        ordered(count == len(votes), mean),
    )


def find_disagreement(answers: TargetAnswers, first: str, second: str) -> NDArray[np.int64]:
    """The queries that the first of two heads is right about and the second is not, the first one's surest first."""
    right = right_by_head(answers)
    only = right[first] & ~right[second]
    sure = next(head.probabilities for head in answers.heads if head.kind == first).max(axis=1)
    order = np.argsort(-sure, kind="stable")
    return np.asarray(order[only[order]], np.int64)


def _pair_record(pair: Pair) -> dict[str, Any]:
    return {
        "first": pair.first,
        "second": pair.second,
        "only_first_right": pair.mcnemar.only_first,
        "only_second_right": pair.mcnemar.only_second,
        "difference": round(pair.difference.mean, 4),
        "difference_low": round(pair.difference.low, 4),
        "difference_high": round(pair.difference.high, 4),
        "p_value": float(f"{pair.mcnemar.p_value:.4g}"),
        "p_value_corrected": float(f"{pair.corrected:.4g}"),
        "is_shown": pair.is_shown,
    }


def _ids(answers: TargetAnswers, rows: NDArray[np.int64]) -> list[str]:
    return [answers.items[row].item_id for row in rows]
