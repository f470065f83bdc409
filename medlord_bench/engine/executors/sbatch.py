"""Slurm's own commands: job scripts as text, submitted, looked up and cancelled.

Plain sbatch and not submitit, which pickles functions, requeues by itself and not by exit code 75, warns at SIGUSR2 only, and
knows no state without an accounting database. A job here is the command ``medlord-bench worker``, whose exit code and store say
all, so that a script of ten lines is enough.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import which

from medlord_bench.engine.executors.slurm_settings import WARNING_SECONDS, SlurmSettings
from medlord_bench.errors import ExitCode, MissingError, StepError, UserError
from medlord_bench.util.interpreter import module_command

ANSWER_SECONDS = 60.0
ENDED = {
    "COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE", "OUT_OF_MEMORY",
    "REVOKED", "SPECIAL_EXIT",
}  # fmt: skip
NEVER = "DependencyNeverSatisfied"
MOST_TASKS = 1000  # of an array: Slurm's MaxArraySize is 1001 unless an administrator changed it

# srun, so that Slurm's signals reach the worker; the trap passes on those that reach only this script. The task is named as part
# of its array, since the bare id of one task is that of the whole array. A job that was cancelled is not requeued.
BODY = """#!/bin/bash
{setup}me="${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
if [ -n "${{SLURM_CPUS_PER_TASK:-}}" ]; then
  export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK" OMP_NUM_THREADS="${{OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}}"
fi
srun --ntasks=1 {command} &
child=$!
trap 'told=1; kill -USR1 "$child"' USR1 USR2 TERM
while :; do told=0; wait "$child"; rc=$?; [ "$told" = 1 ] || break; done
if [ "$rc" = {requeue} ]; then
  case "$(scontrol show job -o "$me")" in
    *JobState=CANCELLED*) ;;
    *) scontrol requeue "$me" && sleep 60 ;;
  esac
fi
exit "$rc"
"""


@dataclass(frozen=True)
class Job:
    """One array. name: a step, or `FINISH`. shards: of how many its tasks are. after: names of jobs that it waits for."""

    name: str
    options: tuple[str, ...]
    body: str
    tasks: tuple[int, ...]
    shards: int
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """A task of an array in the queue, and why it waits."""

    job: str
    index: int
    state: str
    reason: str

    @property
    def lives(self) -> bool:
        return self.state not in ENDED and NEVER not in self.reason


@dataclass(frozen=True)
class Needs:
    """What a new job waits for: jobs that must succeed, and jobs of an earlier submission that must have ended."""

    success: Sequence[str] = ()
    end: Sequence[str] = field(default=())

    def option(self) -> list[str]:
        parts = [f"afterok:{':'.join(self.success)}"] if self.success else []
        parts += [f"afterany:{':'.join(self.end)}"] if self.end else []
        return [f"--dependency={','.join(parts)}", "--kill-on-invalid-dep=yes"] if parts else []


def job(
    name: str, kind: str, words: Sequence[str], tasks: Sequence[int], shards: int, logs: Path, title: str,
    settings: SlurmSettings, after: Iterable[str],
) -> Job:  # fmt: skip
    """The array of one step. words: after ``medlord-bench``; each task adds its shard."""
    asked = settings.of(kind)
    limit = f"%{settings.at_once}" if settings.at_once else ""
    options = [
        f"--job-name={title}",
        f"--array={_ranges(tasks)}{limit}",
        "--ntasks=1",
        "--requeue",
        "--open-mode=append",
    ]
    options += [f"--output={logs / file_name(name)}.%A_%a.out", f"--signal=USR1@{warning(asked.time)}"]
    flags = {
        "partition": asked.partition, "account": asked.account, "qos": asked.qos, "gres": asked.gres, "mem": asked.memory,
        "cpus-per-task": asked.cpus, "time": asked.time, "constraint": asked.constraint,
    }  # fmt: skip
    options += [f"--{flag}={value}" for flag, value in flags.items() if value]
    options += asked.options
    start = settings.command or shlex.join(module_command("medlord_bench"))
    command = f'{start} {shlex.join(words)} --shard "$SLURM_ARRAY_TASK_ID/{shards}"'
    setup = "".join(f"{line}\n" for line in settings.setup)
    body = BODY.format(setup=setup, command=command, requeue=int(ExitCode.REQUEUE))
    return Job(name, tuple(options), body, tuple(tasks), shards, tuple(after))


def warning(limit: str | None) -> int:
    """Seconds before a time limit at which Slurm sends the signal: a quarter of a short limit, so that some work is done before.

    limit: minutes, [D-]HH:MM:SS, MM:SS or D-HH; None for a limit that only the cluster knows.
    """
    if limit is None:
        return WARNING_SECONDS
    days, dash, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    if dash:
        hours, minutes, seconds = (*parts, 0, 0)[:3]
    elif len(parts) == 3:
        hours, minutes, seconds = parts
    else:
        hours, minutes, seconds = 0, parts[0], parts[1] if len(parts) == 2 else 0
    total = ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds
    return max(1, min(WARNING_SECONDS, total // 4))


def file_name(step: str) -> str:
    """A step's name as part of a file name."""
    return step.replace(":", "_").replace("/", "_")


