"""The request messages of the API as types: their fields are the table that strict reading follows.

Fields: ai.google.dev/api/generate-content, ai.google.dev/api/caching#Part, ai.google.dev/api/files, the service's
protos (google-ai-generativelanguage 0.12) and the newer fields that google-genai 3.4 sends.
"""

from __future__ import annotations

from typing import Any, Literal, NewType

import msgspec

Seconds = NewType("Seconds", float)
"""A google.protobuf.Duration: ``"3.5s"`` on the wire."""

Resolution = Literal[
    "MEDIA_RESOLUTION_UNSPECIFIED",
    "MEDIA_RESOLUTION_LOW",
    "MEDIA_RESOLUTION_MEDIUM",
    "MEDIA_RESOLUTION_HIGH",
    "MEDIA_RESOLUTION_ULTRA_HIGH",
]
ThinkingLevel = Literal["THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH"]
SchemaType = Literal["TYPE_UNSPECIFIED", "STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL"]
HarmCategory = Literal[
    "HARM_CATEGORY_HARASSMENT",
    "HARM_CATEGORY_HATE_SPEECH",
    "HARM_CATEGORY_SEXUALLY_EXPLICIT",
    "HARM_CATEGORY_DANGEROUS_CONTENT",
    "HARM_CATEGORY_CIVIC_INTEGRITY",
]
HarmThreshold = Literal[
    "HARM_BLOCK_THRESHOLD_UNSPECIFIED",
    "BLOCK_LOW_AND_ABOVE",
    "BLOCK_MEDIUM_AND_ABOVE",
    "BLOCK_ONLY_HIGH",
    "BLOCK_NONE",
    "OFF",
]


class Message(msgspec.Struct, kw_only=True):
    """A message whose every field may be absent, as in proto3."""


class Blob(Message):
    """Bytes inside the request."""

    mime_type: str = ""
    data: bytes = b""
    display_name: str = ""


class FileData(Message):
    """A reference to an uploaded file."""

    mime_type: str = ""
    file_uri: str = ""
    display_name: str = ""


class VideoMetadata(Message):
    """Which part of a video is read, and how densely."""

    start_offset: Seconds | None = None
    end_offset: Seconds | None = None
    fps: float | None = None


class PartMediaResolution(Message):
    """The resolution of one part."""

    level: Resolution = "MEDIA_RESOLUTION_UNSPECIFIED"
    num_tokens: int | None = None


class Part(Message):
    """One piece of a turn: exactly one of the data fields, and its settings."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: Any = None
    function_response: Any = None
    executable_code: Any = None
    code_execution_result: Any = None
    video_metadata: VideoMetadata | None = None
    media_resolution: PartMediaResolution | None = None
    thought: bool = False
    thought_signature: bytes = b""
    part_metadata: Any = None
    media_processing: Literal["MEDIA_PROCESSING_UNSPECIFIED", "STATIC", "AGENTIC"] = "MEDIA_PROCESSING_UNSPECIFIED"


PART_DATA_FIELDS = (
    "text",
    "inline_data",
    "file_data",
    "function_call",
    "function_response",
    "executable_code",
    "code_execution_result",
)


class Content(Message):
    """One turn."""

    role: str = ""
    parts: list[Part] = []


class Schema(Message):
    """The OpenAPI subset of ``responseSchema``."""

    type: SchemaType = "TYPE_UNSPECIFIED"
    format: str | None = None
    title: str | None = None
    description: str | None = None
    nullable: bool | None = None
    enum: list[str] | None = None
    items: Schema | None = None
    max_items: int | None = None
    min_items: int | None = None
    properties: dict[str, Schema] | None = None
    required: list[str] | None = None
    min_properties: int | None = None
    max_properties: int | None = None
    minimum: float | None = None
    maximum: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str | None = None
    example: Any = None
    any_of: list[Schema] | None = None
    property_ordering: list[str] | None = None
    default: Any = None


class ThinkingConfig(Message):
    """How much the model thinks."""

    include_thoughts: bool = False
    thinking_budget: int | None = None
    thinking_level: ThinkingLevel = "THINKING_LEVEL_UNSPECIFIED"


class GenerationConfig(Message):
    """How the answer is made."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    candidate_count: int | None = None
    max_output_tokens: int | None = None
    stop_sequences: list[str] = []
    seed: int | None = None
    response_mime_type: str = ""
    response_schema: Schema | None = None
    response_json_schema: Any = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool = False
    logprobs: int | None = None
    response_modalities: list[Literal["MODALITY_UNSPECIFIED", "TEXT", "IMAGE", "AUDIO"]] = []
    speech_config: Any = None
    thinking_config: ThinkingConfig | None = None
    media_resolution: Resolution = "MEDIA_RESOLUTION_UNSPECIFIED"
    image_config: Any = None
    enable_enhanced_civic_answers: bool = False
    audio_transcription_config: Any = None


class SafetySetting(Message):
    """When one kind of harm blocks."""

    category: HarmCategory | None = None
    threshold: HarmThreshold = "HARM_BLOCK_THRESHOLD_UNSPECIFIED"


class GenerateContentRequest(Message):
    """The body of generateContent and streamGenerateContent."""

    model: str = ""
    contents: list[Content] = []
    system_instruction: Content | None = None
    generation_config: GenerationConfig | None = None
    safety_settings: list[SafetySetting] = []
    tools: list[Any] = []
    tool_config: Any = None
    cached_content: str = ""
    labels: dict[str, str] = {}
    service_tier: str = ""
    store: bool = False
    continuation_token: str = ""


class CountTokensRequest(Message):
    """The body of countTokens: contents alone, or a whole request."""

    model: str = ""
    contents: list[Content] = []
    generate_content_request: GenerateContentRequest | None = None


class File(Message):
    """What a client may say of a file when it starts an upload; output-only fields are accepted and ignored."""

    name: str = ""
    display_name: str = ""
    mime_type: str = ""
    size_bytes: int | None = None
    create_time: str = ""
    update_time: str = ""
    expiration_time: str = ""
    sha256_hash: bytes = b""
    uri: str = ""
    download_uri: str = ""
    state: str = ""
    source: str = ""
    video_metadata: Any = None
    error: Any = None


class CreateFileRequest(Message):
    """The body of an upload's start."""

    file: File | None = None
