"""What one request, and all of them together, may take."""

import os
from typing import NamedTuple

THREADS = min(8, os.cpu_count() or 1)  # that decode pictures
RETRY_SECONDS = 1  # what a refused client is asked to wait


class Limits(NamedTuple):
    """Limits of the service.

    Attributes:
        body_bytes: the largest body of a request.
        pixels: the most pixels of a picture, by its header, before it is decoded.
        pictures: the most pictures of a request.
        queue: the most pictures that are decoded, wait or are scored at a time.
        seconds: how long a request's body may take to arrive, and how long its answer may take.
    """

    body_bytes: int = 32 << 20
    pixels: int = 50_000_000
    pictures: int = 64
    queue: int = 256
    seconds: float = 30.0

    @property
    def held_bytes(self) -> int:
        """How many bytes of bodies may be in memory at a time."""
        return 8 * self.body_bytes

    @property
    def requests(self) -> int:
        """How many requests may be read or answered at a time."""
        return 2 * self.queue
