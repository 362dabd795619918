"""Which licences bind what uses a package."""

from __future__ import annotations

import pytest

from tests.provisioning.licences import is_binding


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GPL-3.0-only", True),
        ("GPLv2", True),
        ("AGPL-3.0-or-later", True),
        ("GNU General Public License v3 (GPLv3)", True),
        ("GNU Affero General Public License v3", True),
        ("LGPL-3.0-only", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT", False),
        ("BSD License, Apache Software License", False),
    ],
)
def test_the_gpl_binds_and_the_lgpl_does_not(text: str, *, expected: bool) -> None:
    assert is_binding(text) == expected
