# SPDX-License-Identifier: GPL-3.0-or-later
"""Id-mapped mounts (config.md, "Mounts": uidMappings, gidMappings, idmap, ridmap).

The kernel takes a mount's mappings from a user namespace (mount_setattr(2), MOUNT_ATTR_IDMAP), so
one is made for it, by a child that does nothing else and is gone afterwards.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ocirt.kernel import constants as k
from ocirt.kernel.mounts import mount_setattr
from ocirt.parts.idmap import write_maps
from ocirt.parts.locked_view import throwaway
from ocirt.spec.model import IDMapping


@dataclass(frozen=True, slots=True)
class IdMap:
    """What a mount's ids become: container_id on the filesystem shows as host_id."""

    uids: tuple[IDMapping, ...]
    gids: tuple[IDMapping, ...]
    recursive: bool

    def apply(self, tree: int) -> None:
        """Map the ids of a detached mount, and of those below it if recursive. Raises OSError."""
        with _user_namespace(self.uids, self.gids) as namespace:
            flags = k.AT_RECURSIVE if self.recursive else 0
            try:
                mount_setattr(tree, flags, attr_set=k.MOUNT_ATTR_IDMAP, user_namespace=namespace)
            except OSError as e:
                words = f"map ids: {os.strerror(e.errno or 0).lower()}"
                raise OSError(e.errno, f"{words}; can this filesystem be id-mapped?") from None


@contextmanager
def _user_namespace(uids: tuple[IDMapping, ...], gids: tuple[IDMapping, ...]) -> Iterator[int]:
    """Make a user namespace with these mappings; yields its descriptor."""
    with throwaway(k.CLONE_NEWUSER) as (pid, _):
        write_maps(pid, uids, gids)
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
