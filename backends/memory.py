"""Keep the memory that an iteration frees for the next one.

Every step of a solver makes new vectors. glibc hands freed blocks above an adaptive threshold back to the system, and each step
would fault them in again, page by page: on vectors of a few hundred kilobytes that costs as much as the arithmetic.
"""

from __future__ import annotations

import numpy as np

# Bytes, just below the 32 MB up to which the threshold adapts (mallopt(3), M_MMAP_THRESHOLD).
_NEAR_THE_LIMIT = 31 << 20

_done = False


def keep_freed_memory() -> None:
    """Raise glibc's thresholds for this process, once: freeing one large block does it, and untouched it costs nothing.

    Other allocators ignore it. It changes no more than which freed memory stays with the process.
    """
    global _done
    if not _done:
        _done = True
        np.empty(_NEAR_THE_LIMIT, dtype=np.uint8)
