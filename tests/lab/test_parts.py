"""The programs of the lab are found, run, and said to be missing in one line."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import lab.parts
from lab.parts import PACKAGES, MissingPart, environment, find, find_all

SCRIPT = Path(lab.parts.__file__).with_name("get_parts.sh")
VERSION_OPTION = {"influxd": "version", "ip": "-V", "openssl": "version"}


def write_program(path: Path, says: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def empty_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "path"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.mark.parametrize("program", PACKAGES)
def test_each_program_runs(program: str) -> None:
    done = subprocess.run(
        [find(program), VERSION_OPTION.get(program, "--version")],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, bool(done.stdout + done.stderr)) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("programs", "message"),
    [
        (["prometheus"], "prometheus is missing: run lab/get_parts.sh or apt-get install prometheus"),
        (["influxd"], "influxd is missing: run lab/get_parts.sh or apt-get install influxdb"),
        (
            ["prometheus", "stress-ng"],
            "prometheus, stress-ng are missing: run lab/get_parts.sh or apt-get install prometheus stress-ng",
        ),
        (
            ["promtool", "iperf3", "prometheus"],
            "promtool, iperf3, prometheus are missing: "
            "run lab/get_parts.sh or apt-get install prometheus iperf3",
        ),
    ],
)
@pytest.mark.usefixtures("empty_path")
def test_missing_programs_are_named_in_one_line(tmp_path: Path, programs: list[str], message: str) -> None:
    with pytest.raises(MissingPart) as error:
        find_all(programs, tmp_path / "unpacked")
    assert str(error.value) == message


@pytest.mark.usefixtures("empty_path")
def test_only_the_missing_ones_are_named(tmp_path: Path) -> None:
    write_program(tmp_path / "usr/bin/iperf3", "unpacked")
    with pytest.raises(MissingPart, match=r"^stress-ng is missing: .* install stress-ng$"):
        find_all(["iperf3", "stress-ng"], tmp_path)


def test_an_empty_path_is_not_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_program(tmp_path / "influxd", "not this one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingPart):
        find("influxd", tmp_path)


@pytest.mark.parametrize("folder", ["usr/bin", "usr/sbin"])
def test_the_installed_program_is_preferred_to_the_unpacked_one(
    tmp_path: Path, empty_path: Path, folder: str
) -> None:
    unpacked = write_program(tmp_path / folder / "iperf3", "unpacked")
    assert find("iperf3", tmp_path) == unpacked
    assert subprocess.check_output([unpacked], text=True) == "unpacked\n"
    installed = write_program(empty_path / "iperf3", "installed")
    assert find_all(["iperf3"], tmp_path) == {"iperf3": installed}


def test_unpacked_libraries_come_after_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    assert environment(tmp_path) == os.environ
    libraries = tmp_path / "usr/lib/x86_64-linux-gnu"
    libraries.mkdir(parents=True)
    assert environment(tmp_path) == os.environ | {"LD_LIBRARY_PATH": str(libraries)}
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/lib")
    assert environment(tmp_path)["LD_LIBRARY_PATH"] == f"/opt/lib:{libraries}"


def run_script(checkout: Path) -> subprocess.CompletedProcess[str]:
    (checkout / "lab").mkdir()
    script = shutil.copy(SCRIPT, checkout / "lab")
    return subprocess.run(["/bin/bash", script], capture_output=True, text=True)


def test_script_downloads_nothing_when_all_is_there(tmp_path: Path, empty_path: Path) -> None:
    dirname = shutil.which("dirname", path=os.defpath)
    assert dirname is not None
    (empty_path / "dirname").symlink_to(dirname)
    installed, *unpacked = PACKAGES
    write_program(empty_path / installed, "installed")
    for program in unpacked:
        write_program(tmp_path / ".cache/parts/usr/bin" / program, "unpacked")
    done = run_script(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_script_without_apt_says_in_one_line_what_to_install(tmp_path: Path, empty_path: Path) -> None:
    dirname = shutil.which("dirname", path=os.defpath)
    assert dirname is not None
    (empty_path / "dirname").symlink_to(dirname)
    missing = [program for program in PACKAGES if shutil.which(program, path="/usr/sbin:/sbin") is None]
    packages = " ".join(dict.fromkeys(PACKAGES[program] for program in missing))
    done = run_script(tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"{', '.join(missing)} are missing and could not be downloaded (there is no apt-get here): "
        f"apt-get install {packages}\n"
    )
    assert not (tmp_path / ".cache").exists()
