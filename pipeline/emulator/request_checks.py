"""Ranges and combinations that the API refuses; changes when a rule on request fields does.

Ranges: ai.google.dev/api/generate-content#GenerationConfig, ai.google.dev/api/caching#Part. The service words most of
these itself; where its words are not known the refusal names the field and the range.
"""

from collections.abc import Iterable

from pipeline.emulator import api_errors
from pipeline.emulator.messages import (
    PART_DATA_FIELDS,
    Content,
    GenerateContentRequest,
    GenerationConfig,
    Part,
)
from pipeline.emulator.model_catalog import Model
from pipeline.emulator.reply import Refusal
from pipeline.emulator.strict_json import camel
from pipeline.limits import FPS_MAX

RESPONSE_TYPES = frozenset({"", "text/plain", "application/json", "text/x.enum"})
STOP_SEQUENCES_MAX = 5
RANGES: dict[str, tuple[float, float]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "candidate_count": (1, 8),
    "max_output_tokens": (1, 2**31 - 1),
    "logprobs": (0, 20),
    "seed": (-(2**31), 2**31 - 1),
}


def check(request: GenerateContentRequest, model: Model) -> None:
    """Refuse what breaks a rule."""
    check_contents(request.contents)
    if request.system_instruction and any(part.text is None for part in request.system_instruction.parts):
        _refuse("system_instruction: only text is supported.")
    _check_turns(request.contents, model)
    categories = [setting.category for setting in request.safety_settings]
    if len(set(categories)) < len(categories) or None in categories:
        _refuse("safety_settings: each entry names one category, and each category once.")
    if request.generation_config:
        _check_config(request.generation_config, model)


def check_contents(contents: list[Content]) -> None:
    """Refuse contents that are empty or malformed."""
    if not contents:
        _refuse("contents: contents is not specified")
    for index, content in enumerate(contents):
        if content.role not in {"", "user", "model", "function"}:
            raise Refusal(api_errors.invalid_argument("Please use a valid role: user, model."))
        if not content.parts:
            _refuse(f"contents[{index}].parts: contents.parts must not be empty.")
        for number, part in enumerate(content.parts):
            _check_part(part, f"contents[{index}].parts[{number}]")


def _check_part(part: Part, path: str) -> None:
    present = [name for name in PART_DATA_FIELDS if getattr(part, name) is not None]
    if not present:
        _refuse(f"{path}.data: required oneof field 'data' must have one initialized field")
    if len(present) > 1:
        text = f"Invalid value at '{path}' (oneof), oneof field 'data' is already set. Cannot set '{camel(present[1])}'"
        raise Refusal(api_errors.bad_fields([(path, text)]))
    if part.inline_data is not None and not (part.inline_data.mime_type and part.inline_data.data):
        _refuse(f"{path}.inline_data: mime_type and data must both be set.")
    clip = part.video_metadata
    if clip is None:
        return
    if clip.fps is not None and not 0 < clip.fps <= FPS_MAX:
        _refuse(f"{path}.video_metadata.fps: must be in the range (0.0, {FPS_MAX:g}].")
    if clip.start_offset is not None and clip.end_offset is not None and clip.start_offset >= clip.end_offset:
        _refuse(f"{path}.video_metadata: start_offset must be before end_offset.")


def _check_turns(contents: list[Content], model: Model) -> None:
    if model.family == "3" and contents[-1].role == "model":
        # Prefilled answers ended with the 3.x family (gemini-api/docs/gemini-3).
        _refuse("contents: the last turn must be the user's; prefilled model turns are not supported by this model.")


def _check_config(config: GenerationConfig, model: Model) -> None:
    for name, (low, high) in RANGES.items():
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            _refuse(f"generation_config.{name}: must be in the range [{low}, {high}].")
    if len(config.stop_sequences) > STOP_SEQUENCES_MAX:
        _refuse(f"generation_config.stop_sequences: at most {STOP_SEQUENCES_MAX} are allowed.")
    if config.media_resolution == "MEDIA_RESOLUTION_ULTRA_HIGH":
        _refuse("generation_config.media_resolution: ULTRA_HIGH is only supported per part.")
    _check_response_format(config)
    _check_thinking(config, model)


def _check_response_format(config: GenerationConfig) -> None:
    schemas = [schema for schema in (config.response_schema, config.response_json_schema) if schema is not None]
    if config.response_mime_type not in RESPONSE_TYPES:
        _refuse(f"generation_config.response_mime_type: allowed mimetypes are {_listed(RESPONSE_TYPES)}.")
    if len(schemas) > 1:
        _refuse("generation_config: response_schema and response_json_schema exclude each other.")
    if schemas and config.response_mime_type in {"", "text/plain"}:
        # A response schema needs a MIME type that it can be written in (gemini-api/docs/structured-output).
        _refuse("generation_config.response_mime_type: a response schema requires application/json or text/x.enum.")


def _check_thinking(config: GenerationConfig, model: Model) -> None:
    thinking = config.thinking_config
    if thinking is None or thinking.thinking_level == "THINKING_LEVEL_UNSPECIFIED":
        return
    if model.family == "2.5":
        raise Refusal(api_errors.invalid_argument("Thinking level is not supported for this model."))
    if thinking.thinking_level == "MINIMAL" and not model.takes_minimal_thinking:
        raise Refusal(api_errors.invalid_argument("Thinking level MINIMAL is not supported for this model."))
    if thinking.thinking_budget is not None:
        _refuse("generation_config.thinking_config: thinking_level and thinking_budget exclude each other.")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names) if name)


def _refuse(text: str) -> None:
    raise Refusal(api_errors.invalid_argument(f"* GenerateContentRequest.{text}\n"))
