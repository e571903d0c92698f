"""models.get, models.list, generateContent, streamGenerateContent and countTokens; changes when one of these does.

Shapes: ai.google.dev/api/models, /api/generate-content, /api/tokens.
"""

import asyncio
from typing import Any

import msgspec

from pipeline.emulator import answers, api_errors, generation_media, request_checks, tokens
from pipeline.emulator.answers import Prompt
from pipeline.emulator.exchange import Exchange, Work
from pipeline.emulator.files import page_size
from pipeline.emulator.generation_media import Medium
from pipeline.emulator.ledger import item_key
from pipeline.emulator.messages import CountTokensRequest, GenerateContentRequest
from pipeline.emulator.model_catalog import INPUT_TOKEN_LIMIT, Model
from pipeline.emulator.reply import Refusal, Reply
from pipeline.emulator.service import Service
from pipeline.emulator.strict_json import read

MODEL_PAGE_DEFAULT = 50
MODEL_PAGE_MAX = 1000
STREAM_PIECES = 3
TIER_HEADER = {"x-gemini-service-tier": "standard"}


def _model(service: Service, exchange: Exchange, method: str) -> Model:
    model = service.models.get(exchange.target.name)
    if model is None:
        raise Refusal(api_errors.no_model(exchange.target.name, exchange.target.version, method))
    return model


async def get(service: Service, exchange: Exchange) -> Work:
    """One model."""
    exchange.identity = exchange.target.name

    async def work() -> Reply:
        return Reply(payload=_model(service, exchange, "getModel").render())

    return work


async def list_page(service: Service, exchange: Exchange) -> Work:
    """One page of models."""
    query = exchange.request.query
    token = query.get("pageToken", "")
    exchange.identity = token

    async def work() -> Reply:
        size = page_size(query.get("pageSize", ""), MODEL_PAGE_DEFAULT, MODEL_PAGE_MAX)
        if token and not token.isdigit():
            raise Refusal(api_errors.invalid_argument("* page_token: Invalid page token.\n"))
        begin = int(token or 0)
        models = list(service.models.values())
        payload: dict[str, Any] = {"models": [model.render() for model in models[begin : begin + size]]}
        if begin + size < len(models):
            payload["nextPageToken"] = str(begin + size)
        return Reply(payload=payload)

    return work


async def generate(service: Service, exchange: Exchange) -> Work:
    """An answer that tells what was received."""
    body = await exchange.body(service.plan.limits.inline_request_bytes)
    service.ledger.record_body(exchange.target.name, body)
    request = read(GenerateContentRequest, body)
    text, media = _identify(service, exchange, request)

    async def work() -> Reply:
        return Reply(payload=await _answer(service, exchange, request, text, media), headers=dict(TIER_HEADER))

    return work


async def stream(service: Service, exchange: Exchange) -> Work:
    """The same answer in pieces: server-sent events, or one JSON array without ``alt=sse``."""
    unary = await generate(service, exchange)
    is_sse = exchange.request.query.get("alt") == "sse"

    async def work() -> Reply:
        try:
            reply = await unary()
        except Refusal as refusal:
            if not is_sse:
                # Errors of the array form come wrapped in it (google-genai's errors.py unwraps them).
                refusal.reply.payload = [refusal.reply.payload]
            raise
        pieces = [msgspec.json.encode(piece) for piece in _cut(reply.payload)]
        if is_sse:
            framed = tuple(b"data: " + piece + b"\r\n\r\n" for piece in pieces)
            return Reply(pieces=framed, content_type="text/event-stream", headers=dict(TIER_HEADER), delivery="pieces")
        framed = tuple((b"[" if not index else b",\r\n") + piece for index, piece in enumerate(pieces))
        return Reply(pieces=(*framed, b"]"), headers=dict(TIER_HEADER), delivery="pieces")

    return work


def _cut(payload: dict[str, Any]) -> list[dict[str, Any]]:
    """Pieces of the text; the finish reason and the full usage stand in the last."""
    candidate = payload["candidates"][0]
    parts = candidate["content"].get("parts")
    if not parts:
        return [payload]
    text = parts[0]["text"]
    step = max(1, -(-len(text) // STREAM_PIECES))
    texts = [text[begin : begin + step] for begin in range(0, len(text), step)]
    usage = payload["usageMetadata"]
    partial = {"promptTokenCount": usage["promptTokenCount"], "totalTokenCount": usage["promptTokenCount"]}
    pieces: list[dict[str, Any]] = [
        {**payload, "candidates": [{"content": _content(piece), "index": 0}], "usageMetadata": partial}
        for piece in texts[:-1]
    ]
    return [*pieces, {**payload, "candidates": [{**candidate, "content": _content(texts[-1])}]}]


def _content(text: str) -> dict[str, Any]:
    return {"parts": [{"text": text}], "role": "model"}


async def count_tokens(service: Service, exchange: Exchange) -> Work:
    """The prompt's tokens, by modality; free, and under no quota here."""
    body = await exchange.body(service.plan.limits.inline_request_bytes)
    counted = read(CountTokensRequest, body)
    request = counted.generate_content_request or GenerateContentRequest(contents=counted.contents)
    text, media = _identify(service, exchange, request)

    async def work() -> Reply:
        model = _model(service, exchange, "countTokens")
        request_checks.check_contents(request.contents)
        prompt = await _prompt(service, model, request, text, media)
        details = tokens.details(prompt.token_details)
        return Reply(payload={"totalTokens": prompt.token_count, "promptTokensDetails": details})

    return work


def _identify(service: Service, exchange: Exchange, request: GenerateContentRequest) -> tuple[str, list[Medium]]:
    text, media = generation_media.gather(service, request, exchange.project)
    exchange.files = [medium.file for medium in media if medium.file is not None]
    exchange.match_texts = [text, *(file.display_name for file in exchange.files)]
    names = [medium.sha256 or medium.missing for medium in media]
    exchange.identity = item_key(exchange.target.name, text, names)
    return text, media


async def _prompt(
    service: Service, model: Model, request: GenerateContentRequest, text: str, media: list[Medium]
) -> Prompt:
    generation_media.check(service, media)
    if service.plan.describe == "full":
        facts = await asyncio.gather(*(service.facts.of(medium.sha256, medium.mime_type) for medium in media))
        for medium, found in zip(media, facts, strict=True):
            medium.facts = found
    counts = answers.count_prompt(model, request, text, media)
    return Prompt(model=model, request=request, text=text, media=media, token_details=counts)


async def _answer(
    service: Service, exchange: Exchange, request: GenerateContentRequest, text: str, media: list[Medium]
) -> dict[str, Any]:
    model = _model(service, exchange, "generateContent")
    request_checks.check(request, model)
    prompt = await _prompt(service, model, request, text, media)
    # A prompt that is too long still uses up the quota (google-gemini/gemini-cli#15184).
    refusal = service.quotas.admit(exchange.project, model.name, prompt.token_count, service.now())
    if refusal is not None:
        raise Refusal(refusal)
    if prompt.token_count > INPUT_TOKEN_LIMIT:
        raise Refusal(api_errors.too_many_tokens(prompt.token_count, INPUT_TOKEN_LIMIT))
    response = answers.answer(prompt, service.plan.seed)
    # Paid from here on, whether or not the client is still there to receive it.
    service.ledger.pay(model.name, text, [medium.sha256 for medium in media])
    return response
