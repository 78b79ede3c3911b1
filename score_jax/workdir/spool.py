"""The work directory of a run in a bucket: a local folder that is kept equal to it.

    with opened("gs://bucket/runs/first") as folder:   a local path is its own folder
        written(folder)      after writing: uploads what has changed, now and then
        uploaded(folder)     uploads it now

Code reads and writes files in the local folder, which is made anew at every start; the bucket is
the truth. Orbax reads and writes checkpoints in the bucket itself (buckets/places.py), and lock.py
its lock. What a kill takes is what was not uploaded: before a checkpoint is saved, all that it
follows is (`uploaded`), so that no checkpoint is ahead of metrics.jsonl.

Order matters, as readers take some files for the sign that others are complete: those come last.
Each upload says which generation it replaces: if another process has written the file meanwhile,
this one has lost the folder, and ends. Compiled programs travel as one file, compile_cache.tar.
"""

import contextlib
import dataclasses
import fcntl
import os
import shutil
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from score_jax.buckets import places
from score_jax.buckets.client import Folder, is_away, is_url
from score_jax.problem import InputError, MachineGone
from score_jax.runtime import hosts

EVERY_SEC = 20.0  # between uploads while a run goes on
PROGRAMS_SEC = 120.0  # between uploads of compiled programs, which are large
PROGRAMS, _ARCHIVE = "compile_cache", "compile_cache.tar"
_FILES = ("config.json", "metrics.jsonl", "samples.jsonl")
_FOLDERS = (
    *("tensorboard", "collected", "evaluations", "transcripts", "diagnosis", "scaling", "report"),
    *("profile", "wandb"),
)
_SET_ASIDE = "before-"
_ID = "wandb/id"  # the rest there is wandb's own
# A file that shows that others are complete comes after them; and it goes before them.
_LAST = ("evaluations/", "collected/", "config.json", "report/summary.json")

_spools: dict[Path, "_Spool"] = {}


@contextlib.contextmanager
def opened(workdir: str, *, to_show: bool = False) -> Iterator[Path]:
    """The folder in which a run works. Every process has its own; process 0 uploads.

    Args:
      workdir: a path, or a URL.
      to_show: whether the files are only read, without jax.
    Raises: InputError if there is no such bucket, or no access.
    """
    if not is_url(workdir):
        yield Path(workdir)
        return
    with _local_folder() as made:
        folder = places.stands_for(made / workdir.rstrip("/").rpartition("/")[2], workdir)
        folder.mkdir()
        spool = _spools[folder] = _Spool(folder, Folder(workdir))
        spool.fetch(whole=to_show or hosts.is_lead(), programs=not to_show)
        error: BaseException | None = None
        try:
            yield folder
        except BaseException as raised:
            error = raised
            raise
        finally:
            del _spools[folder]
            if is_reachable(error):
                spool.upload()  # the page, which is written when the run has let go of the folder


@contextlib.contextmanager
def all_opened(named: Sequence[str]) -> Iterator[list[str]]:
    """What is named, to be shown: local names as they are, and a folder for each run in a bucket.

    A URL names a run, or a folder of runs.
    """
    with contextlib.ExitStack() as folders:
        found = []
        for name in named:
            runs = [name]
            if is_url(name) and "config.json" not in (there := Folder(name).entries())[0]:
                runs = [f"{name.rstrip('/')}/{one}" for one in there[1]]
            found += [
                str(folders.enter_context(opened(run, to_show=True))) if is_url(run) else run
                for run in runs
            ]
        yield found


@contextlib.contextmanager
def empty(url: str) -> Iterator[Path]:
    """A new local folder that stands for a URL; `places.upload` writes it there."""
    with _local_folder() as made:
        folder = made / url.rstrip("/").rpartition("/")[2]
        folder.mkdir()
        yield places.stands_for(folder, url)


def written(path: Path) -> None:
    """Says that a file in a work directory has changed; it is uploaded in a while."""
    spool = _of(path)
    if spool and time.monotonic() >= spool.due_sec:
        spool.upload()


def uploaded(folder: Path) -> None:
    """Uploads what has changed. Raises: MachineGone if the bucket is out of reach for too long."""
    if spool := _of(folder):
        spool.upload()


def taken(folder: Path) -> None:
    """Says that process 0 holds the lock: what others have written since comes here first."""
    if spool := _of(folder):
        spool.fetch(whole=True, programs=False)
        spool.writes = True


def let_go(folder: Path) -> None:
    """Says that the lock is given back: all is uploaded before."""
    if spool := _of(folder):
        spool.upload(programs=True)


def is_reachable(error: BaseException | None) -> bool:
    """Whether what can be uploaded should be, after an error that ends a run."""
    return error is None or not (isinstance(error, MachineGone) or is_away(error))


def read(path: Path) -> bytes | None:
    """A file of a work directory as every host sees it, not as it is here; None if there is none.

    Raises: OSError as reading does.
    """
    if not (url := places.url_of(path)):
        return path.read_bytes()
    found = Folder(url.rpartition("/")[0]).read(path.name)
    return found[0] if found else None


def _of(path: Path) -> "_Spool | None":
    return next((_spools[one] for one in (path, *path.parents) if one in _spools), None)


