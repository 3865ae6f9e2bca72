# Copyright (c) The Slipway authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotate secrets in stages, each of which an ordinary run of site.yml brings about. Independent of Ansible; docs/rotation.md explains them.

The stage of a secret is what its variables say, so that any later run goes on from there:

    stage       <name>  _next  _previous  _retired
    steady      old
    accepted    old     new                         both are valid, the product uses the old one
    used        new            old                  both are valid, the product uses the new one
    settling    new     new               old       the old one is refused; the second login goes (PostgreSQL alone)
    retired     new                       old       the old one is refused, which is tried at the end
    steady      new

The passwords of backups have no second valid value: each is the old one until it is used, and is replaced then. A key of the mesh belongs
to one secret, and to the new one once its host has switched in the stage used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

STEADY = "steady"
ACCEPTED = "accepted"
USED = "used"
SETTLING = "settling"
RETIRED = "retired"
#: What follows a secret's name in the names of its variables.
ENDS = ("", "_next", "_previous", "_retired")
#: What is rotated, by the word that the command line has.
SECRETS = {
    "redis_app": ("vault_redis_app_password",),
    "secret_key": ("vault_app_secret_key",),
    "postgres_app": ("vault_postgres_app_password",),
    "postgres_owner": ("vault_postgres_owner_password",),
    "backup": ("vault_postgres_backup_password", "vault_redis_backup_password"),
    "mesh": ("vault_mesh_preshared_secret",),
}
#: All of them.
NAMES = tuple(name for names in SECRETS.values() for name in names)
#: A role of PostgreSQL has one password: the other one is that of a second login.
OF_SECOND_LOGINS = ("vault_postgres_app_password", "vault_postgres_owner_password")


class RotationError(Exception):
    """Why a secret is not rotated, and what to do."""


class Values(NamedTuple):
    """The values of a secret; "" where it has none."""

    current: str
    following: str = ""
    previous: str = ""
    retired: str = ""

    @property
    def stage(self) -> str:
        """Return how far the rotation has come."""
        if self.previous:
            return USED
        if self.following:
            return SETTLING if self.following == self.current else ACCEPTED
        return RETIRED if self.retired else STEADY

    def variables(self, name: str) -> dict[str, str]:
        """Return the values by variable."""
        return {f"{name}{end}": value for end, value in zip(ENDS, self, strict=True)}


def values_in(variables: Mapping[str, str], name: str) -> Values:
    """Return the values of a secret among variables."""
    return Values(*(variables.get(f"{name}{end}") or "" for end in ENDS))


def names_of(what: str, known: Iterable[str]) -> list[str]:
    """Return the secrets that are to be rotated.

    Args:
        what: A key of SECRETS, or "all".
        known: The secrets that the environment has.

    Raises:
        RotationError: The environment does not have it.
    """
    found = [name for name in (NAMES if what == "all" else SECRETS[what]) if name in set(known)]
    if not found and what != "all":
        raise RotationError(f"this environment has no {' or '.join(SECRETS[what])}, so there is no {what} to rotate")
    return found


def begun(values: Values, new: Callable[[], str]) -> Values:
    """Return the values with which a rotation begins; one that is under way goes on from where it is."""
    return Values(values.current, new()) if values.stage == STEADY else values


def advanced(name: str, values: Values, *, undo: bool = False) -> Values:
    """Return the values of the next stage, once the present one has been brought about; the last one stays until it is ended."""
    if values.stage == ACCEPTED:
        return Values(values.current, retired=values.following) if undo else Values(values.following, previous=values.current)
    if values.stage == USED:
        return Values(values.current, values.current if name in OF_SECOND_LOGINS else "", retired=values.previous)
    return Values(values.current, retired=values.retired)


def ended(values: Values) -> Values:
    """Return the values after a rotation, once the old secret was refused."""
    return Values(values.current) if values.stage == RETIRED else values


def undone(name: str, values: Values) -> Values:
    """Return the values with which the product uses the old secret again; both stay valid until the next stage.

    Raises:
        RotationError: One of both is refused already.
    """
    if values.stage in (SETTLING, RETIRED):
        raise RotationError(f"only one value of {name} is valid by now: run the playbook without undo, which completes the rotation")
    return Values(values.previous, values.current) if values.stage == USED else values
