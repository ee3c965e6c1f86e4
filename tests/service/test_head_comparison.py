"""The comparison of heads with comparators: each figure worked by hand, and a verdict that says no more than it may."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from service.head_comparison import (
    COMPARATOR,
    HEAD,
    Contender,
    compare_pairs,
    compare_target,
    find_agreement,
    find_disagreement,
)
from service.head_evaluation import TargetAnswers
from tests.service.answers import head, target_answers

LABELS = ("a", "b")


def contender(name: str, **changes: Any) -> Contender:
    family = COMPARATOR if name.startswith("comparator") else HEAD
    return replace(Contender(family, "lite0", LABELS, 12.0, 3000, 40, 18_000, 900), **changes)


def outcome(**right: str) -> TargetAnswers:
    """Heads by name, with a 1 for each photo that they have right; every photo is an `a`. `_` stands for a space."""
    count = len(next(iter(right.values())))
    heads = [head(name.replace("_", " "), [0 if sign == "1" else 1 for sign in row], 2) for name, row in right.items()]
    return target_answers([0] * count, LABELS, *heads)


def compared(answers: TargetAnswers, **changes: Any) -> dict[str, Any]:
    contenders = {one.kind: contender(one.kind, **changes.get(one.kind, {})) for one in answers.heads}
    return compare_target(answers, contenders, features="frozen features")


def two(both: int, only_linear: int, only_comparator: int, neither: int) -> TargetAnswers:
    counts = (both, only_linear, only_comparator, neither)
    linear = "".join(sign * count for sign, count in zip("1100", counts, strict=True))
    comparator = "".join(sign * count for sign, count in zip("1010", counts, strict=True))
    return outcome(linear=linear, comparator_x=comparator)


def test_no_difference_is_claimed_where_the_test_shows_none():
    found = compared(two(20, 1, 7, 2))["verdict"]
    # 1 to 7: 2 * (1 + 8) / 256 = 0.0703, though the interval of the difference leaves out 0. With 50 photos a
    # difference like this is shown in four of five trials (tests/heads/test_metrics_paired.py); there are 30.
    assert found["sentence"] == (
        "No difference between frozen features and fine-tuning was shown on 30 photos: comparator x is ahead of linear "
        "by 20.0 points (3.3 to 36.7); McNemar p = 0.070; were that the true difference, it would take about 20 more "
        "photos to show it."
    )
    assert (found["is_shown"], found["winner"], found["more_photos"]) == (False, None, 20)
    assert (found["only_first_right"], found["only_second_right"]) == (1, 7)
    assert found["p_value"] == found["p_value_corrected"] == pytest.approx(18 / 256, abs=1e-5)
    # The comparator is ahead, and costs a second network for a difference that was not shown.
    assert (found["best_head"], found["best_comparator"], found["to_serve"]) == ("linear", "comparator x", "linear")


def test_a_difference_that_the_test_shows():
    # 1 to 12: 2 * (1 + 13) / 8192 = 0.0034.
    found = compared(two(15, 1, 12, 2))["verdict"]
    assert found["sentence"].startswith(
        "Fine-tuning won on 30 photos: comparator x is right more often than linear, the best of the other kind, by "
        "36.7 points ("
    )
    assert found["sentence"].endswith("); McNemar p = 0.003.")
    assert (found["is_shown"], found["winner"], found["to_serve"]) == (True, "comparator x", "comparator x")
    assert found["more_photos"] is None
    other = compared(two(15, 12, 1, 2))["verdict"]
    assert other["sentence"].startswith(
        "Frozen features won on 30 photos: linear is right more often than comparator x"
    )
    assert (other["winner"], other["to_serve"]) == ("linear", "linear")


def test_heads_that_are_right_equally_often():
    found = compared(two(10, 3, 3, 0))["verdict"]
    assert found["sentence"].startswith(
        "No difference between frozen features and fine-tuning was shown on 16 photos: "
    )
    assert "are right equally often, a difference of 0.0 points (" in found["sentence"]
    assert found["sentence"].endswith("; McNemar p = 1.000.")
    assert found["more_photos"] is None


def test_the_photos_that_are_lacking_are_told_in_two_figures_and_never_as_none():
    # 41 to 44 of 1,000: about 74,000 photos are needed.
    many = compared(two(900, 41, 44, 15))["verdict"]["more_photos"]
    assert many > 50_000
    assert many % 1000 == 0
    # 0 to 5 of 5: the formula is content with 4 photos, the exact test is not (0.0625).
    few = compared(two(0, 0, 5, 0))["verdict"]
    assert few["more_photos"] == 1
    assert few["sentence"].endswith("it would take one more photo to show it.")


def test_each_pair_is_tested_and_the_p_values_are_corrected_for_all_of_them():
    # Of 20 photos: good has all, middle the first 12, poor the first 9, and 1 that middle has not.
    answers = outcome(linear="1" * 12 + "0" * 8, knn="1" * 9 + "0" * 3 + "1" + "0" * 7, comparator_x="1" * 20)
    found = compared(answers)
    assert list(found["heads"]) == ["comparator x", "linear", "knn"]
    assert [(pair["second"], pair["first"]) for pair in found["pairs"]] == [
        ("comparator x", "knn"),
        ("comparator x", "linear"),
        ("linear", "knn"),
    ]
    counts = [(pair["only_second_right"], pair["only_first_right"]) for pair in found["pairs"]]
    assert counts == [(10, 0), (8, 0), (3, 1)]
    # 2 / 1024, 2 / 256 and 2 * (1 + 4) / 16 = 0.625, times 3, 2 and 1.
    raw = [pair["p_value"] for pair in found["pairs"]]
    assert raw == pytest.approx([2 / 1024, 2 / 256, 0.625], rel=1e-3)
    corrected = [pair["p_value_corrected"] for pair in found["pairs"]]
    assert corrected == pytest.approx([6 / 1024, 4 / 256, 0.625], rel=1e-3)
    assert [pair["is_shown"] for pair in found["pairs"]] == [True, True, False]
    # The verdict is about the best of each kind, by the corrected value.
    assert found["verdict"]["p_value_corrected"] == corrected[1]
    assert found["verdict"]["sentence"].endswith("; McNemar p = 0.016, corrected for 3 pairs.")
    # 8 of 20, exactly; all resamples lie above 0.
    assert found["pairs"][1]["difference"] == 0.4
    assert 0 < found["pairs"][1]["difference_low"] < 0.4 < found["pairs"][1]["difference_high"]


def test_a_difference_that_only_the_uncorrected_test_would_show():
    # 1 to 8 of 30: 2 * (1 + 9) / 512 = 0.039, times 3 no more. The other heads hardly differ.
    row = two(19, 1, 8, 2)
    linear, comparator = (one.predicted for one in row.heads)
    answers = target_answers(
        [0] * 30, LABELS, head("knn", linear, 2), head("linear", linear, 2), head("comparator x", comparator, 2)
    )
    found = compared(answers)["verdict"]
    assert found["p_value"] < 0.05 < found["p_value_corrected"]
    assert not found["is_shown"]
    # At the level of the step where it stands, 0.05 / 3, since nothing is shown: 2.394 * sqrt(0.3) + 0.8416 *
    # sqrt(0.3 - 0.2333^2) = 1.7286, over 0.2333 and squared 54.9; so 25 more.
    assert found["more_photos"] == 25


def test_what_a_head_costs():
    found = compared(two(3, 1, 0, 0), linear={"encoding_milliseconds": 12.5, "head_parameters": 41})["heads"]["linear"]
    # The made-up head takes 0.25 ms.
    assert (found["milliseconds_encoding"], found["milliseconds"], found["milliseconds_whole"]) == (12.5, 0.25, 12.75)
    assert (found["parameters_encoder"], found["parameters_head"], found["parameters"]) == (3000, 41, 3041)
    assert (found["bytes_encoder"], found["bytes_head"], found["bytes"]) == (18_000, 900, 18_900)
    assert (found["family"], found["encoder"]) == ("head", "lite0")
    assert (found["accuracy"], found["only_this_right"], found["labels_unknown"]) == (1, 1, [])
    assert {"accuracy_low", "macro_precision", "macro_recall", "macro_f1", "calibration_error"} <= found.keys()


def test_labels_that_a_head_does_not_know_are_named():
    found = compared(two(3, 1, 0, 0), **{"comparator x": {"labels": ("a",)}})["heads"]
    assert found["comparator x"]["labels_unknown"] == ["b"]
    assert found["linear"]["labels_unknown"] == []


def sure(answers: TargetAnswers, *rows: list[float]) -> TargetAnswers:
    """The same, the heads so sure of what they predict."""
    heads = []
    for one, row in zip(answers.heads, rows, strict=True):
        chosen = np.eye(2, dtype=bool)[one.predicted]
        heads.append(
            replace(
                one, probabilities=np.where(chosen, np.array(row)[:, None], 1 - np.array(row)[:, None]).astype("f4")
            )
        )
    return replace(answers, heads=tuple(heads))


def test_where_heads_agree_and_which_is_right_alone():
    #                     all right: 0, 1; linear alone: 2; comparator alone: 3, 6; none: 4, 5
    answers = sure(
        outcome(knn="1100000", linear="1110000", comparator_x="1101001"),
        [0.9, 0.6, 0.8, 0.8, 0.6, 0.9, 0.6],
        [0.9, 0.6, 0.8, 0.8, 0.6, 0.9, 0.6],
        [0.9, 0.6, 0.8, 0.7, 0.6, 0.9, 0.8],
    )
    found = find_agreement(answers)
    assert {name: rows.tolist() for name, rows in found.only.items()} == {
        "knn": [],
        "linear": [2],
        "comparator x": [6, 3],
    }
    # Mistakes from the surest, what all get right from the least sure.
    assert found.wrong.tolist() == [5, 4]
    assert found.right.tolist() == [1, 0]
    assert find_disagreement(answers, "comparator x", "linear").tolist() == [6, 3]
    assert find_disagreement(answers, "linear", "comparator x").tolist() == [2]
    assert find_disagreement(answers, "knn", "linear").tolist() == []
    agreement = compared(answers)["agreement"]
    assert agreement == {
        "only_one_right": {"knn": [], "linear": ["q2"], "comparator x": ["q6", "q3"]},
        "all_wrong": ["q5", "q4"],
        "all_right": 2,
    }


def test_pairs_of_one_head_are_none():
    assert compare_pairs({"linear": np.array([True])}, ["linear"]) == []


def test_a_comparison_is_of_both_kinds():
    answers = outcome(knn="10", linear="11")
    with pytest.raises(ValueError, match="Heads of 'articleType' are compared with a comparator; got knn, linear"):
        compared(answers)
