"""Which of some names are no task of lm-eval: a process of its own, since lm-eval lists thousands of files to tell.

python -m training.known_tasks FOLDER NAME ...     prints those that neither it nor FOLDER (may be empty) has, as JSON
"""

import contextlib
import json
import sys


def main() -> None:
    """Print the names that nobody knows."""
    with contextlib.redirect_stdout(sys.stderr):
        from lm_eval.tasks import TaskManager

        known = set(TaskManager(include_path=sys.argv[1] or None).all_tasks)
    print(json.dumps([name for name in sys.argv[2:] if name not in known]))


if __name__ == "__main__":
    main()
