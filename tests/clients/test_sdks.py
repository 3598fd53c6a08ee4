"""The OpenAI and the Anthropic SDK for Python, before strict providers of every format."""

from __future__ import annotations

import pytest

from clients.catalogue import cases


@pytest.mark.parametrize("client, format, scenario", cases("tests"))
def test_sdk(play, client, format, scenario):
    play(client, format, scenario)
