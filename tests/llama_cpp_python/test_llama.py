"""`kquant.llama_cpp.Llama` on a small model with random weights."""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kquant
from kquant import OptionError, llama_cpp
from kquant.llama_cpp import Llama, LlamaGrammar, LogitsProcessorList, StoppingCriteriaList
from support.llama_calls import CALLS, recorded, shape_of
from support.speaking_models import TOKENS, write_speaking_model

USER = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_speaking_model(tmp_path_factory.mktemp("models") / "speaking.gguf"))


@pytest.fixture(scope="module")
def llm(path: str) -> Iterator[Llama]:
    with Llama(path, n_ctx=128, logits_all=True, verbose=False) as llm:
        yield llm


def text_of(answer: Any) -> str:
    return str(answer["choices"][0]["text"])


def test_what_is_generated_is_what_the_language_model_generates(llm: Llama, path: str) -> None:
    with kquant.LanguageModel(path, context=128) as other:
        expected = "".join(piece.text for piece in other.generate("the sea", 12, temperature=0.0))
    assert text_of(llm("the sea", max_tokens=12, temperature=0)) == expected


@pytest.mark.parametrize(
    "name", ["completion", "stream", "logprobs, stream", "chat", "chat, stream", "chat, logprobs"]
)
def test_dictionaries_are_those_of_llama_cpp_python(llm: Llama, name: str) -> None:
    def known(value: Any) -> Any:
        """Without the tokens, which are keys of `top_logprobs`."""
        return json.loads(
            re.sub(r'("top_logprobs": )\[\{("[^"]+": "float"(, )?)+\}\]', r"\1[]", json.dumps(value))
        )

    assert json.dumps(known(shape_of(CALLS[name](llm)))) == json.dumps(known(shape_of(recorded()[name])))


def test_a_stream_gives_the_same_text_in_parts(llm: Llama) -> None:
    whole = llm("the sea", max_tokens=20, temperature=1.5, seed=5, logprobs=1)
    parts = list(llm("the sea", max_tokens=20, temperature=1.5, seed=5, logprobs=1, stream=True))
    assert "".join(map(text_of, parts)) == text_of(whole)
    assert [part["choices"][0]["finish_reason"] for part in parts][-2:] == [None, "length"]
    assert len({part["id"] for part in parts}) == 1
    told = [part["choices"][0]["logprobs"] for part in parts[:-1]]
    for key in ("tokens", "text_offset", "token_logprobs"):
        assert [x for each in told for x in each[key]] == whole["choices"][0]["logprobs"][key]


def test_stop_strings_are_not_given_and_may_span_tokens(llm: Llama) -> None:
    whole = text_of(llm("the sea", max_tokens=20, temperature=0))
    answer = llm("the sea", max_tokens=20, temperature=0, stop=["never", whole[3:6]])
    assert text_of(answer) == whole[:3]
    assert answer["choices"][0]["finish_reason"] == "stop"
    parts = list(llm("the sea", max_tokens=20, temperature=0, stop=whole[3:6], stream=True))
    assert "".join(map(text_of, parts)) == whole[:3]


def test_seeds(llm: Llama, path: str) -> None:
    def draw(model: Llama, **options: Any) -> str:
        return text_of(model("a", max_tokens=12, temperature=1.5, **options))

    assert draw(llm, seed=7) == draw(llm, seed=7) != draw(llm, seed=8)
    with Llama(path, seed=1, verbose=False) as one, Llama(path, seed=1, verbose=False) as other:
        first, second = draw(one), draw(one)
        assert (first, second) == (draw(other), draw(other))
        assert first != second
    assert len(draw(llm, seed=-1)) > 0
    assert len(text_of(llm("a", max_tokens=4, temperature=-1.0))) > 0


def test_a_context_is_filled_and_not_exceeded(llm: Llama) -> None:
    answer = llm("the sea", max_tokens=None, temperature=0, logit_bias={2: -np.inf})
    assert answer["usage"]["total_tokens"] == llm.n_ctx()
    with pytest.raises(ValueError, match=r"Requested tokens \(128\) exceed context window of 128"):
        llm([5] * 128)
    with pytest.raises(OptionError, match="at least one token"):
        llm([])


