"""Where cards are found: the working folder, then $MEDKIT_SHELF, then what medkit ships."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import MedkitError

LAYOUT = {
    "recipe": ("recipes", "{name}.yaml"),
    "curriculum": ("curricula", "{name}.yaml"),
    "domain": ("domains", "{name}/domain.yaml"),
    "benchmark": ("evals", "{name}/eval.yaml"),
    "checkpoint": ("checkpoints", "{name}/config.json"),
}


@dataclass(frozen=True)
class Shelf:
    """The folders that are looked through, first one first."""

    roots: tuple[Path, ...]

    def find(self, kind: str, name: str) -> Path | None:
        """Gives the card file of a name (a checkpoint's config.json), or None."""
        folder, pattern = LAYOUT[kind]
        if not name or "/" in name or "\\" in name or name.startswith("."):
            return None
        for root in self.roots:
            path = root / folder / pattern.format(name=name)
            if path.is_file():
                return path
        return None

    def names(self, kind: str) -> dict[str, Path]:
        """Gives every name of a kind with the file that `find` would give, sorted by name."""
        folder, pattern = LAYOUT[kind]
        found: dict[str, Path] = {}
        for root in self.roots:
            for path in sorted((root / folder).glob(pattern.format(name="*"))):
                name = path.stem if pattern.endswith("}.yaml") else path.parent.name
                if not name.startswith("."):
                    found.setdefault(name, path)
        return dict(sorted(found.items()))


def open_shelf() -> Shelf:
    """Gives the shelf of this process.

    Raises:
        MedkitError: $MEDKIT_SHELF names something that is no folder.
    """
    roots = [Path.cwd()]
    for entry in filter(None, os.environ.get("MEDKIT_SHELF", "").split(os.pathsep)):
        root = Path(entry).expanduser()
        if not root.is_dir():
            raise MedkitError(
                f"MEDKIT_SHELF={entry}: is no folder; name a folder that holds domains/, recipes/, ..."
            )
        roots.append(root)
    roots.append(shipped_root())
    unique: dict[Path, Path] = {}
    for root in roots:
        unique.setdefault(root.resolve(), root)
    return Shelf(tuple(unique.values()))


def shipped_root() -> Path:
    """Gives the folder of the shipped cards: ``medkit/_shelf`` of a wheel, the repository of a checkout."""
    package = Path(__file__).resolve().parent.parent
    return package / "_shelf" if (package / "_shelf").is_dir() else package.parent


def shown_path(path: Path) -> str:
    """Writes a path as the user would type it: relative to the working folder when it lies inside."""
    try:
        return str(path.resolve().relative_to(Path.cwd().resolve()))
    except ValueError:
        return str(path)
