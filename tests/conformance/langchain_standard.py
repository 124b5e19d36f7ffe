"""LangChain's standard tests for chat models, against the server that CHECK_BASE_URL names.

The suite runner copies this file into its own folder and calls LangChain's pytest on it; our pytest does not collect
it by its name. CHECK_MAX_TOKENS bounds each answer, for slow models; CHECK_OTHER_MODEL is one to change to in a call.
"""
# mypy: disable-error-code="import-not-found,misc,no-any-return"

from __future__ import annotations

import os
from typing import Any

from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests


class TestConvene(ChatModelIntegrationTests):
    """The whole suite; its properties say what the model can do, which switches its tests on."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        bound = int(os.environ.get("CHECK_MAX_TOKENS", "0"))
        return {
            "model": os.environ["CHECK_MODEL"],
            "temperature": 0,
            "base_url": os.environ["CHECK_BASE_URL"],
            "api_key": os.environ["CHECK_API_KEY"],
            "stream_usage": True,
            "use_responses_api": False,
            "timeout": 300,
            "max_retries": 0,
            **({"max_tokens": bound} if bound else {}),
        }

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return os.environ["CHECK_OTHER_MODEL"]
