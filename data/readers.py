"""The one way into a catalog: every format that Modiste reads, and how the right one is found."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from data.catalog import Catalog, CatalogError, EmptyCatalogError
from data.columns import check_mapping, parse_mapping
from data.deepfashion import DEEPFASHION
from data.dresses import DRESSES
from data.fashion_mnist import FASHION_MNIST
from data.folder import FOLDER
from data.formats import CatalogFormat
from data.kaggle import KAGGLE
from data.shards import SHARDS
from data.tables import CSV, JSONL, PARQUET

__all__ = ["FORMATS", "open_catalog", "parse_mapping"]

# The order in which they are tried: a folder of photos is what remains, any table comes before it, a known one first.
FORMATS: dict[str, CatalogFormat] = {
    known.name: known for known in (DEEPFASHION, FASHION_MNIST, SHARDS, KAGGLE, DRESSES, CSV, JSONL, PARQUET, FOLDER)
}


def open_catalog(
    path: Path,
    *,
    format: str | None = None,  # noqa: A002 - the word of the command line and of Catalog
    mapping: Mapping[str, str] | None = None,
) -> Catalog:
    """The catalog at a path, once its first row was read.

    Args:
        path: A folder or a file.
        format: A name in FORMATS; None takes the first format that the path shows.
        mapping: Which column is what in a table, see parse_mapping; only tables are tried where it is given.

    Returns:
        The catalog. Iterating streams its rows, anew each time, and raises CatalogError where the file turns out to
        be damaged.

    Raises:
        EmptyCatalogError: It holds no row.
        CatalogError: There is no such path, format or mapping, no format fits, or the catalog cannot be read.
    """
    # An item's path is stored, and must be right from any folder.
    path = path.absolute()
    if not path.exists():
        raise CatalogError(f"A catalog was wanted, a folder or a file; there is no {path}.")
    if mapping is not None:
        check_mapping(mapping)
    try:
        found = _detect(path, mapping is not None) if format is None else _named(format, mapping is not None)
        read = partial(found.read, path, mapping) if found.mapped else partial(found.read, path)
        first = next(read(), None)
    except OSError as error:
        raise CatalogError(f"{path} cannot be read: {error}.") from error
    if first is None:
        raise EmptyCatalogError(
            f"A catalog with at least one photo was wanted; {path}, read as {found.name}, has none. {_ways()}"
        )
    return Catalog(path, found.name, read, partial(found.count, path))


def _named(name: str, mapped: bool) -> CatalogFormat:
    """The format of this name; `mapped` says that there is a mapping, which it must take."""
    if name not in FORMATS:
        raise CatalogError(f"There is no format {name!r}. {_ways()}")
    if mapped and not FORMATS[name].mapped:
        tables = ", ".join(known.name for known in FORMATS.values() if known.mapped)
        raise CatalogError(
            f"A mapping names columns of {tables}; the format {name} has none. Leave one of the two out."
        )
    return FORMATS[name]


def _detect(path: Path, mapped: bool) -> CatalogFormat:
    """The first format that the path shows."""
    candidates = (known for known in FORMATS.values() if known.mapped or not mapped)
    found = next((known for known in candidates if known.detect(path)), None)
    if found is None:
        wanted = "A table, to which the mapping belongs," if mapped else "A catalog"
        raise CatalogError(f"{wanted} was wanted; {path} shows none. {_ways()}")
    return found


def _ways() -> str:
    """What to do next."""
    return f"Choose with --format: {', '.join(FORMATS)}; docs/cli.md shows what each looks like."
