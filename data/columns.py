"""Which column of a table is what: the mapping that a user gives, the defaults, and one record made an item."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from data.catalog import BadRow, Box, CatalogError, CatalogItem
from data.formats import Row, check_text
from data.splits import split_name

# What a mapping may name, and the columns that are taken where it does not; the first that exists wins.
_DEFAULTS: dict[str, tuple[str, ...]] = {
    "item_id": ("item_id", "id"),
    "image": ("image", "image_path", "path", "file", "filename"),
    "product_id": ("product_id",),
    "split": ("split",),
    "box": ("box",),
    "labels": (),
}
_REQUIRED = ("item_id", "image")
_MEANINGS = {"item_id": "the item's id", "image": "the photo's path"}
_EXAMPLE = "--map item_id=sku,image=file,product_id=style"


def parse_mapping(text: str) -> dict[str, str]:
    """The mapping written as `item_id=sku,image=file,box=x|y|w|h,labels=colour|type`.

    Args:
        text: `key=column` pairs with commas between them. `box` takes one column or four, `labels` any number, with
            `|` between them; nothing after the `=` means that no column is taken, whatever it is called.

    Returns:
        Columns by key: item_id, image, product_id, split, box, labels.

    Raises:
        CatalogError: A pair is no `key=column`, a key is unknown or comes twice.
    """
    mapping: dict[str, str] = {}
    for pair in text.split(","):
        key, equals, column = (part.strip() for part in pair.partition("="))
        if not (key and equals):
            raise CatalogError(f"A mapping is key=column pairs with commas between them; got {pair!r}. {_example()}")
        if key in mapping:
            raise CatalogError(f"A mapping names each key once; {key} comes twice in {text!r}. {_example()}")
        mapping[key] = column
    check_mapping(mapping)
    return mapping


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Look at a mapping alone, before there is a table.

    Raises:
        CatalogError: A key is unknown, a required one has no column, or `box` has other than 0, 1 or 4 columns.
    """
    unknown = [key for key in mapping if key not in _DEFAULTS]
    if unknown:
        raise CatalogError(f"A mapping knows the keys {', '.join(_DEFAULTS)}; got {', '.join(unknown)}. {_example()}")
    empty = [key for key in _REQUIRED if not mapping.get(key, key)]
    if empty:
        raise CatalogError(f"A mapping needs a column for {' and '.join(empty)}; got none. {_example()}")
    boxes = _split(mapping.get("box", ""))
    if len(boxes) not in (0, 1, 4):
        raise CatalogError(f"box is one column or four, x|y|width|height; got {len(boxes)}: {mapping['box']!r}.")


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what; `labels` is None where every column that is nothing else is a label target."""

    item_id: str
    image: str
    product_id: str
    split: str
    box: tuple[str, ...]
    labels: tuple[str, ...] | None

    @property
    def named(self) -> frozenset[str]:
        """All columns that are named, the label targets included."""
        return frozenset((self.item_id, self.image, self.product_id, self.split, *self.box, *(self.labels or ())))


def missing_columns(names: Iterable[str], mapping: Mapping[str, str] | None) -> list[str]:
    """What is still wanted of a table with these columns, in words; empty where nothing is."""
    names, mapping = set(names), mapping or {}
    mapped = [f"{column!r} ({key})" for key in mapping for column in _split(mapping[key]) if column not in names]
    unnamed = [
        f"one with {_MEANINGS[key]} ({', '.join(_DEFAULTS[key])})"
        for key in _REQUIRED
        if key not in mapping and names.isdisjoint(_DEFAULTS[key])
    ]
    return mapped + unnamed


def resolve_columns(names: Iterable[str], mapping: Mapping[str, str] | None, source: Path) -> Columns:
    """Which of the columns `names` is what.

    Args:
        names: The columns of the table.
        mapping: See parse_mapping; a key that it lacks takes its default column, where there is one.
        source: The table, for messages.

    Raises:
        CatalogError: There is no column for the id or the image, or the mapping names a column that there is not.
    """
    names, mapping = list(names), mapping or {}
    missing = missing_columns(names, mapping)
    if missing:
        shown = ", ".join(names[:30]) + (f" and {len(names) - 30} more" if len(names) > 30 else "")
        raise CatalogError(
            f"Columns wanted and not found: {'; '.join(missing)}. {source} has the columns {shown}. {_example()}"
        )

    def column(key: str) -> str:
        return mapping.get(key, next((name for name in _DEFAULTS[key] if name in names), _DEFAULTS[key][0]))

    return Columns(
        item_id=column("item_id"),
        image=column("image"),
        product_id=column("product_id"),
        split=column("split"),
        box=_split(column("box")),
        labels=_split(mapping["labels"]) if "labels" in mapping else None,
    )


def to_item(record: Mapping[str, object], columns: Columns, source: Path, source_row: int) -> Row:
    """The item that a record describes.

    Args:
        record: Values by column, as CSV (text), JSON or Arrow give them.
        columns: Which column is what.
        source: The table; paths of photos are relative to its folder.
        source_row: 1-based line or record.

    Returns:
        The item, or a BadRow where id or image is empty, a box or split is none, or a value is no label.
    """
    named = columns.named
    try:
        targets = columns.labels if columns.labels is not None else [name for name in record if name not in named]
        labels = {target: tuple(dict.fromkeys(_texts(record.get(target), target))) for target in targets if target}
        box = ",".join(text for column in columns.box for text in _texts(record.get(column), column))
        return CatalogItem(
            item_id=_text(record, columns.item_id, required=True),
            image=_image(record, columns.image, source.parent),
            product_id=_text(record, columns.product_id) or None,
            labels={target: names for target, names in labels.items() if names},
            box=Box.parse(box) if box else None,
            split=_split_of(_text(record, columns.split)),
            source_row=source_row,
        )
    except CatalogError as error:
        return BadRow(source, source_row, str(error))


def _texts(value: object, column: str) -> tuple[str, ...]:
    """The value as names: none for null, nan and empty text, several for a list; 2012.0 is `2012`."""
    if value is None or value != value:  # noqa: PLR0124 - nan is what differs from itself
        return ()
    if isinstance(value, list | tuple):
        return tuple(text for part in value for text in _texts(part, column))
    if isinstance(value, bool):
        return ("true",) if value else ("false",)
    if isinstance(value, float):
        return (str(int(value)) if value.is_integer() else repr(value),)
    if isinstance(value, dict | bytes):
        kind = "an object" if isinstance(value, dict) else "bytes"
        raise CatalogError(
            f"Column {column!r} holds {kind}, which is no label; name those that are, labels=colour|type."
        )
    text = check_text(str(value).strip(), f"column {column!r}")
    return (text,) if text else ()


def _text(record: Mapping[str, object], column: str, *, required: bool = False) -> str:
    """The one name in a column; "" where there is none and none is required."""
    texts = _texts(record.get(column), column)
    if len(texts) > 1 or (required and not texts):
        raise CatalogError(f"One value was wanted in column {column!r}; got {', '.join(texts) or 'none'}.")
    return texts[0] if texts else ""


def _image(record: Mapping[str, object], column: str, folder: Path) -> Path | bytes:
    """The photo: bytes where the column holds them, or its path; Hugging Face writes {bytes, path}."""
    value = record.get(column)
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    text = _text({column: value or None}, column, required=True)
    if "://" in text:
        raise CatalogError(f"Column {column!r} wants a photo file; got the address {text[:80]}. Download it first.")
    return folder / text


def _split_of(text: str) -> str | None:
    """The split that a column names, None where it is empty."""
    split = split_name(text)
    if text and split is None:
        raise CatalogError(f"A split is train, validation or test; got {text!r}. Take no column for it with split=.")
    return split


def _split(columns: str) -> tuple[str, ...]:
    """The columns of `x|y|w|h`."""
    return tuple(name for name in (part.strip() for part in columns.split("|")) if name)


def _example() -> str:
    """What to do next."""
    return f"For example {_EXAMPLE}."
