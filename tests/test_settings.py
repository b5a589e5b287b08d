"""The values and the sources of settings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prunepool.settings import Settings


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, and no setting in the environment."""
    for name in list(os.environ):
        if name.startswith("PRUNEPOOL_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_setting_has_a_valid_default_and_a_meaning() -> None:
    settings = Settings()
    assert Settings.model_validate(settings.model_dump()) == settings
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 0),
        ("port", 65535),
        ("device", "cuda:3"),
        ("default_reduction_ratio", "auto"),
        ("default_reduction_ratio", "0.5"),
        ("default_reduction_ratio", 0),
        ("max_reduction_ratio", 0.999),
        ("max_wait_ms", 0),
        ("request_timeout_s", 0.5),
        ("protect_metrics", "true"),
        ("cors_origins", "*"),
        ("cors_origins", "https://a.example, http://localhost:3000,http://[::1]:80"),
        ("cors_origins", ["https://a.example"]),
        ("trusted_proxies", "10.0.0.0/8, ::1"),
        ("otel_endpoint", "http://127.0.0.1:4318"),
    ],
)
def test_values_that_are_allowed(name: str, value: Any) -> None:
    assert getattr(Settings(**{name: value}), name) is not None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", -1),
        ("port", 65536),
        ("device", "cuda:"),
        ("device", "gpu"),
        ("dtype", "float64"),
        ("default_reduction_ratio", 1),
        ("default_reduction_ratio", "nan"),
        ("default_reduction_ratio", "most"),
        ("max_reduction_ratio", -0.1),
        ("target_latency_ms", 0),
        ("max_batch_size", 0),
        ("max_wait_ms", -1),
        ("max_queue_requests", 0),
        ("max_body_bytes", 0),
        ("max_images_per_request", 0),
        ("decode_threads", 0),
        ("drain_timeout_s", 0),
        ("request_timeout_s", 0),
        ("keep_alive_timeout_s", 0),
        ("cors_origins", "a.example"),
        ("cors_origins", "https://a.example/"),
        ("cors_origins", "https://a.example https://b.example"),
        ("trusted_proxies", "proxy.example"),
        ("trusted_proxies", "*"),
        ("trusted_proxies", "10.1.2.3/8"),
        ("otel_endpoint", "localhost:4318"),
        ("log_format", "xml"),
        ("log_level", "loud"),
        ("unheard_of", 1),
        ("model", ""),
        ("host", ""),
        ("model_store", ""),
        ("api_keys_file", ""),
        ("cpu_openvino_folder", ""),
        ("model_store", "a\0b"),
        ("model", "a\0b"),
    ],
)
def test_values_that_are_not(name: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        Settings(**{name: value})


@pytest.mark.parametrize(
    "name", [name for name, field in Settings.model_fields.items() if "float" in str(field.annotation)]
)
@pytest.mark.parametrize("value", ["nan", True, False, "1_0_", ""])
def test_numbers_are_numbers(name: str, value: object) -> None:
    with pytest.raises(ValidationError):
        Settings(**{name: value})  # type: ignore[arg-type]


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_arguments_over_environment_over_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "prunepool.toml").write_text("max_batch_size = 1\nport = 1\nmax_wait_ms = 1.5\n")
    monkeypatch.setenv("PRUNEPOOL_MAX_BATCH_SIZE", "2")
    monkeypatch.setenv("PRUNEPOOL_PORT", "2")
    settings = Settings(max_batch_size=3)
    assert (settings.max_batch_size, settings.port, settings.max_wait_ms) == (3, 2, 1.5)


def test_an_unknown_key_of_the_file_is_refused(folder: Path) -> None:
    (folder / "prunepool.toml").write_text("max_batchsize = 1\n")
    with pytest.raises(ValidationError, match="max_batchsize"):
        Settings()


def test_a_list_is_one_text_in_the_environment_and_a_list_in_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "prunepool.toml").write_text('trusted_proxies = ["10.0.0.1", "fd00::/8"]\n')
    monkeypatch.setenv("PRUNEPOOL_CORS_ORIGINS", "https://a.example, https://b.example")
    settings = Settings()
    assert settings.trusted_proxies == ("10.0.0.1/32", "fd00::/8")
    assert settings.cors_origins == ("https://a.example", "https://b.example")
