# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of a container's creation and start: one list, from a config and a host.

Read build() from top to bottom to know what ocirt does, when, and in which process. Nothing here
touches the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from ocirt.cgroups import manager
from ocirt.cgroups.layout import Mode
from ocirt.cgroups.manager import CgroupPaths
from ocirt.cgroups.resources import Phase, Write
from ocirt.parts import (
    cgroup,
    credentials,
    devices,
    executable,
    hooks,
    identity,
    idmap,
    intelrdt,
    limits,
    lsm,
    masks,
    mounts,
    namespaces,
    netdevices,
    process,
    rootfs,
    seccomp,
    stdio,
    terminal,
)
from ocirt.parts.mount_options import MountOptions
from ocirt.parts.step import Action, Side, Step
from ocirt.plan.host import Host, Options
from ocirt.plan.refusals import refuse
from ocirt.spec.known_annotations import PIDFD_RECEIVER
from ocirt.spec.model import Config, NamespaceType

_R, _J, _I, _S = Side.RUNTIME, Side.JOINER, Side.INIT, Side.STUB


@dataclass(frozen=True, slots=True)
class Plan:
    """create's steps, then start's: those of the stub and the poststart hooks."""

    create: tuple[Step, ...]
    start: tuple[Step, ...]
    cgroup: CgroupPaths
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Builder:
    """The arguments of build(), and what several of its parts derive from them."""

    config: Config
    host: Host
    options: Options
    rootfs: str
    namespaces: namespaces.Namespaces
    paths: CgroupPaths
    writes: tuple[Write, ...]
    mounts: mounts.Table

    @property
    def own_mounts(self) -> bool:
        return NamespaceType.MOUNT in self.namespaces.new

    @property
    def host_mounts(self) -> bool:
        return not self.namespaces.owns(NamespaceType.MOUNT)

    @property
    def pidfd_socket(self) -> tuple[str, str] | None:
        """The path of the socket that gets init's pidfd, and where it was asked for."""
        if self.options.pidfd_socket is not None:
            return self.options.pidfd_socket, ""
        path = self.config.annotations.get(PIDFD_RECEIVER)
        return None if path is None else (path, f"/annotations/{PIDFD_RECEIVER}")

    @property
    def user_namespace(self) -> bool:
        return self.namespaces.owns(NamespaceType.USER)

    @property
    def shares_memory(self) -> bool:
        """Whether init may share the runtime's memory until it executes the stub.

        What is non-dumpable is the memory: without privilege over it, the runtime would lock
        itself out of its own /proc files.
        """
        host = self.host
        return host.privileged and not host.in_user_namespace and not self.user_namespace


def build(config: Config, host: Host, options: Options) -> Plan:
    """Return the plan for a valid config. Raises OcirtError for what can't work together."""
    root = config.root.path if config.root else ""
    paths = manager.paths(config.linux.cgroups_path, options.container_id, host.layout)
    writes = manager.writes(config.linux.resources, host.layout)
    b = _Builder(
        config,
        host,
        options,
        os.path.normpath(os.path.join(options.bundle, root)),
        namespaces.Namespaces.of(config),
        paths,
        writes,
        mounts.table(config),
    )
    refuse(config, host, b.namespaces, paths)
    stub = tuple(_stub(b))
    create = (
        *_prepare(b),
        *_processes(b),
        *_isolate(b),
        *_filesystem(b),
        *_hooks(b),
        *_seal(b),
        *_wait(b, stub),
    )
    return Plan(
        create,
        (*stub, *hooks.poststart(config)),
        paths,
        (
            *manager.warnings(config.linux.resources, host.layout),
            *mounts.warnings(b.mounts),
            *_label_warnings(b),
        ),
    )


