from __future__ import annotations

import base64
import hashlib
import re
import tomllib
from dataclasses import replace
from fnmatch import fnmatch
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError

from service.head_evaluation import evaluate_target
from service.report import render_page, render_report
from tests.service.answers import head, item, jpeg, tags, target_answers, three_labels

SERVICE = Path(__file__).parents[2] / "service"
EMPTY_TAGS = {"meta", "img", "input", "br"}
ATTACK = '<script>alert("1")</script>'


class Page(HTMLParser):
    """A page taken apart: every element with its attributes and all the text inside it; complains of unclosed ones."""

    def __init__(self, html):
        super().__init__()
        self.elements = []
        self._open = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in EMPTY_TAGS:
            self._open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data):
        for _, _, text in self._open:
            text.append(data)

    def all(self, tag, class_name=None):
        """The attributes of each such element."""
        return [attributes for attributes, _ in self._found(tag, class_name)]

    def texts(self, tag, class_name=None):
        return [" ".join("".join(text).split()) for _, text in self._found(tag, class_name)]

    def rows(self, class_name):
        """The cells of the rows of tables of a class, the head's too, as text."""
        tables, rows = self._found("table", class_name), []
        inside = [element for element in self.elements if element[0] in ("table", "tr", "th", "td")]
        keep = False
        for tag, attributes, text in inside:
            if tag == "table":
                keep = any(attributes is one for one, _ in tables)
            elif keep and tag == "tr":
                rows.append([])
            elif keep:
                rows[-1].append(" ".join("".join(text).split()))
        return rows

    def _found(self, tag, class_name):
        return [
            (attributes, text)
            for name, attributes, text in self.elements
            if name == tag and (class_name is None or class_name in (attributes.get("class") or "").split())
        ]


def render(*answers, **facts):
    return render_report(answers, title="Heads of a gallery", facts={"Gallery": "shoes", **facts})


def page(*answers, **facts):
    return Page(render(*answers, **facts))


def text_of(one):
    return one.texts("body")[0]


def perfect(count=3):
    return target_answers([0, 1] * count, ("a", "b"), head("knn", [0, 1] * count, 2))


def test_every_target_has_a_section_and_a_line_in_the_overview():
    found = page(three_labels(), tags(), Encoder="lite0")
    assert found.texts("h1") == found.texts("title")[:1] == ["Heads of a gallery"]
    assert found.texts("h2") == ["articleType", "tags"]
    assert found.texts("dt")[:2] == ["Gallery", "Encoder"]
    assert found.texts("dd")[:2] == ["shoes", "lite0"]
    assert [one["href"] for one in found.all("a")] == ["#target-1", "#target-2"]
    assert [one["id"] for one in found.all("section")] == ["target-1", "target-2"]
    assert [row[:3] for row in found.rows("overview")[1:]] == [
        ["articleType", "knn", "75.0 % 40.9 to 92.8"],
        ["tags", "linear", "66.7 % 20.8 to 93.8"],
    ]
    assert "A photo that may have several labels is right where all of them are." in text_of(found)


def test_one_target_needs_no_overview():
    found = page(perfect())
    assert found.all("nav") == []
    assert len(found.all("section")) == 1


def test_the_summary_is_a_sentence():
    # 6 of 8 are right; Wilson gives 0.409 to 0.929.
    found = page(three_labels())
    assert found.texts("p", "summary") == ["knn names the right articleType for 6 of 8 photos (41 to 93 of 100)."]
    assert found.texts("ul", "remarks")[0].startswith("Measured on 8 photos.")
    assert (
        "2 photos have labels that no head has learned, and count as wrong; it says “none of these” for 0 of them, and "
        "for 0 of 100 photos with labels that it knows." in text_of(found)
    )


def test_a_summary_of_a_hundred_photos():
    truth = [0] * 150
    answers = target_answers(truth, ("a", "b"), head("linear", [1] * 15 + [0] * 135, 2))
    # Wilson, 135 of 150.
    assert page(answers).texts("p", "summary") == [
        "linear names the right articleType for 90 of 100 photos (84 to 94)."
    ]
    assert "Found least often" not in text_of(page(answers))


