"""Which variables a rank is not given."""

import pytest

from training.withheld import is_credential, without_credentials


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "openai_api_key", "PREFECT_API_KEY", "GITHUB_PAT",
        "PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_CLIENT_CUSTOM_HEADERS", "SSH_AUTH_SOCK",
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS", "PGPASSWORD", "MYSQL_PWD",
        "AZURE_STORAGE_CONNECTION_STRING", "JUDGE_TOKEN",
    ],
)  # fmt: skip
def test_credentials_are_known_by_their_names(name: str) -> None:
    assert is_credential(name, "x")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PATH", "/usr/bin"), ("PWD", "/work"), ("TOKENIZERS_PARALLELISM", "false"), ("PYTHONPATH", "/a:/b"),
        ("PREFECT__FLOW_RUN_ID", "1"), ("PREFECT_API_URL", "http://127.0.0.1:4200/api"), ("HF_HOME", "/cache"),
        ("PREFSTACK_LAUNCHER_PID", "7"), ("MASTER_ADDR", "127.0.0.1"), ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ("CUDA_VISIBLE_DEVICES", "0"), ("HTTPS_PROXY", "http://proxy:3128"), ("KEYBOARD", "us"),
    ],
)  # fmt: skip
def test_what_a_rank_needs_is_none(name: str, value: str) -> None:
    assert not is_credential(name, value)


def test_an_address_with_a_password_is_one_whatever_it_is_called() -> None:
    url = "postgresql+asyncpg://prefect:hidden@127.0.0.1:5432/prefect"
    given = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": url, "MY_JUDGE": "x", "HOME": "/root"}
    assert without_credentials(given, ["MY_JUDGE"]) == {"HOME": "/root"}