def test_the_end_of_a_text_is_not_given(llm: Llama) -> None:
    answer = llm("the sea", temperature=0, logit_bias={llm.token_eos(): 1000.0})
    assert text_of(answer) == ""
    assert answer["usage"]["completion_tokens"] == 0
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_what_a_caller_has_done_between_tokens(llm: Llama) -> None:
    seen: list[int] = []

    def only_the_letter_b(input_ids: Any, scores: Any) -> Any:
        seen.append(len(input_ids))
        scores[:] = -np.inf
        scores[6] = 0
        return scores

    answer = llm("a", max_tokens=3, logits_processor=LogitsProcessorList([only_the_letter_b]))
    assert text_of(answer) == "bbb"
    assert seen == [seen[0], seen[0] + 1, seen[0] + 2]
    criteria = StoppingCriteriaList([lambda ids, logits: len(ids) >= seen[0] + 2])
    answer = llm(
        "a",
        max_tokens=9,
        logits_processor=LogitsProcessorList([only_the_letter_b]),
        stopping_criteria=criteria,
    )
    assert text_of(answer) == "bb"
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_bytes_that_are_no_characters_are_left_out(llm: Llama) -> None:
    half = TOKENS.index("<0xF0>")
    assert llm.detokenize([half]) == b"\xf0"
    answer = llm("a", max_tokens=3, temperature=0, logit_bias={half: 1000.0})
    assert (text_of(answer), answer["usage"]["completion_tokens"]) == ("", 3)
    assert [text_of(part) for part in llm("a", max_tokens=3, logit_bias={half: 1000.0}, stream=True)] == [""]


def test_bounds_are_those_of_llama_cpp(llm: Llama) -> None:
    as_it_is = text_of(llm("a", max_tokens=4, seed=3, top_p=1.0, min_p=0.0))
    assert text_of(llm("a", max_tokens=4, seed=3, top_p=2.0, min_p=-1.0)) == as_it_is


def test_suffix(llm: Llama) -> None:
    """The vocabulary has no tokens for it: it comes after the text."""
    assert text_of(llm("the sea", suffix=" end", max_tokens=2, temperature=0)).endswith(" end")


def test_echo_of_tokens(llm: Llama) -> None:
    tokens = llm.tokenize(b"the sea")
    answer = llm(tokens, echo=True, max_tokens=2, temperature=0, logprobs=1)
    assert text_of(answer).startswith("the sea")
    told = answer["choices"][0]["logprobs"]
    assert told["text_offset"][-2:] == [len(text_of(answer)) - 2, len(text_of(answer)) - 1]
    assert told["token_logprobs"][0] is None
    assert told["top_logprobs"][0] is None


def test_a_prompt_that_begins_with_the_first_token_is_warned_of(llm: Llama) -> None:
    with pytest.warns(RuntimeWarning, match='the prompt begins with "<s>"'):
        llm("<s>the sea", max_tokens=1)


def test_step_by_step(llm: Llama) -> None:
    tokens = llm.tokenize(b"the sea")
    assert llm.detokenize(tokens) == b"the sea"
    assert llm.detokenize(tokens, special=True) == b"<s> the sea"
    llm.reset()
    with pytest.raises(OptionError, match="expected tokens that have been read"):
        llm.sample()
    llm.eval(tokens[:4])
    llm.eval(tokens[4:])
    llm.eval([])
    assert llm.n_tokens == len(tokens)
    assert list(llm.eval_tokens) == tokens == llm.input_ids[: llm.n_tokens].tolist()
    expected = kquant.LanguageModel(llm.model_path).logits(tokens)
    np.testing.assert_array_equal(llm.scores[: llm.n_tokens], expected)
    assert llm.sample(temp=0.0) == int(expected[-1].argmax())
    assert llm.sample(temp=0.0, idx=2) == int(expected[2].argmax())
    llm.n_tokens = 3
    llm.eval(tokens[3:])
    assert llm.sample(temp=0.0) == int(expected[-1].argmax())


def test_generate_takes_tokens_that_are_sent(llm: Llama) -> None:
    tokens = llm.tokenize(b"the sea")
    stream = llm.generate(tokens, temp=0.0)
    first = next(stream)
    stream.send([7, 8])
    assert list(llm.eval_tokens) == [*tokens, first, 7, 8]
    stream.close()
    llm.reset()
    llm.eval(tokens)
    assert next(llm.generate([], temp=0.0, reset=False)) == first
    with pytest.raises(OptionError, match="at least one"):
        next(llm.generate([], temp=0.0))


def test_states(llm: Llama) -> None:
    tokens = llm.tokenize(b"the sea")
    llm.reset()
    llm.eval(tokens)
    state = llm.save_state()
    assert state.n_tokens == len(tokens)
    wanted = llm.sample(temp=0.0)
    llm.eval([9, 10, 11])
    llm.load_state(state)
    assert llm.n_tokens == len(tokens)
    assert llm.sample(temp=0.0) == wanted