def test_labels_that_are_seldom_found_are_named():
    # 8 of 10 photos of a, all of b; c has too few photos to say.
    truth = [0] * 10 + [1] * 10 + [2]
    answers = target_answers(truth, ("a", "b", "c"), head("knn", [1, 1] + [0] * 8 + [1] * 11, 3))
    assert "Found least often, of labels with 10 photos or more: a (8 of 10)." in page(answers).texts("li")


def test_the_three_labels_that_are_found_least_often_are_named():
    # Label n is found 8 - n times of 10.
    truth = [label for label in range(4) for _ in range(10)]
    predicted = [label if photo < 8 - label else (label + 1) % 4 for label in range(4) for photo in range(10)]
    answers = target_answers(truth, tuple("abcd"), head("knn", predicted, 4))
    sentence = "Found least often, of labels with 10 photos or more: d (5 of 10), c (6 of 10) and b (7 of 10)."
    assert sentence in page(answers).texts("li")


def test_sets_are_said_to_be_of_known_labels_only_where_there_are_others():
    assert any(
        text.startswith("Its 90 % sets hold the right label for 6 of 6 photos") and "with labels that it knows," in text
        for text in page(three_labels()).texts("li")
    )
    assert "with labels that it knows" not in text_of(page(perfect()))


def test_the_table_of_heads():
    rows = page(three_labels()).rows("heads")
    assert rows[0] == ["", "linear", "best knn"]
    figures = {row[0].split(" the ")[0]: row[1:] for row in rows[1:]}
    assert figures["Right"] == ["50.0 % 21.5 to 78.5", "75.0 % 40.9 to 92.8"]
    assert figures["Calibration error as fitted how far off"] == ["40.0 points", "15.0 points"]
    assert figures["Calibration error, calibrated lower is better"] == ["10.0 points", "15.0 points"]
    assert figures["Sets hold"] == ["83.3 % 43.6 to 97.0", "100.0 % 61.0 to 100.0"]
    assert figures["Labels in a set fewer say more"] == ["1.12", "1.00"]
    assert figures["“None of these”, rightly of photos whose label is not"] == [
        "50.0 % 9.4 to 90.5",
        "0.0 % 0.0 to 65.8",
    ]
    assert figures["Milliseconds a photo encoding apart"] == ["0.25", "0.25"]
    # Three labels: a place among the first three says nothing.
    assert not any(row[0].startswith("Among") for row in rows)


def test_places_among_the_first_are_shown_where_they_say_something():
    answers = target_answers([0, 3], tuple("abcd"), head("knn", [0, 3], 4))
    assert [row[0] for row in page(answers).rows("heads") if row[0].startswith("Among")] == ["Among the top 3"]


def test_one_head_is_not_called_the_best():
    assert page(perfect()).rows("heads")[0] == ["", "knn"]


def test_a_figure_that_no_head_has_is_left_out():
    # No query has an unknown label, so that none can be abstained from rightly.
    assert not [row for row in page(perfect()).rows("heads") if "rightly" in row[0]]


def test_verdicts_are_sentences():
    (verdict,) = page(three_labels()).texts("ul", "verdicts")
    assert verdict.startswith("knn and linear cannot be told apart on these 8 photos")
    assert page(perfect()).texts("ul", "verdicts") == []


def test_the_reliability_plot_has_a_dot_for_each_bin_and_says_what_it_shows():
    found = page(three_labels())
    first, second = found.all("svg")
    assert first["aria-label"] == "Reliability of linear: off by 40.0 points as fitted, 10.0 calibrated"
    assert second["aria-label"].startswith("Reliability of knn")
    # 0.6 sure and half right is x 120, y 100, of a side of 200; it is the only bin, hence the largest dot.
    after = found.all("circle", "after")[0]
    assert (after["cx"], after["cy"], after["r"]) == ("120.0", "100.0", "8.0")
    assert found.all("circle", "before")[0]["cx"] == "180.0"
    assert found.texts("circle")[0] == "said 90 %, right 50 % of 8"


