"""The arithmetic of drafts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.decision.drafting import acceptance_of, accepted_per_draft


@given(st.floats(0.01, 0.98), st.integers(1, 16))
def test_acceptance_and_accepted_tokens_are_inverse(acceptance: float, length: int) -> None:
    accepted = accepted_per_draft(acceptance, length)
    assert accepted == pytest.approx(sum(acceptance**number for number in range(1, length + 1)))
    assert acceptance_of(accepted, length) == pytest.approx(acceptance, abs=1e-4)


def test_at_the_ends() -> None:
    assert accepted_per_draft(1.0, 4) == 4
    assert (acceptance_of(0.0, 4), acceptance_of(-1.0, 4), acceptance_of(9.0, 4)) == (0.0, 0.0, 1.0)
