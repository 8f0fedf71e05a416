import sys
from types import ModuleType

import numpy
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor

from mesocosm.measures import knn_predict, nearest_neighbours
from mesocosm.seeding import generator


class Flat:
    """What is used of `faiss.IndexFlatL2`, by brute force."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def add(self, rows: numpy.ndarray) -> None:
        assert rows.dtype == numpy.float32 and rows.shape[1] == self.dimension
        self.rows = rows

    def search(self, queries: numpy.ndarray, neighbours: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        squares = numpy.square(queries[:, None] - self.rows).sum(axis=-1)
        order = squares.argsort(axis=1, kind="stable")[:, :neighbours]
        return numpy.take_along_axis(squares, order, axis=1), order


@pytest.fixture(params=["scikit-learn", "stand-in", "faiss"])
def search(request, monkeypatch):
    """Every way to search: with a stand-in for faiss too, so that its branch runs where it is not installed."""
    if request.param == "faiss":
        pytest.importorskip("faiss")
    else:
        stand_in = ModuleType("faiss")
        stand_in.IndexFlatL2 = Flat  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "faiss", stand_in if request.param == "stand-in" else None)
    return nearest_neighbours


@pytest.mark.parametrize("width", [2, 24])
def test_neighbours_equal_brute_force(search, width):
    draw = generator(width)
    memory, queries = torch.randn(50, width, generator=draw), torch.randn(9, width, generator=draw)
    found = search(memory, queries, 7)
    distances = (queries[:, None] - memory).norm(dim=-1)
    expected = distances.sort(dim=1)
    assert torch.equal(found.indices, expected.indices[:, :7])
    torch.testing.assert_close(found.distances.float(), expected.values[:, :7], atol=1e-5, rtol=1e-5)
    same = search(memory.numpy(), queries.double().T.contiguous().T.numpy(), 7)
    assert torch.equal(same.indices, found.indices)
    whole = torch.arange(4)[:, None].expand(4, width)
    assert search(whole.bfloat16(), whole.bfloat16(), 1).indices.tolist() == [[0], [1], [2], [3]]
    assert search(whole, whole.bfloat16(), 1).indices.tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize("width", [2, 24])
def test_rows_are_left_out_of_their_own_neighbours(search, width):
    memory = torch.randn(30, width, generator=generator(3))
    found = search(memory, neighbours=4)
    distances = (memory[:, None] - memory).norm(dim=-1).fill_diagonal_(torch.inf)
    assert torch.equal(found.indices, distances.argsort(dim=1)[:, :4])


def test_duplicates_are_neighbours_of_each_other(search):
    memory = torch.tensor([[0.0, 0.0]] * 5 + [[1.0, 1.0]] * 2)
    found = search(memory, neighbours=1)
    assert (found.indices[:, 0] != torch.arange(7)).all()
    assert found.indices[5:, 0].tolist() == [6, 5]
    assert found.distances.abs().max() < 1e-3


def test_prediction_equals_an_explicit_loop():
    draw = generator(4)
    memory, queries = torch.randn(40, 3, generator=draw).double(), torch.randn(11, 3, generator=draw).double()
    values = torch.randn(40, 2, 2, generator=draw).double()
    found = nearest_neighbours(memory, queries, 9)
    predicted = knn_predict(values, found, neighbours=6, sigma=0.4, chunk=4)
    for query, got in zip(queries, predicted):
        nearest = sorted(range(40), key=lambda i: float((query - memory[i]).norm()))[:6]
        weights = [float(torch.exp(-(query - memory[i]).norm() / 0.4)) for i in nearest]
        wanted = sum(w * values[i] for w, i in zip(weights, nearest)) / sum(weights)
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)


def test_prediction_equals_that_of_scikit_learn():
    draw = generator(5)
    memory, queries = torch.randn(60, 4, generator=draw).double(), torch.randn(20, 4, generator=draw).double()
    values = torch.randn(60, generator=draw).double()
    found = nearest_neighbours(memory, queries, 8)
    for sigma, weights in ((0.3, lambda d: numpy.exp(-d / 0.3)), (torch.inf, "uniform")):
        peer = KNeighborsRegressor(8, weights=weights).fit(memory.numpy(), values.numpy())
        predicted = knn_predict(values, found, sigma=sigma)
        torch.testing.assert_close(predicted, torch.from_numpy(peer.predict(queries.numpy())), atol=1e-5, rtol=1e-5)


def test_a_small_bandwidth_is_the_nearest_neighbour():
    memory, values = torch.randn(30, 3, generator=generator(6)), torch.arange(30)
    queries = memory + 0.001
    found = nearest_neighbours(memory, queries, 5)
    assert knn_predict(values, found, neighbours=1).tolist() == found.indices[:, 0].tolist() == values.tolist()
    assert knn_predict(values, found, sigma=1e-6).tolist() == pytest.approx(values.tolist())


def test_bad_arguments_are_named():
    memory, queries = torch.zeros(5, 2), torch.ones(3, 2)
    with pytest.raises(ValueError, match="neighbours=6 is not legal: it must be from 1 to 5"):
        nearest_neighbours(memory, queries, 6)
    with pytest.raises(ValueError, match="neighbours=5 is not legal: it must be from 1 to 4"):
        nearest_neighbours(memory, neighbours=5)
    found = nearest_neighbours(memory, queries, 3)
    with pytest.raises(ValueError, match="it must be from 1 to the 3 that were found"):
        knn_predict(memory, found, neighbours=4)
    with pytest.raises(ValueError, match="sigma=0 is not legal"):
        knn_predict(memory, found, sigma=0)
