"""How threads wait for each other: the OpenMP runtime in torch's Linux wheels (libgomp) spins first, and then sleeps.

Left to itself it spins for milliseconds, once per small operator. On cores that others use as well, a thread that
spins keeps away the one that it waits for: small models become ten times slower or more. Every process of ours spins
a little and then sleeps, which on a quiet machine costs next to nothing. libgomp reads its environment when it is
loaded, so this is set before torch is imported; a program that imports these packages is left as it is.
"""

import os
import sys
from collections.abc import Mapping

OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""Variables by which users choose a policy of their own; libgomp heeds the second if both are set."""

SPINS = "30000"
"""Turns of libgomp's loop before a thread sleeps: about a millisecond."""

IN_SHELL = (
    # The submitting process has handed its own variable on, which must not outweigh a policy set for the cluster.
    f'if [ "${{OMP_WAIT_POLICY-}}" ]; then [ "${{GOMP_SPINCOUNT-}}" != {SPINS} ] || unset GOMP_SPINCOUNT; '
    f"else export GOMP_SPINCOUNT=${{GOMP_SPINCOUNT:-{SPINS}}}; fi"
)
"""The same for the batch script of a job, whose environment is known only where it runs."""


def wait_policy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of the policy that an environment has: the user's own, or ours."""
    return {name: environment[name] for name in OWN if environment.get(name)} or {"GOMP_SPINCOUNT": SPINS}


def is_ours() -> bool:
    """Return whether the policy of this process, which holds since torch was imported, is ours and not the user's."""
    return described_policy(os.environ) == f"GOMP_SPINCOUNT={SPINS}"


def set_wait_policy() -> None:
    """Set the policy of this process, unless the user has set one; does nothing once torch is loaded."""
    if "torch" not in sys.modules:
        os.environ.update(wait_policy(os.environ))


def described_policy(environment: Mapping[str, str]) -> str:
    """Return the policy that an environment asks of libgomp, as in "GOMP_SPINCOUNT=30000"; "default" if none."""
    return " ".join(f"{name}={environment[name]}" for name in OWN if environment.get(name)) or "default"
