"""What is committed of a partition: never more than what is settled, and what the next owner needs to go on."""

from __future__ import annotations

import random

import pytest

from pymicro_broker_kafka._progress import LONGEST, Progress


def test_an_offset_is_committed_when_all_before_it_are_settled() -> None:
    progress = Progress(10)
    for offset in range(10, 15):
        assert progress.arrived(offset)
        assert progress.claim(offset) == 1
    for offset, first in ((12, 10), (11, 10), (10, 13), (14, 13), (13, 15)):
        progress.settle(offset)
        assert progress.first == first
    assert not progress.busy


def test_the_next_owner_repeats_nothing_that_is_settled_and_goes_on_counting() -> None:
    progress = Progress(5, partitions=4)
    for offset in range(5, 10):
        progress.arrived(offset)
        progress.claim(offset)
    progress.settle(6)
    progress.settle(7)
    progress.release(8)
    progress.claim(8)
    heir = Progress(progress.first, progress.text)
    assert heir.partitions == 4
    assert [offset for offset in range(5, 11) if heir.arrived(offset)] == [5, 8, 9, 10]
    assert [heir.claim(offset) for offset in (5, 8, 9, 10)] == [2, 3, 2, 1]


def test_what_nobody_saw_does_not_count() -> None:
    progress = Progress(0)
    progress.arrived(0)
    progress.claim(0)
    progress.unclaim(0)
    assert Progress(0, progress.text).claim(0) == 1


def test_offsets_that_never_come_are_done() -> None:
    progress = Progress(0)
    assert progress.arrived(0)
    assert progress.arrived(3)  # 1 and 2 were marks of a transaction, or removed
    for offset in (3, 0):
        progress.claim(offset)
        progress.settle(offset)
    assert progress.first == 4
    assert not progress.arrived(2)


@pytest.mark.parametrize("text", ["", "of another client", "pymicro/1 x", "pymicro/1 2 5+,+3,x"])
def test_texts_of_others_say_nothing(text: str) -> None:
    progress = Progress(7, text)
    assert progress.arrived(7)
    assert progress.claim(7) == 1


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_settling_fits_beside_the_offset_and_loses_nothing(seed: int) -> None:
    chance = random.Random(seed)
    progress, settled, held, next_offset = Progress(0), set[int](), set[int](), 0
    for _ in range(3000):
        if chance.random() < 0.5 and not progress.full:
            assert progress.arrived(next_offset)
            progress.claim(next_offset)
            held.add(next_offset)
            next_offset += 1
        elif held:
            offset = chance.choice(sorted(held)[-150:])
            progress.settle(offset)
            held.discard(offset)
            settled.add(offset)
        assert progress.first == min(held, default=next_offset)
        assert len(progress.text) <= LONGEST
    heir = Progress(progress.first, progress.text)
    assert {offset for offset in range(progress.first, next_offset) if heir.arrived(offset)} == held
    assert all(heir.claim(offset) == 2 for offset in held)
