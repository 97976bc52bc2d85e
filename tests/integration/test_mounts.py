# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount table and what is in it (config.md, "Mounts"): mountinfo, and hostile images."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Container, proc
from tests.integration.test_namespaces import ask_for


def mount(container: Container, **entry: Any) -> None:
    container.config["mounts"].append(entry)


def bind(container: Container, source: Path, destination: str, *options: str) -> None:
    mount(
        container,
        destination=destination,
        type="bind",
        source=str(source),
        options=["rbind", *options],
    )


def mounted(container: Container) -> dict[str, tuple[set[str], str]]:
    """Create; return mount point -> (options, type) as the container's init has them."""
    container.create()
    table = {}
    for line in proc.mountinfo(container.pid):
        left, _, right = line.partition(" - ")
        fields = left.split()
        table[fields[4]] = (set(fields[5].split(",")) | set(fields[6:]), right.split()[0])
    return table


def refused(container: Container) -> str:
    container.bundle.save()
    return container.refused("create", "--bundle", str(container.bundle.directory))


@pytest.fixture
def tree(directory: Path) -> Iterator[Path]:
    """A shared mount of the host's with another below it, both made here."""
    top = directory / "tree"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top], check=True)
    try:
        subprocess.run(["mount", "--make-shared", top], check=True)
        (top / "below").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", top / "below"], check=True)
        yield top
    finally:
        subprocess.run(["umount", "--recursive", top], check=True)


def test_nothing_of_the_host_is_left(container: Container) -> None:
    table = mounted(container)
    assert set(table) == {"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/sys"}


def test_options_are_the_kernels(container: Container) -> None:
    mount(
        container,
        destination="/t",
        type="tmpfs",
        source="tmpfs",
        options=["nosuid", "nodev", "noexec", "noatime", "ro", "size=64k", "mode=1700"],
    )
    options, kind = mounted(container)["/t"]
    assert kind == "tmpfs"
    assert {"nosuid", "nodev", "noexec", "noatime", "ro"} <= options
    assert os.stat(f"/proc/{container.pid}/root/t").st_mode & 0o7777 == 0o1700


def test_a_tmpfs_has_the_mode_of_its_directory(container: Container) -> None:
    mount(container, destination="/tmp", type="tmpfs", source="tmpfs")
    mounted(container)
    assert os.stat(f"/proc/{container.pid}/root/tmp").st_mode & 0o7777 == 0o1777


def test_a_tmpfs_where_nothing_was_has_its_own_mode(container: Container) -> None:
    mount(container, destination="/new/tmp", type="tmpfs", source="tmpfs")
    mounted(container)
    assert os.stat(f"/proc/{container.pid}/root/new/tmp").st_mode & 0o7777 == 0o1777


def test_the_options_of_a_bind(container: Container, directory: Path) -> None:
    (directory / "data").mkdir()
    wanted = {"ro", "nosuid", "nodev", "noexec", "noatime"}
    bind(container, directory / "data", "/data", *wanted)
    bind(container, directory / "data", "/plain")
    table = mounted(container)
    assert wanted <= table["/data"][0]
    assert "ro" not in table["/plain"][0]


@pytest.mark.parametrize(
    ("options", "below"),
    [
        (["bind", "ro"], None),
        (["rbind", "ro"], False),
        (["rbind", "rro"], True),
    ],
)
def test_what_is_mounted_below_a_bind(
    container: Container, tree: Path, options: list[str], below: bool | None
) -> None:
    """bind leaves it out, ro leaves it writable, rro takes it along."""
    mount(container, destination="/data", type="bind", source=str(tree), options=options)
    table = mounted(container)
    inner = table.get("/data/below")
    assert (None if inner is None else "ro" in inner[0]) is below


@pytest.mark.parametrize(
    ("option", "shared"),
    [("rprivate", False), ("rshared", True)],
)
def test_the_propagation_of_a_bind(
    container: Container, tree: Path, option: str, shared: bool
) -> None:
    bind(container, tree, "/data", option)
    options, _ = mounted(container)["/data"]
    assert any(o.startswith("shared:") for o in options) is shared


