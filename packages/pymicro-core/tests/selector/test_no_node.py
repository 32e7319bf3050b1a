"""`RegistrySelector`: what is said when there is nobody to call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from pymicro.errors import DialFailed, NoNode, NoOtherNode, TooManyRequests, Unavailable
from pymicro.selector import Outcome, RegistrySelector, version


async def refusal(selector: RegistrySelector, **how: Any) -> NoNode:
    with pytest.raises(NoNode) as caught:
        await selector.pick("greeter", **how)
    error = caught.value
    assert isinstance(error, Unavailable)
    assert (error.code, error.executed, error.transient) == (503, "no", True)
    assert not error.detail.endswith(".")
    return error


async def test_nobody_has_registered_it(mesh: Any) -> None:
    selector = await mesh.selector()
    error = await refusal(selector)
    assert type(error) is NoNode
    assert error.detail == (
        "nobody has registered 'greeter' in the registry 'memory' (its data is 0.0 s old); "
        "start it, with the same --registry and --registry_address as here"
    )
    await mesh.add("1")
    assert (await selector.pick("greeter")).node.id == "1"


async def test_the_last_node_went(mesh: Any) -> None:
    await mesh.add("1")
    selector = await mesh.selector()
    await selector.pick("greeter")
    await mesh.remove("1")
    assert "nobody has registered 'greeter'" in (await refusal(selector)).detail


async def test_the_registry_cannot_be_asked(mesh: Any) -> None:
    mesh.catalog.available = False
    selector = await mesh.selector()
    await refusal(selector)
    await mesh.clock.advance(2.5)
    assert (await refusal(selector)).detail == (
        "no node of 'greeter' is known: the registry 'memory' cannot be asked since 2.5 s: "
        "the memory catalog is not available; check --registry and --registry_address"
    )
    await mesh.add("1")
    mesh.catalog.available = True
    await mesh.clock.advance(0)
    assert (await selector.pick("greeter")).node.id == "1"


async def test_the_registry_hangs(mesh: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh.registry, "_refresh_one", lambda name: None)
    selector = await mesh.selector(lookup_timeout=1.0)
    picking = asyncio.create_task(refusal(selector))
    await mesh.clock.advance(0.9)
    assert not picking.done()
    await mesh.clock.advance(0.1)
    assert "cannot be asked since 0.0 s: no answer within 1 s" in (await picking).detail


async def test_no_node_passes_the_filters(mesh: Any) -> None:
    await mesh.add("1", version="1.0")
    await mesh.add("2", version="2.0")
    error = await refusal(await mesh.selector(), filters=[version("3.0")])
    assert type(error) is NoNode
    assert error.detail == (
        "no node of 'greeter' passes the filters (version 3.0): the registry 'memory' has "
        "1 at 10.0.0.1:1, version 1.0; 2 at 10.0.0.1:2, version 2.0 (its data is 0.0 s old)"
    )


async def test_every_node_was_tried(mesh: Any, pick_of: Any) -> None:
    await mesh.add("1", "2", "3")
    selector = await mesh.selector(eject=1000.0, eject_max=1000.0)
    (await pick_of(selector, "1")).done(Outcome.UNREACHABLE, 0.1, DialFailed("connection refused"))
    await mesh.clock.advance(3.0)
    (await pick_of(selector, "2")).done(Outcome.OVERLOADED, 0.1, TooManyRequests("64 calls are in flight"))
    mesh.catalog.available = False
    await mesh.clock.advance(0.5)
    error = await refusal(selector, exclude=["1", "2", "3"])
    assert type(error) is NoOtherNode
    assert error.detail == (
        "every node of 'greeter' was tried in this call: "
        "1 at 10.0.0.1:1, version 1.0, left out since 3.5 s because: connection refused; "
        "2 at 10.0.0.1:2, version 1.0, 0.5 s ago: 429 Too Many Requests: 64 calls are in flight; "
        "3 at 10.0.0.1:3, version 1.0 "
        "(registry 'memory', its data is 0.5 s old: the memory catalog is not available)"
    )


async def test_a_fault_that_passed_is_not_told(mesh: Any, pick_of: Any) -> None:
    await mesh.add("1")
    selector = await mesh.selector()
    for outcome in (Outcome.OVERLOADED, Outcome.OK):
        (await selector.pick("greeter")).done(outcome)
    assert "1 at 10.0.0.1:1, version 1.0 (" in (await refusal(selector, exclude=["1"])).detail


async def test_what_is_said_is_bounded(mesh: Any, pick_of: Any) -> None:
    await mesh.add(*(str(number) for number in range(30)))
    selector = await mesh.selector(eject=1000.0, eject_max=1000.0)
    (await pick_of(selector, "1")).done(Outcome.BROKEN, 0.1, ConnectionError("x" * 10_000))
    detail = (await refusal(selector, exclude=[str(number) for number in range(30)])).detail
    assert "; and 20 more (" in detail
    assert len(detail) < 1500
    with pytest.raises(NoNode) as caught:
        await selector.pick("y" * 10_000)
    assert len(caught.value.detail) < 400
