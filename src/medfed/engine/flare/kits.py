"""The workspaces from which FLARE's processes start: what of FLARE's start-up kits is kept, and how it is hardened."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from medfed.engine.deployed.folders import SiteFolder
from medfed.engine.flare.authority import ADMINISTRATOR, ORGANISATION, Kind
from medfed.engine.flare.health import answered
from medfed.engine.flare.job import CONTROLLER, EXECUTOR
from medfed.engine.flare.writing import private_folder

__all__ = [
    "ADMINISTRATOR",
    "admin_kit",
    "client_command",
    "harden_kit",
    "install_kit",
    "server_command",
    "server_workspace",
]

_KEPT = {
    Kind.SERVER: ("fed_server.json", "server.crt", "server.key", "rootCA.pem"),
    Kind.CLIENT: ("fed_client.json", "client.crt", "client.key", "rootCA.pem"),
    Kind.ADMIN: ("fed_admin.json", "client.crt", "client.key", "rootCA.pem"),
}
_RIGHTS = (
    *("submit_job", "clone_job", "manage_job", "download_job", "view", "operate"),
    *("shell_commands", "byoc", "server-predeployed-flwr"),
)
_COMMUNICATION = {
    "allow_adhoc_conns": False,
    "streaming_chunk_size": 2**20,
    "streaming_window_size": 4 * 2**20,
    "streaming_ack_interval": 2 * 2**20,
    "streaming_max_blob_size": 64 * 2**20,
}
"""What a stream keeps on its way at a time, in bytes, and the largest message of FLARE's own."""

_NOTHING = dict.fromkeys(_RIGHTS, "none")
_SUBMITTER = _NOTHING | {"submit_job": "any", "manage_job": "n:submitter", "view": "any"}


def install_kit(built: Path, kit: Path, kind: Kind) -> None:
    """Take over a start-up kit of FLARE's, in place of an earlier one, and harden it.

    Only the certificates, the private key and the address are kept: scripts start nothing here.
    """
    private_folder(kit)
    startup = kit / ".startup"
    shutil.rmtree(startup, ignore_errors=True)
    startup.mkdir(mode=0o700)
    for name in _KEPT[kind]:
        shutil.copyfile(built / "startup" / name, startup / name)
        (startup / name).chmod(0o600)
    shutil.rmtree(kit / "startup", ignore_errors=True)
    startup.rename(kit / "startup")
    private_folder(kit / "local")
    for given in (built / "local").glob("*.default"):
        shutil.copyfile(given, kit / "local" / given.name)
    harden_kit(kit, kind)


def harden_kit(kit: Path, kind: Kind) -> None:
    """Write what a kit allows, for the folder where it stands now; to be called before each start.

    Nobody may bring code, run commands at a site, or read its logs; a job is made of MedFed's own classes alone.
    """
    private_folder(kit / "transfer")
    if kind is Kind.ADMIN:
        _change(kit / "startup" / "fed_admin.json", "admin", {"host": "localhost"})
        return
    server = kind is Kind.SERVER
    if server:
        private_folder(kit / "jobs-storage")
        _change(kit / "startup" / "fed_server.json", "servers", {"admin_host": "localhost"})
    lead = _SUBMITTER | {"operate": "any"} if server else _SUBMITTER
    permissions = {"project_admin": _NOTHING, "org_admin": _NOTHING, "lead": lead, "member": _NOTHING}
    _write(kit / "local" / "authorization.json", {"format_version": "1.0", "permissions": permissions})
    _write(kit / "local" / "resources.json", _server_resources(kit) if server else _client_resources(kit))
    _write(kit / "local" / "comm_config.json", _COMMUNICATION)
    for name in ("authorization", "resources"):
        (kit / "local" / f"{name}.json.default").unlink(missing_ok=True)


def server_workspace(coordinator: Path) -> Path:
    """The workspace of the coordinator's FLARE server."""
    return coordinator / "flare" / "server"


def admin_kit(coordinator: Path) -> Path:
    """The kit with which the coordinator opens a session at its server, as ADMINISTRATOR."""
    return coordinator / "flare" / "admin"


def server_command(coordinator: Path) -> list[str]:
    """Write anew what the server allows; the command line that starts it."""
    kit = server_workspace(coordinator)
    harden_kit(kit, Kind.SERVER)
    return [*_python("server.server_train"), "-m", str(kit), "-s", "fed_server.json", *_settings()]


def client_command(site: Path) -> list[str]:
    """Write anew what a site's FLARE client allows; the command line that starts it."""
    folder = SiteFolder.open(site)
    harden_kit(folder.flare, Kind.CLIENT)
    name = f"uid={folder.site}"
    return [*_python("client.client_train"), "-m", str(folder.flare), "-s", "fed_client.json", *_settings(name)]


def _python(module: str) -> list[str]:
    return [sys.executable, "-u", "-m", f"nvflare.private.fed.app.{module}"]


def _settings(*more: str) -> list[str]:
    return ["--set", "secure_train=true", *more, f"org={ORGANISATION}", "config_folder="]


def _limits(allowed: str) -> dict[str, Any]:
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [allowed],
        "allow_log_streaming": False,
    }


def _server_resources(kit: Path) -> dict[str, Any]:
    jobs = str(kit.resolve() / "jobs-storage" / "jobs")
    return _limits(CONTROLLER) | {
        "servers": [
            {"admin_storage": "transfer", "max_num_clients": 10000, "heart_beat_timeout": 600, "admin_timeout": 10.0}
        ],
        "components": [
            {
                "id": "job_scheduler",
                "path": "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
                "args": {"max_jobs": 4},
            },
            {
                "id": "job_manager",
                "path": "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
                "args": {"uri_root": jobs, "job_store_id": "job_store"},
            },
            {
                "id": "doorkeeper",
                "path": "medfed.engine.flare.doorkeeper.Doorkeeper",
                "args": {
                    "revoked": str(kit.resolve().parents[1] / "revoked.json"),
                    "noted": str(kit.resolve() / "connections"),
                },
            },
            {"id": "job_store", "path": "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"},
            {
                "id": "process_launcher",
                "path": "nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher",
                "args": {},
            },
        ],
    }


def _client_resources(kit: Path) -> dict[str, Any]:
    return _limits(EXECUTOR) | {
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            {
                "id": "resource_manager",
                "path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
                "args": {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300},
            },
            {
                "id": "resource_consumer",
                "path": "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer",
                "args": {},
            },
            {
                "id": "listener",
                "path": "medfed.engine.flare.listener.Listener",
                "args": {"noted": str(answered(kit.resolve().parent).path)},
            },
            {
                "id": "process_launcher",
                "path": "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher",
                "args": {},
            },
        ],
    }


def _change(path: Path, part: str, changes: dict[str, Any]) -> None:
    """Change a part of a JSON file of FLARE's: an object, or the first of a list."""
    content = json.loads(path.read_text())
    found = content[part]
    (found[0] if isinstance(found, list) else found).update(changes)
    _write(path, content)


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
    path.chmod(0o600)
