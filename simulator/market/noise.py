"""Counter-based hashing: random numbers in any order.

Every number of the market is `hash(key, counter)`, so any minute costs the same. The mixer is the
finalizer of splitmix64 (Steele, Lea, Flood 2014), a bijection on 64 bits.
"""

import hashlib

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_MASK = (1 << 64) - 1


def derive_key(seed: int, *labels: str) -> int:
    """Return a 64-bit key for one purpose; different labels give unrelated keys."""
    text = "\x1f".join((str(seed), *labels)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def hash_counter(key: int, counter: int) -> int:
    """Return 64 random bits for one counter; equals `hash_counters` at that counter."""
    mixed = (counter * _GOLDEN + key) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * _MIX_1) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * _MIX_2) & _MASK
    return mixed ^ (mixed >> 31)


def hash_counters(key: int, counters: IntArray) -> HashArray:
    """Return 64 random bits for each counter, vectorised (uint64, same shape)."""
    mixed = counters.astype(np.uint64)
    mixed *= np.uint64(_GOLDEN)
    mixed += np.uint64(key)
    shifted = mixed >> np.uint64(30)
    mixed ^= shifted
    mixed *= np.uint64(_MIX_1)
    np.right_shift(mixed, np.uint64(27), out=shifted)
    mixed ^= shifted
    mixed *= np.uint64(_MIX_2)
    np.right_shift(mixed, np.uint64(31), out=shifted)
    mixed ^= shifted
    return mixed


def take_bits(hashes: HashArray, *, low: int, count: int) -> IntArray:
    """Return bits `low` to `low + count - 1` of each hash as int64; `count` is at most 62."""
    taken = hashes >> np.uint64(low)
    taken &= np.uint64((1 << count) - 1)
    return taken.view(np.int64)