@pytest.mark.parametrize(("option", "arrives"), [("rslave", True), ("rprivate", False)])
def test_later_mounts_of_the_host(
    container: Container, tree: Path, option: str, arrives: bool
) -> None:
    container.bundle.set("/linux/rootfsPropagation", "rslave")
    bind(container, tree, "/data", option)
    container.create()
    (tree / "later").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "later"], check=True)
    table = [line.split()[4] for line in proc.mountinfo(container.pid)]
    assert ("/data/later" in table) is arrives


def test_binds_of_files_and_directories(container: Container, directory: Path) -> None:
    (directory / "dir").mkdir()
    (directory / "dir" / "f").write_text("in dir\n")
    (directory / "file").write_text("a file\n")
    bind(container, directory / "dir", "/new/place", "ro")
    bind(container, directory / "file", "/etc/new/file")
    output = container.inside("cat /new/place/f /etc/new/file; touch /new/place/x || echo refused")
    assert output.splitlines() == ["in dir", "a file", "refused"]
    assert not (directory / "dir" / "x").exists()


def test_a_source_relative_to_the_bundle(container: Container) -> None:
    (container.bundle.directory / "data").write_text("here\n")
    bind(container, Path("data"), "/data")
    assert container.inside("cat /data") == "here"


def test_later_mounts_cover_earlier_ones(container: Container, directory: Path) -> None:
    for name in ("one", "two"):
        (directory / name).mkdir()
        (directory / name / "name").write_text(name)
        bind(container, directory / name, "/data")
    assert container.inside("cat /data/name") == "two"


@pytest.mark.parametrize("link", ["absolute", "relative", "dangling"])
def test_a_link_in_the_image_leads_nowhere_outside(
    container: Container, directory: Path, link: str
) -> None:
    """The destination is resolved as the container will see it."""
    outside = directory / "outside"
    outside.mkdir()
    (directory / "data").write_text("data\n")
    rootfs = container.bundle.rootfs
    target = {
        "absolute": str(outside),
        "relative": "../" * 30 + str(outside).lstrip("/"),
        "dangling": f"{outside}/deeper/still",
    }[link]
    os.symlink(target, rootfs / "link")
    bind(container, directory / "data", "/link/file")
    mount(container, destination="/link/tmp", type="tmpfs", source="tmpfs")
    assert container.inside("cat /link/file") == "data"
    assert os.listdir(outside) == []


def test_a_link_as_the_destination_itself(container: Container, directory: Path) -> None:
    """An absolute link to a file of the host: the file is neither covered nor changed."""
    (directory / "data").write_text("data\n")
    victim = directory / "victim"
    victim.write_text("the host's\n")
    os.symlink(victim, container.bundle.rootfs / "link")
    bind(container, directory / "data", "/link")
    assert container.inside("cat /link; echo changed >> /link") == "data"
    assert victim.read_text() == "the host's\n"
    assert (directory / "data").read_text() == "data\nchanged\n"


@pytest.mark.peer_fails("runc", "1.1 makes /dev/fd and its like where the link leads: outside")
def test_a_link_as_dev_leads_nowhere_outside(container: Container, directory: Path) -> None:
    """Nodes and links that the runtime makes in /dev stay in the container, or it refuses."""
    outside = directory / "outside"
    outside.mkdir()
    (container.bundle.rootfs / "dev").rmdir()
    os.symlink(outside, container.bundle.rootfs / "dev")
    container.config["mounts"] = [m for m in container.config["mounts"] if m["type"] == "proc"]
    container.bundle.save()
    container.runtime.call("create", "--bundle", str(container.bundle.directory), container.id)
    assert os.listdir(outside) == []


def test_a_link_as_proc_is_refused(container: Container) -> None:
    rootfs = container.bundle.rootfs
    (rootfs / "proc").rmdir()
    os.symlink("tmp", rootfs / "proc")
    assert "/proc" in refused(container)


@pytest.mark.parametrize(
    "destination",
    [
        "/proc/sys",
        "/proc/self",
        "/proc",
    ],
)
def test_nothing_is_mounted_into_proc(
    container: Container, directory: Path, destination: str
) -> None:
    bind(container, directory, destination)
    assert "/proc" in refused(container)


