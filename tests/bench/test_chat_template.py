"""Chat templates: rendered as transformers does, and stopped when they want more than a prompt."""

import sys

import pytest

from bench.chat_template import ChatTemplate, TemplateFailure

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + eos_token + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HELLO = [{"role": "user", "content": "Hello {{ 1 }}"}]


def rendered(source: str) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(HELLO)


def test_a_conversation_is_written_as_the_model_wants_it() -> None:
    template = ChatTemplate(CHATML, eos="<|im_end|>")
    assert template.render(HELLO) == "<|im_start|>user\nHello {{ 1 }}<|im_end|>\n<|im_start|>assistant\n"
    assert template.render(HELLO, add_generation_prompt=False) == "<|im_start|>user\nHello {{ 1 }}<|im_end|>\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if true %}\n  a\n{% endif %}\nb", "  a\nb"),
        ("{{ bos_token }}{{ tools is none }}", "<s>True"),
        ("{% for i in range(5) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "1"),
        ("{{ {'a': 'ü', 'b': [1, none]} | tojson }}", '{"a": "ü", "b": [1, null]}'),
        ("{{ messages[0].content.split(' ')[0] | trim | upper }}", "HELLO"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='role') | join(',') }}", "user"),
        ("{% macro tag(x) %}<{{ x }}>{% endmacro %}{{ tag('a') ~ tag('b') }}", "<a><b>"),
        ("{% generation %}x{% endgeneration %}", "x"),
        ("{{ messages[::-1][0]['role'] if messages | length > 0 else '' }}", "user"),
    ],
)
def test_what_templates_use_is_there(source: str, expected: str) -> None:
    assert rendered(source) == expected


def test_a_template_may_refuse() -> None:
    with pytest.raises(TemplateFailure, match="refuses the conversation: no system prompt"):
        rendered("{{ raise_exception('no system prompt') }}")


GROWING = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}"


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ nothing.at.all }}",
        "{% include 'x' %}",
        "x" * (2 << 20),
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{% for i in range(1000000) %}x{% endfor %}",
        "{{ 'x' * 10**10 }}",
        "{{ 'x' * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 4000000000 * 4000000000 * 4000000000 }}",
        GROWING + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        GROWING + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
        GROWING + "{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}",
        GROWING + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        GROWING + "{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x | tojson }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{{ messages | attr('__class__') }}",
        "{{ messages[0].content.encode() }}",
        "{{ 'a' | center(1000000000) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:>1000000000}'.format(1) }}",
        "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}",
        "{{ range(99999) | list | join('x' * 4000) }}",
        "{{ range(99999) | map('default', 'x' * 1000000, true) | join }}",
        "{{ ('x\\n' * 1000000) | indent(1000000) }}",
        "{{ lipsum(n=100000) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_what_no_chat_template_needs_is_one_sentence(source: str) -> None:
    with pytest.raises(TemplateFailure) as caught:
        rendered(source)
    assert len(str(caught.value).splitlines()) == 1


def test_a_template_that_loops_is_stopped_and_the_thread_is_as_before() -> None:
    before = sys.gettrace()
    template = ChatTemplate("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}")
    with pytest.raises(TemplateFailure, match="takes longer than 2 s"):
        template.render(HELLO)
    assert sys.gettrace() is before
