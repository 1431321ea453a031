"""What is freed by removing folders whose files may have names elsewhere: weights are linked and not copied."""

import stat
from collections import Counter
from collections.abc import Sequence
from pathlib import Path


def freed_bytes(folders: Sequence[Path]) -> list[int]:
    """What is freed with each folder where all of them go in this order: a file counts where its last name goes."""
    seen: Counter[tuple[int, int]] = Counter()
    sizes = []
    for folder in folders:
        size = 0
        for path in folder.rglob("*"):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                file = (found.st_dev, found.st_ino)
                seen[file] += 1
                size += found.st_size if seen[file] == found.st_nlink else 0
        sizes.append(size)
    return sizes