def test_without_logits_all_the_last_row_is_there(path: str) -> None:
    with Llama(path, n_batch=4, n_ctx=64, verbose=False) as llm:
        llm.eval([5, 6, 7])
        assert llm.scores.shape == (4, 128)
        assert llm.scores[2].any()
        assert not llm.scores[:2].any()
        llm.eval([8, 9])
        assert llm.scores[-1].argmax() == llm.sample(temp=0.0)
        with pytest.raises(
            ValueError, match="logprobs is not supported for models created with logits_all=False"
        ):
            llm("a", logprobs=1)


def test_chat(llm: Llama) -> None:
    whole = llm.create_chat_completion(USER, max_tokens=6, temperature=0)
    assert whole["choices"][0]["message"]["role"] == "assistant"
    parts = list(llm.create_chat_completion(USER, max_tokens=6, temperature=0, stream=True))
    deltas = [part["choices"][0]["delta"] for part in parts]
    assert deltas[0] == {"role": "assistant"}
    assert deltas[-1] == {}
    assert "".join(d["content"] for d in deltas[1:-1]) == whole["choices"][0]["message"]["content"]
    prompt = llm.tokenize(b"<s>user: hi\nassistant:", add_bos=False, special=True)
    assert text_of(llm(prompt, max_tokens=6, temperature=0)) == whole["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "name", ["chatml", "gemma", "llama-2", "llama-3", "zephyr", "vicuna", "alpaca", "qwen"]
)
def test_chat_formats_by_name(path: str, name: str) -> None:
    turns = [{"role": "system", "content": "one"}, *USER, {"role": "assistant", "content": "two"}, *USER]
    with Llama(path, chat_format=name, verbose=False) as llm:
        assert llm.create_chat_completion(turns, max_tokens=1)["usage"]["completion_tokens"] == 1


def test_a_file_without_a_template_is_spoken_to_as_llama_2(tmp_path: Path) -> None:
    path = write_speaking_model(tmp_path / "m.gguf", chat_template=None)
    with Llama(str(path), verbose=False) as llm:
        assert llm.chat_format == "llama-2"
        llm.create_chat_completion(USER, max_tokens=1)
        llm.chat_format = "chat_template.default"
        with pytest.raises(
            OptionError, match=r"chat_format: expected one of chatml, .*, got 'chat_template.default'"
        ):
            llm.create_chat_completion(USER)


def test_a_chat_handler_answers_in_place(path: str) -> None:
    with Llama(path, chat_handler=lambda **given: given, verbose=False) as llm:
        given = llm.create_chat_completion(USER, temperature=0.5)
    assert given["llama"] is llm
    assert (given["messages"], given["temperature"]) == (USER, 0.5)


def test_embeddings(path: str) -> None:
    with Llama(path, embedding=True, n_ctx=64, n_batch=8, verbose=False) as llm:
        each, n = llm.embed("the sea", return_count=True)
        assert (len(each), len(each[0])) == (n, llm.n_embd())
        assert np.linalg.norm(llm.embed("the sea", normalize=True)[0]) == pytest.approx(1)
        answer = llm.create_embedding(["the sea", "the"], model="m")
        assert [data["index"] for data in answer["data"]] == [0, 1]
        assert answer["data"][0]["embedding"] == each
        assert len(llm.embed("a" * 30)) == 8
        with pytest.raises(OptionError, match="exceed batch size of 8"):
            llm.embed("a" * 30, truncate=False)
    with Llama(path, embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_MEAN, verbose=False) as llm:
        np.testing.assert_allclose(llm.embed("the sea"), np.mean(each, axis=0), rtol=1e-5)
    with Llama(path, embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_LAST, verbose=False) as llm:
        assert llm.embed("the sea") == each[-1]
    with Llama(path, verbose=False) as llm, pytest.raises(RuntimeError, match="embedding=True"):
        llm.embed("the sea")


def test_facts(llm: Llama) -> None:
    assert (llm.n_ctx(), llm.n_vocab(), llm.n_embd()) == (128, 128, 128)
    assert (llm.token_bos(), llm.token_eos(), llm.token_nl()) == (1, 2, 4)
    assert llm.metadata["tokenizer.ggml.add_bos_token"] == "true"
    assert llm.metadata["llama.attention.layer_norm_rms_epsilon"] == "0.000010"
    assert "tokenizer.ggml.tokens" not in llm.metadata


