"""What every stage config shares: frozen, no unknown keys, a line between what names a result and what does not."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class StageConfig(BaseModel):
    """The settings of one stage. Keys in `incidental` cannot change the result and stay out of its fingerprint."""

    # No infinity and no NaN: JSON has neither, so they could not be hashed.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)
    incidental: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """The config with defaults filled in, without what cannot change the result: what is hashed."""
        return self.model_dump(mode="json", exclude=set(self.incidental))
