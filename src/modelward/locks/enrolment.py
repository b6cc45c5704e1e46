"""Credentials: a user's windows, the probes that fall into them, a MAC over both, and the slot that they open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from modelward.core.errors import InputError
from modelward.core.key import Key
from modelward.locks.credentials import Build, about, content_key, secret_of
from modelward.locks.probing import Crafting
from modelward.locks.sealing import SlotKey, mac_of
from modelward.locks.windows import assign


@dataclass(frozen=True, eq=False)
class Desk:
    """Where credentials are made.

    Parameters
    ----------
    key
        the owner's.
    net
        the opened network, which the probes are crafted on.
    build
        the locked network that slots are made for; ``None`` where none are: on a server, and in the paper's variant.
    crafting, probes
        how, and how many a user.
    facts
        what every credential says besides.
    """

    key: Key
    net: nn.Module
    build: Build | None
    crafting: Crafting
    probes: int
    facts: Mapping[str, Any]

    def made(
        self, users: Mapping[str, bytes], taken: Sequence[Tensor] = (), *, rng: torch.Generator
    ) -> tuple[dict[str, Key], dict[str, str]]:
        """Return a credential for each user, not yet tagged, and the slots by tag in the same order, all crafted at once.

        Parameters
        ----------
        users
            names with the users' secrets.
        taken
            windows (m, 3) of the users before.

        Raises
        ------
        InputError
            when a probe could not be crafted, naming its user.
        """
        if not users:
            raise InputError("no users to make credentials for")
        before, secret = list(taken), secret_of(self.key)
        for user in users:
            before.append(assign(secret, user, self.key.tensor("windows"), self.probes, before))
        rows = torch.cat(before[len(taken) :])
        crafted = self.crafting.craft(self.net, self.key.tensor("seeds"), rows, rng=rng)
        if not bool(crafted.found.all()):
            user = list(users)[int((~crafted.found).nonzero()[0]) // self.probes]
            message = f"no probe falls into its window for user {user}; take more steps, a larger width or more seeds"
            raise InputError(message)
        credentials: dict[str, Key] = {}
        slots: dict[str, str] = {}
        for number, user in enumerate(users):
            mine = slice(number * self.probes, (number + 1) * self.probes)
            facts = {**self.facts, "distance": float(crafted.distances[mine].mean())}
            credentials[user], slot = self._one(user, users[user], crafted.pixels[mine], rows[mine], facts)
            slots |= slot
        return credentials, slots

    def _one(
        self, user: str, secret: bytes, pixels: Tensor, windows: Tensor, facts: Mapping[str, Any]
    ) -> tuple[Key, dict[str, str]]:  # fmt: skip
        """Return one credential, and its slot by tag."""
        mac, rows = mac_of(secret, user, pixels), windows.tolist()
        tensors = {"probes": pixels.clone(), "mac": torch.tensor(list(mac), dtype=torch.uint8)}
        made = Key(self.key.method, self.key.variant, self.key.model_digest, {**facts, "windows": rows}, tensors)
        if self.build is None:
            return made, {}
        slot = SlotKey(mac, pixels, self.build.digest)
        return made, {slot.tag: slot.wrapped(content_key(self.key, self.build.digest), about(user, rows))}


def with_slot(made: Key, slots: Mapping[str, str]) -> Key:
    """Return a credential that brings its slot along, for a build that was handed out before; as it is where there is none."""
    return replace(made, facts={**made.facts, "slot": text}) if (text := next(iter(slots.values()), "")) else made