def test_the_confusion_matrix_has_both_figures():
    answers = target_answers([0, 0, 0, 1], ("a", "b"), head("knn", [0, 0, 1, 1], 2))
    found = page(answers)
    assert found.rows("matrix") == [
        ["predicted →true ↓", "a", "b"],
        # 67 per cent, 2 photos; 33 per cent, 1 photo.
        ["a 3", "672", "331"],
        ["b 1", "", "1001"],
    ]
    assert [one["type"] for one in found.all("input")] == ["radio", "radio"]
    assert "OKLab" in text_of(found)
    assert found.texts("summary") == ["How these heads were fitted"]
    cells = [(one["class"], one["style"]) for one in found.all("td") if "style" in one]
    # 2 photos are the most, and the shade of 1 goes by the root. From 70 on digits are the strong ones.
    assert cells == [("r sn", "--s:67;--n:100"), ("w sn", "--s:33;--n:71"), ("r ss sn", "--s:100;--n:71")]


def test_many_labels_are_folded_and_the_whole_table_is_there():
    labels = tuple(f"label {number}" for number in range(40))
    found = page(target_answers(list(range(40)), labels, head("knn", [*range(39), 0], 40)))
    assert "Shown are the 25 labels with the most mistakes; the other 15 are folded" in text_of(found)
    assert "All 40 labels" in found.texts("summary")
    # 25 and the others, then 40, each with a heading.
    assert len(found.rows("matrix")) == 1 + 26 + 1 + 40
    assert "40 labels, in a table that scrolls." in text_of(found)
    assert "in a table that scrolls" not in text_of(page(perfect()))
    # The picture of the distribution holds 24.
    assert len(found.texts("div", "share")) == 24
    assert "16 more labels" in found.texts("summary")


def test_the_table_of_labels():
    heading, tops, shirts, socks = page(three_labels()).rows("by-label")
    assert heading == [
        "Label",
        "Found",
        "",
        "Precision",
        "F1",
        "Asked",
        "Said",
        "In the gallery",
        "Most often taken for",
    ]
    # knn calls one photo of an unknown label Tops, so that 3 of 4 are right.
    assert tops == ["Tops", "100.0 % 43.9 to 100.0", "", "75.0 % 30.1 to 95.4", "85.7 %", "3", "4", "10", ""]
    assert shirts[:2] == ["Shirts", "100.0 % 43.9 to 100.0"]
    # No photo of it was asked, and one was called it.
    assert socks == ["Socks", "–", "", "0.0 % 0.0 to 79.3", "0.0 %", "0", "1", "10", ""]  # noqa: RUF001


def test_what_a_label_is_taken_for():
    answers = target_answers([0, 0, 0, 0, 1], ("a", "b", "c"), head("knn", [0, 1, 1, 2, 1], 3))
    rows = page(answers).rows("by-label")
    assert [row[-1] for row in rows[1:]] == ["b (2)", "", ""]
    # Numbers are sorted by what they are, and not by their text.
    sort_keys = [one.get("data-sort") for one in page(answers).all("td", "number")]
    assert "0.25" in sort_keys


def test_the_interval_bar_is_in_per_cent_of_its_width():
    styles = [one["style"] for one in page(perfect(50)).all("span", "interval")]
    assert styles == ["--at:100.0;--low:92.9;--high:100.0"] * 2


