"""Consul, built from its Go module."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymicro_testing.servers._cache import cached, make_once, run
from pymicro_testing.servers._native import HOST, PASSWORD, MissingServerError, NativeServer, find_program, free_port

_VERSION = "1.20.1"
_CACHED = f"consul-{_VERSION}"
_MODULE = "github.com/hashicorp/consul"
# Checksums of the module and of its go.mod; Go checks the modules that they name with its checksum database.
_SUMS = ("h1:ZC4hZnJKLVTRIsC+3A4ikN0R+MmETvb2bpjeqOlaGvI=", "h1:znTwsjmwgvP2UfH82tdN7hvBqlHJhE0TSG1rx45kvfs=")
_HOW = "install it, or build it: python -m pymicro_testing.servers --install consul"
_GO = "building it needs Go, from https://go.dev/dl"


class ConsulServer(NativeServer):
    """A Consul of one node; `settings` are names of its configuration with values in JSON. `password` is a token."""

    name = "consul"
    large = True
    version = _VERSION
    known = ("", PASSWORD)
    patience = 40.0
    answer = re.compile(rb'"Node"')  # it has a leader, and has entered itself

    @classmethod
    def find(cls) -> str:
        """See `NativeServer.find`."""
        kept = cached(_CACHED)
        return str(kept) if kept.exists() else find_program(cls.name, "consul", how=_HOW)

    @classmethod
    def install(cls) -> str:
        """See `NativeServer.install`. Builds it with Go: minutes, once."""
        try:
            return cls.find()
        except MissingServerError:
            return str(make_once(_CACHED, _build))

    def command(self) -> Sequence[str]:
        """See `NativeServer.command`."""
        self.question = f"GET /v1/catalog/nodes HTTP/1.0\r\nX-Consul-Token: {self.password}\r\n\r\n".encode()
        tls = self.certificates is not None
        config: dict[str, Any] = {
            "server": True,
            "bootstrap_expect": 1,
            "node_name": f"{self.name}-{self.port}",
            "data_dir": str(self.data),
            "bind_addr": HOST,
            "client_addr": HOST,
            "performance": {"raft_multiplier": 1},
            "disable_update_check": True,
            "ports": {
                "http": -1 if tls else self.port,
                "https": self.port if tls else -1,
                "dns": -1,
                "grpc": -1,
                "grpc_tls": -1,
                "server": free_port(),
                "serf_lan": free_port(),
                "serf_wan": -1,
            },
        }
        if self.certificates is not None:
            config["tls"] = {
                "https": {
                    "ca_file": str(self.certificates.authority),
                    "cert_file": str(self.certificates.server_certificate),
                    "key_file": str(self.certificates.server_key),
                    "verify_incoming": True,
                }
            }
        if self.credentials:
            config["acl"] = {
                "enabled": True,
                "default_policy": "deny",
                "tokens": {"initial_management": self.password, "agent": self.password},
            }
        config |= {name: json.loads(value) for name, value in self.settings.items()}
        path = self.folder / "consul.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        return [self.program, "agent", f"-config-file={path}"]


def _build(folder: Path) -> Path:
    go = find_program("consul", "go", how=_GO)
    (folder / "go.mod").write_text(f"module servers\n\ngo 1.22\n\nrequire {_MODULE} v{_VERSION}\n", encoding="utf-8")
    sums = f"{_MODULE} v{_VERSION} {_SUMS[0]}\n{_MODULE} v{_VERSION}/go.mod {_SUMS[1]}\n"
    (folder / "go.sum").write_text(sums, encoding="utf-8")
    # The import keeps the requirement; the tag keeps the file out of every build.
    (folder / "tools.go").write_text(f'//go:build tools\n\npackage servers\n\nimport _ "{_MODULE}"\n', encoding="utf-8")
    run("consul", [go, "build", "-ldflags=-s -w", "-o", "consul", _MODULE], folder, GOFLAGS="-mod=mod")
    return folder / "consul"
