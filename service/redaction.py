"""Redaction: what a sentence says of this machine's folders is not for those who ask over a network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from urllib.parse import quote

from service.job_options import Source

# Where a path may begin: not within a word or another path.
_START = r"(?<![\w/.~-])(?:file://)?"
# A root ends where its last name does: `/srv/g.tmp` is not in `/srv/g`, though `/srv/g.` may be at a sentence's end.
_END = r"(?![\w-]|\.\w)"
# Up to the closing quote where it stands in quotes, else up to what paths seldom hold; URLs have a second slash.
_OTHER = r"(?<=')/[^'\n]+(?=')|(?<=\")/[^\"\n]+(?=\")|(?<=`)/[^`\n]+(?=`)|/(?!/)[^\s'\"`,;:()<>]+"


def names_of_places(
    gallery: Path, catalogs: Mapping[str, Source], encoders: Mapping[str, str] = MappingProxyType({})
) -> dict[Path, str]:
    """What a service's folders are called in its answers.

    Args:
        gallery: The gallery's folder.
        catalogs: By name.
        encoders: Folders of encoders, by name.
    """
    named = {
        **{Path(folder).expanduser(): name for name, folder in encoders.items()},
        **{source.path: f"catalog '{name}'" for name, source in catalogs.items()},
        gallery: "GALLERY",
    }
    return {place: name for path, name in named.items() for place in (path.absolute(), path.resolve())}


def redacted(sentence: str, names: Mapping[Path, str]) -> str:
    """The sentence with each known folder by its name, and any other absolute path by its last part.

    Args:
        sentence: Of this package or one below it, or of the operating system.
        names: By absolute path, as `names_of_places` gives them. What lies in a folder keeps its place in it.
    """
    # Names of files may hold signs that are no text.
    text = sentence.encode(errors="backslashreplace").decode()
    # The longest first, for one may lie in another.
    places = sorted(names, key=lambda path: -len(str(path)))
    known = "|".join(f"(?P<root{number}>{_pattern(place)}){_END}" for number, place in enumerate(places))

    def name(found: re.Match[str]) -> str:
        if found.lastgroup:
            return names[places[int(found.lastgroup.removeprefix("root"))]]
        path = found[0].rstrip(".")
        return (PurePosixPath(path).name or path) + found[0][len(path) :]

    return re.sub(f"{_START}(?:{known}{'|' if known else ''}{_OTHER})", name, text)


def _pattern(place: Path) -> str:
    """How a folder may be written: Lance leaves the first slash out, and quotes some signs as a URL does."""
    text = str(place)
    ways = {text, quote(text)} | ({text[1:], quote(text[1:])} if text.count("/") > 1 else set())
    return "|".join(re.escape(way) for way in sorted(ways, key=len, reverse=True))
