"""A real PostgreSQL server for the tests of the store, where its programs are installed."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


def _program(name: str) -> str | None:
    places = [*sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))


def _unprivileged() -> str | None:
    """PostgreSQL refuses to run as root: the name of somebody else, if that is what we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no other user here")


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """Address of a server of our own, without the database's name: "postgresql://…:port/"."""
    initdb, server = _program("initdb"), _program("postgres")
    if not initdb or not server:
        pytest.skip("PostgreSQL's initdb and postgres are not installed")
    user = _unprivileged()
    options: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if user else {}
    folder = Path(tempfile.mkdtemp(prefix="study-postgresql-"))
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT, "cwd": "/", **options}
    process = None
    try:
        begin = [initdb, "-D", str(folder / "data"), "-U", "study", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run(begin, check=True, timeout=120, **quiet)
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": port,
            "unix_socket_directories": "",
            "max_connections": 60,
            "fsync": "off",
        }
        arguments = [f"-c{name}={value}" for name, value in settings.items()]
        process = subprocess.Popen([server, "-D", str(folder / "data"), *arguments], **quiet)
        url = f"postgresql://study@127.0.0.1:{port}/"
        _wait(url, process)
        yield url
    finally:
        if process:
            process.send_signal(signal.SIGQUIT)  # at once: its data is thrown away anyway
            process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    import psycopg

    for _ in range(600):
        assert process.poll() is None, "the server ended"
        try:
            psycopg.connect(url + "postgres", connect_timeout=2).close()
            return
        except psycopg.OperationalError:
            time.sleep(0.1)
    raise AssertionError("the server does not answer")


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str | Path]:
    """A function that names a new, empty database of either engine."""
    if request.param == "sqlite":
        return lambda: tmp_path / f"{uuid.uuid4().hex}.db"
    import psycopg

    server = request.getfixturevalue("postgresql") + "postgres"

    def created() -> str:
        name = f"study_{uuid.uuid4().hex}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'CREATE SCHEMA "{name}"')  # as good as a database of its own, and made in no time
        return f"{server}?options=-csearch_path%3D{name}"

    return created
