# SPDX-License-Identifier: GPL-3.0-or-later
"""What a plan depends on besides config.json: facts about the host and the caller's options."""

from __future__ import annotations

from dataclasses import dataclass

from ocirt.cgroups.layout import Layout


@dataclass(frozen=True, slots=True)
class Host:
    """The host as the runtime finds it.

    privileged: the runtime has CAP_SYS_ADMIN in the user namespace it runs in; in_user_namespace:
    that isn't the host's first one. last_cap is the kernel's highest capability, bounding the mask
    of those that the runtime could give away; selinux says that the host enforces or logs by it.
    """

    layout: Layout
    privileged: bool
    in_user_namespace: bool
    last_cap: int
    bounding: int
    uid: int
    selinux: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller of create asks for besides config.json.

    foreground: the container ends with the runtime (`run` without --detach).
    """

    container_id: str
    bundle: str
    no_pivot: bool = False
    no_new_keyring: bool = False
    console_socket: str | None = None
    foreground: bool = False
    pidfd_socket: str | None = None
    preserve_fds: int = 0
    rootless: bool = False