def test_the_distribution_says_what_is_rare_and_what_is_foreign():
    answers = replace(three_labels(), gallery_counts={"Tops": 30, "Shirts": 10, "Socks": 20, "Ties": 1})
    found = page(answers)
    assert "being too rare: Ties (1)." in text_of(found)
    assert "that the gallery does not have: unknown (2)." in text_of(found)
    assert found.texts("span", "counts") == ["30 · 3", "20 · 0", "10 · 3", "1 · 0", "0 · 2"]
    # Tops are 30 of 61 in the gallery, the longest bar; 3 of 8 queries is 0.375 / 0.492 of that.
    assert [one["style"] for one in found.all("i", "gallery")][:2] == ["--w:100.0", "--w:66.7"]
    assert found.all("i", "queries")[0]["style"] == "--w:76.2"


def test_mistakes_are_ordered_by_confidence_and_show_their_neighbours():
    probabilities = np.array([[0.3, 0.7], [0.1, 0.9], [0.8, 0.2]], np.float32)
    answers = target_answers([0, 0, 1], ("a", "b"), head("knn", [1, 1, 0], 2, probabilities=probabilities))
    found = page(answers)
    assert found.texts("p", "id") == ["q1", "q2", "q0"]
    assert found.texts("p", "said") == ["b 90 % sure", "a 80 % sure", "b 70 % sure"]
    assert found.texts("p", "truth") == ["labelled a", "labelled b", "labelled a"]
    # Five of the seven neighbours, nearest first.
    assert found.texts("ol", "near")[0] == "a0.000 a0.100 a0.200 a0.300 a0.400"
    assert "3 photos of 3 are wrong" in text_of(found)
    # Those of the photo's own label are marked: five each of q1 and q0.
    assert len(found.all("span", "same")) == 10


def test_at_most_twelve_mistakes_are_shown():
    found = page(target_answers([0] * 20, ("a", "b"), head("knn", [1] * 20, 2)))
    assert len(found.texts("p", "said")) == 12
    assert "20 photos of 20 are wrong" in text_of(found)


def test_an_abstention_is_said_with_the_mistake():
    answers = target_answers([0], ("a", "b"), head("knn", [1], 2, none_of_these=np.array([True])))
    assert page(answers).texts("p", "said") == ["b 60 % sure, but said “none of these”"]


def test_a_mistake_of_an_unknown_label_is_called_by_its_name():
    assert page(target_answers([-1], ("a", "b"), head("knn", [1], 2))).texts("p", "truth") == ["labelled unknown"]


def test_confused_pairs_have_a_photo_of_each():
    answers = target_answers([0, 0, 1], ("a", "b"), head("knn", [1, 0, 1], 2))
    found = page(answers)
    assert found.texts("ul", "pairs") == ["a taken for b: 1 of 2 photos b taken for a: 0 of 1 photo"]
    # The one mistaken for b, and, for want of one mistaken for a, the photo of b.
    assert [one["alt"] for one in found.all("img")][:2] == ["q0", "q2"]


def test_nine_pairs_at_most_are_pictured():
    # A round: each of twelve labels is taken for the next.
    answers = target_answers(list(range(12)), tuple("abcdefghijkl"), head("knn", [*range(1, 12), 0], 12))
    assert len(page(answers).all("div", "duo")) == 9


def test_a_mistake_stands_for_a_pair_and_not_a_surer_right_answer():
    # q0 is right, though more is put on b than for q1, which is taken for b.
    probabilities = np.array([[0.4, 0.6], [0.45, 0.55]], np.float32)
    answers = target_answers([0, 0], ("a", "b"), head("knn", [0, 1], 2, probabilities=probabilities))
    assert page(answers).all("img")[0]["alt"] == "q1"


def test_neighbours_without_a_label_say_so():
    answers = target_answers([0], ("a", "b"), head("knn", [1], 2), neighbours=lambda _: [(item("g"), 0.5)])
    assert page(answers).texts("ol", "near") == ["no label0.500"]


def test_the_surest_mistake_stands_for_a_pair():
    probabilities = np.array([[0.4, 0.6], [0.1, 0.9]], np.float32)
    answers = target_answers([0, 0], ("a", "b"), head("knn", [1, 1], 2, probabilities=probabilities))
    assert page(answers).all("img")[0]["alt"] == "q1"


