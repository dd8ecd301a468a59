"""Headers on their way to an engine and back."""

from paceline.serving.headers import to_client, to_engine


def test_headers_that_come_twice_are_one_list() -> None:
    given = [(b"connection", b"x-a"), (b"x-a", b"1"), (b"connection", b"X-B, close"), (b"x-b", b"2"), (b"x-c", b"3")]
    given += [(b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2")]
    sent = dict(to_engine(given, api_key=None, keep_key=True, plain=False, client="3.3.3.3"))
    assert sent.keys() == {b"x-c", b"x-forwarded-for", b"x-forwarded-proto"}
    assert sent[b"x-forwarded-for"] == b"1.1.1.1, 2.2.2.2, 3.3.3.3"
    assert to_client(given[:5]) == [(b"x-c", b"3")]
