"""The image, built by buildah from the container file, and containers of it, run by bubblewrap.

Docker Hub's base image is replaced by a Debian that debootstrap makes, with Debian's Python. It also has
systemd, so that the same files can boot as a machine.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.databases import find_binary
from tests.deploy.deployed import CONTAINERFILE
from tests.e2e.processes import ServerProcess
from tests.limits import COMMAND, PROCESS_END
from tests.public_authorities import with_those_of_the_machine

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / ".build" / "kit"
PACKAGES = (
    "ca-certificates", "dbus", "libnss-systemd", "python3.11", "python3.11-venv", "systemd", "systemd-sysv",
)  # fmt: skip
_NAME = "localhost/spincycle-kit"


def run(*command: str | Path, environment: Mapping[str, str] | None = None) -> str:
    """Runs a command, which must succeed, and returns what it prints."""
    done = subprocess.run(
        command, cwd=REPOSITORY, env={**with_those_of_the_machine(os.environ), **(environment or {})},
        capture_output=True, text=True, timeout=COMMAND, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def debian() -> Path:
    """Returns the root of a Debian 12 with Python and systemd. It is made once."""
    root, done = BUILD / "debian", BUILD / "debian.done"
    if not done.exists():
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        run(find_binary("debootstrap"), "--variant=minbase", "bookworm", root)
        for path in (Path("/etc/resolv.conf"), *Path("/etc/apt/apt.conf.d").glob("99*")):
            shutil.copy(path, root / path.relative_to("/"))
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run("chroot", root, "apt-get", "update", "-qq")
        run(
            "chroot", root, "apt-get", "install", "-qq", "-y", "--no-install-recommends", *PACKAGES,
            environment=quiet,
        )  # fmt: skip
        done.touch()
    return root


STORAGE = BUILD / "storage"


def _buildah(*arguments: str | Path) -> str:
    storage = (f"--storage-driver={_driver()}", f"--root={STORAGE}", f"--runroot={BUILD / 'run'}")
    return run(find_binary("buildah"), *storage, *arguments).strip()


@functools.cache
def _driver() -> str:
    """Returns "overlay", or "vfs" where this machine cannot stack file systems. That copies each layer."""
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILD) as directory:
        for name in ("lower", "upper", "work", "merged"):
            Path(directory, name).mkdir()
        options = "lowerdir=lower,upperdir=upper,workdir=work"
        merged = Path(directory, "merged")
        mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)]
        if subprocess.run(mount, cwd=directory, capture_output=True, check=False).returncode:
            return "vfs"
        run("umount", merged)
        return "overlay"


def _delete_storage() -> None:
    """Deletes all images. An overlay stays mounted, and so does the directory of all overlays."""
    inside = [part.mountpoint for part in psutil.disk_partitions(all=True)]
    for mounted in sorted((path for path in inside if STORAGE in Path(path).parents), reverse=True):
        run("umount", mounted)
    shutil.rmtree(STORAGE, ignore_errors=True)


@dataclass(frozen=True)
class Image:
    """An image whose files are mounted.

    Attributes:
        root: Its files.
        config: Its configuration, as `docker image inspect` shows it.
    """

    root: Path
    config: dict[str, Any]

    @property
    def environment(self) -> dict[str, str]:
        """The variables that it sets."""
        return dict(variable.split("=", 1) for variable in self.config["Env"])


@contextlib.contextmanager
def built_image() -> Iterator[Image]:
    """Builds the image from the repository. Its files are deleted at the end."""
    _delete_storage()
    try:
        base = _buildah("from", "scratch")
        _buildah("copy", "-q", base, debian(), "/")
        _buildah("commit", "-q", base, f"{_NAME}-base")
        _buildah(
            "build", "--isolation=chroot", "--format=docker", *_registry_of_this_machine(),
            f"--ignorefile={CONTAINERFILE}.dockerignore", f"--build-arg=PYTHON_IMAGE={_NAME}-base",
            "--build-arg=VERSION=1.2.3", "-f", CONTAINERFILE, "-t", _NAME, REPOSITORY,
        )  # fmt: skip
        config = json.loads(_buildah("inspect", "--type=image", _NAME))["Docker"]["config"]
        container = _buildah("from", _NAME)
        yield Image(Path(_buildah("mount", container)), config)
    finally:
        _delete_storage()


def _registry_of_this_machine() -> list[str]:
    """Lets the build use the package registry and the CAs that this machine is set up for."""
    certificates = ["--volume=/etc/ssl/certs:/etc/ssl/certs:ro"]
    return certificates + (["--secret=id=pip,src=/etc/pip.conf"] if Path("/etc/pip.conf").exists() else [])


@dataclass(frozen=True)
class Mount:
    """A file or directory of this machine in a container; a tmpfs without a source."""

    target: str
    source: Path | None = None
    writable: bool = False

    def options(self) -> list[str]:
        """Returns the options of bubblewrap."""
        if self.source is None:
            return ["--perms", "1777", "--tmpfs", self.target]
        return ["--bind" if self.writable else "--ro-bind", str(self.source), self.target]


class Container(ServerProcess):
    """A running container: process 1 is the image's command, and it has a network and a /proc of its own."""

    @property
    def first(self) -> psutil.Process:
        """Process 1."""
        (first,) = psutil.Process(self.process.pid).children()
        return first

    def execute(self, image: Image, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a command in the container, as `docker exec` does."""
        user, _, group = image.config["User"].partition(":")
        return subprocess.run(
            [
                "nsenter", f"--target={self.first.pid}", "--mount", "--net", "--pid", "--ipc", "--root",
                f"--wd=/proc/{self.first.pid}/cwd", f"--setuid={user}", f"--setgid={group}",
                "env", "-i", *image.config["Env"], *command,
            ],
            capture_output=True, text=True, timeout=COMMAND, check=False,
        )  # fmt: skip

    def terminate(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal to process 1, and returns the exit status of the container."""
        if self.process.poll() is None:
            self.first.send_signal(number)
        return self.process.wait(PROCESS_END)


@contextlib.contextmanager
def container(
    image: Image,
    words: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    mounts: Sequence[Mount] = (),
    network: int | None = None,
) -> Iterator[Container]:
    """Runs a container as Docker would with --read-only, --cap-drop ALL and no-new-privileges.

    Args:
        image: The image, whose entry point, user, variables and directory apply.
        words: The command; nothing for that of the image.
        environment: Further variables.
        mounts: What is mounted, besides /proc and /dev.
        network: A process whose network the container joins. None: a network of its own with loopback.
    """
    user, _, group = image.config["User"].partition(":")
    variables = {**image.environment, **(environment or {})}
    joined = ["nsenter", f"--target={network}", "--net"] if network else []
    own_network = [] if network else ["--unshare-net"]
    command = [
        *joined, find_binary("bwrap"), "--unshare-pid", "--unshare-ipc", *own_network,
        "--as-pid-1", "--die-with-parent", "--clearenv", "--ro-bind", str(image.root), "/",
        "--proc", "/proc", "--dev", "/dev",
        *(option for mount in mounts for option in mount.options()),
        *(option for name, value in variables.items() for option in ("--setenv", name, value)),
        "--chdir", image.config["WorkingDir"],
        "setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs",
        "--bounding-set=-all", "--inh-caps=-all",
        *image.config["Entrypoint"], *(words or image.config["Cmd"]),
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    started = Container(process)
    try:
        yield started
    finally:
        if process.poll() is None:
            with contextlib.suppress(psutil.Error, ValueError):
                started.first.kill()
        started.close()
