"""Photos as a browser hands them over: dropped on the page, or pasted into it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

_HAND_OVER = """([kind, name, type, text]) => {
  const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type }));
  const options = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(kind === "drop"
    ? new DragEvent("drop", { ...options, dataTransfer: data })
    : new ClipboardEvent("paste", { ...options, clipboardData: data }));
}"""


def hand_over(
    page: Any, content: bytes | Path, name: str = "photo.jpg", *, kind: str = "drop", type_: str = "image/jpeg"
) -> None:
    """Drops (`drop`) or pastes (`paste`) a file on the page."""
    content = content.read_bytes() if isinstance(content, Path) else content
    page.evaluate(_HAND_OVER, [kind, name, type_, base64.b64encode(content).decode()])


def shown_ids(page: Any) -> list[str]:
    """The item_ids of the cards that are shown."""
    found: list[str] = page.locator("#neighbours .m-card-photo").evaluate_all(
        "all => all.map(one => one.dataset.search)"
    )
    return found


def is_within(page: Any) -> bool:
    """Whether the panel and the tab that is shown end at the window's edge."""
    script = """() => [...document.querySelectorAll("#asking *, [role=tabpanel] *")].every(
      (one) => one.getBoundingClientRect().right <= innerWidth)"""
    return bool(page.evaluate(script))
