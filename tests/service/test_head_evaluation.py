from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from service.head_evaluation import evaluate_target
from tests.service.answers import head, tags, target_answers, three_labels


def linear_figures():
    return evaluate_target(three_labels())["heads"]["linear"]


def test_accuracy_counts_unknown_labels_as_wrong():
    # Right are q0, q1, q3 and q5: 4 of all 8, 4 of the 6 with a label that the head knows.
    figures = linear_figures()
    assert figures["accuracy"] == 0.5
    assert figures["accuracy_queries"] == 8
    assert figures["accuracy_known_labels"] == 0.6667
    # Wilson, 4 of 8: (4 + 1.92) / 11.84 -+ 1.96 * sqrt(16 / 8 + 0.96) / 11.84.
    assert (figures["accuracy_low"], figures["accuracy_high"]) == (0.2152, 0.7848)


def test_top_k():
    # There are three labels, so that all known ones are among the first three and five.
    figures = linear_figures()
    assert (figures["top_3_accuracy"], figures["top_5_accuracy"]) == (0.75, 0.75)


def test_top_3_of_five_labels():
    # The right label of q0 is the third likeliest, that of q1 the fourth, that of q2 the first.
    probabilities = np.array([[0.2, 0.25, 0.35, 0.15, 0.05], [0.2, 0.15, 0.3, 0.25, 0.1], [0, 0, 1, 0, 0]], np.float32)
    answers = target_answers([0, 1, 2], tuple("abcde"), head("knn", [2, 2, 2], 5, probabilities=probabilities))
    figures = evaluate_target(answers)["heads"]["knn"]
    assert (figures["accuracy"], figures["top_3_accuracy"], figures["top_5_accuracy"]) == (0.3333, 0.6667, 1.0)


def test_macro_means_are_over_the_labels_that_occur():
    # Tops: 2 right of 4 said and of 3 asked, F1 4/7. Shirts: 2 right of 3 and of 3. Socks do not occur.
    figures = linear_figures()
    assert figures["macro_labels"] == 2
    assert figures["macro_precision"] == 0.5833
    assert figures["macro_recall"] == 0.6667
    assert figures["macro_f1"] == 0.619


def test_log_loss_and_calibration():
    # Known queries: four at -ln 0.6, two at -ln 0.2.
    figures = linear_figures()
    assert figures["log_loss"] == 0.877
    # Always 0.6 sure and right for half; before calibration 0.9 sure.
    assert figures["calibration_error"] == 0.1
    assert figures["calibration_error_uncalibrated"] == 0.4
    assert figures["reliability"] == [{"queries": 8, "confidence": 0.6, "accuracy": 0.5}]
    assert figures["reliability_uncalibrated"] == [{"queries": 8, "confidence": 0.9, "accuracy": 0.5}]


def test_sets_are_judged_on_known_labels():
    # Of the six, only the set of q4 lacks the label; the eight sets hold nine labels.
    figures = linear_figures()
    assert figures["set_coverage"] == 0.8333
    assert figures["set_coverage_queries"] == 6
    assert figures["mean_set_size"] == 1.125


def test_abstention_is_counted_apart_for_known_and_unknown_labels():
    figures = linear_figures()
    assert (figures["abstention_known_labels"], figures["abstention_known_labels_queries"]) == (0.1667, 6)
    assert (figures["abstention_unknown_labels"], figures["abstention_unknown_labels_queries"]) == (0.5, 2)


def test_label_table():
    tops, shirts, socks = linear_figures()["by_label"]
    assert (tops["label"], tops["gallery_items"], tops["queries"], tops["predicted"]) == ("Tops", 10, 3, 4)
    assert (tops["precision"], tops["recall"], tops["f1"]) == (0.5, 0.6667, 0.5714)
    # Wilson, 2 of 4 and 2 of 3.
    assert (tops["precision_low"], tops["precision_high"]) == (0.15, 0.85)
    assert (tops["recall_low"], tops["recall_high"]) == (0.2077, 0.9385)
    assert (shirts["precision"], shirts["recall"], shirts["f1"]) == (0.6667, 0.6667, 0.6667)
    # No query has the label, so that nothing can be found; what was said of it was wrong.
    assert (socks["queries"], socks["predicted"], socks["precision"]) == (0, 1, 0.0)
    assert socks["recall"] is None
    assert socks["recall_low"] is None
    assert "threshold" not in tops


def test_confusion_leaves_unknown_labels_out():
    assert linear_figures()["confusion"] == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]


def test_confused_pairs_are_of_both_directions():
    # a is taken for b twice and b for a once, c for a once, b for c never.
    truth = [0, 0, 0, 1, 2]
    answers = target_answers(truth, ("a", "b", "c"), head("knn", [1, 1, 0, 0, 0], 3))
    first, second = evaluate_target(answers)["heads"]["knn"]["confused_pairs"]
    assert first == {
        "first": "a",
        "second": "b",
        "first_as_second": 2,
        "second_as_first": 1,
        "first_queries": 3,
        "second_queries": 1,
    }
    # The way taken more often stands first: c for a once, a for c never.
    assert (second["first"], second["second"], second["first_as_second"], second["second_as_first"]) == ("c", "a", 1, 0)


