"""Options are the same in every command: spelled and explained alike, amounts with units, finite numbers; llama-bench's are taken."""

from __future__ import annotations

import math

import click
import pytest
from click.testing import CliRunner

from harness.cli import COMMANDS, cli
from harness.cli.options import Amount, Number, refuse_unknown
from harness.errors import UsageError


def options():
    """Every option of every command."""
    context = click.Context(cli, **cli.context_settings)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                yield pytest.param(name, parameter, id=f"{name} {parameter.opts[-1]}")


OPTIONS = list(options())
AMOUNTS = [case for case in OPTIONS if isinstance(case.values[1].type, Amount)]
NUMBERS = [case for case in OPTIONS if isinstance(case.values[1].type, click.types.FloatParamType)]


def test_there_are_some():
    assert len(AMOUNTS) >= 7
    assert len(NUMBERS) >= 5


@pytest.mark.parametrize(("command", "option"), AMOUNTS)
def test_an_amount_without_a_unit_is_refused_with_what_may_be_meant(command, option):
    done = CliRunner().invoke(cli, [command, option.opts[-1], "20"])
    assert done.exit_code == 2
    assert "did you mean 20" in " ".join(done.output.split())


@pytest.mark.parametrize(("command", "option"), NUMBERS)
def test_no_option_takes_what_is_no_finite_number(command, option):
    assert isinstance(option.type, Number), "a float takes nan"
    for text in ("nan", "inf", "-inf", "1e999", "NaN", "infinity", "1e300"):
        done = CliRunner().invoke(cli, [command, option.opts[-1], text])
        assert done.exit_code == 2, text
        assert "Invalid value" in done.output
    assert option.type.max is not None
    assert math.isfinite(option.type.max)


#: Where the same letters are another thing, and why that has to be.
OTHERS = {
    "-o plot": "a picture has no format but its file's",
    "-o report": "a page has none either",
    "-o synth": "a model goes into a file",
    "-o run": "a text is written, and no table",
    "-m reference": "names of the catalog, all of them unless told otherwise",
    "-m pull": "there is nothing to pull unless told what",
    "-m history": "what is looked for among what was kept",
    "--test history": "a test by its name, too",
    "-r score": "LocalScore's tests run once",
    "-r roofline": "a number, as a test of a roof takes no time",
    "-r token-time": "rounds, which all parts share",
    "-r ollama": "pairs of turns, which cost minutes",
    "-r speculate": "rounds, in each of which every text is written with every length of draft",
    "-n speculate": "one length, and each text is written again for every length of draft",
    "--base quality": "a model, and no run",
    "-c quality": "a window of a text, as llama-perplexity has it",
    "--text quality": "a file of any kind, without which the text is our own",
    "--text speculate": "what texts go on from: a prompt, or pieces of a file",
    "-r ab": "repetitions of a block, of which there are as many as it takes",
    "-p ollama": "Ollama's server is asked in words, and once more for each pair",
    "-n ollama": "as many as an answer of a chat has, twice for each pair",
    "-ngl ollama": "as the server has it unless told otherwise",
    "-d token-time": "the question is what depth costs",
    "-t roofline": "the question is what threads bring",
    "-t rpc-server": "llama.cpp's own choice, on a machine that is lent",
    "-dev rpc-server": "devices that are lent: all cards, or else the CPU",
    "--vram fit": "several cards, which share a model out",
    "-md fit": "without one nothing guesses",
    "-c fit": "the largest that fits unless told otherwise",
    "--host predict": "a machine of the published ones, and no address",
    "--size predict": "a model's size, and no matrix's",
    "--for tune": "everything is tuned for it, and no count of layers alone",
    "--time tune": "a search takes minutes, and a look at noise half of one",
    "--check predict": "published figures are checked, and no files",
    "--label list": "what is looked for, and not what is noted",
}


def look_of(option):
    """What a user sees of an option; lists and single values are spelled alike, and a default is told in the help."""
    default = (
        None if "[" in (option.help or "") or option.default in ((), None) or option.multiple else repr(option.default)
    )
    return (*option.opts, *option.secondary_opts), option.help, option.metavar, default, option.is_flag


def test_the_same_option_is_the_same_in_every_command():
    looks = {}
    for name, option in (case.values for case in OPTIONS):
        for flag in option.opts:
            if f"{option.opts[0]} {name}" not in OTHERS and option.opts[0] != "-o":
                looks.setdefault(flag, {}).setdefault(look_of(option), []).append(name)
    drifted = {flag: list(found.items()) for flag, found in looks.items() if len(found) > 1}
    assert drifted == {}