def _ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as an array names them: 0-3,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def printed(jobs: Sequence[Job]) -> str:
    """A shell script that submits jobs with their dependencies."""
    lines = ["#!/bin/bash", "# Submits a run to Slurm: bash THIS_FILE on a login node.", "set -euo pipefail"]
    variables = {one.name: f"job{number}" for number, one in enumerate(jobs)}
    for one in jobs:
        needs = Needs([f"${{{variables[name]}}}" for name in one.after if name in variables]).option()
        waits = "".join(f' "{option}"' for option in needs)
        lines += [
            "",
            f"# {one.name}",
            f"{variables[one.name]}=$(sbatch --parsable {shlex.join(one.options)}{waits} <<'END_OF_JOB'",
        ]
        lines += [one.body.rstrip(), "END_OF_JOB", ")", f'{variables[one.name]}="${{{variables[one.name]}%%;*}}"']
    lines += ["", f'echo "submitted {len(jobs)} jobs"']
    return "\n".join(lines) + "\n"


def submit(one: Job, needs: Needs) -> str:
    """Submit a job; returns its id. Raises `UserError` with Slurm's reason for a refusal, `MissingError` without sbatch."""
    answer = _call("sbatch", "--parsable", *one.options, *needs.option(), text=one.body)
    if answer.returncode:
        raise UserError(
            f"sbatch refused step {one.name}: {_why(answer)}; change it with --slurm FIELD=VALUE (docs/cluster.md)"
        )
    return answer.stdout.strip().split(";")[0]


def tasks_of(jobs: Iterable[str]) -> list[Task]:
    """The tasks of arrays that the queue still knows; ended ones stay for some minutes. Raises `StepError` if it does not answer."""
    wanted = set(jobs)
    if not wanted:
        return []
    answer = _call("squeue", "-h", "-a", "-r", "-t", "all", "-u", str(os.getuid()), "-o", "%F|%K|%T|%r")
    if answer.returncode:
        raise StepError(f"squeue: {_why(answer)}")
    rows = [line.split("|", 3) for line in answer.stdout.splitlines() if line.count("|") >= 3]
    return [Task(row[0], int(row[1]), row[2], row[3]) for row in rows if row[0] in wanted and row[1].isdigit()]


def cancel(jobs: Sequence[str]) -> None:
    """Cancel jobs; those that ended already are left alone."""
    if jobs:
        answer = _call("scancel", *jobs)
        if answer.returncode:
            raise StepError(f"scancel: {_why(answer)}")


def _call(program: str, *words: str, text: str = "") -> subprocess.CompletedProcess[str]:
    if which(program) is None:
        raise MissingError(
            f"{program}: not found; expected Slurm's commands: run this on a login node of the cluster, or print the scripts with "
            "medlord-bench plan --sbatch"
        )
    try:
        return subprocess.run(
            [program, *words], input=text, text=True, capture_output=True, timeout=ANSWER_SECONDS, env=_environment()
        )
    except subprocess.TimeoutExpired:
        raise StepError(f"{program}: no answer within {ANSWER_SECONDS:g} s; is Slurm's controller down?") from None


def _environment() -> Mapping[str, str]:
    """Without what an enclosing job sets: a run that is started inside a job would hand its own limits on."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("SBATCH_", "SLURM_")) or name == "SLURM_CONF"
    }


def _why(answer: subprocess.CompletedProcess[str]) -> str:
    """The last line of an error, without its program's name."""
    lines = [line for line in answer.stderr.splitlines() if line.strip()] or [f"exit code {answer.returncode}"]
    return lines[-1].removeprefix("sbatch: ").removeprefix("error: ").removeprefix("Batch job submission failed: ")
