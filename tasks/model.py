"""Model: the start model -> safetensors, config and tokenizer in the store.

in   a built-in name, a folder, or a hub id with revision (`org/name@revision`)
out  model/   what transformers loads
"""

from tasks.manifest import Manifest
from tasks.store import Store

VERSION = 1  # bump when the bytes this stage writes would change


def start_model(store: Store, model: str) -> Manifest:
    """The start model, which is the reference too."""
    raise NotImplementedError(model)
