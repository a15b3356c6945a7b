"""One package of the npm registry, kept in a folder and checked by its checksum."""

import base64
import hashlib
import os
import tarfile
from pathlib import Path
from urllib.request import urlopen

from retina_utils import RetinaError
from retina_utils.machine.files import atomic_path

REGISTRY = "https://registry.npmjs.org"  # npm's own; NPM_CONFIG_REGISTRY names another, as for npm


def fetch_package(name: str, version: str, integrity: str, folder: str | Path) -> Path:
    """The package's file in ``folder``; downloaded, and said so, where it does not lie there.

    ``integrity`` is the "sha512-…" of the registry and of every lock file. A RetinaError says if
    the registry cannot be reached, or the file is another one.
    """
    path = Path(folder) / f"{name}-{version}.tgz"
    address = f"{os.environ.get('NPM_CONFIG_REGISTRY', REGISTRY).rstrip('/')}/{name}/-/{path.name}"
    if not path.exists():
        print(f"Downloading {name} {version} from {address}, once, to {path}")
        try:
            with urlopen(address, timeout=60) as answer:
                content = answer.read()
        except (OSError, ValueError) as error:
            raise RetinaError(
                f"{address}: cannot be reached ({error}). Set NPM_CONFIG_REGISTRY to a registry "
                f"that can, or lay the file there as {path}."
            ) from error
        _require(content, integrity, address)
        with atomic_path(path) as unfinished:
            unfinished.write_bytes(content)
    _require(path.read_bytes(), integrity, path)
    return path


def _require(content: bytes, integrity: str, where: str | Path) -> None:
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != integrity:
        raise RetinaError(f"{where}: its checksum is {found}, expected {integrity}. Remove it.")


def read_member(package: Path, name: str) -> bytes:
    """A file of the package by its path below the package's folder."""
    with tarfile.open(package) as archive:
        return archive.extractfile(f"package/{name}").read()
