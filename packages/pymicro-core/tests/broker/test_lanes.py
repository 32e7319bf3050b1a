from __future__ import annotations

import random
from collections import defaultdict

import pytest

from pymicro.broker._lanes import Lanes


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_a_key_keeps_its_order_and_nothing_is_lost(seed: int) -> None:
    rand = random.Random(seed)
    lanes: Lanes[tuple[str | None, int]] = Lanes()
    added: dict[str | None, list[int]] = defaultdict(list)
    done: dict[str | None, list[int]] = defaultdict(list)
    groups: list[list[tuple[str | None, int]]] = []
    number = 0
    while number < 300 or lanes.ready or groups:
        step = rand.choice(["add", "take", "release"])
        if step == "add" and number < 300:
            key = rand.choice(["a", "b", "c", None])
            lanes.add(key, (key, number))
            added[key].append(number)
            number += 1
        elif step == "take":
            ready, size = lanes.ready, rand.randint(1, 4)
            group = lanes.take(size)
            assert len(group) == min(ready, size)
            assert group == sorted(group, key=lambda item: item[1])
            busy = {key for other in groups for key, _ in other if key is not None}
            assert busy.isdisjoint({key for key, _ in group})
            groups += [group] if group else []
        elif groups:
            group = groups.pop(rand.randrange(len(groups)))
            failed = rand.choice([0, len(group), rand.randint(0, len(group))])
            # What is tried again comes after what was done, as in a batch that failed in the middle.
            finished, again = group[: len(group) - failed], group[len(group) - failed :]
            for item in finished:
                done[item[0]].append(item[1])
                lanes.release(item)
            for item in rand.sample(again, len(again)):
                lanes.release(item, again=True)
    for key in ("a", "b", "c"):
        assert done[key] == added[key]
    assert sorted(done[None]) == added[None]
    assert lanes._keyed == {}
