"""The Node.js clients: both SDKs, and the AI SDK with three of its providers."""

from __future__ import annotations

import pytest

from clients.catalogue import cases


@pytest.mark.parametrize("client, format, scenario", cases("node"))
def test_node(play, client, format, scenario):
    play(client, format, scenario)
