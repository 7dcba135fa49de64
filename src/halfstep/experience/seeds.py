"""Random generators by name, so that no use of randomness depends on another."""

import zlib

import numpy as np


def generator(root: int, name: str, *index: int) -> np.random.Generator:
    """Return a generator for one use: ``(root, crc32(name), index...)``. No global generator is touched."""
    sequence = np.random.SeedSequence([root, zlib.crc32(name.encode()), *index])
    return np.random.Generator(np.random.Philox(sequence))
