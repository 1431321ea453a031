"""Posts.xml and Users.xml out of a .7z archive, and nothing else.

in   an archive from anywhere, and how large what is in it may be
out  the two files in a folder of ours, under names of ours

It runs in a worker with a bound on its memory, since an archive can ask for a dictionary of any size. A member's own
path is never used for writing; links, devices and folders are no files. What is in the archive is always learnt from
py7zr; 7-Zip unpacks where it is installed, since it uses every core on the BZip2 that official dumps are packed with.
"""

import errno
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any, Final, TypedDict

from tasks.errors import InputError

_MEMORY: Final = 1 << 30  # beside what the process has when it begins
_MARGIN: Final = 256 << 20  # bytes of disk to leave free


class UnpackJob(TypedDict):
    """What to take out of which archive."""

    archive: str
    folder: str
    wanted: list[str]
    """Names of members in lower case, wherever in the archive they are; the first must be there."""
    max_bytes: int
    max_ratio: float


def unpack(job: UnpackJob) -> dict[str, str]:
    """The wanted members that there are, by name, as paths of the files they were written to."""
    archive, folder = Path(job["archive"]), Path(job["folder"])
    _bound_memory()
    try:
        with open(archive, "rb") as handle:
            return _unpack(handle, archive, folder, job)
    except MemoryError as error:
        raise InputError(f"{archive} needs more than {_MEMORY >> 20} MiB of memory to unpack: refused") from error


def _unpack(handle: IO[bytes], archive: Path, folder: Path, job: UnpackJob) -> dict[str, str]:
    import py7zr

    try:
        with py7zr.SevenZipFile(handle, max_extract_size=job["max_bytes"]) as opened:
            if opened.needs_password():
                raise InputError(f"{archive} is locked with a password")
            found = {name: _member(list(opened.files), name, archive) for name in job["wanted"]}
            members = {name: member for name, member in found.items() if member is not None}
            if job["wanted"][0] not in members:
                raise InputError(f"{archive} holds no {job['wanted'][0].capitalize()}")
            _check_sizes(list(opened.files), list(members.values()), archive, folder, job)
            paths = {name: folder / f"{name}.unpacked" for name in members}
            seven_zip = next(filter(None, map(shutil.which, ("7zz", "7z"))), None)
            if seven_zip is None:
                writers = _Writers({str(member.filename): paths[name] for name, member in members.items()})
                opened.extract(targets=[member.filename for member in members.values()], factory=writers)
            else:
                for name, member in members.items():
                    _unpack_with(seven_zip, archive, member, paths[name])
    except (InputError, MemoryError):
        raise
    except py7zr.exceptions.PasswordRequired as error:
        raise InputError(f"{archive} is locked with a password") from error
    except OSError as error:
        # The surroundings have a number; lzma and bz2 have none for bad data, and a place that no file has is that too.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise InputError(f"{archive} is damaged or cut short: {error}") from error
    except Exception as error:  # a damaged archive comes out of py7zr and its decoders as almost anything
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(f"{archive} is no 7z archive, or is damaged or cut short ({what})") from error
    for name, path in paths.items():
        if not path.is_file():
            raise InputError(f"{archive} is damaged: {name} did not come out of it")
    return {name: str(path) for name, path in paths.items()}


def _member(files: list[Any], name: str, archive: Path) -> Any | None:
    """The one regular file of the archive called `name`, in whatever folder and case."""
    found = [file for file in files if file.filename.replace("\\", "/").rpartition("/")[2].lower() == name]
    found = [file for file in found if not file.is_directory]
    if not found:
        return None
    if len(found) > 1:
        raise InputError(
            f"{archive} holds {len(found)} files called {name}: {', '.join(f.filename for f in found)[:200]}"
        )
    member = found[0]
    path = member.filename.replace("\\", "/")
    if member.is_symlink or member.is_junction or member.is_socket or not member.is_file:
        raise InputError(f"{archive} is refused: its {member.filename} is a link or a device, not a file")
    if path.startswith("/") or path[1:2] == ":" or ".." in path.split("/"):
        raise InputError(f"{archive} is refused: its {member.filename} points outside the archive")
    return member


def _check_sizes(files: list[Any], members: list[Any], archive: Path, folder: Path, job: UnpackJob) -> None:
    """Refuse what would grow out of proportion. All members count: those before the wanted ones are unpacked too."""
    packed = archive.stat().st_size
    whole = sum(int(file.uncompressed or 0) for file in files)
    wanted = sum(int(member.uncompressed or 0) for member in members)
    if whole > job["max_bytes"]:
        raise InputError(
            f"{archive} would unpack to {whole} bytes, more than max_unpacked_gb allows ({job['max_bytes']} bytes): "
            "raise that if the archive is to be trusted"
        )
    if whole > packed * job["max_ratio"]:
        raise InputError(
            f"{archive} would grow {whole / packed:.0f} times when unpacked, more than max_ratio allows "
            f"({job['max_ratio']:g}): raise that if the archive is to be trusted"
        )
    free = shutil.disk_usage(folder).free
    if wanted + _MARGIN > free:
        raise OSError(28, f"{archive} needs {wanted} bytes and {free} are free", str(folder))


def _unpack_with(seven_zip: str, archive: Path, member: Any, path: Path) -> None:
    """One member by the program `seven_zip`, read from its standard output: it chooses no path and follows nothing."""
    expected = int(member.uncompressed)
    with tempfile.TemporaryFile() as complaints, open(path, "wb") as out:
        with subprocess.Popen(
            [seven_zip, "x", "-so", "-spd", "-p-", "-bd", "--", str(archive), member.filename],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints,
        ) as running:  # fmt: skip
            assert running.stdout
            size = 0
            while chunk := running.stdout.read(1 << 20):
                size += len(chunk)
                if size > expected:
                    running.kill()
                    break
                out.write(chunk)
        complaints.seek(0)
        said = complaints.read(4096).decode(errors="replace")
    if running.returncode and "allocate required memory" in said:  # its status is that of damage, 2
        raise MemoryError
    if running.returncode or size != expected:
        raise InputError(
            f"{archive} is damaged or cut short: {member.filename} has {size} bytes where the archive says {expected}, "
            f"and {Path(seven_zip).name} ended with {running.returncode}"
        )


class _Writers:
    """Where py7zr writes: each wanted member to the file chosen for it."""

    def __init__(self, paths: dict[str, Path]) -> None:
        self._paths = paths

    def create(self, name: str) -> "_Writer":
        # py7zr makes the member's name into a path under the working directory; the members differ in their last part
        last = name.rpartition("/")[2]
        return _Writer(next(path for member, path in self._paths.items() if member.replace("\\", "/").endswith(last)))


class _Writer:
    """One member being written."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115  py7zr calls close when the member is done
        self._size = 0

    def write(self, data: bytes) -> int:
        self._size += len(data)
        return self._file.write(data)

    def read(self, size: int | None = None) -> bytes:
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        return offset

    def flush(self) -> None:
        self._file.flush()

    def size(self) -> int:
        return self._size

    def close(self) -> None:
        self._file.close()


def _bound_memory() -> None:
    with open("/proc/self/statm", encoding="ascii") as handle:
        now = int(handle.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
