"""Makes an Item of an Entry: media identified, prompt rendered, settings merged, fingerprint taken."""

from collections.abc import Callable, Mapping
from typing import TypeVar

import msgspec

from pipeline.errors import ItemError, UsageError
from pipeline.limits import Limits
from pipeline.manifest import times
from pipeline.manifest.entry import Entry, MediaRef, failed
from pipeline.manifest.fingerprint import bare_model, fingerprint, prompt_sha256
from pipeline.manifest.prompts import Prompts
from pipeline.manifest.rendered import Rendered
from pipeline.manifest.template import Template
from pipeline.media.identify import Identifier
from pipeline.media.sniff import may_stand_for
from pipeline.records import Item, Json, Media, Rejected
from pipeline.spec import ItemDefaults

Value = TypeVar("Value")


class Assembler:
    """Knows what the run sends where a row doesn't say otherwise. Works in a worker thread.

    Raises ``UsageError`` when built, where the run's own template can't be used.
    """

    def __init__(
        self,
        defaults: ItemDefaults,
        limits: Limits,
        identifier: Identifier,
        prompts: Prompts,
        *,
        warn: Callable[[str], None],
    ) -> None:
        self._defaults = defaults
        self._limits = limits
        self._identifier = identifier
        self._prompts = prompts
        self._template = prompts.of_run(defaults)
        self._warn = warn
        self._warned_of_videos = False

    def assemble(self, entry: Entry) -> Item | Rejected:
        """The item, or why it can't be one; reads the files that are not known yet."""
        media: list[Media] = []
        try:
            if len(entry.media) > self._limits.max_images + self._limits.max_videos:
                raise failed("too_many_images", f"{len(entry.media):,} media in one item")
            for ref in entry.media:
                media.append(self._medium(ref))  # noqa: PERF401 - what came before a failure is kept
            self._count(media)
            return self._item(entry, tuple(media))
        except ItemError as error:
            rejected = entry.reject(_located(entry, error).failure)
            return msgspec.structs.replace(
                rejected, media=tuple(media), paths=tuple(ref.path for ref in entry.media[len(media) :])
            )

    def _medium(self, ref: MediaRef) -> Media:
        found = self._identifier.identify(ref.location, ref.path)
        declared = ref.declared_type or found.mime_type
        if not may_stand_for(declared, found.mime_type):
            raise failed("unsupported_type", f"{ref.path}: said to be {declared}, is {found.mime_type} by its bytes")
        medium = Media(
            path=ref.path,
            location=ref.location,
            mime_type=declared,
            size_bytes=found.identity.size_bytes,
            sha256=found.sha256,
            identity=found.identity,
            settled=found.settled,
            start_seconds=ref.clip.start_seconds,
            end_seconds=ref.clip.end_seconds,
            fps=ref.clip.fps,
        )
        if medium.is_image and ref.clip != times.Clip():
            raise times.bad_clip(f"{ref.path}: an image has no start, end or fps")
        return medium

    def _count(self, media: list[Media]) -> None:
        images = sum(medium.is_image for medium in media)
        videos = len(media) - images
        if images > self._limits.max_images:
            raise failed("too_many_images", f"{images:,} images, at most {self._limits.max_images:,} go in one item")
        if videos > self._limits.max_videos:
            raise failed("too_many_videos", f"{videos:,} videos, at most {self._limits.max_videos:,} go in one item")
        if videos > 1 and not self._warned_of_videos:
            self._warned_of_videos = True
            self._warn("some items hold more than one video; the API's guide recommends one for each request")

    def _item(self, entry: Entry, media: tuple[Media, ...]) -> Item:
        run = self._defaults
        rendered, template = self._prompt(entry, media)
        model = bare_model(entry.model or run.model)
        system = run.system if entry.system is None else entry.system
        generation = _merged(run.generation, entry.generation)
        safety = _merged(run.safety, entry.safety)
        schema = run.schema if entry.schema is None else entry.schema
        return Item(
            key=entry.key,
            position=entry.position,
            line=entry.line,
            model=model,
            media=media,
            prompt=rendered.prompt,
            prompt_sha256=prompt_sha256(rendered.prompt),
            fingerprint=fingerprint(
                media=media,
                prompt=rendered.prompt,
                labels=rendered.labels,
                system=system,
                model=model,
                generation=generation,
                safety=safety,
                schema=schema,
            ),
            labels=rendered.labels,
            system=system,
            generation=generation,
            safety=safety,
            schema=schema,
            template=template,
        )

    def _prompt(self, entry: Entry, media: tuple[Media, ...]) -> tuple[Rendered, str | None]:
        if entry.prompt is not None:
            return Rendered(entry.prompt), None
        template = self._template if entry.template is None else self._named(entry.template)
        if template.constant is not None:
            return template.constant, template.name
        seen = [
            {
                "index": index,
                "mime_type": medium.mime_type,
                "start": times.clock_text(medium.start_seconds),
                "end": times.clock_text(medium.end_seconds),
            }
            for index, medium in enumerate(media, 1)
        ]
        variables: dict[str, Json] = {"key": entry.key, "media": seen}
        if entry.path is not None:
            variables |= {"path": entry.path, "name": entry.path.rpartition("/")[2]}
        return template.render(variables | entry.variables, seen), template.name

    def _named(self, name: str) -> Template:
        try:
            return self._prompts.named(name)
        except UsageError as error:
            raise failed("template_error", str(error)) from None


def _merged(run: dict[str, Value], row: Mapping[str, Value]) -> dict[str, Value]:
    """The row's keys over the run's; a null takes the run's away. Nobody changes either: most items share the run's."""
    return {name: value for name, value in {**run, **row}.items() if value is not None} if row else run


def _located(entry: Entry, error: ItemError) -> ItemError:
    """The failure with the line it comes from, where there is one."""
    if entry.line is None:
        return error
    message = f"line {entry.line}: {error.failure.message}"
    return ItemError(msgspec.structs.replace(error.failure, message=message))
