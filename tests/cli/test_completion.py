"""`kquant completion`: scripts that shells accept, and answers to what they ask."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from kquant.cli import COMMANDS, main

SHELLS = {
    "bash": "complete -o nosort -F _kquant_completion kquant",
    "zsh": "#compdef kquant",
    "fish": "complete --no-files --command kquant",
}


def completed(line: str, shell: str = "bash") -> list[str]:
    """The completions that the shell gets for the last argument of a line."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "kquant"],
        capture_output=True,
        check=True,
        text=True,
        env={
            **os.environ,
            "_KQUANT_COMPLETE": f"{shell}_complete",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split(" ")) - 1),
        },
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("shell", SHELLS)
def test_scripts(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert SHELLS[shell] in script
    assert f"_KQUANT_COMPLETE={shell}_complete" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, check=True, text=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    assert main(["completion", "bash"]) == 0
    program = f'kquant() {{ "{sys.executable}" -m kquant; }}; export -f kquant\n' + capsys.readouterr().out
    program = program.replace("env COMP_WORDS", "COMP_WORDS")  # `env` would not find the function
    program += (
        '\nCOMP_WORDS=(kquant types Q6); COMP_CWORD=2; _kquant_completion kquant; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, check=True, text=True)
    assert done.stdout.split() == ["Q6_K"]


@pytest.mark.slow
def test_commands_types_and_files() -> None:
    assert completed("kquant ") == [f"plain,{name}" for name in COMMANDS]
    assert completed("kquant types q2") == ["plain,Q2_K", "plain,Q2_0"]
    assert completed("kquant quantize in.gguf Q4_K") == ["plain,Q4_K_S", "plain,Q4_K_M", "plain,Q4_K"]
    assert completed("kquant run -ctk q5") == ["plain,Q5_1", "plain,Q5_0"]
    assert completed("kquant run --cache-type-v=b") == completed("kquant bench -ctv b") == ["plain,BF16"]
    assert completed("kquant run --rep") == ["plain,--repeat-penalty", "plain,--repeat-last-n"]
    assert completed("kquant run mod") == completed("kquant bench a.gguf mod") == ["file,mod"]
    assert completed("kquant warmup r") == ["plain,run"]
    assert completed("kquant inspect mod") == ["file,mod"]
    assert completed("kquant compare --th") == ["plain,--threads"]
    assert completed("kquant completion z") == ["plain,zsh"]


def test_other_shells(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"]) == 2
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in capsys.readouterr().err