@pytest.mark.peer_fails("runc", "1.1 lets anything cover the directory before there is a procfs")
@pytest.mark.parametrize("destination", ["/proc", "/proc/there", "proc/there/"])
def test_nothing_pretends_to_be_proc(
    container: Container, directory: Path, destination: str
) -> None:
    """Not even before a procfs is mounted."""
    bind(container, directory, destination)
    container.config["mounts"].insert(0, container.config["mounts"].pop())
    message = refused(container)
    assert "/mounts/0" in message and "/proc" in message


def test_a_procfs_on_a_procfs(container: Container) -> None:
    mount(container, destination="/proc", type="proc", source="proc", options=["", "nosuid", ""])
    options, kind = mounted(container)["/proc"]
    assert kind == "proc" and "nosuid" in options


def test_the_hosts_procfs_may_be_bound_to_proc(container: Container) -> None:
    """As podman does where the pid namespace is the host's."""
    container.config["mounts"][0] = {
        "destination": "/proc",
        "type": "bind",
        "source": "/proc",
        "options": ["rbind", "nosuid"],
    }
    options, kind = mounted(container)["/proc"]
    assert kind == "proc" and "nosuid" in options


@pytest.mark.peer_fails("runc", "forgets the other flags")
def test_a_bind_mount_changed_later(container: Container, directory: Path) -> None:
    """remount with bind is about what is there; its source says nothing."""
    bind(container, directory, "/data", "nosuid")
    mount(container, destination="/data", source="none", options=["bind", "remount", "ro"])
    container.config["mounts"][-1]["source"] = str(directory)
    container.create()
    lines = [line for line in proc.mountinfo(container.pid) if line.split()[4] == "/data"]
    (line,) = lines
    assert {"ro", "nosuid"} <= set(line.split()[5].split(","))


def test_a_filesystem_changed_later(container: Container) -> None:
    mount(container, destination="/t", type="tmpfs", source="tmpfs", options=["size=64k"])
    options = ["remount", "ro", "size=128k"]
    mount(container, destination="/t", type="tmpfs", source="tmpfs", options=options)
    container.create()
    (line,) = [line for line in proc.mountinfo(container.pid) if line.split()[4] == "/t"]
    assert "ro" in line.split()[5].split(",") and "size=128k" in line


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        (["noatime", "strictatime"], set()),
        (["strictatime", "noatime"], {"noatime"}),
        (["noatime", "relatime"], {"relatime"}),
        (["noatime", "norelatime"], {"noatime"}),
    ],
)
@pytest.mark.peer_fails("runc", "1.1 gives the kernel both, which prefers strictatime")
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_access_times(
    container: Container, directory: Path, kind: str, options: list[str], shown: set[str]
) -> None:
    """One of three ways; the last that is named counts."""
    if kind == "bind":
        bind(container, directory, "/t", *options)
    else:
        mount(container, destination="/t", type="tmpfs", source="tmpfs", options=options)
    assert mounted(container)["/t"][0] & {"noatime", "relatime"} == shown


def test_a_file_for_lxcfs_is_allowed(container: Container, directory: Path) -> None:
    (directory / "uptime").write_text("1.0 1.0\n")
    bind(container, directory / "uptime", "/proc/uptime")
    assert container.inside("cat /proc/uptime") == "1.0 1.0"


@pytest.mark.peer_fails("runc", "1.1 mounts over it, and pivots to what is below")
def test_the_rootfs_itself_is_no_mount_point(container: Container, directory: Path) -> None:
    bind(container, directory, "/")
    assert "top of rootfs" in refused(container)


@pytest.mark.peer_fails("runc", "1.1 says invalid argument and no more")
def test_a_wrong_option_is_named(container: Container) -> None:
    mount(container, destination="/t", type="tmpfs", source="tmpfs", options=["colour=red"])
    message = refused(container)
    assert "colour" in message
    assert "/mounts/5" in message


def test_a_missing_source(container: Container) -> None:
    bind(container, Path("/no/such/source"), "/x")
    assert "/no/such/source" in refused(container)


def test_a_read_only_root(container: Container) -> None:
    container.config["root"]["readonly"] = True
    output = container.inside("touch /x 2>/dev/null || echo refused; touch /dev/shm/x && echo yes")
    assert output.splitlines() == ["refused", "yes"]


