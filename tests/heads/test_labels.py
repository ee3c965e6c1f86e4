"""Labels as numbers: what is a label, what is too rare, and codes that tell when a label has changed."""

from __future__ import annotations

import numpy as np
import pytest

from heads.checks import HeadError
from heads.labels import encode_labels, label_codes


def single(*names):
    """Labels of items that have one each; None has none."""
    return [() if name is None else (name,) for name in names]


def test_names_are_numbers_in_order():
    encoded = encode_labels("type", single("shirt", "Dress", "shirt", "dress", "Dress", "dress"))
    # Capitals come first.
    assert encoded.names == ("Dress", "dress", "shirt")
    assert encoded.y.tolist() == [2, 0, 2, 1, 0, 1]
    assert encoded.y.dtype == encoded.rows.dtype == np.int64
    assert encoded.rows.tolist() == [0, 1, 2, 3, 4, 5]
    assert (encoded.target, encoded.rare, encoded.unlabelled) == ("type", {}, 0)
    assert not encoded.multi_label
    np.testing.assert_array_equal(encoded.truth, np.eye(3, dtype=bool)[[2, 0, 2, 1, 0, 1]])


def test_na_is_a_label_and_none_is_not():
    encoded = encode_labels("usage", single("NA", None, "Casual", "NA", "Casual", None))
    assert encoded.names == ("Casual", "NA")
    assert encoded.rows.tolist() == [0, 2, 3, 4]
    assert encoded.y.tolist() == [1, 0, 1, 0]
    assert encoded.unlabelled == 2


def test_rare_labels_are_reported():
    labels = single("a", "b", "c", "a", "b", "a", "d", None, "d")
    encoded = encode_labels("type", labels, min_count=2)
    assert encoded.names == ("a", "b", "d")
    assert encoded.rare == {"c": 1}
    assert encoded.rows.tolist() == [0, 1, 3, 4, 5, 6, 8]
    assert encoded.y.tolist() == [0, 1, 0, 1, 0, 2, 2]
    # An item with a rare label is not one without.
    assert encoded.unlabelled == 1
    assert encode_labels("type", labels, min_count=1).rare == {}
    with pytest.raises(HeadError, match="two labels or more with 3 photos each"):
        encode_labels("type", labels, min_count=3)


def test_several_labels_an_item():
    labels = [("striped", "cotton"), ("cotton",), (), ("striped",), ("lace",), ("lace", "cotton")]
    encoded = encode_labels("attributes", labels)
    assert encoded.multi_label
    assert encoded.names == ("cotton", "lace", "striped")
    assert encoded.rows.tolist() == [0, 1, 3, 4, 5]
    assert encoded.y.dtype == bool
    assert encoded.y.astype(int).tolist() == [[1, 0, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0], [1, 1, 0]]
    assert encoded.truth is encoded.y
    assert encoded.unlabelled == 1


def test_a_rare_label_leaves_the_others_of_its_item():
    encoded = encode_labels("attributes", [("a", "rare"), ("a", "b"), ("b",), ("once",)])
    assert encoded.rare == {"once": 1, "rare": 1}
    assert encoded.rows.tolist() == [0, 1, 2]
    assert encoded.y.tolist() == [[True, False], [True, True], [False, True]]


def test_a_label_twice_on_an_item_is_one():
    encoded = encode_labels("type", [("a", "a"), ("b",), ("b",), ("a",), ("c", "c")])
    assert not encoded.multi_label
    assert encoded.rare == {"c": 1}
    assert encoded.y.tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            single("dress", "dress", "shirt"),
            r"target 'type' needs two labels.*2 photos each; 3 items have dress \(2\), shirt \(1\)",
        ),
        (single("dress", "dress", None), r"3 items have dress \(2\)\."),
        (single(None, None), "2 items have none"),
        ([], "0 items have none"),
        # The five most frequent, in order of how many there are.
        (single(*"abcdefff"), r"8 items have f \(3\), a \(1\), b \(1\), c \(1\), d \(1\)\."),
    ],
)
def test_one_label_is_nothing_to_tell_apart(labels, message):
    with pytest.raises(HeadError, match=message):
        encode_labels("type", labels)


def test_refuses_a_count_that_is_none():
    with pytest.raises(HeadError, match="'min_count' is a number of photos, 1 or more; got 0"):
        encode_labels("type", single("a", "b"), min_count=0)


def test_codes_change_when_labels_do_and_not_otherwise():
    truth = np.array([[1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    codes = label_codes(truth, ["dress", "shirt", "hat"])
    assert (codes.dtype, codes.shape) == (np.int64, (4,))
    assert len(set(codes.tolist())) == 4
    # Whatever other labels there are, in whatever order.
    others = label_codes(truth[:, [1, 2, 0]], ["shirt", "hat", "dress"])
    np.testing.assert_array_equal(others, codes)
    np.testing.assert_array_equal(label_codes(truth[:, :2], ["dress", "shirt"]), codes)
    assert (label_codes(truth[:, :2], ["dress", "skirt"]) != codes).tolist() == [False, True, True, False]
    # In all later releases too: heads that were stored hold such codes.
    assert label_codes(np.ones((1, 1), bool), ["dress"]).tolist() == [-5965374301437201606]
