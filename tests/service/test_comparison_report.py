"""The page of a comparison: what a reader finds on it, and where its photos come from."""

from __future__ import annotations

from typing import Any

import numpy as np

from service.comparison_report import find_groups, render_comparison
from service.head_comparison import compare_target
from service.head_evaluation import TargetAnswers
from tests.service.answers import head, item, target_answers
from tests.service.test_head_comparison import compared, contender, outcome, two
from tests.service.test_report import Page

ATTACK = '<script>alert("1")</script>'


def page(*answers: TargetAnswers, remarks: tuple[str, ...] = (), **changes: Any) -> Page:
    figures = [compared(one, **changes) for one in answers]
    return Page(render_comparison(answers, figures, title="Which one?", facts={"gallery": "shop"}, remarks=remarks))


def test_the_verdict_stands_first() -> None:
    answers = two(20, 1, 7, 2)
    found = page(answers, remarks=("2 photos are left out.",))
    assert found.texts("h1") == ["Which one?"]
    assert found.texts("p", "summary") == [compared(answers)["verdict"]["sentence"]]
    # 27 of 30; Wilson gives 0.744 to 0.965.
    assert found.texts("li")[:2] == [
        "The most often right on these photos is comparator x: 27 of 30 photos (74 to 97 of 100).",
        "2 photos are left out.",
    ]
    # One target needs no overview.
    assert found.all("nav") == []


def test_heads_stand_from_the_best_with_bars_on_one_scale() -> None:
    found = page(two(20, 1, 7, 2))
    rows = found.rows("ranking")
    assert [row[0].split(" on ")[0].split(" fine")[0] for row in rows[1:]] == [
        "comparator x most often right",
        "linear",
    ]
    assert [row[1] for row in rows[1:]] == ["90.0 % 74.4 to 96.5", "70.0 % 52.1 to 83.3"]
    assert [row[3] for row in rows[1:]] == ["7", "1"]
    # From 50 % on, the last ten below the least end: 90 % is at (90 - 50) / 50.
    assert rows[0][2] == "50 %100 %"
    assert [one["style"].split(";")[0] for one in found.all("span", "interval")[:2]] == ["--at:80.0", "--at:40.0"]


def test_pairs_say_whether_a_difference_is_shown() -> None:
    answers = outcome(linear="1" * 12 + "0" * 8, knn="1" * 9 + "0" * 3 + "1" + "0" * 7, comparator_x="1" * 20)
    rows = page(answers).rows("duels")[1:]
    assert [(row[0], row[-1]) for row in rows] == [
        ("comparator x against knn", "shown"),
        ("comparator x against linear the verdict", "shown"),
        ("linear against knn", "not shown"),
    ]
    assert rows[1][1:3] == ["8", "0"]
    assert rows[1][3].startswith("40.0 points ")
    assert rows[1][4:6] == ["0.008", "0.016"]


def test_what_heads_cost_is_in_the_table() -> None:
    cost = {"encoder_parameters": 3_371_000, "head_bytes": 63_900, "encoder_bytes": 18_000_000}
    rows = {row[0]: row[1:] for row in page(two(20, 1, 7, 2), linear=cost).rows("heads")}
    # The comparator is first; it has 3,000 + 40 parameters.
    assert rows["Parameters of encoder and head; kNN keeps photos"] == ["3.04 k", "3.37 M"]
    assert rows["Size on disk of encoder and head"] == ["18.9 kB", "18.1 MB"]
    assert rows["Milliseconds a photo read, decoded, encoded and answered"] == ["12.2", "12.2"]
    assert {"Macro precision", "Macro recall", "Macro F1"} <= {" ".join(name.split()[:2]) for name in rows if name}


def test_photos_stand_by_who_is_right_about_them() -> None:
    answers = outcome(linear="1100011", comparator_x="1011001")
    groups = {group.name: group.rows.tolist() for group in find_groups(answers, compared(answers))}
    assert {name: sorted(rows) for name, rows in groups.items()} == {
        "only-linear": [1, 5],
        "only-comparator x": [2, 3],
        "all-wrong": [4],
        "all-right": [0, 6],
    }
    found = page(answers)
    assert len(found.all("li")) - 1 == 7
    titles = found.texts("h3")
    assert titles[3:7] == [
        "linear is right, comparator x is not",
        "comparator x is right, linear is not",
        "All heads are wrong",
        "All heads are right",
    ]
    said = found.texts("dd")
    assert "✓ a 60 %" in said
    assert "✗ b 60 %" in said


def test_a_group_shows_no_more_than_a_dozen_photos() -> None:
    found = page(two(20, 1, 14, 0))
    # 12 of 14, 1, none wrong, 6 of 20 that all have right; one remark.
    assert len(found.all("li")) - 1 == 12 + 1 + 6
    assert any(text.startswith("14 photos that comparator x has right") for text in found.texts("p"))


def test_labels_that_are_not_known_are_said() -> None:
    answers = target_answers([0, -1], ("a", "b"), head("linear", [0, 0], 2), head("comparator x", [0, 1], 2))
    found = page(answers, **{"comparator x": {"labels": ("a",)}})
    assert found.texts("li")[1:3] == [
        "With a label that no head knows, and so wrong for all: 1 photo.",
        "comparator x does not know b; photos of these count as wrong for it.",
    ]


def test_several_targets_have_an_overview() -> None:
    found = page(two(20, 1, 7, 2), two(15, 1, 12, 2))
    rows = found.rows("overview")[1:]
    assert [row[1] for row in rows] == ["comparator x", "comparator x"]
    assert [row[4] for row in rows] == ["no difference shown", "comparator x"]


def test_names_cannot_break_out_of_the_page() -> None:
    answers = target_answers([0, 1], ("a", ATTACK), head("linear", [0, 1], 2), head(f"comparator {ATTACK}", [1, 1], 2))
    answers.items[0] = item(ATTACK, ATTACK)  # type: ignore[index]
    contenders = {one.kind: contender(one.kind) for one in answers.heads}
    figures = compare_target(answers, contenders, features="frozen features")
    html = render_comparison([answers], [figures], title=ATTACK, facts={ATTACK: ATTACK}, remarks=[ATTACK])
    assert ATTACK not in html
    assert len(Page(html).all("script")) == 1
    assert np.isfinite(figures["heads"]["linear"]["accuracy"])
