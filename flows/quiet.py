"""What libraries are told before they are loaded: no bars or advice between our lines, and nothing sent anywhere."""

import os
from typing import Final

QUIET: Final = {
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "GX_ANALYTICS_ENABLED": "false",
}


def quieten() -> None:
    """Set what the environment does not say itself, here and for what is started from here.

    Before Prefect is imported: as it is, it reports to its makers that it is used.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
