# SPDX-License-Identifier: GPL-3.0-or-later
"""The mount options of config.md ("Linux mount options") as the kernel's flags.

Three tables say everything: plain flags, propagation, and the recursive ones of mount_setattr(2).
`features` lists the same tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from ocirt.kernel import constants as k

# Option -> (flags it sets, flags it clears). Of noatime, relatime and strictatime the last counts.
_FLAGS: dict[str, tuple[int, int]] = {
    "async": (0, k.MS_SYNCHRONOUS),
    "atime": (0, k.MS_NOATIME),
    "bind": (k.MS_BIND, 0),
    "defaults": (0, 0),
    "dev": (0, k.MS_NODEV),
    "diratime": (0, k.MS_NODIRATIME),
    "dirsync": (k.MS_DIRSYNC, 0),
    "exec": (0, k.MS_NOEXEC),
    "iversion": (k.MS_I_VERSION, 0),
    "lazytime": (k.MS_LAZYTIME, 0),
    "loud": (0, k.MS_SILENT),
    "mand": (k.MS_MANDLOCK, 0),
    "noatime": (k.MS_NOATIME, k.MS_STRICTATIME | k.MS_RELATIME),
    "nodev": (k.MS_NODEV, 0),
    "nodiratime": (k.MS_NODIRATIME, 0),
    "noexec": (k.MS_NOEXEC, 0),
    "noiversion": (0, k.MS_I_VERSION),
    "nolazytime": (0, k.MS_LAZYTIME),
    "nomand": (0, k.MS_MANDLOCK),
    "norelatime": (0, k.MS_RELATIME),
    "nostrictatime": (0, k.MS_STRICTATIME),
    "nosuid": (k.MS_NOSUID, 0),
    "nosymfollow": (k.MS_NOSYMFOLLOW, 0),
    "rbind": (k.MS_BIND | k.MS_REC, 0),
    "relatime": (k.MS_RELATIME, k.MS_NOATIME | k.MS_STRICTATIME),
    "remount": (k.MS_REMOUNT, 0),
    "ro": (k.MS_RDONLY, 0),
    "rw": (0, k.MS_RDONLY),
    "silent": (k.MS_SILENT, 0),
    "strictatime": (k.MS_STRICTATIME, k.MS_NOATIME | k.MS_RELATIME),
    "suid": (0, k.MS_NOSUID),
    "symfollow": (0, k.MS_NOSYMFOLLOW),
    "sync": (k.MS_SYNCHRONOUS, 0),
}

_PROPAGATION: dict[str, int] = {
    "private": k.MS_PRIVATE,
    "shared": k.MS_SHARED,
    "slave": k.MS_SLAVE,
    "unbindable": k.MS_UNBINDABLE,
    "rprivate": k.MS_PRIVATE | k.MS_REC,
    "rshared": k.MS_SHARED | k.MS_REC,
    "rslave": k.MS_SLAVE | k.MS_REC,
    "runbindable": k.MS_UNBINDABLE | k.MS_REC,
}

# Option -> (attributes it sets, attributes it clears), for the mount and all below it.
_RECURSIVE: dict[str, tuple[int, int]] = {
    "rro": (k.MOUNT_ATTR_RDONLY, 0),
    "rrw": (0, k.MOUNT_ATTR_RDONLY),
    "rnosuid": (k.MOUNT_ATTR_NOSUID, 0),
    "rsuid": (0, k.MOUNT_ATTR_NOSUID),
    "rnodev": (k.MOUNT_ATTR_NODEV, 0),
    "rdev": (0, k.MOUNT_ATTR_NODEV),
    "rnoexec": (k.MOUNT_ATTR_NOEXEC, 0),
    "rexec": (0, k.MOUNT_ATTR_NOEXEC),
    "rnodiratime": (k.MOUNT_ATTR_NODIRATIME, 0),
    "rdiratime": (0, k.MOUNT_ATTR_NODIRATIME),
    "rnosymfollow": (k.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "rsymfollow": (0, k.MOUNT_ATTR_NOSYMFOLLOW),
    # The access-time attributes are one field: it is cleared before a value is set.
    "rrelatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
    "rnorelatime": (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR__ATIME),
    "rnoatime": (k.MOUNT_ATTR_NOATIME, k.MOUNT_ATTR__ATIME),
    "ratime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
    "rstrictatime": (k.MOUNT_ATTR_STRICTATIME, k.MOUNT_ATTR__ATIME),
    "rnostrictatime": (k.MOUNT_ATTR_RELATIME, k.MOUNT_ATTR__ATIME),
}

# Options that runtimes act on themselves.
_TMPCOPYUP, _IDMAP, _RIDMAP = "tmpcopyup", "idmap", "ridmap"
_OWN = frozenset({_TMPCOPYUP, _IDMAP, _RIDMAP})

SUPPORTED: tuple[str, ...] = tuple(sorted({*_FLAGS, *_PROPAGATION, *_RECURSIVE, *_OWN}))

# Flag of mount(2) -> attribute of mount_setattr(2), for the flags that belong to a mount and not
# to a filesystem.
_ATTRIBUTES: tuple[tuple[int, int], ...] = (
    (k.MS_RDONLY, k.MOUNT_ATTR_RDONLY),
    (k.MS_NOSUID, k.MOUNT_ATTR_NOSUID),
    (k.MS_NODEV, k.MOUNT_ATTR_NODEV),
    (k.MS_NOEXEC, k.MOUNT_ATTR_NOEXEC),
    (k.MS_NODIRATIME, k.MOUNT_ATTR_NODIRATIME),
    (k.MS_NOSYMFOLLOW, k.MOUNT_ATTR_NOSYMFOLLOW),
    (k.MS_NOATIME, k.MOUNT_ATTR_NOATIME),
    (k.MS_STRICTATIME, k.MOUNT_ATTR_STRICTATIME),
    (k.MS_RELATIME, k.MOUNT_ATTR_RELATIME),
)
_ATIME_FLAGS = k.MS_NOATIME | k.MS_STRICTATIME | k.MS_RELATIME


@dataclass(frozen=True, slots=True)
class MountOptions:
    """A mount's options, parsed.

    flags and cleared are MS_ flags; propagation holds the MS_ values in the order given;
    recursive_set and recursive_clear are MOUNT_ATTR_ bits; data is what the filesystem gets;
    copy_up says that a tmpfs begins with what the directory below it holds, idmap that the mount's
    ids are mapped, idmap_recursive those of the mounts below it too.
    """

    flags: int = 0
    cleared: int = 0
    propagation: tuple[int, ...] = ()
    recursive_set: int = 0
    recursive_clear: int = 0
    data: tuple[str, ...] = ()
    copy_up: bool = False
    idmap: bool = False
    idmap_recursive: bool = False

    @property
    def is_bind(self) -> bool:
        """Whether the options make this a bind mount (config.md, "mounts")."""
        return bool(self.flags & k.MS_BIND)

    def attributes(self) -> tuple[int, int]:
        """Return flags and cleared as mount_setattr(2)'s attributes (to set, to clear)."""
        to_set = to_clear = 0
        for flag, attribute in _ATTRIBUTES:
            if self.flags & flag:
                to_set |= attribute
            if self.cleared & flag and not flag & _ATIME_FLAGS:
                to_clear |= attribute
        if self.flags & _ATIME_FLAGS or self.cleared & (k.MS_NOATIME | k.MS_STRICTATIME):
            to_clear |= k.MOUNT_ATTR__ATIME
        return to_set, to_clear


