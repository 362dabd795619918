"""Kinds are found by entry points of installed packages."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from notifier.config.settings import Settings
from notifier.config.structure import ProviderTable
from notifier.domain.errors import ConfigurationError, MissingPackage
from notifier.providers import registry
from notifier.providers.base import Provider
from notifier.providers.registry import kinds
from notifier.providers.smtp.provider import SmtpProvider

ENTRY_POINTS = """[notifier.providers]
smtp = notifier.providers.smtp.provider:SmtpProvider
needs-a-package = plugin_without_package:Provider
broken = plugin_package.gone:Provider
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with providers, as pip would leave it."""
    metadata = tmp_path / "some_plugins-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: some-plugins\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "plugin_without_package.py").write_text("import surely_not_installed\n")
    (tmp_path / "plugin_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    registry._entries.cache_clear()
    yield tmp_path
    registry._entries.cache_clear()


def load(name: str, kind: str, **options: str) -> Provider:
    return registry.load(ProviderTable.model_validate({"name": name, "kind": kind, **options}), Settings())


def test_load_makes_a_provider_of_its_kind() -> None:
    provider = load("relay-a", "smtp", url="smtp://mail.example.com")
    assert isinstance(provider, SmtpProvider)
    assert provider.name == "relay-a"


def test_load_lists_the_kinds_when_there_is_no_such_kind() -> None:
    with pytest.raises(ConfigurationError, match=r"relay-a: there is no kind 'smpt'.*needs-a-package, smtp"):
        load("relay-a", "smpt")


def test_load_names_the_missing_package_and_the_remedy() -> None:
    with pytest.raises(MissingPackage, match="'surely_not_installed'; install it"):
        load("relay-a", "needs-a-package")


def test_load_blames_the_plugin_when_its_own_module_is_missing() -> None:
    with pytest.raises(ConfigurationError, match="cannot be imported") as failed:
        load("relay-a", "broken")
    assert not isinstance(failed.value, MissingPackage)


def test_a_missing_package_of_our_own_names_the_extra(installed: Path) -> None:
    # The name notifier is ours, so the module stands in for one whose library is not installed.
    program = (
        "import sys; sys.modules['aiosmtplib'] = None\n"
        "from notifier.config.settings import ProviderTable, Settings\n"
        "from notifier.providers.registry import load\n"
        "from notifier.domain.errors import MissingPackage\n"
        "try: load(ProviderTable(name='a', kind='smtp'), Settings())\n"
        "except MissingPackage as error: print(error)\n"
    )
    environment = {"PYTHONPATH": f"{installed}:{Path(__file__).parents[3]}"}
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert "install notifier[worker] from where you installed notifier" in ran.stdout


def test_listing_the_kinds_imports_none_of_them(installed: Path) -> None:
    program = (
        "import sys\nfrom notifier.providers.registry import kinds\n"
        "assert 'smtp' in kinds()\nassert not {'aiosmtplib', 'twilio', 'aiohttp'} & set(sys.modules)\n"
    )
    environment = {"PYTHONPATH": f"{installed}:{Path(__file__).parents[3]}"}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)


def test_kinds_are_sorted() -> None:
    assert list(kinds()) == sorted(kinds())
