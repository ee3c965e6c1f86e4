"""Photos for a page: small JPEGs as data URIs, so that one file holds them all."""

from __future__ import annotations

import base64
from pathlib import Path

from data.catalog import Box, CatalogItem
from data.images import ImageError, encode_jpeg


class Photos:
    """Small photos of items, each decoded once a size."""

    def __init__(self) -> None:
        self._made: dict[tuple[Path | bytes, Box | None, int], str | None] = {}

    def uri(self, item: CatalogItem, size: int) -> str | None:
        """The item's photo, or its box, as a JPEG data URI; None where it cannot be read.

        Args:
            item: Whose photo.
            size: The longer side in pixels, at most; a smaller photo is not blown up.
        """
        key = (item.image, item.box, size)
        if key not in self._made:
            self._made[key] = _uri(item, size)
        return self._made[key]


def _uri(item: CatalogItem, size: int) -> str | None:
    try:
        content = encode_jpeg(item.image, size, box=item.box)
    except ImageError:
        return None
    return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
