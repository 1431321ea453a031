"""Prefect's API for the time of one run.

python -m flows.temporary_api PORT        (on the loopback interface; flows/server.py starts it)
"""

import sys

from flows.loading import loading


def main() -> None:
    """Serve until SIGTERM."""
    with loading():
        import uvicorn
        from prefect.server.api.server import create_app

        from flows.prefect_server import patient_database

        app = create_app()
    with patient_database():
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="on")


if __name__ == "__main__":
    main()