def test_options_that_change_nothing_are_accepted(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Llama(
        model_path=path, n_ctx=0, n_threads=1, n_gpu_layers=-1, use_mmap=False, n_gqa=8, f16_kv=True
    ) as llm:
        assert llm.n_ctx() == 256
    assert capfd.readouterr().err == "options that are not known and do nothing: n_gqa, f16_kv\n"


def test_options_that_cannot_be(path: str, llm: Llama) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"lora_path": "x"}, "lora_path: expected None, as kquant does nothing else, got 'x'"),
        ({"rope_freq_scale": 0.5}, "rope_freq_scale: expected 0.0 or 1.0"),
        ({"type_v": 1000}, "type_v: expected the number of a ggml type"),
        ({"type_k": llama_cpp.GGML_TYPE_Q6_K}, "cache_type_k: expected one of"),
        ({"pooling_type": 4}, "pooling_type: expected -1 to 3, got 4"),
    ]
    for options, message in refused:
        with pytest.raises(OptionError, match=message):
            Llama(path, **options)
    with pytest.raises(ValueError, match="Model path does not exist: none"):
        Llama("none.gguf")
    with pytest.raises(OptionError, match="mirostat_mode: expected 0"):
        llm("a", mirostat_mode=2)
    with pytest.raises(OptionError, match="grammar: expected a LlamaGrammar, got str"):
        llm("a", grammar="root")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="text: expected bytes, got str"):
        llm.tokenize("a")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match='response_format: expected a "type" of json_object or text'):
        llm.create_chat_completion(USER, response_format={"type": "xml"})
    with pytest.raises(OptionError, match="Tool choice 'f' not found in tools"):
        llm.create_chat_completion(USER, function_call={"name": "f"})
    with pytest.raises(AttributeError, match="GGML_TYPE_NONE"):
        _ = llama_cpp.GGML_TYPE_NONE


def test_caches_of_other_types(path: str) -> None:
    with Llama(path, type_k=llama_cpp.GGML_TYPE_Q8_0, type_v=llama_cpp.GGML_TYPE_Q4_0, verbose=False) as llm:
        assert [t.name for t in llm.llm.session().cache.types] == ["Q8_0", "Q4_0"]
        assert llm("a", max_tokens=2)["usage"]["completion_tokens"] == 2


def test_times_are_told_if_verbose(path: str, capfd: pytest.CaptureFixture[str]) -> None:
    with Llama(path) as llm:
        llm("the sea", max_tokens=3, temperature=0)
        lines = capfd.readouterr().err.splitlines()
        assert [line.partition("=")[0].split(":")[1].strip() for line in lines] == [
            "load time", "prompt eval time", "eval time", "total time",
        ]  # fmt: skip
        llm("the see", max_tokens=3, temperature=0)
        assert "prefix-match hit" in capfd.readouterr().err


def test_a_grammar_is_kept(llm: Llama, tmp_path: Path) -> None:
    pytest.importorskip("llguidance")
    file = tmp_path / "g.gbnf"
    file.write_text('root ::= "yes" | "no"', encoding="utf-8")
    assert text_of(llm("a", grammar=LlamaGrammar.from_file(file), temperature=0)) in ("yes", "no")
    function = {"name": "f", "parameters": {"enum": [12345]}}
    call = llm.create_chat_completion(USER, functions=[function], function_call={"name": "f"})
    assert call["choices"][0]["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": "12345"}
    assert call["choices"][0]["finish_reason"] == "tool_calls"
    choice = {"type": "function", "function": {"name": "f"}}
    tools = [{"type": "function", "function": function}]
    parts = list(llm.create_chat_completion(USER, tools=tools, tool_choice=choice, stream=True))
    deltas = [part["choices"][0]["delta"] for part in parts]
    assert "".join(d["function_call"]["arguments"] for d in deltas[1:-1]) == "12345"
    format = {"type": "json_object", "schema": {"enum": ["x"]}}
    answer = llm.create_chat_completion(USER, response_format=format)
    assert answer["choices"][0]["message"]["content"] == '"x"'
    assert repr(LlamaGrammar.from_json_schema('{"enum": [1]}')) == "LlamaGrammar(json_schema={'enum': [1]})"


def test_files_of_the_hub(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = types.ModuleType("huggingface_hub")
    hub.list_repo_files = lambda repo: ["README.md", "m-Q4_0.gguf", "m-Q8_0.gguf"]  # type: ignore[attr-defined]
    hub.hf_hub_download = lambda repo, name, **options: path if "Q8_0" in name else ""  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with Llama.from_pretrained("some/model", "*Q8_0.gguf", verbose=False) as llm:
        assert llm.model_path == path
    with pytest.raises(OptionError, match=r"expected one file of some/model that matches \*.gguf, got"):
        Llama.from_pretrained("some/model", "*.gguf")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(kquant.MissingDependencyError, match="huggingface_hub"):
        Llama.from_pretrained("some/model", "*.gguf")
