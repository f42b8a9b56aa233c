"""Small chat templates with the behaviour of well-known model families."""

from __future__ import annotations

from pathlib import Path

_HEAD = "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' }}"
_PROMPT = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
_END = "{{- '<|im_end|>\\n' }}{%- endfor %}" + _PROMPT

# Arguments of tool calls: a mapping only (Qwen3-Coder), a string only (DeepSeek), always through tojson (Qwen2.5).
CALLS_OF_MAPPINGS = (
    _HEAD + "{{- m.content or '' }}{%- for c in (m.tool_calls or []) %}<call {{ c.function.name }}>"
    "{%- for k, v in c.function.arguments | items %}{{ k }}={{ v }};{%- endfor %}</call>{%- endfor %}" + _END
)
CALLS_OF_STRINGS = (
    _HEAD + "{{- m.content or '' }}{%- for c in (m.tool_calls or []) %}"
    "{{- c.function.name + ' ' + c.function.arguments }}{%- endfor %}" + _END
)
CALLS_AS_JSON = (
    _HEAD + "{{- m.content or '' }}{%- for c in (m.tool_calls or []) %}"
    "{{- c.function.name + ' ' + (c.function.arguments | tojson) }}{%- endfor %}" + _END
)
CALLS_AS_PRINTED = (
    _HEAD + "{{- m.content or '' }}{%- for c in (m.tool_calls or []) %}"
    "{{- c.function.name }} {{ c.function.arguments }}{%- endfor %}" + _END
)
# Leave out calls (Granite 3.3), results of tools (Phi-3.5), arguments; write the tools at the top.
TOOLS_AT_THE_TOP = "{% if tools %}{{ tools | tojson }}{% endif %}"
WITHOUT_CALLS = TOOLS_AT_THE_TOP + _HEAD + "{{- m.content or '' }}" + _END
WITHOUT_RESULTS = CALLS_AS_JSON.replace(
    "{%- for m in messages %}",
    "{%- for m in messages if m.role in ('system', 'user', 'assistant') %}",
)
WITHOUT_ARGUMENTS = CALLS_AS_JSON.replace("+ ' ' + (c.function.arguments | tojson) ", "")

CALLS_WHILE_THINKING = (
    _HEAD + "{{- m.content }}{%- for c in (m.tool_calls or []) %}<tool>{{ c.function.name }}{%- endfor %}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)

# Qwen3: thinking is kept only after the last user message; the last turn always has some.
QWEN3 = (
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.role == 'assistant' %}{%- set thought = '' %}"
    "{%- set said = m.content %}{%- if '</think>' in said %}"
    "{%- set thought = said.split('</think>')[0].split('<think>')[-1].strip('\\n') %}"
    "{%- set said = said.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last and (loop.last or thought) %}{{- '<think>\\n' + thought + '\\n</think>\\n\\n' }}"
    "{%- endif %}{{- said }}{%- else %}{{- m.content }}{%- endif %}" + _END
)
QWEN3_WHOLE = Path(__file__).with_name("qwen3.jinja").read_text(encoding="utf-8")
# Qwen3.5, DeepSeek-R1: the generation prompt opens the thinking.
QWEN35 = QWEN3.replace("assistant\\n' }}{%- endif %}", "assistant\\n<think>\\n' }}{%- endif %}")
# Nemotron: an answer without a thought gets an empty one, and the generation prompt opens one.
NEMOTRON = (
    _HEAD + "{{- '<think></think>' if m.role == 'assistant' and '<think>' not in m.content }}{{- m.content }}"
    "{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n<think>\\n' }}{%- endif %}"
)
# OLMo: the end token stands after the last turn only.
OLMO = (
    "{%- for m in messages %}{{- '[' + m.role + ']\\n' + m.content }}"
    "{{- eos_token if loop.last and m.role == 'assistant' else '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '[assistant]\\n' }}{%- endif %}"
)
# gpt-oss: earlier turns end with another token than the last one.
GPT_OSS = (
    "{%- for m in messages %}{{- '[INST]' + m.role }}{%- if m.role == 'assistant' %}"
    "{{- '[/INST]final:' + m.content }}{{- '<|im_end|>' if loop.last and not add_generation_prompt else '<start_of_turn>' }}"
    "{%- else %}{{- '[/INST]' + m.content + '<start_of_turn>' }}{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '[INST]assistant' }}{%- endif %}"
)
# GLM: a turn ends where the next one begins, and that is one of the end tokens.
GLM = (
    "{%- for m in messages %}{{- ('<|im_end|>' if m.role == 'user' else '[INST]') + m.content }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '[INST]' }}{%- endif %}"
)
# Some templates write the prompt for the next turn whether they are asked for it or not (Command R7B).
ALWAYS_A_PROMPT = _HEAD + "{{- m.content + '<|im_end|>\\n' }}{%- endfor %}{{- '<|im_start|>assistant\\n' }}"
# With tags, as in the templates for training that TRL ships: the line break is part of the turn.
TAGGED = (
    "{%- for m in messages %}{%- if m.role == 'assistant' %}{{- '<|im_start|>assistant\\n' }}"
    "{% generation %}{{- m.content + '<|im_end|>\\n' }}{% endgeneration %}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}{%- endfor %}"
    + _PROMPT
)
# One tag around everything from the first answer on.
TAGGED_ONCE = (
    "{{- '<|im_start|>user\\n' + messages[0].content + '<|im_end|>\\n' }}{% generation %}"
    "{%- for m in messages[1:] %}{{- m.role + ': ' + m.content }}{%- endfor %}{% endgeneration %}"
)
ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a * b %}{% endfor %}{% endfor %}"
