# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking a container down to nothing: what delete does, and a start whose poststart hook failed."""

from __future__ import annotations

import logging

from ocirt.errors import OcirtError
from ocirt.runtime import journal
from ocirt.runtime.hooks import kept_config, run_poststop
from ocirt.runtime.store import Entry, Record

_log = logging.getLogger("ocirt")


def destroy(entry: Entry, record: Record | None) -> None:
    """Undo everything the journal names, free the id, run the poststop hooks.

    Raises OcirtError if something can't be removed; the state then stays for another try.
    """
    config = None
    if record is not None and record.poststop:
        try:
            config = kept_config(entry)
        except (OcirtError, OSError) as e:
            _log.warning("the poststop hooks can't be run: %s", e)
    journal.undo_all(entry, complete=record is not None and record.complete)
    entry.remove()
    if record is not None and config is not None:
        run_poststop(config, record)
