"""Which encoder cards are of one space."""

import pytest

from mlx_lvm.data.card import EncoderCard

WEIGHTS = "model.safetensors sha256 " + "a" * 64


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"model": "my-folder"}, []),  # the same weights under another name
        ({"model": "my-folder", "revision": ""}, ["model 'owner/encoder' against 'my-folder'"]),
        (
            {"model": "my-folder", "revision": WEIGHTS.replace("a", "b")},
            ["model 'owner/encoder' against 'my-folder'"],
        ),
        ({"pooling": "cls"}, ["pooling 'mean' against 'cls'"]),  # the same weights, read in another way
        ({"model": "my-folder", "normalised": "no"}, ["normalised 'L2' against 'no'"]),
        ({"dim": 384}, ["dim 768 against 384"]),
    ],
)
def test_cards_without_probes(changes: dict, found: list[str]) -> None:
    fields = {
        "model": "owner/encoder",
        "revision": WEIGHTS,
        "pooling": "mean",
        "normalised": "L2",
        "dim": 768,
    }
    ours, theirs = EncoderCard(**fields), EncoderCard(**{**fields, **changes})
    assert ours.differences(theirs) == found
    assert bool(theirs.differences(ours)) == bool(found)


def test_a_revision_that_is_no_checksum_does_not_stand_for_the_name() -> None:
    ours, theirs = (
        EncoderCard(model=name, revision="main", dim=768) for name in ("owner/encoder", "my-folder")
    )
    assert ours.differences(theirs) == ["model 'owner/encoder' against 'my-folder'"]