def test_masked_and_read_only_paths(container: Container) -> None:
    container.bundle.set("/linux/maskedPaths", ["/proc/keys", "/sys/firmware", "/no/such"])
    container.bundle.set("/linux/readonlyPaths", ["/proc/sys", "/etc", "/none"])
    container.shell(
        "wc -c < /proc/keys; ls /sys/firmware | wc -l; echo x > /etc/new || echo refused;"
        "echo x > /proc/sys/kernel/hostname || echo refused"
    )
    result = container.run().checked()
    assert result.stdout.split() == ["0", "0", "refused", "refused"]


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("private", set()),
        pytest.param(
            "shared",
            {"shared"},
            marks=pytest.mark.peer_fails("runc", "1.1 leaves the root mount private"),
        ),
        ("slave", set()),
    ],
)
def test_rootfs_propagation(container: Container, wanted: str, shown: set[str]) -> None:
    container.bundle.set("/linux/rootfsPropagation", wanted)
    options, _ = mounted(container)["/"]
    tags = {o.partition(":")[0] for o in options if ":" in o}
    assert tags & {"shared"} == shown


def test_mounts_inside_dont_appear_outside(container: Container) -> None:
    for kind in ("bounding", "effective", "permitted"):
        container.bundle.set(f"/process/capabilities/{kind}", ["CAP_SYS_ADMIN"])
    before = proc.mountinfo()
    container.inside("mkdir -p /m; mount -t tmpfs tmpfs /m && touch /m/x")
    assert proc.mountinfo() == before


def test_no_pivot(container: Container) -> None:
    container.create("--no-pivot")
    container.start()
    assert os.path.exists(f"/proc/{container.pid}/root/bin/busybox")
    assert not os.path.exists(f"/proc/{container.pid}/root/usr")


def test_devices_and_links(container: Container) -> None:
    node = {"path": "/dev/own", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "gid": 7}
    container.bundle.set("/linux/devices", [node])
    output = container.inside("stat -c '%F %t %T %a %g' /dev/own; readlink /dev/fd; ls /dev/ptmx")
    assert output.splitlines() == ["character special file 1 5 640 7", "/proc/self/fd", "/dev/ptmx"]


@pytest.mark.peer_fails("runc", "1.1 keeps whatever is there")
def test_a_device_that_is_something_else(container: Container) -> None:
    container.config["mounts"] = [m for m in container.config["mounts"] if m["type"] == "proc"]
    container.bundle.file("/dev/null", "a file")
    assert "/dev/null" in refused(container)


@pytest.mark.peer_fails("runc", "can't copy a pipe")
def test_a_tmpfs_that_begins_with_what_was_there(container: Container) -> None:
    """tmpcopyup: contents, modes, owners, links; the image stays as it is."""
    place = container.bundle.rootfs / "srv"
    (place / "deep/er").mkdir(parents=True)
    (place / "deep/er/file").write_text("text")
    os.chown(place / "deep/er/file", 5, 6)
    (place / "deep/er/file").chmod(0o4755)
    (place / "link").symlink_to("/etc/passwd")
    os.mkfifo(place / "pipe", 0o640)
    place.chmod(0o751)
    mount(container, destination="/srv", type="tmpfs", source="tmpfs", options=["tmpcopyup", "ro"])
    shown = container.inside(
        "cd /srv; stat -c '%n %a %u %g' . deep/er/file pipe; cat deep/er/file; readlink link;"
        " test -p pipe && touch new 2>/dev/null || echo read-only"
    )
    assert shown.splitlines() == [
        ". 751 0 0",
        "deep/er/file 4755 5 6",
        "pipe 640 0 0",
        "text/etc/passwd",
        "read-only",
    ]
    assert not (place / "new").exists()


@pytest.mark.peer_fails("runc", "ignores it there")
def test_tmpcopyup_is_for_a_tmpfs(container: Container) -> None:
    mount(container, destination="/srv", type="mqueue", source="mqueue", options=["tmpcopyup"])
    container.bundle.save()
    words = container.refused("create", "--bundle", str(container.bundle.directory))
    assert "/mounts/5/options" in words and "tmpcopyup" in words


