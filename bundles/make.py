# SPDX-License-Identifier: GPL-3.0-or-later
"""Make a bundle's root filesystem offline, from the host's static busybox.

    python3 bundles/make.py hello build/bundles/hello

copies bundles/hello to build/bundles/hello and adds its rootfs. The tests take their root
filesystems from here too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

# Full paths: a PATH with another, dynamically linked busybox must not change what is made.
BUSYBOX = ("/bin/busybox", "/usr/bin/busybox")

DIRECTORIES = ("bin", "dev", "etc", "home/user", "proc", "root", "sys", "tmp", "var")

PASSWD = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/false
user:x:1000:1000:user:/home/user:/bin/sh
other:x:1001:1001:other:/tmp:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/false
"""

GROUP = """\
root:x:0:
daemon:x:1:
users:x:100:user,other
user:x:1000:
other:x:1001:
nogroup:x:65534:
"""


def find_busybox() -> str:
    """Return the path of a statically linked busybox; raises SystemExit where there is none."""
    for path in BUSYBOX:
        # A dynamically linked program names its loader; a static one has no such header.
        if os.path.exists(path) and b"/ld-" not in Path(path).read_bytes()[:4096]:
            return path
    raise SystemExit("no static busybox in /bin; Debian's package is busybox-static")


def make_rootfs(directory: Path) -> None:
    """Make a root filesystem at directory, which must not exist: busybox, its applets, users."""
    busybox = find_busybox()
    for name in DIRECTORIES:
        (directory / name).mkdir(parents=True)
    (directory / "tmp").chmod(0o1777)
    shutil.copy(busybox, directory / "bin/busybox")
    applets = subprocess.run([busybox, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    for applet in applets.stdout.split():
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text(PASSWD)
    (directory / "etc/group").write_text(GROUP)
    if os.geteuid() == 0:
        os.chown(directory / "home/user", 1000, 1000)


def make_bundle(name: str, directory: Path) -> None:
    """Make the bundle called name at directory, in place of what an earlier call made there."""
    source = Path(__file__).resolve().parent / name
    if not (source / "config.json").is_file():
        raise SystemExit(f"no bundle called {name}: {source}/config.json is missing")
    if directory.exists() and not (directory / "config.json").is_file():
        raise SystemExit(f"{directory} exists and isn't a bundle")
    shutil.rmtree(directory, ignore_errors=True)
    make_rootfs(directory / "rootfs")
    shutil.copy(source / "config.json", directory)
    if (source / "rootfs").is_dir():
        shutil.copytree(source / "rootfs", directory / "rootfs", dirs_exist_ok=True)


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: make.py NAME DIRECTORY")
    make_bundle(sys.argv[1], Path(sys.argv[2]))


if __name__ == "__main__":
    main()
