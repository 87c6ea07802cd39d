"""One thing that is wrong with data, or may be."""

from __future__ import annotations

from dataclasses import dataclass, field

ERROR, WARNING = 'error', 'warning'


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        level: ``'error'`` for what would end or mislead a training, else ``'warning'``.
        loader: Key of the data loader, or what else it is about.
        kind: A few words that stay the same, for programs.
        message: What is wrong, and what to do.
        files: Examples.
    """

    level: str
    loader: str
    kind: str
    message: str
    files: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        named = self.message.startswith(self.loader)
        return f'{self.level}: {"" if named else f"{self.loader}: "}{self.message}'
