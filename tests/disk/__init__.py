"""Disks that tests fill and cut the power of, and a Postgres that they stop."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Iterator

from gateway import ROOT, free_port

SIZE = 12 << 20


@functools.cache
def library() -> pathlib.Path:
    """`preload.rs`, compiled."""
    made = ROOT / "target/tests/libdisk.so"
    source = ROOT / "tests/disk/preload.rs"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        made.parent.mkdir(parents=True, exist_ok=True)
        draft = made.with_suffix(f".{os.getpid()}")
        words = ["rustc", "-O", "--edition", "2024", "--crate-type", "cdylib", "-o", str(draft), str(source)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        draft.replace(made)
    return made


@contextlib.contextmanager
def short_folder() -> Iterator[pathlib.Path]:
    """A folder with a name that leaves room for sockets."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="tollgate-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class MountedDisk:
    """A file system of 12 MB."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.env: dict[str, str] = {}
        self._filling = folder / "filling"

    def fill(self) -> None:
        """To the last byte."""
        with self._filling.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for size in (1 << 16, 1 << 9, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def empty(self) -> None:
        self._filling.unlink()


class PreloadedDisk:
    """A folder in which no file can grow, for the processes that are told so: where nobody may mount."""

    def __init__(self, folder: pathlib.Path, sign: pathlib.Path) -> None:
        self.folder = folder
        self._sign = sign
        self.env = {"LD_PRELOAD": str(library()), "DISK_FOLDER": str(folder), "DISK_FULL": str(sign)}

    def fill(self) -> None:
        self._sign.touch()

    def empty(self) -> None:
        self._sign.unlink()


@contextlib.contextmanager
def mounted() -> Iterator[MountedDisk | None]:
    """None where this process may not mount."""
    with short_folder() as folder:
        words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "tollgate-test", str(folder)]
        if os.geteuid() != 0 or subprocess.run(words, capture_output=True).returncode != 0:
            yield None
            return
        try:
            yield MountedDisk(folder)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


class Postgres:
    """A server of a test's own, which it may stop."""

    def __init__(self, folder: pathlib.Path) -> None:
        servers = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
        assert servers, "Postgres is missing: run the tests under `tests/with-postgres`"
        self._programs, self._folder, self.port = servers[-1], folder, free_port()
        self._as: list[str] = []
        if os.geteuid() == 0:
            # It refuses to run as root.
            shutil.chown(folder, "postgres")
            self._as = ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups"]
        self._run("initdb", "--username", "tollgate", "--auth", "trust", "--no-sync")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql://tollgate@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: str) -> None:
        words = [*self._as, str(self._programs / program), "--pgdata", str(self._folder / "data"), *arguments]
        # A server that stays holds on to what it writes to.
        with (self._folder / "told").open("w+") as told:
            code = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=told, stderr=told, cwd=self._folder).returncode
            told.seek(0)
            assert code == 0, told.read()

    def start(self) -> None:
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "--silent", "--wait", "--log", str(self._folder / "log"), "--options", options, "start")

    def stop(self) -> None:
        self._run("pg_ctl", "--silent", "--wait", "--mode", "fast", "stop")


@contextlib.contextmanager
def own_postgres() -> Iterator[Postgres]:
    with short_folder() as folder:
        server = Postgres(folder)
        try:
            yield server
        finally:
            with contextlib.suppress(AssertionError):
                server.stop()
