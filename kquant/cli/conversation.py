"""A conversation with a model: messages and answers by turns."""

from __future__ import annotations

import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kquant._text import printable
from kquant.cli import show
from kquant.cli.answers import Answer, Asked
from kquant.errors import OptionError

if TYPE_CHECKING:
    from kquant.runtime.language_model import LanguageModel

__all__ = ["Conversation"]


class Conversation:
    """Typed at a terminal; elsewhere every line of standard input is a message."""

    def __init__(self, llm: LanguageModel, asked: Asked) -> None:
        self.llm, self.asked = llm, asked
        self.messages: list[dict[str, Any]] = []
        self._is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        self._turn = 0

    def hold(self, message: str | None) -> None:
        """Converse, beginning with a message if there is one.

        Ctrl-D, /exit or two Ctrl-C end it, of which the first stops the answer.
        """
        if self._is_terminal:
            click.echo(
                f"{printable(Path(self.llm.path).name)}, {self.llm.context} tokens of context. Ctrl-C stops "
                "an answer, /clear forgets the conversation, /exit or Ctrl-D ends it.",
                err=True,
            )
        was_interrupted = False
        while True:
            try:
                if message is None:
                    message = show.ask("> ") if self._is_terminal else show.line()
                    was_interrupted = False
                if message is None or message.strip() == "/exit":
                    return
                if message.strip() == "/clear":
                    self.messages.clear()
                elif message.strip():
                    self._answer(message)
            except KeyboardInterrupt:
                click.echo()
                if was_interrupted or not self._is_terminal:
                    return
                was_interrupted = True
            message = None

    def _answer(self, message: str) -> None:
        before, answer = list(self.messages), Answer()
        self.messages += (
            [{"role": "user", "content": message}] if self.messages else self.asked.messages(message)
        )
        # every answer has random numbers of its own
        sampling = replace(self.asked.sampling, seed=self.asked.seed + self._turn)
        self._turn += 1
        try:
            with closing(answer.pieces(self.llm, self.asked, self._tokens(), sampling)) as pieces:
                for text in pieces:
                    show.write_piece(text)
        except OptionError as error:
            click.echo(f"kquant: error: {error}; /clear forgets the conversation", err=True)
        else:
            click.echo()
        finally:
            if answer.tokens or answer.finish:
                self.messages.append({"role": "assistant", "content": answer.text})
            else:
                self.messages = before

    def _tokens(self) -> list[int]:
        """The conversation as a prompt; with --context-shift, without the first turns if it is too long."""
        while True:
            ids = self.llm.chat_tokens(self.messages, template=self.asked.template)
            first = int(self.messages[0]["role"] == "system")
            if not self.asked.slide or len(ids) <= self.llm.context or len(self.messages) < first + 3:
                return ids
            del self.messages[first : first + 2]