def _prepare(b: _Builder) -> Iterator[Step]:
    """The runtime, in the host: whatever can fail without a container."""
    yield Step(_R, f"look at the rootfs {b.rootfs}", "/root/path", rootfs.CheckRootfs())
    if b.config.linux.seccomp is not None:
        compile_filter = seccomp.CompileFilter(b.config.linux.seccomp)
        yield Step(_R, "compile the seccomp filter", "/linux/seccomp", compile_filter)
    for kind, path, pointer in b.namespaces.joined:
        yield Step(
            _R, f"open the {kind} namespace {path}", pointer, namespaces.OpenNamespace(kind, path)
        )
    if b.config.process is not None:
        yield from lsm.early_steps(b.config.process)
    yield from netdevices.early_steps(b.config.linux.net_devices)
    if b.options.console_socket is not None:
        path = b.options.console_socket
        connect = terminal.ConnectConsole(path)
        yield Step(_R, f"connect to the console socket {path}", "/process/terminal", connect)
    if b.pidfd_socket is not None:
        path, pointer = b.pidfd_socket
        connect_pidfd = process.ConnectPidfdSocket(path)
        yield Step(_R, f"connect to the pidfd socket {path}", pointer, connect_pidfd)
    yield from mounts.source_steps(
        b.config,
        b.mounts,
        b.options.bundle,
        host_opens_sources=b.host_mounts or (b.user_namespace and b.host.privileged),
        locked=b.user_namespace,
    )
    yield from intelrdt.make_steps(b.config.linux.intel_rdt, b.options.container_id)
    yield from hooks.output_steps(b.config)
    yield Step(_R, "prepare the stub", "", process.PrepareStub())
    yield Step(
        _R,
        f"make the cgroup {b.config.linux.cgroups_path or b.options.container_id}",
        "/linux/cgroupsPath",
        cgroup.MakeCgroup(b.paths, b.host.layout, optional=b.options.rootless),
        undo="kill what is left in the cgroup and remove it",
    )
    if b.host_mounts:
        yield Step(
            _R,
            f"bind the rootfs {b.rootfs} onto itself, in the host's mount namespace",
            "/root/path",
            rootfs.BindInHost(),
            undo="unmount it with all that is below",
        )
    if _borrows_memory_cgroup(b):
        own = cgroup.OpenOwnMemoryCgroup(b.host.layout)
        yield Step(_R, "open the runtime's own memory cgroup", "/linux/cgroupsPath", own)
    if any(w.phase is Phase.EARLY for w in b.writes):
        early = cgroup.WriteLimits(b.paths, b.writes, Phase.EARLY)
        yield Step(_R, "write resource limits", "/linux/resources", early)


def _processes(b: _Builder) -> Iterator[Step]:
    """Init and its namespaces; docs/maintainers.md says why in this order."""
    ns = b.namespaces
    if not ns.needs_joiner:
        new = " ".join(sorted(ns.new - ns.after_identity)) or "no"
        yield Step(
            _R,
            f"clone init with new namespaces: {new}",
            "/linux/namespaces",
            process.CloneInit(ns.clone_flags, shared=b.shares_memory),
            undo="kill init",
        )
        if NamespaceType.USER in ns.new:
            yield _id_maps(b)
            yield Step(_I, "become root of the user namespace", "", namespaces.BecomeRoot())
        yield Step(_I, "become non-dumpable", "", process.HideFromContainer())
    else:
        yield Step(
            _R,
            "clone the joiner, which enters namespaces",
            "/linux/namespaces",
            process.CloneJoiner(),
            undo="kill it",
        )
        yield from _join(b)
        new = " ".join(sorted(ns.new - ns.after_identity - {"user", "time"})) or "no"
        yield Step(
            _J,
            f"clone init with new namespaces: {new}",
            "/linux/namespaces",
            process.CloneInit(ns.clone_flags),
            undo="kill init",
        )
        if b.host.layout.mode is Mode.V2:
            put = cgroup.PutIntoCgroup(b.paths)
            yield Step(_R, "put init into its cgroup", "/linux/cgroupsPath", put)
    adjustment = b.config.process.oom_score_adj if b.config.process else None
    if adjustment is not None:
        score = limits.SetOomScoreAdj(adjustment, b.options.rootless)
        yield Step(_R, f"set oom_score_adj to {adjustment}", "/process/oomScoreAdj", score)
    yield from intelrdt.assign_steps(b.config.linux.intel_rdt)


def _join(b: _Builder) -> Iterator[Step]:
    """The joiner: with privilege the user namespace last, for there is no way back from it."""
    ns = b.namespaces
    # The mount namespace changes what paths mean: last.
    wanted = sorted(ns.joined, key=lambda entry: entry[0] is NamespaceType.MOUNT)
    others = [
        Step(_J, f"join the {kind} namespace {path}", pointer, namespaces.JoinNamespace(kind))
        for kind, path, pointer in wanted
        if kind is not NamespaceType.USER
    ]
    hide = Step(_J, "become non-dumpable", "", process.HideFromContainer())
    if b.host.privileged:
        yield from (hide, *others, *_enter_user(b), *_time(b))
    else:
        yield from (*_enter_user(b), *_time(b), hide, *others)


