"""A real Slurm on this machine, of Debian's packages, for the tests of its executor."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

NODES, CPUS, GPUS = 2, 4, 2
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
LIMITS_MEMORY = os.access("/sys/fs/cgroup/memory/cgroup.procs", os.W_OK)  # what Slurm needs for it
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
CONFIG = """ClusterName=bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/run/munge.sock,cred_expire=5
CredType=cred/munge
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/run/%n
SlurmctldPidFile={place}/run/slurmctld.pid
SlurmdPidFile={place}/run/slurmd-%n.pid
SlurmctldLogFile={place}/log/slurmctld.log
SlurmdLogFile={place}/log/slurmd-%n.log
ProctrackType={track}
TaskPlugin={limits}
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode=4000
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0,requeue_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
GresTypes=gpu
JobRequeue=1
KillWait=30
MinJobAge=600
ReturnToService=2
SlurmdParameters=config_overrides
DebugFlags=NO_CONF_HASH
MailProg=/bin/true
"""


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _configure(place: Path) -> None:
    """Two nodes of this machine with fake GPUs: Slurm demands a character device for each, here copies of the null device."""
    host = socket.gethostname().split(".")[0]
    for part in ("state", "log", *(f"run/n{node}" for node in range(1, NODES + 1))):
        (place / part).mkdir(parents=True)
    track, limits = ("proctrack/cgroup", "task/cgroup") if LIMITS_MEMORY else ("proctrack/linuxproc", "task/none")
    lines = CONFIG.format(host=host, port=_free_port(), place=place, track=track, limits=limits)
    for node in range(1, NODES + 1):
        lines += f"NodeName=n{node} NodeHostname={host} NodeAddr=127.0.0.1 Port={_free_port()} "
        lines += f"CPUs={CPUS} RealMemory=64000 Gres=gpu:{GPUS} State=UNKNOWN\n"
    lines += "PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10\n"
    lines += "PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF\n"
    (place / "slurm.conf").write_text(lines)
    for gpu in range(GPUS):
        os.mknod(place / f"run/gpu{gpu}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (place / "gres.conf").write_text(f"NodeName=n[1-{NODES}] Name=gpu File={place}/run/gpu[0-{GPUS - 1}]\n")
    (place / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainRAMSpace=yes\n")
    key = place / "munge.key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)


def _start(place: Path, environment: dict[str, str]) -> None:
    run = place / "run"
    munge = ["munged", "--force", f"--key-file={place}/munge.key", f"--socket={run}/munge.sock"]
    munge += [f"--pid-file={run}/munged.pid", f"--log-file={place}/log/munged.log", f"--seed-file={run}/munged.seed"]
    configuration = str(place / "slurm.conf")
    commands = [munge, ["slurmctld", "-c", "-f", configuration]]
    commands += [["slurmd", "-N", f"n{node}", "-f", configuration] for node in range(1, NODES + 1)]
    for command in commands:
        subprocess.run(command, env=environment, check=True, timeout=60, capture_output=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        idle = subprocess.run(
            ["sinfo", "-h", "-N", "-t", "idle", "-o", "%N"], env=environment, capture_output=True, text=True
        )
        if len(set(idle.stdout.split())) == NODES:
            return
        time.sleep(0.1)
    logs = "\n".join(path.read_text()[-2000:] for path in (place / "log").iterdir())
    raise AssertionError(f"Slurm did not come up:\n{logs}")


def _ours(pid: int, place: Path) -> bool:
    """Whether a process is a daemon that this test started: ended ones linger as zombies, and numbers are used again."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return False
    return any(str(place) in word for word in words)


def _end(place: Path, environment: dict[str, str]) -> None:
    subprocess.run(["scancel", "-u", str(os.getuid())], env=environment, timeout=30, capture_output=True)
    end = time.monotonic() + 15
    while time.monotonic() < end:
        left = subprocess.run(
            ["squeue", "-h", "-t", "running,completing"], env=environment, capture_output=True, text=True, timeout=30
        )
        if not left.stdout.strip():
            break
        time.sleep(0.2)
    for file in (*sorted((place / "run").glob("slurmd-*.pid")), place / "run/slurmctld.pid", place / "run/munged.pid"):
        pid = int(file.read_text()) if file.exists() else 0
        for number in (15, 9):
            if pid and _ours(pid, place):
                os.kill(pid, number)
            wait = time.monotonic() + 2
            while pid and _ours(pid, place) and time.monotonic() < wait:
                time.sleep(0.05)


@pytest.fixture(scope="session")
def slurm() -> Iterator[Path]:
    """Starts Slurm and names its configuration in SLURM_CONF; gives a folder for stores."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=PATH)]
    if missing or os.geteuid():
        why = f"{', '.join(missing)} not installed" if missing else "not root"
        pytest.skip(f"needs root and Debian's slurmctld, slurmd, slurm-client and munge ({why})")
    place = Path(tempfile.mkdtemp(prefix="slurm", dir="/tmp"))  # short: a unix socket's path has at most 107 letters
    place.chmod(0o755)
    environment = {**os.environ, "PATH": PATH, "SLURM_CONF": str(place / "slurm.conf")}
    with pytest.MonkeyPatch.context() as patch:
        try:
            _configure(place)
            _start(place, environment)
            for name in ("PATH", "SLURM_CONF"):
                patch.setenv(name, environment[name])
            patch.setenv("OMP_NUM_THREADS", "1")
            (place / "work").mkdir()
            yield place / "work"
        finally:
            _end(place, environment)
            shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def limited_memory(slurm: Path) -> None:
    """Skips where Slurm cannot limit the memory of a task."""
    if not LIMITS_MEMORY:
        pytest.skip("the memory cgroup (v1) is not writable, so Slurm limits no task's memory")
