"""The programs of the lab: Debian's own, installed or unpacked below .cache by lab/get_parts.sh."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

# The same as in lab/get_parts.sh.
PACKAGES = {
    "influxd": "influxdb",
    "prometheus": "prometheus",
    "promtool": "prometheus",
    "prometheus-alertmanager": "prometheus-alertmanager",
    "amtool": "prometheus-alertmanager",
    "victoria-metrics": "victoria-metrics",
    "prometheus-node-exporter": "prometheus-node-exporter",
    "stress-ng": "stress-ng",
    "iperf3": "iperf3",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "openssl": "openssl",
    "systemd-analyze": "systemd",
    "chromium-headless-shell": "chromium-headless-shell",
}
UNPACKED = Path(__file__).resolve().parent.parent / ".cache/parts"


class MissingPart(FileNotFoundError):  # noqa: N818
    """Programs are neither installed nor unpacked; the message is one line and names the remedy."""


def find(program: str, unpacked: Path = UNPACKED) -> str:
    """The path of one of PACKAGES; MissingPart if it is nowhere."""
    return find_all([program], unpacked)[program]


def find_all(programs: Iterable[str], unpacked: Path = UNPACKED) -> dict[str, str]:
    """The path of each program, the installed one if there is one; MissingPart names all that are missing."""
    # Debian keeps the sbin folders out of an ordinary user's PATH.
    folders = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    folders += [str(unpacked / "usr/bin"), str(unpacked / "usr/sbin")]
    path = os.pathsep.join(filter(None, folders))
    found = {program: shutil.which(program, path=path) for program in programs}
    missing = [program for program, binary in found.items() if binary is None]
    if missing:
        packages = " ".join(dict.fromkeys(PACKAGES[program] for program in missing))
        verb = "is" if len(missing) == 1 else "are"
        raise MissingPart(
            f"{', '.join(missing)} {verb} missing: run lab/get_parts.sh or apt-get install {packages}"
        )
    return {program: binary for program, binary in found.items() if binary is not None}


def environment(unpacked: Path = UNPACKED) -> dict[str, str]:
    """The environment to run the programs in: the unpacked ones need the libraries unpacked with them."""
    folders = [os.environ.get("LD_LIBRARY_PATH", "")]
    # systemd and PulseAudio keep their own libraries in folders of their own.
    for pattern in ("", "/systemd", "/pulseaudio"):
        found = sorted(unpacked.glob(f"usr/lib/*-linux-gnu*{pattern}"))
        folders += [str(folder) for folder in found if folder.is_dir()]
    libraries = os.pathsep.join(filter(None, folders))
    return {**os.environ} | ({"LD_LIBRARY_PATH": libraries} if libraries else {})
