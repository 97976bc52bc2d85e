# SPDX-License-Identifier: GPL-3.0-or-later
"""What there is to say about the OCI runtime-tools validation programs, version 0.9 and later."""

from __future__ import annotations

SPECIFICATION_WINS = "The specification says otherwise, and wins: "
WRONG = "Wrong in itself: "
KERNEL = "This kernel hasn't the files: "

# Program -> why no runtime passes it here, or why ocirt doesn't.
NOTES = {
    "delete_resources": WRONG + "compares the addresses of two numbers",
    "hooks": WRONG + "expects a text that none of its hooks writes",
    "hooks_stdin": SPECIFICATION_WINS
    + "during create the state is `creating`; the program wants `created` in a prestart hook",
    "linux_cgroups_blkio": KERNEL + "blkio.leaf_weight",
    "linux_cgroups_relative_blkio": KERNEL + "blkio.leaf_weight",
    "linux_cgroups_hugetlb": KERNEL + "hugetlb on cgroup v1",
    "linux_cgroups_relative_hugetlb": KERNEL + "hugetlb on cgroup v1",
    "linux_cgroups_network": KERNEL + "net_cls and net_prio",
    "linux_cgroups_relative_network": KERNEL + "net_cls and net_prio",
    "linux_cgroups_memory": KERNEL + "limits of kernel memory are no more",
    "linux_cgroups_relative_memory": KERNEL + "limits of kernel memory are no more",
    "linux_cgroups_pids": WRONG + "compares the addresses of two numbers",
    "linux_cgroups_relative_pids": WRONG + "compares the addresses of two numbers",
    "linux_process_apparmor_profile": "Needs AppArmor, with a profile loaded; there all three pass",
    "misc_props": WRONG + "its first container's program isn't in the root file system",
    "pidfile": WRONG + "sends a signal to a program that may have ended",
    "poststart_fail": SPECIFICATION_WINS
    + "since 1.3 a failing poststart hook is an error; the program wants a warning",
    "prestart": SPECIFICATION_WINS
    + "prestart hooks run in create; the program wants them in start",
    "process_capabilities": "Needs CAP_SYS_RESOURCE; with it all three pass",
    "process_capabilities_fail": SPECIFICATION_WINS
    + "an unknown capability is a warning; the program wants an error",
    "process_rlimits": WRONG
    + "the Go runtime it is built with raises the soft limit of open files itself",
    "start": SPECIFICATION_WINS
    + "start without a process is an error; the program says so, and asserts the opposite",
}
