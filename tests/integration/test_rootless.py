# SPDX-License-Identifier: GPL-3.0-or-later
"""Without root: an ordinary user with subordinate ids, who exists in these tests' mounts alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Container

CHECKOUT = Path(__file__).parents[2]
UID = 4242
SUBORDINATE = 200000
FILES = ("passwd", "group", "subuid", "subgid")

# In a mount namespace of its own: the user's entries over /etc, then the command as that user.
AS_USER = """
set -e
mount --make-rprivate /
# The checkout may lie where ordinary users can't go, below /root say: then it is shown there
# below directories that they can enter.
user() { setpriv --reuid 4242 --regid 4242 --clear-groups "$@"; }
covered=/
while [ "$covered" != "$CHECKOUT" ] && user test -x "$covered"; do
    below=${CHECKOUT#"${covered%/}/"}
    covered="${covered%/}/${below%%/*}"
done
if ! user test -x "$covered"; then
    mount --bind "$CHECKOUT" "$HOLD"
    mount -t tmpfs -o mode=755 tmpfs "$covered"
    mkdir -p "$CHECKOUT"
    mount --move "$HOLD" "$CHECKOUT"
fi
for file in passwd group subuid subgid; do mount --bind "$ETC/$file" "/etc/$file"; done
exec setpriv --reuid 4242 --regid 4242 --clear-groups env -i PATH="$PATH" \
    XDG_RUNTIME_DIR="$RUNTIME" OCIRT_TEST="$OCIRT_TEST" "$@"
"""


@pytest.fixture(autouse=True)
def ours_only(container: Container) -> None:
    """Skip for runc: 1.1 needs a cgroup it may write, or --rootless cgroup exceptions."""
    if not container.runtime.version().startswith("ocirt "):
        pytest.skip("a peer's ways of doing without cgroups aren't compared")
    if shutil.which("newuidmap") is None:
        pytest.skip("needs newuidmap")


@pytest.fixture
def user(directory: Path) -> Iterator[dict[str, str]]:
    """The environment that AS_USER needs."""
    etc, runtime, hold = (directory / name for name in ("etc", "user-run", "hold"))
    for place in (etc, runtime, hold):
        place.mkdir()
    os.chown(runtime, UID, UID)
    for name in FILES:
        text = Path("/etc", name).read_text() if Path("/etc", name).exists() else ""
        text += {
            "passwd": f"ocirtuser:x:{UID}:{UID}::/:/bin/sh\n",
            "group": f"ocirtuser:x:{UID}:\n",
        }.get(name, f"ocirtuser:{SUBORDINATE}:65536\n")
        (etc / name).write_text(text)
    yield {
        **os.environ,
        "ETC": str(etc),
        "RUNTIME": str(runtime),
        "HOLD": str(hold),
        "CHECKOUT": str(CHECKOUT),
    }


def prepare(container: Container, *mappings: tuple[int, int, int], time: bool = False) -> None:
    """Make the configuration one for a user, with a rootfs that is the user's."""
    kinds = ["user", "pid", "mount", "uts", "ipc", "network", *(["time"] if time else [])]
    container.config["linux"]["namespaces"] = [{"type": kind} for kind in kinds]
    maps = [{"containerID": c, "hostID": h, "size": n} for c, h, n in mappings]
    container.bundle.set("/linux/uidMappings", maps)
    container.bundle.set("/linux/gidMappings", maps)
    del container.config["linux"]["cgroupsPath"]
    rootfs = container.bundle.rootfs
    own = rootfs.with_name("own")
    subprocess.run(["cp", "-a", rootfs, own], check=True)
    shutil.rmtree(rootfs)
    own.rename(rootfs)
    subprocess.run(["chown", "-hR", f"{UID}:{UID}", rootfs], check=True)


def as_user(
    container: Container, user: dict[str, str], *argv: str
) -> subprocess.CompletedProcess[str]:
    """Run the container as the user, or argv."""
    container.bundle.save()
    run = [container.runtime.executable, "run", "--bundle", str(container.bundle.directory)]
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", AS_USER, "sh", *(argv or (*run, container.id))],
        env=user,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def run(container: Container, user: dict[str, str], script: str) -> str:
    """Run a script in the container as the user; return its stdout."""
    container.shell(script)
    ended = as_user(container, user)
    # For the fixture's clean-up, which looks below the root's own directory.
    container.bundle.set("/linux/cgroupsPath", f"/ocirt-test-rootless/{container.id}")
    assert ended.returncode == 0, ended.stderr
    assert "cgroup" in ended.stderr  # said, not hidden: there are no limits
    assert os.listdir(Path(user["RUNTIME"]) / "ocirt") == []
    return ended.stdout


def test_with_subordinate_ids(container: Container, user: dict[str, str]) -> None:
    prepare(container, (0, UID, 1), (1, SUBORDINATE, 65536))
    container.bundle.set("/process/user", {"uid": 33, "gid": 34, "additionalGids": [35]})
    lines = run(container, user, "id -u; id -G; cat /proc/self/uid_map").splitlines()
    assert lines[:2] == ["33", "34 35"]
    assert [line.split() for line in lines[2:]] == [
        ["0", str(UID), "1"],
        ["1", str(SUBORDINATE), "65536"],
    ]


def test_with_ones_own_id_alone(container: Container, user: dict[str, str]) -> None:
    prepare(container, (0, UID, 1))
    assert run(container, user, "id -u; cat /proc/self/setgroups").split() == ["0", "deny"]


def test_a_time_namespace_without_root(container: Container, user: dict[str, str]) -> None:
    prepare(container, (0, UID, 1), time=True)
    container.bundle.set("/linux/timeOffsets", {"boottime": {"secs": 1000000}})
    uptime = float(run(container, user, "cat /proc/uptime").split()[0])
    assert uptime > 1000000


def test_ids_that_arent_ones_own(container: Container, user: dict[str, str]) -> None:
    prepare(container, (0, UID, 1), (1, 900000, 10))
    with pytest.raises(AssertionError, match="subuid"):
        run(container, user, "true")


def test_without_a_user_namespace(container: Container, user: dict[str, str]) -> None:
    ended = as_user(container, user)
    assert ended.returncode == 1
    assert "user namespace" in ended.stderr
    assert not (Path(user["RUNTIME"]) / "ocirt").exists()


LIFE = """
set -e
bundle=$1 id=$2 ocirt=$3
out=$bundle/out
$ocirt create --bundle $bundle $id >$out 2>&1 </dev/null || { cat $out >&2; exit 1; }
$ocirt start $id
$ocirt exec $id sh -c 'id -u; cat /proc/self/setgroups; pwd'
$ocirt exec --cwd=/root $id sh -c 'echo out; echo err >&2; exit 7' || echo status $?
! $ocirt exec --additional-gids 1 $id true
$ocirt exec --detach --pid-file $bundle/pid $id sleep 1000
tr '\\0' ' ' </proc/$(cat $bundle/pid)/cmdline
$ocirt kill $id KILL
while ! $ocirt state $id | grep -q stopped; do sleep 0.05; done
$ocirt delete $id
"""


def test_exec(container: Container, user: dict[str, str]) -> None:
    prepare(container, (0, UID, 1))
    place = container.bundle.directory
    os.chown(place, UID, UID)
    words = ("sh", "-c", LIFE, "sh", str(place), container.id, container.runtime.executable)
    ended = as_user(container, user, *words)
    container.bundle.set("/linux/cgroupsPath", f"/ocirt-test-rootless/{container.id}")
    assert ended.returncode == 0, ended.stderr
    shown = ["0", "deny", "/", "out", "status", "7", "sleep", "1000"]
    assert ended.stdout.split() == shown, ended.stderr
    assert "err\n" in ended.stderr and "setgroups" in ended.stderr
    assert os.listdir(Path(user["RUNTIME"]) / "ocirt") == []
