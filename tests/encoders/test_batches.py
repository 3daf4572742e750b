"""Every text in one batch, few shapes, and no batch past its bound."""

from hypothesis import given
from hypothesis import strategies as st

from mlx_lvm.encoders.batches import padded, plan

LONGEST = 700  # which no step ends at
LENGTHS = st.lists(st.integers(1, 700), min_size=1, max_size=300)


@given(LENGTHS, st.integers(1, 5000), st.integers(1, 100))
def test_every_text_once_and_within_its_shape(lengths: list[int], tokens: int, most: int) -> None:
    batches = list(plan(lengths, tokens, most, LONGEST))
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch.rows) <= batch.size <= most
        assert max(lengths[row] for row in batch.rows) <= batch.length <= LONGEST
        assert batch.length in (padded(batch.length), LONGEST)
        assert batch.size * batch.length <= tokens or batch.size == 1


@given(LENGTHS, st.integers(1, 5000), st.integers(1, 100))
def test_exact_batches_pad_to_their_longest_text(lengths: list[int], tokens: int, most: int) -> None:
    batches = list(plan(lengths, tokens, most, LONGEST, exact=True))
    assert sorted(row for batch in batches for row in batch.rows.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert batch.size == len(batch.rows) <= most and batch.length == lengths[batch.rows[0]]
        assert batch.length == max(lengths[row] for row in batch.rows)
        assert (batch.size - 0.5) * batch.length <= tokens or batch.size == 1


@given(LENGTHS)
def test_longest_first_and_few_shapes(lengths: list[int]) -> None:
    batches = list(plan(lengths, 4096, 64, LONGEST))
    assert [batch.length for batch in batches] == sorted((batch.length for batch in batches), reverse=True)
    assert all(batch.size & (batch.size - 1) == 0 for batch in batches)
    assert len({padded(length) for length in range(1, 513)}) == 40


def test_a_thousand_chunks_share_their_shapes() -> None:
    lengths = [100 + number % 60 for number in range(1000)]
    batches = list(plan(lengths, 4096, 64, LONGEST))
    waste = sum(batch.size * batch.length for batch in batches) / sum(lengths)
    assert len({(batch.size, batch.length) for batch in batches}) <= 12 and waste < 1.15