def _time(b: _Builder) -> Iterator[Step]:
    if NamespaceType.TIME not in b.namespaces.new:
        return
    unshare = namespaces.UnshareNamespaces(frozenset({NamespaceType.TIME}))
    yield Step(_J, "unshare the time namespace", "/linux/namespaces", unshare)
    offsets = b.config.linux.time_offsets
    if offsets:
        action = namespaces.TimeOffsets(offsets.get("monotonic"), offsets.get("boottime"))
        side = _R if b.host.privileged else _J
        yield Step(side, "set the clocks' offsets", "/linux/timeOffsets", action)


def _enter_user(b: _Builder) -> Iterator[Step]:
    ns = b.namespaces
    if NamespaceType.USER in ns.new:
        unshare = namespaces.UnshareNamespaces(frozenset({NamespaceType.USER}))
        yield Step(_J, "unshare the user namespace", "/linux/namespaces", unshare)
        yield _id_maps(b)
    else:
        for kind, path, pointer in ns.joined:
            if kind is NamespaceType.USER:
                join = namespaces.JoinNamespace(kind)
                yield Step(_J, f"join the user namespace {path}", pointer, join)
    if b.user_namespace:
        yield Step(_J, "become root of the user namespace", "", namespaces.BecomeRoot())


def _id_maps(b: _Builder) -> Step:
    linux = b.config.linux
    action = idmap.WriteIdMaps(linux.uid_mappings, linux.gid_mappings, b.host.privileged)
    return Step(_R, "map user and group ids", "/linux/uidMappings", action)


def _isolate(b: _Builder) -> Iterator[Step]:
    """Init, in its new namespaces, before it touches the filesystem."""
    borrow = _borrows_memory_cgroup(b)
    words = "join the cgroup" if borrow else "join the cgroup, but for memory"
    yield Step(_I, words, "/linux/cgroupsPath", cgroup.JoinCgroup(memory_too=borrow))
    late = b.namespaces.after_identity
    if late:
        words = f"unshare namespaces: {' '.join(sorted(late))}"
        yield Step(_I, words, "/linux/namespaces", namespaces.UnshareNamespaces(late))
    if borrow:
        leave = cgroup.LeaveMemoryCgroup()
        yield Step(_I, "leave the memory cgroup for now", "/linux/cgroupsPath", leave)
    yield from cgroup.ownership_steps(
        b.config,
        b.host.layout,
        new_namespace=NamespaceType.CGROUP in b.namespaces.new,
        optional=b.options.rootless,
    )
    yield Step(_I, "start a session", "", identity.NewSession())
    if not b.options.no_new_keyring:
        yield Step(_I, "join a new session keyring", "", identity.NewKeyring())
    if NamespaceType.NETWORK in b.namespaces.new:
        yield Step(_I, "bring lo up", "/linux/namespaces", identity.LoopbackUp())
    yield from netdevices.steps(b.config.linux.net_devices)
    if b.config.hostname:
        host = identity.SetHostname(b.config.hostname)
        yield Step(_I, f"set the hostname to {b.config.hostname}", "/hostname", host)
    if b.config.domainname:
        domain = identity.SetDomainname(b.config.domainname)
        yield Step(_I, f"set the domain name to {b.config.domainname}", "/domainname", domain)


def _borrows_memory_cgroup(b: _Builder) -> bool:
    """On v1 init joins the memory cgroup last; a new cgroup namespace needs it there before."""
    return b.host.layout.mode is not Mode.V2 and NamespaceType.CGROUP in b.namespaces.new


def _filesystem(b: _Builder) -> Iterator[Step]:
    """The mount table in the order given, then devices, below the rootfs."""
    if b.own_mounts:
        private = rootfs.PrivateMounts(b.config.linux.rootfs_propagation)
        yield Step(_I, "cut mounts off from the host's", "/linux/rootfsPropagation", private)
    if b.host_mounts:
        yield Step(_I, f"open the rootfs {b.rootfs}", "/root/path", rootfs.OpenRootfs())
    else:
        bind = rootfs.BindRootfs(own_namespace=b.own_mounts)
        yield Step(_I, f"bind the rootfs {b.rootfs} onto itself", "/root/path", bind)
    yield from mounts.steps(
        b.mounts,
        b.options.bundle,
        mount_cgroup=partial(_mount_cgroup, b),
        context=mounts.context_option(b.config) if b.host.selinux else "",
        own_sysfs=not b.user_namespace or NamespaceType.NETWORK in b.namespaces.new,
    )
    yield from devices.steps(b.config, bind=b.user_namespace or b.host.in_user_namespace)
    if b.config.process is not None and b.config.process.terminal:
        yield from terminal.steps(b.config.process)


