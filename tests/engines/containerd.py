# SPDX-License-Identifier: GPL-3.0-or-later
"""containerd and its client ctr, with everything it keeps in a directory of the test's."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
import time
from itertools import takewhile
from pathlib import Path
from types import TracebackType

from tests.engines.jail import LIMIT_SECONDS, Jail
from tests.harness.runtime import Result
from tests.harness.terminal import Session

_CONFIG = """
version = 2
root = "{root}"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "/run/containerd/containerd.sock"
"""


class Containerd:
    """The daemon, while it is entered; ctr's namespace, and so the cgroups', is the test's."""

    def __init__(self, jail: Jail, place: Path, runtime: str, namespace: str) -> None:
        self._jail = jail
        self._place = place
        self._runtime = runtime
        self._words = ["ctr", "--namespace", namespace]
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Containerd:
        config = self._place / "config.toml"
        config.write_text(_CONFIG.format(root=self._place / "root"))
        log = self._place / "log"
        self._daemon = self._jail.spawn(["containerd", "--config", str(config)], str(log))
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.call("version").status:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._daemon is not None
        self._daemon.terminate()
        self._daemon.wait(LIMIT_SECONDS)

    def call(self, *args: str) -> Result:
        return self._jail.run([*self._words, *args])

    def run(self, *args: str) -> Result:
        """ctr run: options, the container's id, argv."""
        return self.call(*self._run(*args))

    def at_terminal(self, command: str, *args: str) -> Session:
        """Run a command by somebody who sits at a terminal."""
        words = self._run(*args) if command == "run" else [*command.split(), *args]
        return Session(self._jail.words(*self._words, *words))

    def _run(self, *args: str) -> list[str]:
        options = list(takewhile(lambda word: word.startswith("-"), args))
        rest = args[len(options) :]
        runtime = ["--runc-binary", self._runtime, "--snapshotter", "native"]
        return ["run", *runtime, *options, "docker.io/library/busybox:latest", *rest]

    def load(self, archive: Path) -> None:
        """Make the image "busybox" of a root filesystem's archive (image-spec, image layout)."""
        image = self._place / "image.tar"
        _write_image(image, archive.read_bytes())
        self.call("images", "import", "--snapshotter", "native", str(image)).checked()


def _write_image(path: Path, layer: bytes) -> None:
    media = "application/vnd.oci.image"
    with tarfile.open(path, "w") as tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))

        def blob(content: bytes, kind: str) -> dict[str, object]:
            digest = hashlib.sha256(content).hexdigest()
            add(f"blobs/sha256/{digest}", content)
            return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

        rootfs = {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]}
        settings = {"Env": ["PATH=/bin"], "Cmd": ["sh"]}
        config = {"architecture": "amd64", "os": "linux", "config": settings, "rootfs": rootfs}
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{media}.manifest.v1+json",
            "config": blob(json.dumps(config).encode(), f"{media}.config.v1+json"),
            "layers": [blob(layer, f"{media}.layer.v1.tar")],
        }
        entry = blob(json.dumps(manifest).encode(), f"{media}.manifest.v1+json")
        entry["annotations"] = {"io.containerd.image.name": "docker.io/library/busybox:latest"}
        index = {"schemaVersion": 2, "manifests": [entry]}
        add("index.json", json.dumps(index).encode())
        add("oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