def test_the_best_head_is_set_against_each_other_one():
    figures = evaluate_target(three_labels())
    assert figures["best_head"] == "knn"
    assert list(figures["verdicts"]) == ["linear"]
    assert figures["verdicts"]["linear"].startswith("knn and linear cannot be told apart on these 8 photos")
    assert figures["queries"] == 8
    assert figures["queries_with_unknown_label"] == 2
    assert figures["heads"]["knn"]["milliseconds"] == 0.25


def test_of_equally_accurate_heads_the_lower_log_loss_is_best():
    # Both have q0 right and q1 wrong; the second puts less on the wrong label.
    unsure = head("mlp", [0, 0], 2, probabilities=np.array([[0.9, 0.1], [0.55, 0.45]], np.float32))
    answers = target_answers([0, 1], ("a", "b"), head("linear", [0, 0], 2), unsure)
    assert evaluate_target(answers)["best_head"] == "mlp"
    assert evaluate_target(replace(answers, heads=answers.heads[::-1]))["best_head"] == "mlp"


def test_several_labels_an_item():
    figures = evaluate_target(tags())
    of_linear = figures["heads"]["linear"]
    # Of three labels that are true two are said, and none too many: F1 2 * 2 / (3 + 2). q1 misses Winter.
    assert of_linear["micro_f1"] == 0.8
    assert (of_linear["exact_match"], of_linear["exact_match_queries"]) == (0.6667, 3)
    assert (of_linear["macro_recall"], of_linear["macro_f1"]) == (0.5, 0.5)
    assert figures["several_labels"] is True
    assert figures["queries_with_unknown_label"] == 1
    assert [row["threshold"] for row in of_linear["by_label"]] == [0.5, 0.3]
    # -ln of 0.9, 0.78, 0.8, 0.25, 0.9, 0.9 on average.
    assert of_linear["log_loss"] == 0.3623
    assert "confusion" not in of_linear
    assert "set_coverage" not in of_linear


def test_several_labels_are_calibrated_yes_by_yes():
    # Of six probabilities two are 0.1, and 0.22 and 0.25 are in one bin, (0.2, 0.267].
    of_linear = evaluate_target(tags())["heads"]["linear"]
    assert [row["queries"] for row in of_linear["reliability"]] == [2, 2, 1, 1]
    # |0 - 0.1| twice; of the next bin one of two is true, |0.5 - 0.235| twice; |1 - 0.8|; |1 - 0.9|. Over six.
    assert of_linear["calibration_error"] == 0.1717
    # Squares, each in a bin of its own but for 0.01 twice and 0.0484 and 0.0625 in (0, 0.067], all four together.
    # |0.25 - 0.0327| four times, |1 - 0.64|, |1 - 0.81|; over six.
    assert of_linear["calibration_error_uncalibrated"] == 0.2365


def test_thresholds_are_optional():
    answers = tags()
    bare = replace(answers, heads=(replace(answers.heads[0], card={}),))
    assert "threshold" not in evaluate_target(bare)["heads"]["linear"]["by_label"][0]


def test_only_unknown_labels():
    figures = evaluate_target(target_answers([-1, -1], ("a", "b"), head("knn", [0, 1], 2)))["heads"]["knn"]
    assert figures["accuracy"] == 0.0
    assert figures["accuracy_known_labels"] is None
    assert figures["set_coverage"] is None
    assert figures["abstention_known_labels_low"] is None
    assert figures["log_loss"] is None
    assert figures["confused_pairs"] == []


@pytest.mark.parametrize("answers", [three_labels(), tags(), target_answers([-1], ("a", "b"), head("knn", [0], 2))])
def test_figures_are_json(answers):
    figures = evaluate_target(answers)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_no_photo_no_head_and_two_of_a_kind_are_refused():
    with pytest.raises(ValueError, match="got 1 heads and 0 photos"):
        evaluate_target(target_answers([], ("a", "b"), head("knn", [], 2)))
    with pytest.raises(ValueError, match="got 0 heads and 1 photos"):
        evaluate_target(target_answers([0], ("a", "b")))
    with pytest.raises(ValueError, match="told apart by their kind; got knn, knn"):
        evaluate_target(target_answers([0], ("a", "b"), head("knn", [0], 2), head("knn", [0], 2)))


def test_of_several_labels_micro_f1_decides_and_a_photo_is_right_where_all_of_it_is():
    answers = tags()
    # Micro F1: of "more" 2 * 2 / (3 + 2) = 0.8; of "other" 2 * 3 / (3 + 5) = 0.75. The macro F1 of "other" is higher:
    # it finds Winter, and says it of all.
    first = replace(answers.heads[0], kind="more")
    second = replace(first, kind="other", predicted=np.array([[True, True], [True, True], [False, True]]))
    figures = evaluate_target(replace(answers, heads=(second, first)))
    assert figures["heads"]["other"]["macro_f1"] > figures["heads"]["more"]["macro_f1"]
    assert figures["best_head"] == "more"
    # All labels are right of two photos and of one: 1/3 more.
    assert "33.3 points" in figures["verdicts"]["other"]
