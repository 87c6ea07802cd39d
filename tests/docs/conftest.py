"""Fixtures of the pages' tests: the demo data and the checkpoint that every page finds."""

from pathlib import Path

import pytest
from page_sandbox import make_sandbox, shared_demo


@pytest.fixture(scope='session')
def demo_files() -> Path:
    """Demo data and a sparse checkpoint, made once for all pages and processes."""
    return shared_demo()


@pytest.fixture
def sandbox(tmp_path: Path, demo_files: Path) -> Path:
    """A folder as a checkout with demo data, for the blocks of one page."""
    folder = tmp_path / 'sandbox'
    make_sandbox(folder, demo_files)
    return folder
