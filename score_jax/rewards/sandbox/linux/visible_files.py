"""The files that a model's program may read: the standard library and shared libraries.

Installed packages (site-packages) are hidden: they may hold data sets with answers, and this
project. Only those of config.rewards.packages may be read. Both kinds of sandbox use these paths.
"""

import contextlib
import os
import sys
import sysconfig
from pathlib import Path

DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo")
_FILES = ("/etc/ld.so.cache", "/etc/localtime")
_HIDDEN = ("site-packages", "dist-packages")
PACKAGES: list[str] = []  # files and folders of the packages that programs may import


def folders() -> list[str]:
    """Folders that may be read with all their contents except `hidden`; none is inside another."""
    found = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    found += [os.path.join(prefix, "lib") for prefix in (sys.base_prefix, sys.base_exec_prefix)]
    found += _library_path()
    real = {os.path.realpath(path) for path in (*found, *_SYSTEM) if os.path.isdir(path)}
    return sorted(
        path for path in real if not any(path.startswith(other + "/") for other in real - {path})
    )


def _library_path() -> list[str]:
    """Folders of LD_LIBRARY_PATH with libraries that this Python has loaded; see launch.py."""
    folders = {os.path.realpath(one) for one in os.environ.get("LD_LIBRARY_PATH", "").split(":")}
    with contextlib.suppress(OSError), open("/proc/self/maps") as maps:
        loaded = {os.path.dirname(line.split(maxsplit=5)[5]) for line in maps if "/" in line}
        return sorted(folders & loaded)
    return []


def links() -> list[tuple[str, str]]:
    """(link, target) of system folders that are links, as /lib is to /usr/lib."""
    return [(path, os.readlink(path)) for path in _SYSTEM if os.path.islink(path)]


def files() -> list[str]:
    """Single files that libraries read."""
    return [path for path in _FILES if os.path.isfile(path)]


def hidden() -> list[str]:
    """Folders of installed packages inside of `folders`."""
    return sorted(
        str(packages)
        for folder in folders()
        for pattern in ("", "python3*/", "*/python3*/")
        for name in _HIDDEN
        for packages in Path(folder).glob(pattern + name)
        if packages.is_dir()
    )


def without_hidden() -> tuple[list[str], list[str]]:
    """For rules that cannot exclude: paths to read, and folders that may only be listed."""
    readable: list[str] = []
    listable: list[str] = []
    secrets = hidden()

    def walk(folder: str) -> None:
        if not any(secret.startswith(folder + "/") for secret in secrets):
            readable.append(folder)
            return
        listable.append(folder)
        for entry in os.scandir(folder):
            if entry.path in secrets:
                continue
            if entry.is_dir(follow_symlinks=False):
                walk(entry.path)
            else:
                readable.append(entry.path)

    for folder in folders():
        walk(folder)
    parents = sorted({os.path.dirname(path) for path in PACKAGES})
    return [*readable, *files(), *PACKAGES], [*listable, *parents]
