"""What a systemd unit of ours must hold."""

from __future__ import annotations

from collections import defaultdict

_WANTED = {
    "User": "medfed",
    "Restart": "on-failure",
    "KillSignal": "SIGTERM",
    "LimitCORE": "0",
    "MemorySwapMax": "0",
    "UMask": "0077",
    "StateDirectoryMode": "0700",
    "ProtectSystem": "strict",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX AF_NETLINK",
}
_ON = (
    "NoNewPrivileges",
    "ProtectHome",
    "PrivateTmp",
    "PrivateDevices",
    "PrivateUsers",
    "LockPersonality",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "RestrictNamespaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "RemoveIPC",
)
_LIMITS = ("CPUQuota", "MemoryMax", "TasksMax", "LimitNOFILE", "TimeoutStopSec", "RestartSec")


def settings(text: str) -> dict[str, list[str]]:
    """The values of each key, in order, whatever its section."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for line in text.splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found[key].append(value)
    return dict(found)


def unit_problems(text: str, party: str) -> list[str]:
    """What is wrong with the unit of this party."""
    found = settings(text)
    folder = f"/var/lib/medfed/{party}"
    wanted = {
        **_WANTED,
        **dict.fromkeys(_ON, "yes"),
        "ExecStart": f"/opt/medfed/bin/medfed {party} start --folder {folder}",
        "StateDirectory": f"medfed/{party}",
        "ReadWritePaths": folder,
        "ReadOnlyPaths": "-/srv/medfed",
    }
    problems = [f"{key} is not {value!r}" for key, value in wanted.items() if found.get(key) != [value]]
    problems += [f"{key} sets no limit" for key in _LIMITS if found.get(key, ["infinity"])[-1] in {"infinity", "0"}]
    if found.get("SystemCallFilter") != ["@system-service", "~@privileged"]:
        problems.append("SystemCallFilter is wider")
    return problems
