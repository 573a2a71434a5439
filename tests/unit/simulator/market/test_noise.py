"""Counter-based hashing."""

import numpy as np

from simulator.market.noise import derive_key, hash_counter, hash_counters, take_bits


def test_vectorised_and_scalar_hashes_are_the_same() -> None:
    key = derive_key(7, "spot", "BTCUSDT")
    counters = np.array([0, 1, 2, 10**12, (1 << 62) + 5], dtype=np.int64)
    assert hash_counters(key, counters).tolist() == [
        hash_counter(key, counter) for counter in counters.tolist()
    ]


def test_keys_of_different_labels_and_seeds_differ() -> None:
    keys = {
        derive_key(seed, *labels)
        for seed in (1, 2)
        for labels in (("a", "b"), ("ab",), ("a", "", "b"), ("b", "a"))
    }
    assert len(keys) == 8


def test_bits_are_spread_evenly() -> None:
    hashes = hash_counters(derive_key(1, "even"), np.arange(100_000, dtype=np.int64))
    for low in (0, 17, 40):
        counts = np.bincount(take_bits(hashes, low=low, count=4), minlength=16)
        # 6250 each; 6 standard deviations are 460
        assert np.abs(counts - 6_250).max() < 460
