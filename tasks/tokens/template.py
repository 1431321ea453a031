"""The Tulu template: how a prompt and an answer become one text, here and in the chat template of the exported model.

    <|user|>
    PROMPT
    <|assistant|>
    ANSWER</s>

The markers are plain text, not special tokens. Messages are stripped. Source: the template "tulu" of open-instruct,
the form that the Tulu 2 and 2.5 models were trained on; unlike its newest version, text begins with BOS where the
tokenizer itself begins plain text so.
"""

from typing import Final

USER: Final = "<|user|>\n"
ASSISTANT: Final = "<|assistant|>\n"


def prompt_text(prompt: str) -> str:
    """What the model reads before it answers `prompt`; ends at the answer's first character."""
    return f"{USER}{prompt.strip()}\n{ASSISTANT}"


def chat_template(begin: str) -> str:
    """The Jinja template that renders the same text, for `tokenizer.apply_chat_template`.

    `begin` is the Jinja expression of what precedes the first marker: `''`, `bos_token`, or `bos_token + ' '`.
    """
    return (
        "{{ " + begin + " }}"
        "{% for message in messages %}"
        "{% if message['role'] in ['system', 'user'] %}"
        "{{ '<|' + message['role'] + '|>\\n' + (message['content'] | trim) + '\\n' }}"
        "{% elif message['role'] == 'assistant' %}"
        "{{ '<|assistant|>\\n' + (message['content'] | trim) + eos_token }}"
        "{% if add_generation_prompt or not loop.last %}{{ '\\n' }}{% endif %}"
        "{% else %}"
        "{{ raise_exception('the role is ' + message['role'] + '; system, user and assistant are known') }}"
        "{% endif %}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    )