@dataclasses.dataclass
class _Spool:
    """A local folder and the one in the bucket."""

    folder: Path
    bucket: Folder
    writes: bool = False
    due_sec: float = 0.0
    # Of each file in the bucket: its generation, and its time and size here when it was equal.
    known: dict[str, tuple[int, tuple[int, int]]] = dataclasses.field(default_factory=dict)
    programs: tuple[int, int] = (0, 0)  # number of files and bytes when they were equal
    programs_sec: float = -1e9

    def fetch(self, *, whole: bool, programs: bool) -> None:
        """Makes the local folder equal to the bucket; process 0 needs all, others the settings."""
        there, folders = self.bucket.entries()
        wanted = _FILES if whole else ("config.json",)
        found = {name: there[name] for name in wanted if name in there}
        for name in folders if whole else ():
            if name in _FOLDERS or name.startswith(_SET_ASIDE):
                found |= self.bucket.files(f"{name}/")
        for name in self.known.keys() - found.keys():
            (self.folder / name).unlink(missing_ok=True)
            del self.known[name]
        new = [name for name, g in found.items() if self.known.get(name, (0,))[0] != g]
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: self.bucket.download(name, self.folder / name), new))
        self.known |= {name: (found[name], _stamp(self.folder / name)) for name in new}
        if programs and _ARCHIVE in there:
            path = self.folder / _ARCHIVE
            self.bucket.download(_ARCHIVE, path)
            with tarfile.open(path) as packed:
                _unpack(packed, self.folder)
            path.unlink()
            self.programs = self._size_of_programs()

    def upload(self, *, programs: bool = False) -> None:
        """Makes the bucket equal to the local folder."""
        if not self.writes or not hosts.is_lead():
            return
        began = time.monotonic()
        paths = [self.folder / name for name in (*_FILES, _ID)]
        for folder in (*_FOLDERS[:-1], *(p.name for p in self.folder.glob(f"{_SET_ASIDE}*"))):
            paths += (self.folder / folder).rglob("[!.]*")  # with a dot: being written
        here = {p.relative_to(self.folder).as_posix(): p for p in paths if p.is_file()}
        stamps = {name: _stamp(path) for name, path in here.items()}
        changed = [n for n, stamp in stamps.items() if self.known.get(n, (0, None))[1] != stamp]
        for name in sorted(changed, key=_rank):
            # Others may write the page of a run that goes on, which does no harm.
            replaced = None if name.startswith("report/") else self.known.get(name, (0,))[0]
            generation = self.bucket.upload(name, here[name], replaced)
            self.known[name] = generation, stamps[name]
        for name in sorted(self.known.keys() - here.keys(), key=_rank, reverse=True):
            self.bucket.delete(name, self.known.pop(name)[0])
        ended = time.monotonic()
        # Large files, or a slow connection: a run shall not wait for a twentieth of its time.
        self.due_sec = ended + max(EVERY_SEC, 20 * (ended - began))
        if programs or ended - self.programs_sec >= PROGRAMS_SEC:
            self._upload_programs()

    def _upload_programs(self) -> None:
        self.programs_sec = time.monotonic()
        size = self._size_of_programs()
        if size in (self.programs, (0, 0)):
            return
        path = self.folder.parent / _ARCHIVE
        with tarfile.open(path, "w") as packed:  # jax has compressed them
            packed.add(
                self.folder / PROGRAMS,
                PROGRAMS,
                filter=lambda one: None if Path(one.name).name.startswith(".") else one,
            )
        self.bucket.upload(_ARCHIVE, path)
        path.unlink()
        self.programs = size

    def _size_of_programs(self) -> tuple[int, int]:
        sizes = [path.stat().st_size for path in (self.folder / PROGRAMS).glob("[!.]*")]
        return len(sizes), sum(sizes)


def _unpack(packed: tarfile.TarFile, folder: Path) -> None:
    """Writes the files of compiled programs; nothing else, and nothing outside of their folder."""
    for member in packed:
        name = Path(member.name)
        if member.isfile() and name.parts[0] == PROGRAMS and ".." not in name.parts:
            content = packed.extractfile(member)
            assert content
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.read())


def _rank(name: str) -> int:
    return max((i + 1 for i, start in enumerate(_LAST) if name.startswith(start)), default=0)


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


@contextlib.contextmanager
def _local_folder() -> Iterator[Path]:
    """A new folder that goes when its process does, or at the next start after a kill.

    Raises: InputError if what has the name of our folder is another user's.
    """
    parent = Path(tempfile.gettempdir()) / f"score_jax-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        parent.mkdir(mode=0o700)
    found = os.lstat(parent)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise InputError(
            f"{parent} is not a folder that only you can write. A run in a bucket works there: "
            "remove it, or set the environment variable TMPDIR to a folder of yours."
        )
    with open(parent / "lock", "w") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        for left in parent.glob("*/lock"):
            with contextlib.suppress(OSError), open(left) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its process lives
                shutil.rmtree(left.parent, ignore_errors=True)
        made = Path(tempfile.mkdtemp(dir=parent))
        lock = open(made / "lock", "w")  # noqa: SIM115  # closed below
        fcntl.flock(lock, fcntl.LOCK_EX)
    with lock:
        try:
            yield made
        finally:
            shutil.rmtree(made, ignore_errors=True)
