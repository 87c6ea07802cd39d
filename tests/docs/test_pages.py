"""Every block of README and docs runs, or says why not; run by ``make docs``."""

from __future__ import annotations

from pathlib import Path

import pytest
from page_blocks import PageError, all_pages, read_blocks, shown
from page_runner import PageRunner

PAGES = all_pages()
RUN = [page for page in PAGES if any(block.runs for block in read_blocks(page)[0])]
pytestmark = pytest.mark.docs


@pytest.mark.parametrize('page', PAGES, ids=shown)
def test_blocks_stand_by_the_rules(page: Path) -> None:
    _, problems = read_blocks(page)
    if problems:
        pytest.fail('\n'.join(problems), pytrace=False)


@pytest.mark.parametrize('page', RUN, ids=shown)
def test_blocks_run(page: Path, sandbox: Path) -> None:
    with PageRunner(sandbox) as runner:
        for block in read_blocks(page)[0]:
            if block.runs:
                try:
                    runner.run(block)
                except PageError as error:
                    pytest.fail(str(error), pytrace=False)
