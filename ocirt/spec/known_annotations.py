# SPDX-License-Identifier: GPL-3.0-or-later
"""The annotations of config.json that change what ocirt does; docs/annotations.md explains them.

All other annotations are for others. crun's have its names and meaning (crun(1)).
"""

from __future__ import annotations

KEEP_GROUPS = "run.oci.keep_original_groups"
HOOKS_STDOUT = "run.oci.hooks.stdout"
HOOKS_STDERR = "run.oci.hooks.stderr"
PIDFD_RECEIVER = "run.oci.pidfd_receiver"
MOUNT_CONTEXT = "run.oci.mount_context_type"
DELEGATE_CGROUP = "run.oci.delegate-cgroup"
SECCOMP_STRICT = "run.oci.seccomp_fail_unknown_syscall"
# For the systemd cgroup driver only.
SYSTEMD_SUBGROUP = "run.oci.systemd.subgroup"
SYSTEMD_PROPERTY = "org.systemd.property."

#: Whoever takes annotations from images must know those that could do harm (features.md). A name
#: that ends in a dot stands for all it begins.
UNSAFE: tuple[str, ...] = (
    SYSTEMD_PROPERTY,
    DELEGATE_CGROUP,
    HOOKS_STDERR,
    HOOKS_STDOUT,
    KEEP_GROUPS,
    MOUNT_CONTEXT,
    PIDFD_RECEIVER,
    SYSTEMD_SUBGROUP,
)
#: Those that make ocirt stricter, or do no more than the configuration may do anyway.
SAFE: tuple[str, ...] = (SECCOMP_STRICT,)

#: The options of mount(8) that MOUNT_CONTEXT may name.
CONTEXTS = ("context", "fscontext", "defcontext", "rootcontext")
