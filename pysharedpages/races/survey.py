"""All short guests under one policy: how many of them lose a page."""

from __future__ import annotations

from dataclasses import dataclass

from pysharedpages.races.explorer import Explorer
from pysharedpages.races.policies import Policy, policy_of
from pysharedpages.races.programs import every_program

__all__ = ["Survey", "survey"]


@dataclass(frozen=True)
class Survey:
    """What exploring every guest of up to `most` steps on one page found."""

    policy: Policy
    bytes: str
    most: int
    safe: int
    corrupt: int
    states: int

    @property
    def is_safe(self) -> bool:
        """Whether no guest loses a page."""
        return not self.corrupt

    @property
    def is_expected(self) -> bool:
        """Whether the policy says so."""
        least = dict(self.policy.corrupted_by).get(self.bytes)
        return self.is_safe == (least is None or self.most < least)


def survey(
    policy: str | Policy, bytes_model: str, most: int, explorer: Explorer | None = None
) -> Survey:
    """Explore every guest of 1 to `most` steps: two rounds and a final one.

    Raises RangeError for a policy or a byte model that is none. The 363 guests of up to 5 steps are
    some 150,000 states.
    """
    policy = policy_of(policy)
    explorer = explorer or Explorer()
    verdicts = [explorer.explore(each, policy, bytes_model) for each in every_program(most)]
    safe = sum(verdict.is_safe for verdict in verdicts)
    states = sum(verdict.states for verdict in verdicts)
    return Survey(policy, bytes_model, most, safe, len(verdicts) - safe, states)
