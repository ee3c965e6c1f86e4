"""Fitted heads in a gallery's folder: `heads/<target>/<kind>.json` and the arrays that it names.

Comparators lie among them, though they answer through an encoder of their own. `heads/<target>/default` is the kind
that somebody chose to answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from heads.checks import HeadError
from heads.comparator import ComparatorHead
from heads.storage import STORED_KINDS, StoredHeadError, pack, read_card, unpack
from indexer.files import file_part, fsync, replace_file

if TYPE_CHECKING:
    from heads.fitted import FittedHead, HeadCard
    from indexer.encoders import EncoderCard

HEADS_FOLDER = "heads"
SELECTION = "default"


class HeadNotFoundError(HeadError):
    """The gallery has no such head."""


def save_heads(gallery: Path, heads: Iterable[FittedHead]) -> None:
    """Puts each head in the place of the one of its target and kind; who reads has the old one or the new one, whole.

    Args:
        gallery: The gallery's folder.
        heads: Of any targets.

    Raises:
        OSError: They could not be written; the old ones stand.
    """
    with FileLock(gallery / ".heads.lock"):
        for fitted in heads:
            folder = _folder(gallery, fitted.card.target)
            folder.mkdir(parents=True, exist_ok=True)
            record, content = pack(fitted)
            replace_file(folder / record["arrays"], content)
            text = json.dumps(record, ensure_ascii=False, indent=1)
            replace_file(folder / f"{fitted.card.kind}.json", text.encode())
            fsync(folder.parent)
            for old in folder.glob(f"{fitted.card.kind}-*"):
                if old.name != record["arrays"]:
                    old.unlink()


def load_head(gallery: Path, target: str, kind: str, encoder: EncoderCard) -> FittedHead:
    """A fitted head.

    Args:
        gallery: The gallery's folder.
        target: What it predicts.
        kind: `knn`, `linear`, `mlp`, `ensemble` or `comparator`.
        encoder: The gallery's, of the embeddings that all but a comparator will be asked about.

    Raises:
        HeadNotFoundError: There is none; the message lists those that there are.
        StoredHeadError: It is damaged, or of another encoder.
    """
    path = _folder(gallery, target) / f"{kind}.json"
    if kind not in STORED_KINDS or not path.exists():
        raise HeadNotFoundError(_missing(gallery, target, kind))
    card, record, content = _read(path)
    if not is_usable(card, encoder):
        raise StoredHeadError(
            f"The {kind} head of '{target}' was fitted on embeddings of {card.encoder}, with another setting or of "
            f"another encoder than those of gallery {gallery} ({encoder.name}). Fit it again: modiste fit --gallery "
            f"{gallery} --targets {target}"
        )
    return unpack(card, record, content, str(path.parent / record["arrays"]))


def stored_cards(gallery: Path, target: str | None = None, *, skip_damaged: bool = False) -> list[HeadCard]:
    """The cards of a gallery's heads, by target and kind; those of other encoders too.

    Args:
        gallery: The gallery's folder.
        target: Whose heads; None for all.
        skip_damaged: Leave out cards that cannot be read, where a head is about to take their place.

    Raises:
        StoredHeadError: A card is damaged.
    """
    paths = (gallery / HEADS_FOLDER).glob("*/*.json") if target is None else _folder(gallery, target).glob("*.json")
    cards = []
    for path in sorted(paths):
        try:
            cards.append(read_card(path.read_bytes(), str(path))[0])
        except StoredHeadError:
            if not skip_damaged:
                raise
    return cards


def load_heads(gallery: Path, target: str, kinds: Sequence[str] | None, encoder: EncoderCard) -> list[FittedHead]:
    """The heads of a target, of the kinds asked for; None for all that are fitted on the gallery, with this encoder.

    Raises:
        HeadNotFoundError: There is none.
        StoredHeadError: As `load_head`.
    """
    wanted = [card.kind for card in _fitted(_own_cards(gallery, target, encoder))] if kinds is None else kinds
    return [load_head(gallery, target, kind, encoder) for kind in wanted]


def fitted_targets(gallery: Path, encoder: EncoderCard, kind: str | None = None) -> list[str]:
    """The targets that have a head of this encoder, or one of a kind, in order of name.

    Raises:
        HeadNotFoundError: None has.
    """
    targets = sorted({card.target for card in usable(stored_cards(gallery), encoder) if kind in (None, card.kind)})
    if not targets:
        raise HeadNotFoundError(_missing(gallery, None, kind))
    return targets


def best_kind(gallery: Path, target: str, encoder: EncoderCard) -> str:
    """The kind of the target's head that answers where none is named; see `best_card`.

    Raises:
        HeadNotFoundError: The target has no head of this encoder.
    """
    return best_card(_own_cards(gallery, target, encoder), selected_kind(gallery, target)).kind


def best_card(cards: Iterable[HeadCard], selected: str | None = None) -> HeadCard:
    """Of one or more heads of a target the one that answers where none is named.

    That is the selected one; where it is not among them, of those fitted on the gallery the one that did best on
    validation: the least log loss. A comparator's figures are of other photos, so it answers unselected only where it
    is alone.
    """
    among = list(cards)
    chosen = [card for card in among if card.kind == selected] or _fitted(among)
    return min(chosen, key=lambda card: (card.validation["log_loss"], card.kind))


def select_head(gallery: Path, target: str, kind: str) -> None:
    """Lets a head answer for its target where no kind is named, until another is selected; fitting again keeps it.

    Args:
        gallery: The gallery's folder.
        target: Whose.
        kind: Of a stored head.

    Raises:
        HeadNotFoundError: There is none.
        StoredHeadError: Its card is damaged.
        OSError: It could not be written; the old selection stands.
    """
    with FileLock(gallery / ".heads.lock"):
        if kind not in [card.kind for card in stored_cards(gallery, target)]:
            raise HeadNotFoundError(_missing(gallery, target, kind))
        replace_file(_folder(gallery, target) / SELECTION, f"{kind}\n".encode())


def selected_kind(gallery: Path, target: str) -> str | None:
    """The kind that `select_head` chose for a target, whether it is there or not; None where nothing was chosen."""
    try:
        return (_folder(gallery, target) / SELECTION).read_text(errors="replace").strip() or None
    except FileNotFoundError:
        return None


def selection_warning(target: str, selected: str | None, cards: Iterable[HeadCard]) -> str | None:
    """A sentence where the head that was selected for a target is not among those that can be asked; None where it is.

    Args:
        target: Whose heads.
        selected: Of `selected_kind`.
        cards: Of the target's heads that can be asked.
    """
    kinds = sorted(card.kind for card in cards)
    if selected is None or not kinds or selected in kinds:
        return None
    return (
        f"The {selected[:40]} head was selected for '{target}', and is gone or of another encoder; the best of "
        f"{', '.join(kinds)} answers."
    )


def usable(cards: Iterable[HeadCard], encoder: EncoderCard) -> list[HeadCard]:
    """The cards of heads that can be asked in a gallery of this encoder."""
    return [card for card in cards if is_usable(card, encoder)]


def is_usable(card: HeadCard, encoder: EncoderCard) -> bool:
    """Whether a head can be asked in a gallery of this encoder; a comparator brings its own."""
    return card.kind == ComparatorHead.kind or card.encoder_fingerprint == encoder.fingerprint


def _fitted(cards: Sequence[HeadCard]) -> Sequence[HeadCard]:
    """Those that were fitted on the gallery; all where none was."""
    return [card for card in cards if card.kind != ComparatorHead.kind] or cards


def _own_cards(gallery: Path, target: str, encoder: EncoderCard) -> list[HeadCard]:
    """The cards of a target's heads: of this encoder, or where there are none, of others, to be refused by name."""
    cards = stored_cards(gallery, target)
    own = usable(cards, encoder) or cards
    if not own:
        raise HeadNotFoundError(_missing(gallery, target, None))
    return own


