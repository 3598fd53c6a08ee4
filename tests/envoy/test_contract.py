"""The OpenAPI document against a running gateway: made-up requests of every operation, some as described and some not.

Whatever a caller sends, the answer is one that the document names, in the shape that it names, and never a 500. Requests are made
up from a fixed seed; `TOLLGATE_CONTRACT_CASES` makes more of them for each operation."""

from __future__ import annotations

import os
import warnings
from typing import Any, Callable, Iterator

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway import MASTER_KEY, Gateway, deployment
from mock_provider import OpenAiMock

CASES = int(os.environ.get("TOLLGATE_CONTRACT_CASES", 4))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]

LEFT_OUT = {"/metrics"}
"""Answered by Envoy's statistics, as text of another version of its format each time."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Any]]:
    mock = OpenAiMock()
    config = {
        "model_list": [deployment("m", mock.params(), id="m")],
        "general_settings": {"master_key": MASTER_KEY, "store_model_in_db": True},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    gateway = Gateway(tmp_path_factory.mktemp("contract"), config, env={"LITELLM_SALT_KEY": "sk-salt"})
    yield gateway, schemathesis.openapi.from_dict(httpx.get(gateway.url + "/openapi.json").json())
    gateway.stop()
    mock.stop()


def operations(schema: Any) -> list[Any]:
    found = [result.ok() for result in schema.get_all_operations()]
    return [operation for operation in found if operation.path not in LEFT_OUT]


def tried(operation: Any, mode: Any, call: Callable[[Any], None]) -> None:
    """Calls `call` with made-up requests of an operation."""

    @hypothesis.seed(20261128)
    @hypothesis.settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case: Any) -> None:
        call(case)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attempt()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_every_operation_answers_as_the_document_says(world: Any, mode: Any) -> None:
    gateway, schema = world
    wrong: dict[str, str] = {}
    for operation in operations(schema):

        def call(case: Any) -> None:
            case.call_and_validate(
                base_url=gateway.url, headers={"Authorization": f"Bearer {MASTER_KEY}"}, checks=CHECKS, timeout=20
            )

        try:
            tried(operation, mode, call)
        except hypothesis.errors.Unsatisfiable:
            continue
        except BaseExceptionGroup as many:
            wrong[operation.label] = "\n".join(str(error) for error in many.exceptions)
        except Exception as error:
            wrong[operation.label] = str(error)
    assert not wrong, "\n\n".join(f"{label}\n{why}" for label, why in wrong.items())
