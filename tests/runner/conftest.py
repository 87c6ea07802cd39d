"""Conditions of the tests of the runner."""

import pytest


@pytest.fixture(autouse=True)
def _plain_config_text(plain_config_text: None) -> None:
    """For every test here."""
