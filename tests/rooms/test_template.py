"""Prompt templates: values are data, and what a template can do is bounded."""

import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ItemError, UsageError
from pipeline.manifest.prompts import Prompts
from pipeline.manifest.rendered import RENDERED_CHARACTERS
from pipeline.manifest.sandbox import Compiled
from pipeline.manifest.template import Template
from pipeline.spec import ItemDefaults
from tests.security.hostile import SSTI

IMAGE = {"index": 1, "mime_type": "image/jpeg", "start": None, "end": None}
VIDEO = {"index": 2, "mime_type": "video/mp4", "start": "00:01", "end": "00:03"}

PAYLOADS = [*SSTI, "\u2028\u2029\u202e"]

REFUSED = [
    "{{ ''.__class__ }}",
    "{{ ''['__class__'] }}",
    "{{ ().__class__.__base__.__subclasses__() }}",
    "{{ self.__init__.__globals__ }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ namespace.__init__ }}",
    "{{ range.__class__ }}",
    "{{ label.__globals__ }}{% macro label(m) %}{% endmacro %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os }}",
    "{{ media.append(1) }}",
    "{{ row.update({'a': 1}) }}",
    "{{ row.clear() }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ missing }}",
    "{{ row.missing }}",
    "{{ 1 / 0 }}",
    "{{ 'a' + 1 }}",
    "{{ [] | first }}",
    "{{ none() }}",
]

BOMBS = [
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    "{{ [0] * 10**9 }}",
    "{{ 10 ** (10 ** 10) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (1000000000, 1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{{ '{:1000000000d}'.format(1) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a'.zfill(10**9) }}",
    "{{ 'a'.center(10**9) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a\nb' | indent(10**9) }}",
    "{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}",
    "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
    "{{ ('b' * 10**6).join('a' * 10**6) }}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(9999) %}{{ 'x' * 9999 }}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro label(m) %}{{ 'x' * 1000000 }}{{ 'y' * 1000000 }}{% endmacro %}x",
]


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize("column", ["key", "path", "name", "product"])
def test_values_are_rendered_literally(column: str, payload: str) -> None:
    """Template syntax inside a value is text, wherever the value comes from."""
    rendered = Template("<{{ " + column + " }}>").render({column: payload})
    assert rendered.prompt == f"<{payload}>"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nested_values_and_labels_are_rendered_literally(payload: str) -> None:
    """Values inside lists and objects, and in a label, are text as well."""
    source = "{{ row.a[0] }}{% macro label(m) %}<{{ row.a[0] }}>{% endmacro %}|"
    rendered = Template(source).render({"row": {"a": [payload]}}, [IMAGE, VIDEO])
    assert rendered.prompt == f"{payload}|"
    assert rendered.labels == (f"<{payload}>",) * 2


@pytest.mark.parametrize("source", REFUSED)
def test_what_a_template_may_not_do(source: str) -> None:
    """Each ends the item with template_error, and nothing else."""
    with pytest.raises(ItemError) as caught:
        Template(source).render({"media": [IMAGE], "row": {}}, [IMAGE])
    assert caught.value.failure.kind == "template_error"


@pytest.mark.parametrize("source", BOMBS)
def test_what_would_blow_up_is_refused(source: str) -> None:
    """A template that would take gigabytes or minutes ends at once."""
    started = time.monotonic()
    with pytest.raises(ItemError) as caught:
        Template(source + "{{ n }}").render({"n": 1}, [IMAGE, VIDEO])
    assert caught.value.failure.kind == "template_error"
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("source", ["{{ random([1, 2]) }}", "{{ [1, 2] | random }}", "{{ lipsum() }}"])
def test_a_template_renders_alike_every_night(source: str) -> None:
    """What is different each time would make everybody pay again, so it is not there."""
    with pytest.raises((UsageError, ItemError)):
        Template(source).render({})


@pytest.mark.parametrize("source", ["{{ x", "{% if %}", "{{ x | nowhere }}", "{% endif %}", "\udcff"])
def test_what_is_no_template(source: str) -> None:
    """A template that can't be compiled ends the run before it begins."""
    with pytest.raises(UsageError):
        Template(source, "mine")


def test_the_largest_prompt() -> None:
    """A prompt may be exactly as long as the cap."""
    assert len(Template("{{ x }}").render({"x": "a" * RENDERED_CHARACTERS}).prompt) == RENDERED_CHARACTERS
    with pytest.raises(ItemError, match="longer than"):
        Template("{{ x }}").render({"x": "a" * (RENDERED_CHARACTERS + 1)})


def test_an_empty_prompt_is_an_error() -> None:
    """A template that renders to nothing asks nothing."""
    with pytest.raises(ItemError, match="nothing"):
        Template("{% if x %}a{% endif %}").render({"x": False})


