"""A search index in a quarter to a twelfth of the memory: which of the ten nearest are still found?

python examples/search_embeddings.py
"""

import time

import numpy as np
from numpy.typing import NDArray

import kquant

TYPES = ("Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K")


def make_texts(n_topics: int, n_per_topic: int, width: int) -> NDArray[np.float32]:
    """Unit vectors that gather around topics, as embeddings of texts do."""
    rng = np.random.default_rng(7)
    topics = np.repeat(rng.standard_normal((n_topics, width)), n_per_topic, axis=0)
    vectors: NDArray[np.float32] = (topics + rng.standard_normal(topics.shape)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def ten_nearest(
    queries: NDArray[np.float32], table: NDArray[np.float32] | kquant.QuantizedTensor
) -> NDArray[np.int64]:
    """Packed rows are multiplied as they are."""
    return np.argsort(-(queries @ table.T), axis=1, kind="stable")[:, :10]


def seconds(queries: NDArray[np.float32], table: kquant.QuantizedTensor) -> float:
    """The time of the products with all vectors of the table."""
    start = time.perf_counter()
    queries @ table.T
    return time.perf_counter() - start


def main() -> None:
    vectors = make_texts(n_topics=50, n_per_topic=40, width=768)
    queries = vectors[::20]
    nearest = ten_nearest(queries, vectors)

    print(f"type   of float32's size    found of the ten nearest    ms for {len(queries)} queries")
    for name in TYPES:
        table = kquant.QuantizedTensor.from_numpy(vectors, name)
        found = ten_nearest(queries, table)
        shared = np.mean([len(set(a) & set(b)) for a, b in zip(nearest, found, strict=True)]) / 10
        milliseconds = 1e3 * min(seconds(queries, table) for _ in range(5))
        size = table.nbytes / vectors.nbytes
        print(f"{name}   {100 * size:14.1f} %    {100 * shared:22.1f} %    {milliseconds:18.2f}")


if __name__ == "__main__":
    main()
