"""Takes the comments for tests/docs out of a page: a reason becomes visible, a hidden block goes.

On GitHub the comments are invisible; here they would end up inside of the paragraph of a block.
"""

import re

_HIDDEN = re.compile(r'^[ ]*<!-- hidden\n.*?^[ ]*-->\n', re.DOTALL | re.MULTILINE)
_EXIT = re.compile(r'^[ ]*<!-- exit \d+ -->\n', re.MULTILINE)
_NOT_RUN = re.compile(
    r'^(?P<indent>[ ]*)<!-- not run: (?P<reason>.*?) -->\n[ ]*(?P<fence>`{3,}\w+)[ ]*$',
    re.MULTILINE,
)


def on_page_markdown(markdown: str, **_: object) -> str:
    """Called by mkdocs with the text of a page."""
    text = _EXIT.sub('', _HIDDEN.sub('', markdown))
    return _NOT_RUN.sub(_with_title, text)


def _with_title(match: re.Match) -> str:
    reason = match['reason'].replace('"', "'")
    return f'{match["indent"]}{match["fence"]} title="Not run when these pages are built: {reason}"'
