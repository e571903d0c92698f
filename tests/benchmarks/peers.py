"""The libraries that people use for this, each as its documentation has it, as programs of their own.

``python -m tests.benchmarks.peers sdk|async_batch_llm|inspect_ai URL FOLDER --via files|inline --concurrency 64``
prints how many items had an answer. They write nothing down and check nothing, and are told to try so often that a
quota alone does not make them give up.
"""

import argparse
import asyncio
import json
import os
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from tests.benchmarks.bare_loop import KEY_TEXT, MODEL, PROMPT, paths_of

ATTEMPTS = 10
RATE_LIMIT_RETRIES = 1000


class GoogleClient:
    """The official client's part of the work, with or without its own retries."""

    def __init__(self, url: str, *, via: str, attempts: int) -> None:
        from google import genai
        from google.genai import types

        options = types.HttpOptions(base_url=url, retry_options=types.HttpRetryOptions(attempts=attempts))
        self._client = genai.Client(api_key=KEY_TEXT, http_options=options).aio
        self._part = types.Part.from_bytes
        self._via = via

    async def ask(self, path: str) -> str:
        """Upload and wait, or read; then one question."""
        if self._via == "files":
            file = await self._client.files.upload(file=path)
            while file.state and file.state.name == "PROCESSING":
                await asyncio.sleep(1)
                file = await self._client.files.get(name=str(file.name))
            medium: Any = file
        else:
            medium = self._part(data=Path(path).read_bytes(), mime_type=str(guess_type(path)[0]))
        answer = await self._client.models.generate_content(model=MODEL, contents=[medium, PROMPT])
        return str(answer.text)


async def at_most(concurrency: int, ask: Callable[[str], Awaitable[object]], paths: list[str]) -> int:
    """Ask about all paths behind a semaphore; how many were answered. What went wrong is said on stderr."""
    gate = asyncio.Semaphore(concurrency)
    problems: Counter[str] = Counter()

    async def one(path: str) -> bool:
        async with gate:
            try:
                return bool(await ask(path))
            except Exception as problem:  # noqa: BLE001 - whatever it is, the item has no answer
                problems[f"{type(problem).__name__}: {str(problem)[:200]}"] += 1
                return False

    answered = sum(await asyncio.gather(*map(one, paths)))
    for problem, times in problems.most_common(5):
        print(f"{times} times {problem}", file=sys.stderr)
    return answered


async def sdk(url: str, paths: list[str], *, via: str, concurrency: int) -> int:
    """The official client, a semaphore, and the client's own retries."""
    return await at_most(concurrency, GoogleClient(url, via=via, attempts=ATTEMPTS).ask, paths)


async def async_batch_llm(url: str, paths: list[str], *, via: str, concurrency: int) -> int:
    """Its worker pool with shared cooldowns round the official client; no artefact store."""
    from async_batch_llm import (
        CallableStrategy,
        CallOutcome,
        GeminiErrorClassifier,
        ProcessorConfig,
        RateLimitConfig,
        RetryConfig,
        process_prompts,
    )

    client = GoogleClient(url, via=via, attempts=1)

    async def invoke(prompt: str, *, attempt: int, timeout: float, state: object) -> CallOutcome[str]:
        return CallOutcome(await client.ask(prompt))

    config = ProcessorConfig(
        concurrency=concurrency,
        retry=RetryConfig(max_attempts=ATTEMPTS, max_rate_limit_retries=RATE_LIMIT_RETRIES),
        rate_limit=RateLimitConfig(cooldown_seconds=1.0, slow_start_items=0),  # tuned: the defaults are 300 s and 50
    )
    strategy = CallableStrategy(invoke, error_classifier=GeminiErrorClassifier())
    batch = await process_prompts(strategy, [(path, path) for path in paths], config=config)
    return batch.succeeded


async def inspect_ai(url: str, paths: list[str], *, via: str, concurrency: int) -> int:
    """Its model with adaptive connections; images travel inline whatever ``via`` says. No task, no log."""
    from inspect_ai.model import ChatMessageUser, ContentImage, ContentText, GenerateConfig, get_model

    config = GenerateConfig(adaptive_connections=concurrency)
    async with get_model(f"google/{MODEL}", base_url=url, api_key=KEY_TEXT, config=config) as model:

        async def ask(path: str) -> str:
            image = f"data:{guess_type(path)[0]};base64,{b64encode(Path(path).read_bytes()).decode()}"
            answer = await model.generate(
                [ChatMessageUser(content=[ContentImage(image=image), ContentText(text=PROMPT)])]
            )
            return answer.completion

        return await at_most(len(paths), ask, paths)


PEERS = {"sdk": sdk, "async_batch_llm": async_batch_llm, "inspect_ai": inspect_ai}


def main() -> None:
    """Read the arguments, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("url")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--via", choices=["files", "inline"], default="files")
    parser.add_argument("--concurrency", type=int, default=64)
    given = parser.parse_args()
    paths = paths_of(given.folder)
    work = partial(PEERS[given.peer], given.url, paths, via=given.via, concurrency=given.concurrency)
    if os.environ.get("BENCHMARK_UVLOOP"):
        import uvloop

        answered = uvloop.run(work())
    else:
        answered = asyncio.run(work())
    print(json.dumps({"items": answered}))


if __name__ == "__main__":
    main()
