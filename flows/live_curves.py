"""The course of a training while it goes on: the artifact `train-live`, one an attempt, written anew now and then."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from prefect.artifacts import create_markdown_artifact

from flows.artifacts import training_curves
from flows.prefect_api import api, asking

if TYPE_CHECKING:
    from uuid import UUID

KEY: Final = "train-live"


class LiveCurves:
    """Shows a metrics file. The caller says how often; a server that does not answer is no reason to stop."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None

    def show(self, metrics: Path) -> None:
        """Make the artifact, or bring it up to date in place: a version each time would bury the history of the key."""
        from prefect.client.schemas.actions import ArtifactUpdate

        with suppress(Exception), asking(1):
            text = training_curves(metrics)
            if self._artifact is None:
                made: Any = create_markdown_artifact(text, key=KEY, description="Training, as it goes on")
                self._artifact = made
            else:
                with api() as client:
                    client.update_artifact(self._artifact, ArtifactUpdate(data=text))