def test_formats_are_asked_for_alike():
    found = {
        (*option.opts, option.help)
        for name, option in (case.values for case in OPTIONS)
        if option.opts[0] == "-o" and f"-o {name}" not in OTHERS
    }
    assert len(found) == 1, found


def test_every_exception_is_needed():
    every = {f"{option.opts[0]} {name}" for name, option in (case.values for case in OPTIONS)}
    assert sorted(other for other in set(OTHERS) - every if other.split()[1] in COMMANDS) == []


#: `llama-bench --help` of the llama.cpp that is built in: every option of it, with values that it takes.
LLAMA_BENCH = """
-r 5 | --repetitions 5 | --delay 0 | -o csv | -o json | -o jsonl | -o md | -o sql | --output md | -oe md | --output-err sql | --no-warmup
-rpc 10.0.0.1:50052 | --rpc 10.0.0.1:50052,10.0.0.2:50052 | -m x.gguf | --model x.gguf | -hf a/b:Q4_K_M | -hfr a/b | --hf-repo a/b
-p 128,512 | --n-prompt 0-512+128 | -n 16 | --n-gen 1-64*2 | -pg 512,128 | -d 0,4096 | --n-depth 8 | -b 2048 | --batch-size 64,128
-ub 512 | --ubatch-size 64 | -ctk f16,q8_0 | --cache-type-k q4_0 | -ctv f16 | --cache-type-v f32 | -t 1-8*2 | --threads 4
-ngl 99 | -ngl -1 | --n-gpu-layers 0-33+4 | -ncmoe 3 | --n-cpu-moe 0,4 | -sm none,layer | --split-mode row | -mg 0 | --main-gpu 1
-nkvo 0,1 | --no-kv-offload 1 | -fa on | -fa 0,1 | -fa true,disabled | --flash-attn auto | -dev CUDA0/RPC0 | --device none | -lm mmap | --load-mode none,auto
-lm mlock,mmap+mlock | -lm dio | --numa distribute | --numa numactl | --prio 2 | --prio -1 | -C 0x3 | --cpu-mask 0x3,0xff | --cpu-strict 0,1
--poll 0,50 | -ot a=CPU | --override-tensor a=CPU;b.*=CUDA0,c=CPU | -nopo 1 | --no-op-offload 0,1 | --no-host 1
-embd 1 | --embeddings 0 | -ts 3/1,1/1 | --tensor-split 1 | --repack 0,1 | -mmp 0,1 | --mmap 1
"""
REFUSED = """
--list-devices | --version | -v | --verbose | --progress | -fitt 1024 | --fit-target 1024 | -fitc 4096 | --fit-ctx 4096
-hff x.gguf | --hf-file x.gguf | -hft T | --hf-token T | --offline | -lzm on | --lazy-mode on
"""


def cases(text):
    return [words.split() for words in text.replace("\n", "|").split("|") if words.strip()]


@pytest.mark.parametrize("words", cases(LLAMA_BENCH), ids=" ".join)
def test_what_llama_bench_takes_is_taken(words):
    command = cli.get_command(click.Context(cli, **cli.context_settings), "pp-tg")
    with click.Context(cli, **cli.context_settings):
        refuse_unknown(command, words)
    assert command.make_context("pp-tg", list(words)).args == []


@pytest.mark.parametrize("words", cases(REFUSED), ids=" ".join)
def test_what_only_llama_bench_has_is_refused_with_what_to_do(words):
    done = CliRunner().invoke(cli, ["pp-tg", *words])
    assert isinstance(done.exception, UsageError)
    assert str(done.exception).startswith(f"llama-bench's {words[0]} is not taken here: ")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["pp-tg", "-mpp", "0"], "'-mmp'"),
        (["sweep", "-nglx", "3"], "'-ngl'"),
        (["pp-tg", "-threads", "4"], "'--threads'"),
        (["table", "-out", "md"], "No such option '-out'"),
    ],
)
def test_a_single_dash_before_many_letters_is_no_other_option(words, meant):
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 2
    assert meant in done.output


@pytest.mark.parametrize("words", [["run", "--system", "-ab"], ["run", "--", "-ab"], ["pp-tg", "-p512", "-ngl", "-1"]])
def test_a_value_may_begin_with_a_dash(words):
    command = cli.get_command(click.Context(cli, **cli.context_settings), words[0])
    with click.Context(cli, **cli.context_settings):
        refuse_unknown(command, words[1:])


def test_a_seed_below_zero_is_drawn_and_known():
    command = cli.get_command(click.Context(cli, **cli.context_settings), "pp-tg")
    seeds = {command.make_context("pp-tg", ["--seed", "-1"]).params["seed"] for _ in range(8)}
    assert len(seeds) > 1
    assert min(seeds) >= 0