def test_a_label_without_a_query_is_pictured_by_a_neighbour():
    # Nobody asked for b; the nearest photo of b in the gallery is the second neighbour of q0.
    near = [(item("g0", "a"), 0.1), (item("g1", "b"), 0.2)]
    answers = target_answers([0], ("a", "b"), head("knn", [1], 2), neighbours=lambda _: near)
    assert [one["alt"] for one in page(answers).all("img")][:2] == ["q0", "g1"]
    without = page(replace(answers, neighbours=lambda _: near[:1]))
    assert without.texts("span", "no-photo") == ["no photo of it was asked"]


def test_an_unreadable_photo_has_a_placeholder():
    answers = target_answers([0], ("a", "b"), head("knn", [1], 2))
    found = page(replace(answers, items=[item("q0", "a", image=b"broken")], neighbours=lambda _: []))
    placeholder = found.all("span", "no-photo")[-1]
    assert placeholder["aria-label"] == "q0: photo cannot be read"
    assert found.all("img") == []


def test_no_mistakes_at_all():
    found = page(perfect())
    assert "There is none: knn is right about 6 photos." in found.texts("p", "note")
    assert found.texts("p", "said") == []
    assert "Labels most often confused" not in found.texts("h3")


@pytest.mark.parametrize("predicted", [0, 1])
def test_one_query(predicted):
    found = page(target_answers([0], ("a", "b"), head("knn", [predicted], 2)))
    interval = "21 to 100" if predicted == 0 else "0 to 79"
    right = 1 - predicted
    assert found.texts("p", "summary") == [
        f"knn names the right articleType for {right} of 1 photo ({interval} of 100)."
    ]


def test_several_labels_an_item():
    found = page(tags())
    assert found.texts("p", "summary") == [
        "linear gets all labels of tags right for 2 of 3 photos (21 to 94 of 100); all labels of all photos thrown "
        "together reach an F1 of 80.0 %."
    ]
    assert "Without any label that the heads know: 1 photo." in found.texts("li")
    assert found.all("table", "matrix") == []
    assert "Labels most often confused" not in found.texts("h3")
    heading, casual, winter = found.rows("by-label")
    assert heading[5] == "Threshold"
    assert (casual[5], winter[5]) == ("0.50", "0.30")
    assert [row[0] for row in found.rows("heads")[1:3]] == [
        "Micro F1 all labels of all photos thrown together",
        "All labels right none missing and none too many",
    ]
    # Winter of q1 had 0.25 and was missed.
    assert found.texts("p", "said") == ["missed Winter at a probability of 25 %"]
    assert found.texts("p", "truth") == ["labelled Casual, Winter"]
    # The card of a head does not repeat the thresholds.
    assert "thresholds" not in found.texts("dt")


def test_a_label_too_many_is_a_mistake_too():
    answers = tags()
    said = answers.heads[0].predicted.copy()
    said[2, 1] = True
    found = page(replace(answers, heads=(replace(answers.heads[0], predicted=said),)))
    # 0.25 was missed, at 0.75 sure; 0.1 was said, so it comes second.
    assert found.texts("p", "said") == [
        "missed Winter at a probability of 25 %",
        "said Winter at a probability of 10 %",
    ]
    assert found.texts("p", "truth")[1] == "labelled nothing"


def test_a_missed_label_is_surer_the_less_probable_it_was():
    # q0 misses Casual at 0.4, q1 misses Winter at 0.1, which is the surer of the two.
    answers = tags()
    probabilities = np.array([[0.4, 0.2], [0.8, 0.1], [0.1, 0.1]], np.float32)
    linear = replace(answers.heads[0], probabilities=probabilities, predicted=probabilities > 0.5)
    assert page(replace(answers, heads=(linear,))).texts("p", "id") == ["q1", "q0"]


def test_a_label_that_nobody_asked_for_is_not_foreign():
    answers = replace(tags(), truth=np.array([[True, False]] * 3), gallery_counts={"Casual": 7})
    assert "that the gallery does not have" not in text_of(page(answers))


