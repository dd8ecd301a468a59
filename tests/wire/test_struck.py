"""Secrets in what an engine answers: they are struck out wherever it is cut, and nothing else changes."""

from hypothesis import given
from hypothesis import strategies as some

from paceline.wire.struck import MIN_SECRET_BYTES, Striker, forms

SECRETS = forms(["aab/aaba", "aaaaaaaab"])
pieces = some.lists(
    some.sampled_from([b"a", b"b", b"aab/", b"aab\\/", b"aaba", b"aaaaaaaab", b"\n\n", b"x"]), max_size=30
)


@given(pieces)
def test_no_secret_is_left_and_nothing_else_changes(given_pieces: list[bytes]) -> None:
    striker = Striker(SECRETS)
    got = b"".join([striker.feed(piece) for piece in given_pieces]) + striker.end()
    whole = b"".join(given_pieces)
    assert len(got) == len(whole)
    assert not [secret for secret in SECRETS if secret in got]
    assert all(shown in (sign, ord("*")) for shown, sign in zip(got, whole, strict=True))
    if not any(secret in whole for secret in SECRETS):
        assert got == whole


@given(pieces)
def test_what_ends_a_stream_of_events_is_never_held_back(given_pieces: list[bytes]) -> None:
    striker, shown, fed = Striker(SECRETS), b"", b""
    for piece in given_pieces:
        shown, fed = shown + striker.feed(piece + b"\n\n"), fed + piece + b"\n\n"
        assert len(shown) == len(fed)


def test_a_short_key_strikes_no_words() -> None:
    assert forms(["none", "x" * (MIN_SECRET_BYTES - 1)]) == ()