def test_ordinary_templates_work() -> None:
    """Conditions, loops, filters, sums and the media are there for use."""
    source = (
        "{% for m in media %}{{ m.index }}/{{ m.mime_type }} {% endfor %}{{ tags | join(', ') | upper }} {{ n + 1 }}"
    )
    assert Template(source).render({"media": [IMAGE, VIDEO], "tags": ["a", "b"], "n": 1}).prompt == (
        "1/image/jpeg 2/video/mp4 A, B 2"
    )
    assert Template("{{ '%03d' | format(7) }}{{ 'a_b' | replace('_', ' ') }}{{ 'x' | center(3) }}!").render(
        {}
    ).prompt == ("007a b x !")


def test_labels_come_with_a_series_only() -> None:
    """A macro ``label`` gives each medium of a series its text; a variable of that name does nothing."""
    template = Template("{% macro label(m) %} Image {{ m.index }}: {% endmacro %}Compare.")
    assert template.render({}, [IMAGE, VIDEO]).labels == ("Image 1:", "Image 2:")
    assert template.render({}, [IMAGE]).labels == ()
    assert Template("{{ label }}").render({"label": "x"}, [IMAGE, VIDEO]).labels == ()


@pytest.mark.parametrize("name", ["describe", "alt_text", "tags", "ocr", "video_summary", "compare"])
def test_shipped_prompts(name: str) -> None:
    """Each of the shipped prompts renders for an image, a video and a series, and begins with what it is for."""
    template = Prompts().named(name)
    for media in ([IMAGE], [VIDEO], [IMAGE, VIDEO]):
        prompt = template.render({"key": "k", "media": media}, media).prompt
        assert len(prompt) > 80
        assert "{" not in prompt.replace('{"title"', "")
    assert Path(f"configs/prompts/{name}.j2").read_text().startswith("{# ")


def test_the_clip_is_told(tmp_path: Path) -> None:
    """The video summary speaks of the part that the row asks for."""
    prompt = Prompts().named("video_summary").render({"media": [VIDEO]}, [VIDEO]).prompt
    assert "from 00:01 to 00:03" in prompt


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "", "/etc/passwd", "a/b", "a\\b/..", "x\0", ".hidden", "x" * 300, "~", "a b", "nowhere"]
)
def test_names_stay_in_their_folders(tmp_path: Path, name: str) -> None:
    """A name is a name, never a way out."""
    (tmp_path / "in").mkdir()
    (tmp_path / "x.j2").write_text("outside")
    (tmp_path / "in/.hidden.j2").write_text("hidden")
    with pytest.raises(UsageError):
        Prompts((tmp_path / "in",)).named(name)


def test_the_first_folder_wins(tmp_path: Path) -> None:
    """The working directory's templates come before those shipped; each is read once."""
    for folder in ("mine", "shipped"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.j2").write_text(folder)
    (tmp_path / "shipped/b.j2").write_text("b")
    prompts = Prompts((tmp_path / "mine", tmp_path / "shipped"))
    assert prompts.named("a").render({}).prompt == "mine"
    assert prompts.named("b").render({}).prompt == "b"
    (tmp_path / "mine/a.j2").write_text("changed")
    assert prompts.named("a").render({}).prompt == "mine"


def test_the_runs_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run's own template is given in place, by name or as a file; only a named one has a name."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.j2").write_bytes(b"\xef\xbb\xbfHello {{ key }}\n")

    def first(**defaults: Any) -> tuple[str, str | None]:
        template = Prompts().of_run(ItemDefaults(**defaults))
        return template.render({"key": "k", "media": [IMAGE]}).prompt, template.name

    assert first(prompt="In place {{ key }}") == ("In place k", None)
    assert first(template="my.j2") == ("Hello k", "my")
    assert first(template=str(tmp_path / "my.j2")) == ("Hello k", "my")
    assert first(template="ocr")[1] == "ocr"
    for missing in ("nowhere", "./nowhere.j2", "nowhere.j2"):
        with pytest.raises(UsageError, match="nowhere"):
            first(template=missing)


def test_unreadable_templates(tmp_path: Path) -> None:
    """Bytes that are no text, and a file too large, are usage errors."""
    (tmp_path / "a.j2").write_bytes(b"\xff\xfe")
    (tmp_path / "b.j2").write_bytes(b"x" * (1024 * 1024 + 1))
    for name in "ab":
        with pytest.raises(UsageError):
            Prompts((tmp_path,)).named(name)


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from(" \t\r\n#%}a\u2028\u0085\x0b\x0c-"), max_size=30))
def test_a_text_without_braces_is_what_jinja_would_make_of_it(text: str) -> None:
    """Jinja is not even imported for it; an empty one is refused both ways."""
    try:
        made = Template(text).render({}).prompt
    except UsageError:
        made = ""
    try:
        expected = Compiled(text).render({}).prompt
    except ItemError:
        expected = ""
    assert made == expected
