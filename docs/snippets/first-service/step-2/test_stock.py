import pytest
from stock import Item, OutOfStock, Stock, compose

from pymicro import errors
from pymicro_testing import Mesh, settle


# region call
async def test_taking_leaves_less(mesh: Mesh) -> None:
    compose(mesh.service("stock"))
    async with mesh.run() as client:
        stock = client.stub("stock", Stock)
        assert await stock.take(Item("apple", 1)) == Item("apple", 2)
        # endregion


# region errors
async def test_what_is_not_there_cannot_be_taken(mesh: Mesh) -> None:
    compose(mesh.service("stock"))
    async with mesh.run() as client:
        stock = client.stub("stock", Stock)
        with pytest.raises(OutOfStock) as caught:
            await stock.take(Item("apple", 4))
        assert caught.value.left == 3
        with pytest.raises(errors.NotFound, match="no plum"):
            await stock.take(Item("plum", 1))
        # endregion


# region event
async def test_what_is_sold_out_is_ordered(mesh: Mesh) -> None:
    compose(mesh.service("stock"))
    async with mesh.run() as client:
        stock = client.stub("stock", Stock)
        await stock.take(Item("pear", 1))
        assert mesh.published("sold-out", Item) == [Item("pear", 1)]
        await settle()  # lets the subscriber run
        assert [item async for item in stock.all()] == [Item("apple", 3), Item("pear", 10)]
    # endregion
