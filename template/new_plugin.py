"""Makes the package of a new plugin: `hatch run new-plugin broker redis`.

What it makes passes the lint and fails the conformance cases of its contract, each with the name of what is missing.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Final

from pymicro_testing.servers import SERVERS

TEMPLATE: Final = Path(__file__).resolve().parent / "package"
ROOT: Final = TEMPLATE.parent.parent
KINDS: Final = ("broker", "registry", "transport")
NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")

#: Every list of plugins in the settings of import-linter has this line.
_LISTED: Final = '    "pymicro_transport_http",\n'
_ENTRY: Final = re.compile(r'    "[\w.]+",\n')

_SERVER: Final = """\
    @pytest.fixture(autouse=True)
    def backend(self, {name}_server: {Server}) -> None:
        self.server = {name}_server
        self.addresses = ({name}_server.address,)

"""


def make(kind: str, name: str, root: Path) -> Path:
    """Make the package below `root/packages` and enter it in `root/pyproject.toml`.

    Raises:
        FileExistsError: there is such a package.
    """
    names = _names(kind, name)
    folder = root / "packages" / names["distribution"]
    folder.mkdir(parents=True)
    for source in sorted(TEMPLATE.rglob("*.tmpl")):
        path = source.relative_to(TEMPLATE).with_suffix("")
        if path.stem.lstrip("_") in KINDS and path.stem != f"_{kind}":
            continue
        target = folder / str(path).replace("src/package", f"src/{names['package']}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(source.read_text(encoding="utf-8")).substitute(names), encoding="utf-8")
    (folder / "src" / names["package"] / "py.typed").touch()
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    _enter(root / "pyproject.toml", names["package"])
    _tidy(folder, root)
    return folder


def _names(kind: str, name: str) -> dict[str, str]:
    camel = "".join(part.capitalize() for part in name.split("_"))
    names = {
        "kind": kind,
        "Kind": kind.capitalize(),
        "name": name,
        "Name": camel,
        "Class": camel + kind.capitalize(),
        "package": f"pymicro_{kind}_{name}",
        "distribution": f"pymicro-{kind}-{name.replace('_', '-')}",
    }
    return names | _conformance(names)


def _conformance(names: dict[str, str]) -> dict[str, str]:
    """What of the conformance test depends on whether the kit can start such a server."""
    if names["name"] not in SERVERS:
        return {"imports": "", "server": "", "build": "build"}
    server = SERVERS[names["name"]].__name__
    return {
        "imports": f"import msgspec\nimport pytest\nfrom pymicro_testing.servers import {server}\n",
        "server": _SERVER.format(name=names["name"], Server=server),
        "build": "msgspec.structs.replace(build, addresses=self.addresses)",
    }


def _tidy(folder: Path, root: Path) -> None:
    """Sort imports and break lines, which depends on the length of the names."""
    for arguments in (["check", "--select=I", "--fix"], ["format"]):
        subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--quiet", "--no-cache", folder], cwd=root, check=True
        )


def _enter(pyproject: Path, package: str) -> None:
    """Add the package to each list of plugins, in alphabetical order."""
    entry = f'    "{package}",\n'
    lines: list[str] = []
    block: list[str] = []
    for line in [*pyproject.read_text(encoding="utf-8").splitlines(keepends=True), ""]:
        if _ENTRY.fullmatch(line):
            block.append(line)
            continue
        lines += sorted({*block, entry}) if _LISTED in block else block
        lines.append(line)
        block = []
    pyproject.write_text("".join(lines), encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(prog="hatch run new-plugin", description="Make the package of a new plugin.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("name", help="what users choose it by: small letters, digits, underscores")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout in which it is made")
    asked = parser.parse_args(arguments)
    if not NAME.fullmatch(asked.name):
        parser.error(f"{asked.name!r} is no name of a plugin: small letters, digits, underscores, such as 'redis'")
    try:
        folder = make(asked.kind, asked.name, asked.root)
    except FileExistsError as error:
        parser.error(f"{error.filename} exists")
    sys.stdout.write(f"made {folder}\nnext: hatch run test {folder.relative_to(asked.root)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
