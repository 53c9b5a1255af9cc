"""Dense search against numpy: flat is exact, HNSW nearly so."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rag.index import dense
from rag.index.dense import DenseIndex
from rag.settings import Index

Matrix = NDArray[np.float32]
Rows = NDArray[np.int64]


def unit_vectors(count: int, dimension: int = 64, seed: int = 0) -> Matrix:
    vectors = np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32)
    unit: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def write(folder: Path, vectors: Matrix, settings: Index, grown: Path | None = None) -> str:
    with dense.vector_writer(folder) as writer:
        for start in range(0, len(vectors), 300):
            writer.add(vectors[start : start + 300])
    return dense.write_graph(folder, settings, grown)


def make(folder: Path, vectors: Matrix, settings: Index) -> DenseIndex:
    return DenseIndex(folder, write(folder, vectors, settings), settings, "cpu")


def nearest(vectors: Matrix, queries: Matrix, k: int) -> tuple[Matrix, Rows]:
    cosines = queries @ vectors.T
    rows = np.argsort(-cosines, axis=1)[:, :k]
    return np.take_along_axis(cosines, rows, axis=1), rows


def recall(found: Rows, expected: Rows) -> float:
    return float(np.mean([len(set(one) & set(two)) / len(two) for one, two in zip(found, expected, strict=True)]))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("graph")
    assert write(folder, unit_vectors(3000), Index(exact_up_to=2999)) == "hnsw"
    return folder


def test_a_graph_that_finds_no_room_is_the_systems_own_error(tmp_path: Path) -> None:
    (tmp_path / dense.GRAPH).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left on device"):
        write(tmp_path, unit_vectors(3000), Index(exact_up_to=2999))


@pytest.mark.parametrize("queries", [1, 7, 100])
def test_flat_search_is_exact(tmp_path: Path, queries: int) -> None:
    vectors, asked = unit_vectors(500), unit_vectors(queries, seed=1)
    cosines, rows = make(tmp_path, vectors, Index()).search(asked, 10)
    expected_cosines, expected_rows = nearest(vectors, asked, 10)
    np.testing.assert_array_equal(rows, expected_rows)
    np.testing.assert_allclose(cosines, expected_cosines, atol=1e-6)


def test_hnsw_finds_nearly_all_of_three_thousand_random_vectors(graph: Path) -> None:
    asked = unit_vectors(200, seed=1)
    cosines, rows = DenseIndex(graph, "hnsw", Index(), "cpu").search(asked, 10)
    assert recall(rows, nearest(unit_vectors(3000), asked, 10)[1]) >= 0.95
    np.testing.assert_allclose(cosines, np.einsum("qd,qkd->qk", asked, unit_vectors(3000)[rows]), atol=1e-6)
    assert np.all(np.diff(cosines, axis=1) <= 0)


def test_the_search_effort_of_the_settings_reaches_the_graph(graph: Path) -> None:
    asked = unit_vectors(200, seed=1)
    expected = nearest(unit_vectors(3000), asked, 5)[1]
    low, high = (
        recall(DenseIndex(graph, "hnsw", Index(hnsw_ef_search=effort), "cpu").search(asked, 5)[1], expected)
        for effort in (8, 512)
    )
    assert low < 0.9 < 0.999 <= high


def test_a_graph_is_searched_for_more_than_its_search_effort(graph: Path) -> None:
    _, rows = DenseIndex(graph, "hnsw", Index(hnsw_ef_search=8), "cpu").search(unit_vectors(20, seed=1), 100)
    assert rows.shape == (20, 100)
    assert rows.min() >= 0
    assert all(len(set(line)) == 100 for line in rows.tolist())


@pytest.mark.parametrize(("exact_up_to", "kind", "files"), [(20, "flat", 1), (19, "hnsw", 3), (0, "hnsw", 3)])
def test_a_graph_is_built_above_the_limit_and_only_there(
    tmp_path: Path, exact_up_to: int, kind: str, files: int
) -> None:
    assert write(tmp_path, unit_vectors(20), Index(exact_up_to=exact_up_to)) == kind
    names = ["dense.hnsw.faiss", "dense.nodes.npy", "vectors.npy"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names[-files:]


def test_the_links_of_the_settings_reach_the_graph(tmp_path: Path) -> None:
    sizes = []
    for links in (4, 64):
        folder = tmp_path / str(links)
        folder.mkdir()
        write(folder, unit_vectors(500), Index(exact_up_to=0, hnsw_m=links))
        sizes.append((folder / dense.GRAPH).stat().st_size)
    # Layer 0 holds 2 * hnsw_m links of 4 bytes for each vector.
    assert sizes[1] - sizes[0] == pytest.approx(500 * 2 * 60 * 4, rel=0.1)


def test_with_other_links_a_graph_is_built_anew_instead_of_grown(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("before", "grown", "anew")]
    for folder in folders:
        folder.mkdir()
    vectors = unit_vectors(500)
    write(folders[0], vectors[:400], Index(exact_up_to=0, hnsw_m=4))
    more = Index(exact_up_to=0, hnsw_m=64)
    write(folders[1], vectors, more, dense.Grown(folders[0], np.ones(400, dtype=np.bool_)))
    write(folders[2], vectors, more)
    assert (folders[1] / dense.GRAPH).stat().st_size == (folders[2] / dense.GRAPH).stat().st_size
    np.testing.assert_array_equal(np.load(folders[1] / dense.NODES), np.arange(500))


@pytest.mark.parametrize("exact_up_to", [100, 0])
@pytest.mark.parametrize("passages", [1, 5])
def test_fewer_passages_than_asked_for_are_all_found(tmp_path: Path, exact_up_to: int, passages: int) -> None:
    vectors, asked = unit_vectors(passages), unit_vectors(3, seed=1)
    cosines, rows = make(tmp_path, vectors, Index(exact_up_to=exact_up_to)).search(asked, 20)
    assert cosines.shape == rows.shape == (3, passages)
    np.testing.assert_array_equal(rows, nearest(vectors, asked, passages)[1])


@pytest.mark.parametrize("exact_up_to", [5000, 0])
def test_a_passage_is_nearest_to_itself_with_a_cosine_of_one(tmp_path: Path, exact_up_to: int) -> None:
    vectors = unit_vectors(300)
    cosines, rows = make(tmp_path, vectors, Index(exact_up_to=exact_up_to)).search(vectors, 1)
    assert rows[:, 0].tolist() == list(range(300))
    np.testing.assert_allclose(cosines, 1.0, atol=1e-6)


def test_cosines_are_those_of_the_rows_asked_for_in_their_order(graph: Path) -> None:
    vectors, query = unit_vectors(3000), unit_vectors(1, seed=1)[0]
    rows = [2999, 0, 17, 17]
    found = DenseIndex(graph, "hnsw", Index(), "cpu").cosines(query, rows)
    np.testing.assert_allclose(found, [vectors[row] @ query for row in rows], atol=1e-6)


def test_the_cosines_of_no_rows_are_none(graph: Path) -> None:
    assert DenseIndex(graph, "hnsw", Index(), "cpu").cosines(unit_vectors(1)[0], []).shape == (0,)


def test_cosines_agree_with_those_of_the_search(graph: Path) -> None:
    index, query = DenseIndex(graph, "hnsw", Index(), "cpu"), unit_vectors(1, seed=2)
    cosines, rows = index.search(query, 10)
    np.testing.assert_allclose(index.cosines(query[0], rows[0].tolist()), cosines[0], atol=1e-6)


def test_the_vectors_are_kept_as_they_were(graph: Path) -> None:
    np.testing.assert_array_equal(np.load(graph / dense.VECTORS, allow_pickle=False), unit_vectors(3000))


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_threads_find_what_one_finds_alone(graph: Path, kind: str) -> None:
    index = DenseIndex(graph, kind, Index(), "cpu")
    batches = [unit_vectors(5, seed=seed) for seed in range(40)]
    alone = [index.search(batch, 10)[1].tolist() for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = [rows.tolist() for _, rows in pool.map(lambda batch: index.search(batch, 10), batches)]
    assert together == alone


def test_where_faiss_sees_no_gpu_a_graph_that_has_grown_is_searched_as_on_a_cpu(tmp_path: Path) -> None:
    settings = Index(exact_up_to=99)
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    vectors = unit_vectors(300)
    write(before, vectors, settings)
    kept = np.ones(300, dtype=np.bool_)
    kept[3] = False
    kind = write(after, vectors[kept], settings, dense.Grown(before, kept))
    _, rows = DenseIndex(after, kind, settings, "cuda").search(vectors[kept], 1)
    np.testing.assert_array_equal(rows[:, 0], np.arange(299))
