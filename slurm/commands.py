"""Running Slurm's own commands: what one of them prints, or one line on why it does not answer."""

import os
import re
import signal
import subprocess

_NO_CLUSTER = re.compile("configuration source|DNS SRV lookup")
"""What Slurm says where its commands are installed but not configured."""

_OURS = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SUBMITIT_")
_DISTRIBUTED = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")
"""Which Slurm is meant, and who asks it."""

_CUT_OFF = (124, *(128 + number for number in signal.valid_signals()))
"""Exit codes with which a site's wrapper tells that Slurm's command was ended: by timeout(1), or by a signal."""

_CLUSTERS = ("SLURM_CLUSTERS", "SBATCH_CLUSTERS")
# It has no such option: the accounts of all clusters are in one place.
_OF_ALL_CLUSTERS = ("sacctmgr",)


class SlurmUnreachable(ValueError):
    """Slurm does not answer: not installed here, its controller is down, or it refuses; the text is one line.

    `said`: the lines of the command on what went wrong, without its name; empty if it could not even be run.
    `printed`: its standard output until then. `cut_off`: whether it was ended by a signal or for its time.
    """

    def __init__(self, text: str, said: tuple[str, ...] = (), printed: str = "", *, cut_off: bool = False) -> None:
        super().__init__(text)
        self.said = said
        self.printed = printed
        self.cut_off = cut_off


def output(*command: str, seconds: float = 30.0) -> str:
    """Return what a Slurm command prints, for the cluster that SLURM_CLUSTERS or SBATCH_CLUSTERS names, if any.

    Raises:
        SlurmUnreachable: if this machine has no such command, if it fails (with all it says), or if it has not answered
            after `seconds`.
    """
    name, *arguments = command
    try:
        done = subprocess.run(
            [name, *([] if name in _OF_ALL_CLUSTERS else _option()), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
            env=_environment(),
        )
    except FileNotFoundError:
        raise SlurmUnreachable(f"no {name} on the PATH: this machine has no Slurm; use --cluster local") from None
    except OSError as error:
        raise SlurmUnreachable(f"{name} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        slow = f"{name} took more than {seconds:g} s"
        # Bytes, as they are not decoded before the end.
        printed = (error.stdout or b"").decode(errors="replace")
        raise SlurmUnreachable(f"Slurm does not answer: {slow}", (slow,), printed, cut_off=True) from None
    if done.returncode:
        cut_off = done.returncode < 0 or done.returncode in _CUT_OFF
        said = _lines(name, done.stderr) or _lines(name, done.stdout)
        if cut_off or not said:
            said += (f"exit code {done.returncode}",)
        if _NO_CLUSTER.search(said[-1]):
            text = f"{said[-1]}; this machine is in no cluster: it has no slurm.conf, and SLURM_CONF names none"
        else:
            text = "; ".join(said)
        raise SlurmUnreachable(f"{name}: {text}", said, done.stdout, cut_off=cut_off)
    return done.stdout


def _lines(name: str, text: str) -> tuple[str, ...]:
    """Return the different lines of text that say something, without the name of the program before each of them.

    A site's filter explains a refusal in lines of its own, and Slurm's last line may be "Unspecified error".
    """
    before = rf"^({name}: |slurm_\w+ )?((error|fatal|warning): ?)?"
    plain = (re.sub(before, "", line.strip()).strip() for line in text.splitlines())
    return tuple(dict.fromkeys(line for line in plain if re.search(r"\w", line)))


def chosen_cluster() -> str:
    """Return the cluster of a site with several that the environment names, or "" for the one that is asked by default.

    Raises SlurmUnreachable if it names several.
    """
    given = {name: os.environ[name] for name in _CLUSTERS if os.environ.get(name)}
    chosen = set(given.values())
    if len(chosen) > 1 or any("," in value or value == "all" for value in chosen):
        values = " and ".join(f"{name}={value}" for name, value in given.items())
        raise SlurmUnreachable(f"{values} names several clusters: name a single one, as jobs are found in one only")
    return next(iter(chosen), "")


def _option() -> list[str]:
    """Return the option that names the cluster, as only some of the commands read the variables."""
    chosen = chosen_cluster()
    return [f"--clusters={chosen}"] if chosen else []


def _environment() -> dict[str, str]:
    """Return our environment without settings of Slurm's but for which Slurm is meant.

    By some of them a user sees or cancels fewer jobs, or changes times; others are of the job that this process is in,
    and would be handed on to the jobs that it submits. Lists of tasks are not to be cut.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _KEPT or not (name.startswith(_OURS) or name in _DISTRIBUTED)
    }
    return kept | {"SLURM_BITSTR_LEN": "0"}
