"""Explanations as they are answered: what each number stands for holds for both sides."""

from __future__ import annotations

import numpy as np
import pytest

from data.catalog import Box, CatalogItem
from indexer.feature_maps import PatchParts
from service.answers import Receipt
from service.explain import Explained
from service.explanation import match_answer
from service.match import match
from service.saliency import Subject

SIDE = 56


def subject(width: int, height: int, box: Box | None = None) -> Subject:
    return Subject(np.full((SIDE, SIDE, 3), 90, np.uint8), np.full((height, width, 3), 90, np.uint8), box)


@pytest.mark.parametrize("has_class_token", [False, True])
@pytest.mark.parametrize("is_relative", [False, True])
def test_both_maps_of_a_match_add_up_to_its_similarity(has_class_token: bool, is_relative: bool) -> None:
    random = np.random.default_rng(0)
    # 4 x 4 patches, and what is left of an embedding where a class token has its part.
    draws = [random.normal(size=(17, 8)).astype(np.float32) for _ in range(2)]
    draws = [one / np.linalg.norm(one[: 16 + has_class_token].sum(0)) for one in draws]
    parts = [PatchParts(one[:16], (4, 4), one[16] if has_class_token else None) for one in draws]
    query, item = subject(80, 20), subject(40, 60, Box(0.5, 0, 0.25, 1))
    usual = random.normal(size=8).astype(np.float32) if is_relative else None
    found = match(*parts, query, item, usual=usual)
    explained = Explained("match", query, found.query_map, found.similarity, "A share.", None, match=found, item=item)
    receipt = Receipt(1, 1, "tiny", "0", "exact")
    answer = match_answer(explained, CatalogItem("a", b""), receipt=receipt, with_map=True)
    assert answer.match is not None
    sides = [
        (answer.map, answer.match.padding, answer.match.usual, (14, 56)),
        (answer.match.map, answer.match.item_padding, answer.match.item_usual, (56, 9)),
    ]
    for values, padding, common, shape in sides:
        assert np.shape(values) == shape
        assert (common is None) == (not is_relative)
        whole = np.sum(values) + padding + (common or 0) + answer.match.unattributed
        assert whole == pytest.approx(answer.similarity, abs=1e-5)
    assert abs(answer.match.padding - answer.match.item_padding) > 1e-3
