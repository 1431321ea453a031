"""What can go wrong, by whose move is next. Each error is one sentence that names the file, row, key or step.

The command line turns `status` into its exit status (README, "Exit status"); Prefect retries only `Transient`.
"""


class PrefstackError(Exception):
    """Base of every error that a user is meant to read."""

    status = 1
    kind = "surroundings"


class RecipeError(PrefstackError):
    """The command line or the recipe is wrong, or asks for more pairs than there are."""

    status = 2
    kind = "recipe"


class InputError(PrefstackError):
    """An input cannot be read, is damaged or is refused."""

    status = 3
    kind = "input"


class GateFailed(PrefstackError):
    """A critical expectation of a gate does not hold."""

    status = 4
    kind = "gate"


class StageFailed(PrefstackError):
    """Scoring, training or evaluation failed; the message names the step and the log."""

    status = 5
    kind = "training"


class Surroundings(PrefstackError):
    """Disk full, server or hub unreachable: nothing that the recipe or its input could mend."""


class Transient(PrefstackError):
    """Worth another try as it is: a lost device, a broken connection, a rank killed from outside."""

    kind = "transient"


class TransientStageFailure(StageFailed, Transient):
    """Training or scoring died of something that may not happen again; a retry resumes it."""

    kind = "transient"
