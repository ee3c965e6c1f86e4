"""Heads in a gallery's folder: found by target and kind, replaced whole, refused where damaged or another's."""

from __future__ import annotations

import errno
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heads.checks import HeadError
from heads.comparator import ComparatorHead
from heads.fitted import FittedHead
from heads.fitting import KINDS, FitOptions, Training, fit_heads
from heads.labels import encode_labels
from indexer import files
from service import head_store
from service.head_store import (
    HEADS_FOLDER,
    HeadNotFoundError,
    best_kind,
    fitted_targets,
    load_head,
    load_heads,
    save_heads,
    select_head,
    selected_kind,
    selection_warning,
    stored_cards,
    usable,
)
from tests.heads.worlds import clusters
from tests.indexer.fakes import card_of, unit_vectors

ENCODER = card_of(16)
OTHER = card_of(16, weights_sha256="1" * 64, name="fake-other")
QUERIES = unit_vectors(5, 16)


@pytest.fixture(scope="module")
def fitted() -> dict[str, FittedHead]:
    """A head of each kind."""
    embeddings, numbers = clusters(40, labels=2)
    labels = encode_labels("type", [(("dress", "skirt")[number],) for number in numbers])
    keys = np.arange(40)
    training = Training(embeddings, labels, np.arange(40), keys, ENCODER.name, ENCODER.fingerprint, 3)
    return fit_heads(training, FitOptions(kinds=KINDS, trials=1, timeout=5))


def changed(head: FittedHead, *, temperature: float | None = None, log_loss: float | None = None, **card: Any) -> Any:
    """The head with another temperature, loss, or values of its card."""
    if log_loss is not None:
        card["validation"] = {**head.card.validation, "log_loss": log_loss}
    value = head.temperature if temperature is None else temperature
    return replace(head, temperature=value, card=replace(head.card, **card))


def numbered(head: FittedHead, number: int) -> FittedHead:
    """A head whose card and arrays both say a number."""
    return replace(head, card=replace(head.card, items=number), scores=np.full(3, number, np.float32))


def number_of(head: FittedHead) -> int:
    """The number, where card and arrays agree on it."""
    assert set(head.scores.tolist()) == {float(head.card.items)}
    return head.card.items


def names_in(gallery: Path) -> list[str]:
    return sorted(str(path.relative_to(gallery)) for path in gallery.rglob("*") if path.is_file())


def test_every_kind_answers_as_before(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, fitted.values())
    for kind, head in fitted.items():
        again = load_head(tmp_path, "type", kind, ENCODER)
        assert again.card.kind == kind
        np.testing.assert_array_equal(again.answer(QUERIES).probabilities, head.answer(QUERIES).probabilities)
    assert [card.kind for card in stored_cards(tmp_path)] == sorted(KINDS)


def test_each_head_is_a_card_and_its_arrays(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [fitted["knn"], changed(fitted["linear"], target="colour")])
    folder = tmp_path / HEADS_FOLDER
    names = [json.loads((folder / card).read_text())["arrays"] for card in ("type/knn.json", "colour/linear.json")]
    expected = [".heads.lock", "heads/colour/linear.json", f"heads/colour/{names[1]}"]
    assert names_in(tmp_path) == sorted([*expected, "heads/type/knn.json", f"heads/type/{names[0]}"])


