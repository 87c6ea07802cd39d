"""Conditions of the tests of the runner."""

import logging

import pytest
from mmengine.runner import Runner


@pytest.fixture(autouse=True)
def _plain_config_text(plain_config_text: None) -> None:
    """For every test here."""


class Messages(logging.Handler):
    """Notes what a runner logs; mmengine's logger does not propagate."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append((record.levelname, record.getMessage()))


@pytest.fixture
def messages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    handler = Messages()
    build = Runner.build_logger

    def build_logger(self, *args, **kwargs):
        logger = build(self, *args, **kwargs)
        logger.addHandler(handler)
        return logger

    monkeypatch.setattr(Runner, 'build_logger', build_logger)
    return handler.found
