"""To whom engines' keys may be told by the endpoint picker's command."""

from pathlib import Path

import pytest

from paceline.cli.commands import command_parser
from paceline.cli.endpoint_picker import _configuration, run
from paceline.configuration import ConfigurationError

ENGINE = '[[engine]]\nname = "a"\nkind = "openai"\nurl = "http://10.0.0.1:8000"\n'
OPEN = ("--grpc-host", "0.0.0.0")
CLIENTS_ARE_KNOWN = ("--tls-certificate", "a.pem", "--tls-key", "b.pem", "--tls-client-ca", "c.pem")


def test_no_key_is_told_to_whoever_asks(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (OPEN, (*OPEN, *CLIENTS_ARE_KNOWN[:4])):
        given = ("endpoint-picker", "--endpoint", "10.0.0.1:8000", "--engine-key", "env:A_KEY", *words)
        assert run(command_parser().parse_args(given)) == 1
        assert "--engine-key" in (said := capsys.readouterr().err) and "--tls-client-ca" in said
    assert run(command_parser().parse_args(("endpoint-picker", "--pool", "p", "--tls-client-ca", "c.pem"))) == 1
    assert "--tls-client-ca needs" in capsys.readouterr().err


def test_keys_of_a_configuration_are_not_told_to_whoever_asks(tmp_path: Path) -> None:
    file = tmp_path / "paceline.toml"
    given = ("endpoint-picker", "--config", str(file))
    file.write_text(f'{ENGINE}api_key = "of-the-engine"\n')
    with pytest.raises(ConfigurationError, match="engine a: api_key: whoever reaches"):
        _configuration(command_parser().parse_args((*given, *OPEN)))([])
    for words in ((), (*OPEN, "--insecure"), (*OPEN, *CLIENTS_ARE_KNOWN)):
        assert _configuration(command_parser().parse_args((*given, *words)))([]) is not None
    file.write_text(ENGINE)
    assert _configuration(command_parser().parse_args((*given, *OPEN)))([]) is not None
