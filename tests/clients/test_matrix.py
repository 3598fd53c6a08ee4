"""The page about clients says what the tests show."""

from __future__ import annotations

import pytest

from clients.catalogue import AIDER, CLAUDE_CODE, CLIENTS, KNOWN
from clients.matrix import PAGE, page


def test_the_table_of_clients_is_what_the_tests_show():
    assert PAGE.read_text() == page(PAGE.read_text()), "run tests/clients/matrix.py"


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: known.why[:40])
def test_what_is_known_not_to_go_well_is_about_something(known):
    everybody = (*CLIENTS, CLAUDE_CODE, AIDER)
    cases = [
        (client.name, format, scenario) for client in everybody for format in client.formats for scenario in client.scenarios
    ]
    about = [case for case in cases if known.is_about(*case)]
    for at, listed in enumerate((known.clients, known.formats, known.scenarios)):
        idle = {*listed} - {case[at] for case in about}
        assert not idle, f"named, and never met: {idle}"