def test_names_are_text_and_nothing_else():
    answers = target_answers(
        [0, -1],
        (ATTACK, '"><img src=x onerror=alert(1)>'),
        head("knn", [1, 1], 2, card={ATTACK: ATTACK, "settings": {"k": ATTACK}}),
        target=ATTACK,
        true_names=(ATTACK, ATTACK),
        items=[item(ATTACK, ATTACK, target=ATTACK), item("' onload='alert(1)", ATTACK, target=ATTACK)],
        gallery_counts={ATTACK: 3, "</style><script>": 1},
        neighbours=lambda _: [(item(ATTACK, ATTACK, target=ATTACK), 0.1)],
    )
    html = render_report([answers, answers], title=ATTACK, facts={ATTACK: ATTACK})
    found = Page(html)
    # One script, and it is ours; pictures are inside the page; no element has a handler.
    assert found.texts("script") == [" ".join((SERVICE / "report.js").read_text().split())]
    assert all(one["src"].startswith("data:image/jpeg;base64,") for one in found.all("img"))
    assert not [name for _, attributes, _ in found.elements for name in attributes if name.startswith("on")]
    assert found.texts("h1") == [ATTACK]
    assert found.texts("h2") == [ATTACK, ATTACK]
    assert "<script>alert" not in html


def test_only_the_script_of_the_page_may_run():
    html = render(perfect())
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = (one["content"] for one in Page(html).all("meta") if "http-equiv" in one)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_nothing_is_asked_of_a_network():
    html = re.sub(r"data:image/jpeg;base64,[\w+/=]+", "", render(three_labels(), tags()))
    assert not re.search(
        r"https?:|//\w|url\(|@import|<link|<iframe", re.sub(r"^\s*// .*$", "", html, flags=re.MULTILINE)
    )


def test_figures_at_hand_are_not_worked_out_again(monkeypatch):
    answers = three_labels()
    figures = evaluate_target(answers)
    monkeypatch.setattr("service.report.evaluate_target", lambda _: pytest.fail("worked out again"))
    html = render_report([answers], title="t", facts={}, figures=[figures])
    assert "knn names the right articleType" in html
    with pytest.raises(ValueError, match="shorter"):
        render_report([answers, answers], title="t", facts={}, figures=[figures])


def test_photos_are_small():
    large = jpeg(size=(900, 1200))
    answers = target_answers([0], ("a", "b"), head("knn", [1], 2))
    html = render(replace(answers, items=[item("q0", "a", image=large)]))
    assert len(html) < 100_000


def test_long_settings_are_cut():
    found = page(target_answers([0], ("a", "b"), head("knn", [0], 2, card={"long": "x" * 1000})))
    assert found.texts("dd")[-1] == "x" * 400 + "…"


def test_settings_are_in_words():
    card = {
        "labels": ["a", "b"],
        "training_items": 3,
        "settings": {"k": 10, "hidden_sizes": [64, 32], "temperature": 0.07000000001},
        "rare": {},
        "seed": None,
        "multi_label": False,
    }
    found = page(target_answers([0], ("a", "b"), head("knn", [0], 2, card=card)))
    assert found.texts("dt")[1:] == ["training items", "settings", "rare", "seed", "multi label"]
    words = ["3", "k: 10, hidden sizes: 64, 32, temperature: 0.07", "none", "–", "no"]  # noqa: RUF001
    assert found.texts("dd")[1:] == words


def test_a_slip_in_the_template_is_an_error():
    with pytest.raises(UndefinedError, match="'facts' is undefined"):
        render_page("report.html", title="without facts")


def test_the_files_of_the_page_are_installed_with_it():
    settings = tomllib.loads((SERVICE.parent / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["service"]
    files = [file.name for file in SERVICE.iterdir() if file.is_file() and file.suffix != ".py"]
    assert "report.html" in files
    assert [name for name in files if not any(fnmatch(name, pattern) for pattern in patterns)] == []
