"""What `[producers.<name>]` takes, and what it says about a slip."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier.config.structure import load_structure
from notifier.domain.errors import ConfigurationError


def structure(tmp_path: Path, text: str):  # type: ignore[no-untyped-def]
    path = tmp_path / "notifier.toml"
    path.write_text(text)
    return load_structure(path)


def test_a_user_is_a_name_or_a_list_of_them(tmp_path: Path) -> None:
    found = structure(tmp_path, '[producers.a]\nbroker_user = "x"\n[producers.b]\nbroker_user = ["y", "z"]\n')
    assert [table.broker_user for table in found.producers.values()] == [("x",), ("y", "z")]
    assert not found.require_proof


def test_one_word_may_stand_without_brackets_everywhere(tmp_path: Path) -> None:
    text = '[producers.a]\nchannels = "sms"\nlanes = "bulk"\ntemplates = "news_*"\nsenders = "default"\n'
    table = structure(tmp_path, text).producers["a"]
    assert (table.channels, table.lanes, table.templates, table.senders) == (
        ("sms",),
        ("bulk",),
        ("news_*",),
        ("default",),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[producers.shop]\nbroker_users = "x"', r"producers\.shop\.broker_users: there is no such setting"),
        ('[producers.shop]\nbroker_user = ""', r"producers\.shop\.broker_user"),
        ("[producers.shop]\nbroker_user = 7", r"producers\.shop\.broker_user"),
        ('[producers.shop]\nbroker_user = "a\\u0000b"', r"broker_user.*printable"),
        ('[producers.shop]\nchannels = ["fax"]', r"producers\.shop\.channels: .*'fax' is not one of email, sms$"),
        ('[producers.shop]\nlanes = ["slow"]', r"producers\.shop\.lanes: .*'slow' is not one of urgent"),
        ("[producers.shop]\nlanes = []", r"producers\.shop\.lanes: .*is empty.*leave it out"),
        ('[producers.shop]\ntemplates = ["no spaces"]', r"templates: .*such as 'order_\*'$"),
        ('[producers.shop]\nsenders = ["shop"]', r"producers: .*shop may use the sender shop, .*one of default"),
        ('[producers."my shop"]\nbroker_user = "x"', r"producers\.my shop"),
        (
            '[producers.a]\nbroker_user = ["x", "y"]\n[producers.b]\nbroker_user = "y"',
            r"producers: .*the broker user y belongs to both a and b.*make one for each",
        ),
    ],
)
def test_a_slip_is_named_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        structure(tmp_path, text)
