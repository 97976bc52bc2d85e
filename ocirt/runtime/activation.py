# SPDX-License-Identifier: GPL-3.0-or-later
"""Socket activation: descriptors that a service manager hands over (sd_listen_fds(3)).

They come first, from 3 on, before those of --preserve-fds; the program is told so as pid 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ocirt.errors import OcirtError
from ocirt.spec.model import Config


def listen_fds(environ: Mapping[str, str], pid: int) -> int:
    """Return how many descriptors are meant for this process, whose pid is given.

    Without LISTEN_PID they are, as with crun; with another's they aren't, as with runc. Raises
    OcirtError for a number that is none.
    """
    text = environ.get("LISTEN_FDS", "")
    if not text or environ.get("LISTEN_PID", str(pid)) != str(pid):
        return 0
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise OcirtError(f"LISTEN_FDS={text!r} in the environment is no number of descriptors")
    return int(text)


def with_listen_fds(config: Config, count: int, names: str | None) -> Config:
    """Return the config with what tells the program of its descriptors; names is LISTEN_FDNAMES."""
    if not count or config.process is None:
        return config
    env = [*config.process.env, f"LISTEN_FDS={count}", "LISTEN_PID=1"]
    if names is not None:
        env.append(f"LISTEN_FDNAMES={names}")
    return replace(config, process=replace(config.process, env=tuple(env)))
