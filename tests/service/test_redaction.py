"""Sentences lose the paths of this machine, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.job_options import Source
from service.redaction import names_of_places, redacted

NAMES = {
    Path("/srv/g"): "GALLERY",
    Path("/srv/my shop"): "catalog 'default'",
    Path("/srv/my shop/shoes"): "catalog 'shoes'",
}


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("Gallery /srv/g is damaged.", "Gallery GALLERY is damaged."),
        # At the end of a sentence the full stop is no part of the path.
        ("Another process is writing to gallery /srv/g.", "Another process is writing to gallery GALLERY."),
        ("Run `modiste repair --gallery /srv/g` first.", "Run `modiste repair --gallery GALLERY` first."),
        ("/srv/g/next holds a migration.", "GALLERY/next holds a migration."),
        # The longest root that fits, though it lies in another.
        ("There is no /srv/my shop/shoes/a.csv.", "There is no catalog 'shoes'/a.csv."),
        ("There is no /srv/my shop.", "There is no catalog 'default'."),
        # A folder whose name only begins as a root's does is another one.
        ("/srv/g2 and /srv/g.tmp and /srv/g-old", "g2 and g.tmp and g-old"),
        ("/mnt/srv/g", "g"),
        # As the operating system and Lance write them.
        ("[Errno 13] Permission denied: '/home/me/a b.csv'", "[Errno 13] Permission denied: 'a b.csv'"),
        ('no such file: "/home/me/a b.csv"', 'no such file: "a b.csv"'),
        ("Open `/home/me/a b.csv`.", "Open `a b.csv`."),
        (
            "lance error: Not found: srv/g/items.lance/data/1.lance",
            "lance error: Not found: GALLERY/items.lance/data/1.lance",
        ),
        ("at file:///srv/my%20shop/x", "at catalog 'default'/x"),
        ("at file:///var/x/y.lance", "at y.lance"),
        ("(/var/x/y.csv), /var/a:2; x=/var/b.", "(y.csv), a:2; x=b."),
        # What is no path of this machine stays.
        ("hub https://example.org/a/b and image/jpeg, and/or next/items.lance", None),
        ("a / b, 4:3, ./x, ~/x, ../x/y and x/srv/g", None),
        ("", None),
    ],
)
def test_paths_become_names(sentence, wanted):
    assert redacted(sentence, NAMES) == (sentence if wanted is None else wanted)


def test_without_known_folders_each_path_is_its_last_part():
    assert redacted("Gallery /srv/g is not '/a/b c'.", {}) == "Gallery g is not 'b c'."


def test_a_folder_of_one_part_is_no_word():
    # Without its slash, `g` could be any word.
    assert redacted("a g at /g", {Path("/g"): "GALLERY"}) == "a g at GALLERY"


def test_the_places_of_a_service_are_known_by_their_links_too(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    names = names_of_places(Path("link"), {"default": Source(Path("photos"))})
    assert names == {
        tmp_path / "link": "GALLERY",
        tmp_path / "real": "GALLERY",
        tmp_path / "photos": "catalog 'default'",
    }
