"""Arrays, and as bytes, to be stored or sent: 8-byte little-endian floats."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Indexes: TypeAlias = NDArray[np.intp]


def packed(values: Floats) -> bytes:
    return values.astype("<f8").tobytes()


def unpacked(stored: bytes) -> Floats:
    return np.frombuffer(stored, "<f8")


def packed_triangle(matrix: Floats) -> bytes:
    """The lower triangle of a symmetric matrix, row by row."""
    return packed(matrix[np.tril_indices(len(matrix))])


def unpacked_triangle(stored: bytes, count: int) -> Floats:
    """The symmetric matrix, of so many rows."""
    matrix = np.zeros((count, count))
    matrix[np.tril_indices(count)] = unpacked(stored)
    matrix += np.tril(matrix, -1).T
    return matrix
