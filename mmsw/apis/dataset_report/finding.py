"""One thing that is wrong with data, or may be."""

from __future__ import annotations

from dataclasses import dataclass, field

ERROR, WARNING = 'error', 'warning'


def readable(text: str) -> str:
    """Text that can be written as UTF-8; names of files may hold any bytes."""
    return text.encode('utf-8', 'backslashreplace').decode('utf-8')


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        level: ``'error'`` for what would end or mislead a training, else ``'warning'``.
        loader: Key of the data loader, or what else it is about.
        kind: A few words that stay the same, for programs.
        message: What is wrong.
        cure: What to do, where the message does not say it.
        files: Examples.
        details: Lines about some of them.
    """

    level: str
    loader: str
    kind: str
    message: str
    cure: str = ''
    files: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def line(self, with_cure: bool = True) -> str:
        """The finding for people, in one line.

        Args:
            with_cure: Whether to say what to do.
        """
        named = self.message.startswith(self.loader)
        cure = f'. {self.cure}' if self.cure and with_cure else ''
        end = ':' if self.details else ''
        return f'{self.level}: {"" if named else f"{self.loader}: "}{self.message}{cure}{end}'
