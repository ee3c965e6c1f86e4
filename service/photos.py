"""Photos for a page: small JPEGs as data URIs, so that one file holds them all."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL.Image import Resampling

from data.catalog import Box, CatalogItem
from data.images import ImageError, crop, open_image

_QUALITY = 78


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
        image = open_image(item.image, at_least=size, box=item.box)
    except ImageError:
        return None
    if item.box:
        image = crop(image, item.box)
    image.thumbnail((size, size), Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