def _mount_cgroup(b: _Builder, destination: str, options: MountOptions) -> Action:
    return cgroup.MountCgroup(
        destination,
        options,
        b.host.layout,
        manager.mount_sources(b.paths, b.host.layout),
        b.namespaces.owns(NamespaceType.CGROUP),
    )


def _hooks(b: _Builder) -> Iterator[Step]:
    """What others add to the environment: namespaces and mounts exist, / is still the host's."""
    wanted = b.config.hooks
    yield from hooks.steps(_R, "prestart", wanted.prestart, "creating")
    yield from hooks.steps(_R, "createRuntime", wanted.create_runtime, "creating")
    yield from hooks.steps(_I, "createContainer", wanted.create_container, "creating")


def _seal(b: _Builder) -> Iterator[Step]:
    """Close what the container must not change, then make the rootfs its root."""
    for key, value in b.config.linux.sysctl.items():
        pointer = f"/linux/sysctl/{key.replace('~', '~0').replace('/', '~1')}"
        yield Step(_I, f"set sysctl {key}", pointer, identity.SetSysctl(key, value))
    yield from masks.steps(b.config)
    if b.config.process is not None:
        p = b.config.process
        find = executable.FindExecutable(p.args[0], p.env, p.cwd)
        cwd = executable.OpenWorkingDirectory(p.cwd)
        yield Step(_I, f"open the working directory {p.cwd}", "/process/cwd", cwd)
        yield Step(_I, f"find the program {p.args[0]}", "/process/args/0", find)
        if p.terminal:
            use = terminal.UseTerminal()
            yield Step(_I, "make the terminal stdio", "/process/terminal", use)
        uid = p.user.uid
        yield Step(_I, f"give stdio to user {uid}", "/process/user", stdio.OwnStdio(uid))
    yield from mounts.read_only_steps(b.mounts)
    if b.config.root is not None and b.config.root.readonly:
        yield Step(_I, "make the rootfs read-only", "/root/readonly", rootfs.ReadOnlyRoot())
    if not b.own_mounts:
        yield Step(_I, "change root to the rootfs", "/root/path", rootfs.Chroot())
    elif b.options.no_pivot:
        yield Step(_I, "move the rootfs to / and change root", "/root/path", rootfs.MoveRoot())
    else:
        yield Step(_I, "pivot the root and unmount the host's", "/root/path", rootfs.PivotRoot())
    propagation = b.config.linux.rootfs_propagation
    if propagation and b.own_mounts:
        final = rootfs.RootPropagation(propagation)
        words = f"set the root's propagation to {propagation}"
        yield Step(_I, words, "/linux/rootfsPropagation", final)
    if b.config.process is not None:
        enter = executable.EnterWorkingDirectory()
        yield Step(_I, "enter the working directory", "/process/cwd", enter)


def _wait(b: _Builder, stub: tuple[Step, ...]) -> Iterator[Step]:
    """Init becomes the stub; what would have hit our own code is limited only now."""
    yield Step(_I, "join the memory cgroup", "/linux/cgroupsPath", cgroup.JoinMemoryCgroup())
    become = process.BecomeStub(3 + b.options.preserve_fds, stub, b.options.foreground)
    yield Step(_I, "become the stub that waits for start", "", become)
    late = [w for w in b.writes if w.phase is Phase.LATE]
    if late:
        action = cgroup.WriteLimits(b.paths, b.writes, Phase.LATE)
        yield Step(_R, "write the remaining resource limits", "/linux/resources", action)
    for index, limit in enumerate(b.config.process.rlimits if b.config.process else ()):
        pointer = f"/process/rlimits/{index}"
        yield Step(_R, f"set {limit.type}", pointer, limits.SetRlimit(limit))
    if b.pidfd_socket is not None:
        yield Step(_R, "send init's pidfd", "", process.SendPidfd())


def _stub(b: _Builder) -> Iterator[Step]:
    """What happens between `start` and the program."""
    yield Step(_S, "wait for start", "", process.WaitForStart())
    p = b.config.process
    if p is None:
        return  # start refuses such a container
    yield from hooks.steps(_S, "startContainer", b.config.hooks.start_container, "created")
    yield from credentials.steps(
        b.config,
        p,
        available=(1 << b.host.last_cap + 1) - 1 if b.user_namespace else b.host.bounding,
        last_cap=b.host.last_cap,
        first_free_fd=3 + b.options.preserve_fds,
        dies_with_parent=b.options.foreground,
    )


def _label_warnings(b: _Builder) -> Iterator[str]:
    if b.config.linux.mount_label and not b.host.selinux:
        yield "/linux/mountLabel: this host has no SELinux; left out"