def test_a_saved_head_takes_the_place_of_the_one_before(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    """And of no other kind or target."""
    save_heads(tmp_path, [numbered(fitted["knn"], 1), numbered(fitted["linear"], 1)])
    save_heads(tmp_path, [changed(numbered(fitted["knn"], 2), target="colour")])
    save_heads(tmp_path, [numbered(fitted["knn"], 3)])
    numbers = {(card.target, card.kind): card.items for card in stored_cards(tmp_path)}
    assert numbers == {("type", "knn"): 3, ("type", "linear"): 1, ("colour", "knn"): 2}
    assert number_of(load_head(tmp_path, "type", "knn", ENCODER)) == 3
    # Of each head one card and one file of arrays, and the lock.
    assert len(names_in(tmp_path)) == 3 * 2 + 1


def test_a_head_saved_again_unchanged_stays(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [fitted["knn"]])
    before = names_in(tmp_path)
    save_heads(tmp_path, [fitted["knn"]])
    assert names_in(tmp_path) == before
    load_head(tmp_path, "type", "knn", ENCODER)


@pytest.mark.parametrize(
    "target",
    [
        *(
            "a/b",
            "../../up",
            "..",
            ".",
            ".hidden",
            "/etc",
            "a b",
            " ",
            "a.json",
            "*",
            "?[x]",
            "a%2Fb",
            "a\\b",
            "a\nb",
            "CON",
        ),
        *("Größe", "服装", "👗", "x" * 200, "x" * 300, "ü" * 200, "服" * 200, "/" * 100),
    ],
    ids=lambda target: f"{target[:8]!a} of {len(target)}",
)
def test_a_target_may_have_any_name(tmp_path: Path, fitted: dict[str, FittedHead], target: str) -> None:
    gallery = tmp_path / "gallery"
    gallery.mkdir()
    save_heads(gallery, [changed(fitted["knn"], target=target)])
    assert load_head(gallery, target, "knn", ENCODER).card.target == target
    assert best_kind(gallery, target, ENCODER) == "knn"
    assert fitted_targets(gallery, ENCODER) == [target]
    # One folder below heads/, and nothing outside of the gallery.
    (folder,) = (gallery / HEADS_FOLDER).iterdir()
    assert len([*folder.iterdir()]) == 2
    assert [*tmp_path.iterdir()] == [gallery]


def test_names_that_are_alike_are_kept_apart(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    targets = [
        "a/b",
        "a%2Fb",
        "a%252Fb",
        ".a",
        "%2Ea",
        "ü" * 200,
        "ü" * 199,
        "ü" * 199 + "u",
        "x" * 201,
        "x" * 202,
        "a",
    ]
    for number, target in enumerate(targets, start=1):
        save_heads(tmp_path, [changed(numbered(fitted["knn"], number), target=target)])
    for number, target in enumerate(targets, start=1):
        assert number_of(load_head(tmp_path, target, "knn", ENCODER)) == number
    assert fitted_targets(tmp_path, ENCODER) == sorted(targets)


def test_a_missing_head_is_told_with_those_that_there_are(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    message = "has no knn head of 'type'; fitted are none. Fit one: modiste fit --gallery .* --targets type"
    with pytest.raises(HeadNotFoundError, match=message):
        load_head(tmp_path, "type", "knn", ENCODER)
    save_heads(tmp_path, [fitted["knn"], fitted["linear"], changed(fitted["mlp"], target="colour")])
    listed = "fitted are colour: mlp; type: knn, linear"
    with pytest.raises(HeadNotFoundError, match=f"has no mlp head of 'type'; {listed}"):
        load_head(tmp_path, "type", "mlp", ENCODER)
    with pytest.raises(HeadNotFoundError, match=f"has no head of 'size'; {listed}"):
        best_kind(tmp_path, "size", ENCODER)
    with pytest.raises(HeadNotFoundError, match=f"has no head of 'size'; {listed}"):
        load_heads(tmp_path, "size", None, ENCODER)
    with pytest.raises(HeadNotFoundError, match=f"has no ensemble head of 'type'; {listed}"):
        load_heads(tmp_path, "type", ["knn", "ensemble"], ENCODER)
    with pytest.raises(HeadNotFoundError, match=f"has no ensemble head of this encoder; {listed}"):
        fitted_targets(tmp_path, ENCODER, "ensemble")


@pytest.mark.parametrize("kind", ["", "forest", "../type/knn", "knn.json", "k\0n", "x" * 300, "*"])
def test_a_kind_that_there_is_not(tmp_path: Path, fitted: dict[str, FittedHead], kind: str) -> None:
    save_heads(tmp_path, [fitted["knn"]])
    with pytest.raises(HeadNotFoundError, match="fitted are type: knn"):
        load_head(tmp_path, "type", kind, ENCODER)


def test_a_folder_without_heads(tmp_path: Path) -> None:
    assert stored_cards(tmp_path) == []
    assert stored_cards(tmp_path, "type") == []
    with pytest.raises(HeadNotFoundError, match="has no head of this encoder; fitted are none"):
        fitted_targets(tmp_path, ENCODER)


def test_a_head_of_another_encoder_is_refused_by_name(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [fitted["knn"]])
    message = (
        rf"The knn head of 'type' was fitted on embeddings of {ENCODER.name}, with another setting or of another "
        rf"encoder than those of gallery .* \({OTHER.name}\). Fit it again: modiste fit --gallery .* --targets type"
    )
    with pytest.raises(HeadError, match=message) as caught:
        load_head(tmp_path, "type", "knn", OTHER)
    assert not isinstance(caught.value, HeadNotFoundError)
    for ask in (
        lambda: load_heads(tmp_path, "type", None, OTHER),
        lambda: load_head(tmp_path, "type", best_kind(tmp_path, "type", OTHER), OTHER),
    ):
        with pytest.raises(HeadError, match=message):
            ask()
    with pytest.raises(HeadNotFoundError, match="has no head of this encoder; fitted are type: knn"):
        fitted_targets(tmp_path, OTHER)
    # The same weights in another precision are another encoder.
    with pytest.raises(HeadError, match="with another setting"):
        load_head(tmp_path, "type", "knn", replace(ENCODER, precision="bf16"))


def test_heads_of_another_encoder_are_passed_over(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    """Where there are some of this one."""
    foreign = {"encoder_fingerprint": OTHER.fingerprint, "encoder": OTHER.name}
    best = changed(fitted["knn"], log_loss=0.0, **foreign)
    save_heads(tmp_path, [best, fitted["linear"], changed(fitted["knn"], target="colour", **foreign)])
    assert fitted_targets(tmp_path, ENCODER) == ["type"]
    assert fitted_targets(tmp_path, OTHER) == ["colour", "type"]
    assert best_kind(tmp_path, "type", ENCODER) == "linear"
    assert best_kind(tmp_path, "type", OTHER) == "knn"
    assert [head.card.kind for head in load_heads(tmp_path, "type", None, ENCODER)] == ["linear"]
    assert len(stored_cards(tmp_path)) == 3


def test_the_best_kind_has_the_least_log_loss(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    losses = {"knn": 0.31, "linear": 0.29, "mlp": 0.3, "ensemble": 0.32}
    save_heads(tmp_path, [changed(fitted[kind], log_loss=loss) for kind, loss in losses.items()])
    assert best_kind(tmp_path, "type", ENCODER) == "linear"
    # Of equals the first by name.
    save_heads(tmp_path, [changed(fitted["mlp"], log_loss=0.1), changed(fitted["knn"], log_loss=0.1)])
    assert best_kind(tmp_path, "type", ENCODER) == "knn"


def test_heads_come_in_the_order_asked_for(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, fitted.values())
    assert [head.card.kind for head in load_heads(tmp_path, "type", ["mlp", "knn"], ENCODER)] == ["mlp", "knn"]
    assert [head.card.kind for head in load_heads(tmp_path, "type", None, ENCODER)] == sorted(KINDS)


def test_targets_with_a_head_of_a_kind(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [fitted["knn"], changed(fitted["knn"], target="colour"), fitted["linear"]])
    assert fitted_targets(tmp_path, ENCODER) == ["colour", "type"]
    assert fitted_targets(tmp_path, ENCODER, "linear") == ["type"]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", None], ids=["empty", "torn", "no text", "flipped"])
def test_a_damaged_card_harms_no_other_head(
    tmp_path: Path, fitted: dict[str, FittedHead], damage: bytes | None
) -> None:
    save_heads(tmp_path, [fitted["knn"], changed(fitted["linear"], target="colour")])
    path = tmp_path / HEADS_FOLDER / "type" / "knn.json"
    path.write_bytes(path.read_bytes().replace(b"dress", b"drest") if damage is None else damage)
    with pytest.raises(HeadError, match=r"type/knn.json is not .* Fit the head again"):
        load_head(tmp_path, "type", "knn", ENCODER)
    for ask in (
        stored_cards,
        lambda place: fitted_targets(place, ENCODER),
        lambda place: best_kind(place, "type", ENCODER),
    ):
        with pytest.raises(HeadError, match=r"type/knn.json is not"):
            ask(tmp_path)
    assert [card.kind for card in stored_cards(tmp_path, skip_damaged=True)] == ["linear"]
    assert load_head(tmp_path, "colour", best_kind(tmp_path, "colour", ENCODER), ENCODER).card.kind == "linear"
    with pytest.raises(HeadNotFoundError, match="has no mlp head of 'type'; fitted are colour: linear"):
        load_head(tmp_path, "type", "mlp", ENCODER)
    save_heads(tmp_path, [numbered(fitted["knn"], 5)])
    assert number_of(load_head(tmp_path, "type", "knn", ENCODER)) == 5


def test_damaged_or_lost_arrays_are_told(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [fitted["knn"]])
    (path,) = (tmp_path / HEADS_FOLDER / "type").glob("*.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 128]))
    with pytest.raises(HeadError, match=rf"{path.name} is not what was written; it is damaged. Fit the head again"):
        load_head(tmp_path, "type", "knn", ENCODER)
    path.unlink()
    with pytest.raises(HeadError, match=rf"{path.name} is gone, which .*knn.json names. Fit the head again") as caught:
        load_head(tmp_path, "type", "knn", ENCODER)
    assert not isinstance(caught.value, HeadNotFoundError)
    save_heads(tmp_path, [fitted["knn"]])
    load_head(tmp_path, "type", "knn", ENCODER)


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The disk is full when a file whose name begins so is written."""
    write = Path.write_bytes

    def write_bytes(self: Path, data: bytes) -> int:
        if self.name.startswith(name):
            write(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


@pytest.mark.parametrize("name", ["knn-", "knn.json"], ids=["arrays", "card"])
def test_a_full_disk_leaves_the_head_before(
    tmp_path: Path, fitted: dict[str, FittedHead], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    save_heads(tmp_path, [numbered(fitted["knn"], 1)])
    before = names_in(tmp_path)
    with monkeypatch.context() as patched:
        fail_at(patched, name)
        with pytest.raises(OSError, match="No space left"):
            save_heads(tmp_path, [numbered(fitted["knn"], 2)])
    assert number_of(load_head(tmp_path, "type", "knn", ENCODER)) == 1
    assert not [other for other in names_in(tmp_path) if other.endswith(".tmp")]
    # The lock is free, and what lies about goes with the next head.
    save_heads(tmp_path, [numbered(fitted["knn"], 1)])
    assert names_in(tmp_path) == before


def test_heads_before_the_one_that_failed_are_saved(
    tmp_path: Path, fitted: dict[str, FittedHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_heads(tmp_path, [numbered(fitted[kind], 1) for kind in ("knn", "linear")])
    fail_at(monkeypatch, "linear.json")
    with pytest.raises(OSError, match="No space left"):
        save_heads(tmp_path, [numbered(fitted[kind], 2) for kind in ("knn", "linear")])
    numbers = {kind: number_of(load_head(tmp_path, "type", kind, ENCODER)) for kind in ("knn", "linear")}
    assert numbers == {"knn": 2, "linear": 1}


def test_what_killed_savers_left_is_harmless_and_cleared_away(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [numbered(fitted["knn"], 1)])
    whole = names_in(tmp_path)
    folder = tmp_path / HEADS_FOLDER / "type"
    for name in ("knn.json.tmp", "knn-0123456789abcdef.safetensors.tmp", "knn-0123456789abcdef.safetensors"):
        (folder / name).write_bytes(b"half")
    assert number_of(load_head(tmp_path, "type", "knn", ENCODER)) == 1
    assert [card.kind for card in stored_cards(tmp_path)] == ["knn"]
    save_heads(tmp_path, [numbered(fitted["knn"], 1)])
    assert names_in(tmp_path) == whole


class Killed(BaseException):
    """Stands for the end of the process: nothing is done after it."""


def kill_at(monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """Ends the process before the given one of the steps that the folder's names go through."""
    steps = itertools.count()

    def dying(step: Callable[..., Any]) -> Callable[..., Any]:
        def take(self: Path, *args: Any, **options: Any) -> Any:
            if self.name.startswith("knn") and next(steps) >= moment:
                raise Killed
            return step(self, *args, **options)

        return take

    for name in ("rename", "unlink"):
        monkeypatch.setattr(Path, name, dying(getattr(Path, name)))


# The steps: the new arrays are renamed, their name aside cleared, the card renamed, its name cleared, old arrays go.
@pytest.mark.parametrize("moment", range(6))
def test_a_killed_saver_leaves_one_head_whole(
    tmp_path: Path, fitted: dict[str, FittedHead], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    save_heads(tmp_path, [numbered(fitted["knn"], 1)])
    with monkeypatch.context() as patched:
        kill_at(patched, moment)
        if moment < 5:
            with pytest.raises(Killed):
                save_heads(tmp_path, [numbered(fitted["knn"], 2)])
        else:
            save_heads(tmp_path, [numbered(fitted["knn"], 2)])
    assert number_of(load_head(tmp_path, "type", "knn", ENCODER)) == (1 if moment < 3 else 2)
    assert best_kind(tmp_path, "type", ENCODER) == "knn"
    save_heads(tmp_path, [numbered(fitted["knn"], 3)])
    assert number_of(load_head(tmp_path, "type", "knn", ENCODER)) == 3
    assert len(names_in(tmp_path)) == 3


def forget_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk's own time is of no account."""
    for module in (files, head_store):
        monkeypatch.setattr(module, "fsync", lambda _: None)


def test_readers_see_one_head_or_the_next(
    tmp_path: Path, fitted: dict[str, FittedHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While heads are saved over and over, nobody meets an error, a mix, or an older one than before."""
    forget_fsync(monkeypatch)
    save_heads(tmp_path, [numbered(fitted["knn"], 1)])
    done = threading.Event()
    seen: list[list[int]] = [[], []]
    errors: list[BaseException] = []

    def read(numbers: list[int]) -> None:
        try:
            while not done.is_set():
                numbers.append(number_of(load_head(tmp_path, "type", "knn", ENCODER)))
                assert best_kind(tmp_path, "type", ENCODER) == "knn"
        except BaseException as error:
            errors.append(error)

    readers = [threading.Thread(target=read, args=(numbers,)) for numbers in seen]
    for reader in readers:
        reader.start()
    for number in range(2, 200):
        save_heads(tmp_path, [numbered(fitted["knn"], number)])
    done.set()
    for reader in readers:
        reader.join()
    assert errors == []
    for numbers in seen:
        assert numbers == sorted(numbers)
        assert len(set(numbers)) > 1


def test_a_reader_follows_a_head_that_is_replaced_each_time_it_looks(
    tmp_path: Path, fitted: dict[str, FittedHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five times another head is put in place between the reading of the card and that of the arrays."""
    save_heads(tmp_path, [numbered(fitted["knn"], 1)])
    numbers = iter(range(2, 7))
    read_card = head_store.read_card

    def read_and_replace(content: bytes, source: str) -> Any:
        found = read_card(content, source)
        number = next(numbers, None)
        if number is not None:
            save_heads(tmp_path, [numbered(fitted["knn"], number)])
        return found

    monkeypatch.setattr(head_store, "read_card", read_and_replace)
    assert number_of(load_head(tmp_path, "type", "knn", ENCODER)) == 6


def test_two_savers_at_once(tmp_path: Path, fitted: dict[str, FittedHead], monkeypatch: pytest.MonkeyPatch) -> None:
    forget_fsync(monkeypatch)
    errors: list[BaseException] = []

    def save(numbers: range) -> None:
        try:
            for number in numbers:
                save_heads(tmp_path, [numbered(fitted["knn"], number), numbered(fitted["linear"], number)])
        except BaseException as error:
            errors.append(error)

    savers = [threading.Thread(target=save, args=(range(start, 60, 3),)) for start in (1, 2, 3)]
    for saver in savers:
        saver.start()
    for saver in savers:
        saver.join()
    assert errors == []
    # Each saver saves both under one lock, so the last one's are left together.
    assert len({number_of(load_head(tmp_path, "type", kind, ENCODER)) for kind in ("knn", "linear")}) == 1
    assert len(names_in(tmp_path)) == 2 * 2 + 1


def comparator(fitted: dict[str, FittedHead], log_loss: float = 0.1) -> FittedHead:
    """A linear head that is stored as a comparator of another encoder."""
    one = fitted["linear"]
    layer = ComparatorHead.of_layer(np.zeros((2, 16), np.float32), np.zeros(2, np.float32))
    validation = {**one.card.validation, "log_loss": log_loss}
    card = replace(one.card, kind="comparator", encoder_fingerprint="b" * 32, encoder="/runs/a", settings={})
    return replace(one, head=layer, card=replace(card, validation=validation))


def test_a_comparator_lies_among_the_heads_whatever_its_encoder_is(
    tmp_path: Path, fitted: dict[str, FittedHead]
) -> None:
    save_heads(tmp_path, [fitted["linear"], comparator(fitted)])
    for encoder in (ENCODER, OTHER):
        again = load_head(tmp_path, "type", "comparator", encoder)
        assert (again.head.kind, again.card.encoder) == ("comparator", "/runs/a")
        np.testing.assert_allclose(again.head.predict_proba(np.zeros((1, 16), np.float32)), 1 / 2)
    assert fitted_targets(tmp_path, ENCODER, "comparator") == ["type"]
    # Those that are compared without being named were fitted on the gallery.
    assert [head.card.kind for head in load_heads(tmp_path, "type", None, ENCODER)] == ["linear"]


def test_a_comparator_answers_unselected_only_where_it_is_alone(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [comparator(fitted, log_loss=0.0)])
    assert best_kind(tmp_path, "type", ENCODER) == "comparator"
    assert [head.card.kind for head in load_heads(tmp_path, "type", None, ENCODER)] == ["comparator"]
    save_heads(tmp_path, [fitted["linear"]])
    assert best_kind(tmp_path, "type", ENCODER) == "linear"
    # The linear head cannot be asked there.
    assert best_kind(tmp_path, "type", OTHER) == "comparator"


def test_a_missing_comparator_says_how_to_add_one(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [fitted["linear"]])
    with pytest.raises(
        HeadNotFoundError, match=r"no comparator head of 'type'; .* modiste fit --gallery .* --run RUN$"
    ):
        load_head(tmp_path, "type", "comparator", ENCODER)


def test_a_selected_head_answers_until_another_is(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [fitted["linear"], fitted["knn"], comparator(fitted)])
    best = best_kind(tmp_path, "type", ENCODER)
    assert selected_kind(tmp_path, "type") is None
    for kind in ("comparator", "knn", "linear"):
        select_head(tmp_path, "type", kind)
        assert selected_kind(tmp_path, "type") == best_kind(tmp_path, "type", ENCODER) == kind
        save_heads(tmp_path, [fitted["linear"], fitted["knn"], comparator(fitted)])
        assert best_kind(tmp_path, "type", ENCODER) == kind
    assert (tmp_path / HEADS_FOLDER / "type" / "default").read_text() == "linear\n"
    (tmp_path / HEADS_FOLDER / "type" / "default").unlink()
    assert best_kind(tmp_path, "type", ENCODER) == best


def test_what_is_not_there_cannot_be_selected(tmp_path: Path, fitted: dict[str, FittedHead]) -> None:
    save_heads(tmp_path, [fitted["linear"]])
    select_head(tmp_path, "type", "linear")
    for target, kind in (("type", "comparator"), ("type", "tree"), ("size", "linear")):
        with pytest.raises(HeadNotFoundError, match=f"has no {kind} head of '{target}'; fitted are type: linear"):
            select_head(tmp_path, target, kind)
    assert selected_kind(tmp_path, "type") == "linear"
    assert not (tmp_path / HEADS_FOLDER / "size").exists()


@pytest.mark.parametrize("content", ["comparator\n", "knn", "", "\x00\n", "a sentence " * 50])
def test_a_selection_that_cannot_answer_falls_back(tmp_path: Path, fitted: dict[str, FittedHead], content: str) -> None:
    foreign = replace(fitted["knn"], card=replace(fitted["knn"].card, encoder_fingerprint=OTHER.fingerprint))
    save_heads(tmp_path, [fitted["linear"], foreign])
    (tmp_path / HEADS_FOLDER / "type" / "default").write_text(content)
    assert best_kind(tmp_path, "type", ENCODER) == "linear"
    warning = selection_warning("type", selected_kind(tmp_path, "type"), usable(stored_cards(tmp_path), ENCODER))
    if not content:
        assert warning is None
    else:
        assert warning is not None
        assert len(warning) < 200
        assert "gone or of another encoder; the best of linear answers." in warning


def test_a_selection_is_whole_or_not_there(
    tmp_path: Path, fitted: dict[str, FittedHead], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_heads(tmp_path, [fitted["linear"], fitted["knn"]])
    select_head(tmp_path, "type", "knn")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match="No space"):
        select_head(tmp_path, "type", "linear")
    assert selected_kind(tmp_path, "type") == "knn"
