"""Running Slurm's own commands: what one of them prints, or one line on why it does not answer."""

import os
import re
import subprocess

_NO_CLUSTER = re.compile("configuration source|DNS SRV lookup")
"""What Slurm says where its commands are installed but not configured."""


class SlurmUnreachable(ValueError):
    """Slurm does not answer: not installed here, its controller is down, or it refuses; the text is one line."""


def output(*command: str, seconds: float = 30.0) -> str:
    """Return what a Slurm command prints.

    Raises:
        SlurmUnreachable: if this machine has no such command, if it fails (with its last line), or if it has not
            answered after `seconds`.
    """
    name = command[0]
    try:
        done = subprocess.run(
            command,
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
    except subprocess.TimeoutExpired:
        raise SlurmUnreachable(f"Slurm does not answer: {name} took more than {seconds:g} s") from None
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines() or [f"exit code {done.returncode}"]
        said = re.sub(r"^[a-z_]+:? (error|fatal): ", "", lines[-1])
        if _NO_CLUSTER.search(said):
            said += "; this machine is in no cluster: it has no slurm.conf, and SLURM_CONF names none"
        raise SlurmUnreachable(f"{name}: {said}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Return our environment without the settings by which a user sees or cancels fewer jobs, or changes times."""
    display = ("SQUEUE_", "SACCT_", "SCANCEL_", "SLURM_TIME_FORMAT")
    return {name: value for name, value in os.environ.items() if not name.startswith(display)}