def _read(path: Path) -> tuple[HeadCard, dict[str, Any], bytes]:
    """A card, all that stood in it, and its arrays, though another process may be putting others in their place."""
    before = None
    while True:
        text = path.read_bytes()
        card, record = read_card(text, str(path))
        arrays = path.parent / record["arrays"]
        try:
            return card, record, arrays.read_bytes()
        except FileNotFoundError as error:
            # A newer card names the newer arrays; the same card again names arrays that are lost.
            if text == before:
                raise StoredHeadError(f"{arrays} is gone, which {path} names. Fit the head again.") from error
            before = text


def _folder(gallery: Path, target: str) -> Path:
    """The folder of a target, whatever signs are in its name and however long it is."""
    name = file_part(target)
    if name.startswith("."):
        name = f"%2E{name[1:]}"
    return gallery / HEADS_FOLDER / name


def _missing(gallery: Path, target: str | None, kind: str | None) -> str:
    kinds: dict[str, list[str]] = {}
    for card in stored_cards(gallery, skip_damaged=True):
        kinds.setdefault(card.target, []).append(card.kind)
    fitted = "; ".join(f"{name}: {', '.join(found)}" for name, found in kinds.items())
    what = f"{kind} head" if kind else "head"
    of = f" of '{target}'" if target else " of this encoder"
    if kind == ComparatorHead.kind:
        ask = f"Add one that `modiste finetune` trained: modiste fit --gallery {gallery} --run RUN"
    else:
        of_kind = f" --head {kind}" if kind else ""
        ask = f"Fit one: modiste fit --gallery {gallery} --targets {target or 'TARGET'}{of_kind}"
    return f"Gallery {gallery} has no {what}{of}; fitted are {fitted or 'none'}. {ask}"
