"""What is answered without a model: what was received, honestly told; changes when answers should tell more.

Every answer says that it is the emulator's. Response fields: ai.google.dev/api/generate-content.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from pipeline.emulator import api_errors, schema_sample, tokens
from pipeline.emulator.generation_media import Medium
from pipeline.emulator.messages import GenerateContentRequest, GenerationConfig
from pipeline.emulator.model_catalog import Model
from pipeline.emulator.reply import Refusal

LABEL = "[emulated]"
PROMPT_CHARACTERS = 200
LONG_LIST_MEDIA = 50
"""Above this many media each is told in one short line."""
THOUGHT_TOKENS = {"MINIMAL": 0, "LOW": 16, "MEDIUM": 64, "HIGH": 128, "XHIGH": 256}
HARM_CATEGORIES = ("SEXUALLY_EXPLICIT", "HATE_SPEECH", "HARASSMENT", "DANGEROUS_CONTENT")


@dataclass(slots=True, kw_only=True)
class Prompt:
    """A request as the answer needs it."""

    model: Model
    request: GenerateContentRequest
    text: str
    media: list[Medium]
    token_details: list[tuple[str, int]]

    @property
    def token_count(self) -> int:
        """All input tokens."""
        return sum(count for _, count in self.token_details)


def count_prompt(
    model: Model, request: GenerateContentRequest, text: str, media: list[Medium]
) -> list[tuple[str, int]]:
    """Input tokens by modality, unsummed."""
    config = request.generation_config or GenerationConfig()
    system = request.system_instruction
    characters = len(text) + sum(len(part.text or "") for part in (system.parts if system else []))
    counts = [("TEXT", tokens.of_text(characters))]
    for medium in media:
        own = medium.resolution
        resolution = config.media_resolution if own == "MEDIA_RESOLUTION_UNSPECIFIED" else own
        if medium.kind == "image":
            facts = medium.facts
            size = (facts.width, facts.height) if facts.width and facts.height else None
            counts.append(("IMAGE", tokens.of_image(size, model.family, resolution)))
        elif medium.kind == "video":
            fps = medium.clip.fps if medium.clip and medium.clip.fps else tokens.DEFAULT_FPS
            frames, sound = tokens.of_video(
                clip_seconds(medium),
                has_audio=medium.facts.has_audio,
                family=model.family,
                resolution=resolution,
                fps=fps,
            )
            counts += [("VIDEO", frames), ("AUDIO", sound)]
        else:
            modality = {"audio": "AUDIO", "text": "TEXT"}.get(medium.kind, "DOCUMENT")
            counts.append((modality, max(1, medium.size_bytes // tokens.UNKNOWN_BYTES_PER_TOKEN)))
    return counts


def clip_seconds(medium: Medium) -> float:
    """How much of a video is read."""
    whole = medium.facts.duration_seconds
    if whole is None:
        whole = medium.size_bytes / tokens.ASSUMED_VIDEO_BYTES_PER_SECOND
    clip = medium.clip
    start = (clip.start_offset if clip else None) or 0.0
    end = (clip.end_offset if clip else None) or whole
    return max(0.0, min(end, whole) - start)


def answer(prompt: Prompt, seed: int) -> dict[str, Any]:
    """A GenerateContentResponse."""
    config = prompt.request.generation_config or GenerationConfig()
    text = _text(prompt, config, seed)
    thoughts = _thought_tokens(prompt.model, config)
    candidates = tokens.of_text(len(text))
    finish_reason = "STOP"
    if config.max_output_tokens is not None and thoughts + candidates > config.max_output_tokens:
        # Thinking counts against the cap, so a small one leaves no text at all (googleapis/python-genai#811).
        thoughts = min(thoughts, config.max_output_tokens)
        candidates = config.max_output_tokens - thoughts
        text = text[: candidates * tokens.CHARACTERS_PER_TOKEN]
        finish_reason = "MAX_TOKENS"
    content: dict[str, Any] = {"parts": [{"text": text}], "role": "model"} if text else {"role": "model"}
    candidate = {
        "content": content,
        "finishReason": finish_reason,
        "index": 0,
        "safetyRatings": [
            {"category": f"HARM_CATEGORY_{name}", "probability": "NEGLIGIBLE"} for name in HARM_CATEGORIES
        ],
    }
    return {
        "candidates": [candidate],
        "usageMetadata": _usage(prompt, candidates, thoughts),
        "modelVersion": prompt.model.name,
        "responseId": _response_id(prompt, text, seed),
    }


def _usage(prompt: Prompt, candidates: int, thoughts: int) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "promptTokenCount": prompt.token_count,
        "candidatesTokenCount": candidates,
        "totalTokenCount": prompt.token_count + candidates + thoughts,
        "promptTokensDetails": tokens.details(prompt.token_details),
        "serviceTier": "standard",
    }
    if thoughts:
        usage["thoughtsTokenCount"] = thoughts
    # Absent fields mean 0 (proto3).
    return {name: value for name, value in usage.items() if value}


def _thought_tokens(model: Model, config: GenerationConfig) -> int:
    thinking = config.thinking_config
    if model.family == "2.5" or (thinking and thinking.thinking_budget == 0):
        return 0
    level = thinking.thinking_level if thinking else "MEDIUM"
    return THOUGHT_TOKENS.get(level, THOUGHT_TOKENS["MEDIUM"])


def _response_id(prompt: Prompt, text: str, seed: int) -> str:
    material = f"{seed}\0{prompt.text}\0{text}".encode()
    return hashlib.blake2b(material, digest_size=11).hexdigest()


def _text(prompt: Prompt, config: GenerationConfig, seed: int) -> str:
    schema: Any = config.response_json_schema
    if config.response_schema is not None:
        schema = schema_sample.to_json_schema(config.response_schema)
    if schema is not None:
        try:
            value = schema_sample.sample(schema, f"{seed}:{prompt.text}")
        except schema_sample.UnsatisfiableError as problem:
            raise Refusal(api_errors.invalid_argument(f"The response schema cannot be satisfied: {problem}.")) from None
        if config.response_mime_type == "text/x.enum":
            return str(value)
        return msgspec.json.encode(value).decode()
    if config.response_mime_type == "application/json":
        return msgspec.json.encode(
            {"emulated": True, "received": described(prompt.media), "prompt": prompt.text[:PROMPT_CHARACTERS]}
        ).decode()
    lines = [
        f"{LABEL} No model has seen this; it is what the emulator received.",
        *described(prompt.media),
        f"Prompt: {prompt.text[:PROMPT_CHARACTERS]}",
    ]
    return "\n".join(lines)


def described(media: list[Medium]) -> list[str]:
    """One line a medium."""
    if len(media) > LONG_LIST_MEDIA:
        return [f"{number}. {medium.sha256[:12]}" for number, medium in enumerate(media, start=1)]
    return [f"{number}. {_describe(medium)}" for number, medium in enumerate(media, start=1)]


def _describe(medium: Medium) -> str:
    facts = medium.facts
    told = [medium.mime_type]
    if facts.width and facts.height:
        told.append(f"{facts.width}x{facts.height}")
    if facts.duration_seconds is not None:
        told.append(f"{facts.duration_seconds:.1f} s")
    clip = medium.clip
    if clip and (clip.start_offset is not None or clip.end_offset is not None):
        told.append(f"clip from {clip.start_offset or 0:g} s to {_or_end(clip.end_offset)}")
    told.append(f"{medium.size_bytes} bytes")
    told.append(f"sha256 {medium.sha256}")
    if facts.colour:
        told.append(f"mostly {facts.colour}")
    if facts.note:
        told.append(facts.note)
    return ", ".join(told)


def _or_end(offset: float | None) -> str:
    return "the end" if offset is None else f"{offset:g} s"
