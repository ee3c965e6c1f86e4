"""Examples to begin with."""

from __future__ import annotations

from types import SimpleNamespace

from ui.examples import find_examples


class Shop:
    """Stands in for the client of a service."""

    def __init__(self, **labels: dict[str, list[str]]) -> None:
        self.labels = labels  # label: item_ids, by target

    def catalog(self):
        counts = {target: {label: len(ids) for label, ids in held.items()} for target, held in self.labels.items()}
        return SimpleNamespace(targets=counts)

    def items(self, *, where=None, limit):
        [(target, label)] = (where or {"all": "all"}).items()
        ids = self.labels.get(target, {"all": ["x", "y"]})[label]
        return SimpleNamespace(items=[SimpleNamespace(item_id=item_id) for item_id in ids[:limit]])


def test_eight_labels_of_the_first_target_with_a_choice_are_shown_the_most_frequent_first():
    kinds = {f"kind{n}": [f"{n}-{place}" for place in range(n + 1)] for n in range(10)}
    examples = find_examples(Shop(source={"shop": ["1"]}, kind=kinds))
    # kind9 has ten items, kind2 three; each stands for itself once.
    assert examples == [(f"kind{n}", f"{n}-0") for n in range(9, 1, -1)]


def test_few_labels_are_shown_several_times_and_no_item_twice():
    examples = find_examples(Shop(kind={"top": ["a", "b", "c", "d", "e"], "dress": ["a", "z"]}))
    # Four of each at most; a is both, and shown as the first.
    assert examples == [("top", "a"), ("top", "b"), ("top", "c"), ("top", "d"), ("dress", "z")]


def test_a_catalog_without_labels_shows_its_items():
    assert find_examples(Shop()) == [("x", "x"), ("y", "y")]