def test_a_source_that_the_containers_root_may_not_reach(
    container: Container, directory: Path
) -> None:
    """In a user namespace its root is nobody on the host: the runtime opens the source."""
    (directory / "locked/data").mkdir(parents=True)
    (directory / "locked/data/file").write_text("text")
    (directory / "locked").chmod(0o700)
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    bind(container, directory / "locked/data", "/data")
    assert container.inside("cat /data/file") == "text"


@pytest.fixture
def flagged(directory: Path) -> Iterator[Path]:
    """A mount of the host's that is nosuid and nodev, with a read-only one below it."""
    top = directory / "flagged"
    top.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nosuid,nodev", "tmpfs", top], check=True)
    try:
        (top / "below").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", top / "below"], check=True)
        yield top
    finally:
        subprocess.run(["umount", "--recursive", top], check=True)


@pytest.mark.peer_fails("runc", "1.1 doesn't repeat locked flags when it sets another")
def test_the_hosts_flags_are_locked_in_a_user_namespace(
    container: Container, flagged: Path
) -> None:
    """Its root may mount what it likes, but not undo what the host has set."""
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    for kind in ("bounding", "effective", "permitted"):
        container.bundle.set(f"/process/capabilities/{kind}", ["CAP_SYS_ADMIN"])
    bind(container, flagged, "/data", "noexec")
    output = container.inside(
        "for flag in suid dev; do mount -o remount,bind,$flag,noexec /data || echo no $flag; done;"
        "mount -o remount,bind,rw /data/below || echo no rw; grep ' /data' /proc/self/mountinfo"
    )
    lines = output.splitlines()
    assert lines[:3] == ["no suid", "no dev", "no rw"]
    assert {"nosuid", "nodev", "noexec"} <= set(lines[3].split()[5].split(","))
    assert "ro" in lines[4].split()[5].split(",")


@pytest.mark.peer_fails("runc", "1.1 says no more than operation not permitted, or ignores it")
@pytest.mark.parametrize("option", ["suid", "dev", "rrw"])
def test_a_config_cant_undo_the_hosts_flags(
    container: Container, flagged: Path, option: str
) -> None:
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    bind(container, flagged, "/data", option)
    message = refused(container)
    assert "/mounts/5" in message and "host" in message
    assert container.remains() == []


@pytest.mark.peer_fails("runc", "1.1 takes no option that clears a flag for a bind mount")
def test_without_a_user_namespace_it_can(container: Container, flagged: Path) -> None:
    bind(container, flagged, "/data", "suid", "rrw")
    table = mounted(container)
    assert "nosuid" not in table["/data"][0] and "nodev" in table["/data"][0]


@pytest.mark.peer_fails("runc", "has it since 1.2")
@pytest.mark.parametrize(("option", "below"), [("idmap", "7:8"), ("ridmap", "1007:2008")])
def test_ids_mapped_by_the_mounts_own_mappings(
    container: Container, tree: Path, option: str, below: str
) -> None:
    """Without a user namespace, too; idmap leaves what is mounted below as it is."""
    for place in (tree, tree / "below"):
        (place / "file").write_text("text")
        os.chown(place / "file", 7, 8)
    mount(
        container,
        destination="/data",
        type="bind",
        source=str(tree),
        options=["rbind", option],
        uidMappings=[{"containerID": 0, "hostID": 1000, "size": 100}],
        gidMappings=[{"containerID": 0, "hostID": 2000, "size": 100}],
    )
    output = container.inside("stat -c %u:%g /data/file /data/below/file")
    assert output.split() == ["1007:2008", below]


@pytest.mark.peer_fails("runc", "has it since 1.2")
def test_ids_mapped_as_the_containers(container: Container, directory: Path) -> None:
    """idmap without mappings: those of the user namespace. On the host nothing changes owner."""
    (directory / "data").mkdir()
    (directory / "data/file").write_text("text")
    os.chown(directory / "data/file", 7, 8)
    ask_for(container, "pid", "mount", "uts", "ipc", "network", "user")
    bind(container, directory / "data", "/data", "idmap")
    assert container.inside("stat -c %u:%g /data/file") == "7:8"
    assert (directory / "data/file").stat().st_uid == 7