@lru_cache(maxsize=256)
def parse(options: tuple[str, ...]) -> MountOptions:
    """Sort mounts[].options into flags, propagation, recursive attributes and data.

    A later option overrides an earlier one; what isn't known goes to the filesystem as data, as
    the specification asks; empty strings (some engines write them) mean nothing. Pure, and asked
    about each mount by several parts of the plan: the answers are kept.
    """
    flags = cleared = recursive_set = recursive_clear = 0
    propagation: list[int] = []
    data: list[str] = []
    for option in options:
        if option in _FLAGS:
            on, off = _FLAGS[option]
            flags = flags & ~off | on
            cleared = cleared & ~on | off
        elif option in _PROPAGATION:
            propagation.append(_PROPAGATION[option])
        elif option in _RECURSIVE:
            on, off = _RECURSIVE[option]
            recursive_set = recursive_set & ~off | on
            recursive_clear = recursive_clear & ~on | off
        elif option and option not in _OWN:
            data.append(option)
    return MountOptions(
        flags,
        cleared,
        tuple(propagation),
        recursive_set,
        recursive_clear,
        tuple(data),
        copy_up=_TMPCOPYUP in options,
        idmap=_IDMAP in options or _RIDMAP in options,
        idmap_recursive=_RIDMAP in options,
    )
