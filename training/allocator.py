"""Keep freed memory for the next forward pass, on CPUs.

glibc gives buffers of this size back to the kernel when they are freed and takes them anew, zeroed page by page, a
moment later: a tenth of the CPU time of a small model's training. PyTorch's own cache exists for GPUs only.
"""

import ctypes
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # malloc.h


def keep_freed_memory() -> bool:
    """Let this process keep what it frees, up to what it has used at most; false where the C library is not glibc."""
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    return all(mallopt(which, value) for which, value in settings)


def release_freed_memory() -> bool:
    """Give back what is free at the moment: before something whose memory comes from elsewhere, as mapped files do."""
    if platform.libc_ver()[0] != "glibc":
        return False
    return bool(ctypes.CDLL(None).malloc_trim(0))
