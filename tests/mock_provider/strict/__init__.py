"""Doubles of single provider APIs that refuse what the real ones refuse, in the real ones' words, and keep what they refused.

The mocks beside this package play the wire: anything may be scripted, and the common mistakes of a translation are refused. These
play one API each, so that a conversation that goes through is one that the provider would have taken: its roles and parameters,
how calls and results pair up, what it signs and wants back. Their model calls every tool it is given, for some rounds, then
speaks.
"""

from __future__ import annotations

from .brands import StrictAzure, StrictDeepSeek, StrictGemini, StrictGroq, StrictMistral, StrictVllm
from .chat import StrictOpenAi
from .messages import StrictAnthropic
from .model import Refusal, Strict
from .ollama import StrictOllama

__all__ = [
    "Refusal",
    "Strict",
    "StrictAnthropic",
    "StrictAzure",
    "StrictDeepSeek",
    "StrictGemini",
    "StrictGroq",
    "StrictMistral",
    "StrictOllama",
    "StrictOpenAi",
    "StrictVllm",
]
