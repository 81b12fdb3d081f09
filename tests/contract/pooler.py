"""A private PgBouncer between a test and its database."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from scripts.ports import free_ports, is_open
from scripts.postgres import START_SECONDS, unprivileged_user

# Debian keeps it where only root looks.
SEARCH_PATH = f"{os.environ['PATH']}:/usr/sbin"


@contextmanager
def running_pooler(url: str, settings: str) -> Iterator[str]:
    """Where `url` is reached through it. It refuses root, as PostgreSQL does."""
    there, (port,) = urlsplit(url), free_ports(1)
    folder = Path(tempfile.mkdtemp(prefix="counting-house-pooler-"))
    (folder / "users").write_text(f'"{there.username}" "{there.password}"\n')
    (folder / "pooler.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={there.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = {folder / 'users'}\n{settings}\n"
    )
    user = unprivileged_user()
    if user:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)
    program = shutil.which("pgbouncer", path=SEARCH_PATH)
    if program is None:
        raise RuntimeError("PgBouncer is not installed: run scripts/install-servers.sh pgbouncer")
    with (folder / "output.log").open("w") as output:
        process = subprocess.Popen(
            [program, folder / "pooler.ini"], user=user, cwd=folder, stderr=output, stdout=output
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_open(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PgBouncer did not start:\n{(folder / 'output.log').read_text()}")
            time.sleep(0.05)
        yield url.replace(f":{there.port}/", f":{port}/")
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)
