"""Single-threaded BLAS: numpy is loaded here so that its OpenBLAS starts no threads. Import it before numpy."""

import os
import sys

# numpy's OpenBLAS starts a thread a core as it is loaded, and these spin until they find that there is nothing to do:
# 0.15 CPU seconds of each process. Nothing here multiplies matrices. What is started from here may: it is not told.
if "numpy" not in sys.modules and "OPENBLAS_NUM_THREADS" not in os.environ:
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import numpy  # noqa: F401

    del os.environ["OPENBLAS_NUM_THREADS"]
