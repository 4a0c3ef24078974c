"""Settings as lines for other programs: each line is read back by the rules of the program that it is for."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import json
import pathlib
import shlex

import pytest

from harness.spec import RunSpec, defaults, parameters
from harness.views.paste import OF_TESTS, llama_arguments, paste_section, python_arguments, write_lines
from harness.views.spellings import SPELLINGS, Asked

#: A value of each parameter that no program has by itself.
UNUSUAL = {
    "n_gpu_layers": 20,
    "split_mode": "row",
    "main_gpu": 1,
    "tensor_split": (3.0, 1.0),
    "n_cpu_moe": 12,
    "devices": ("CUDA0", "RPC0"),
    "rpc": ("10.0.0.1:50052", "10.0.0.2:50052"),
    "load_mode": "none",
    "override_tensors": (r"\.ffn_.*_exps\.=CPU", "output=CUDA0"),
    "no_host": True,
    "no_op_offload": True,
    "repack": False,
    "n_batch": 1024,
    "n_ubatch": 256,
    "type_k": "q8_0",
    "type_v": "q8_0",
    "no_kv_offload": True,
    "swa_full": True,
    "flash_attn": "off",
    "embeddings": True,
    "n_threads": 6,
    "n_threads_batch": 12,
    "cpu_mask": "0x3f",
    "cpu_strict": True,
    "poll": 100,
    "priority": 2,
    "numa": "isolate",
    "n_parallel": 4,
    "kv_unified": True,
}

#: Options of llama-server and llama-cli, and whether each takes a value.
OPTIONS = json.loads((pathlib.Path(__file__).parent / "recorded" / "llama_options.json").read_text(encoding="utf-8"))

NAMES = [name for name in parameters() if name not in OF_TESTS]


def spec_of(**settings) -> RunSpec:
    known = {name: value for name, value in settings.items() if name in parameters()}
    return RunSpec(settings.get("model", "m.gguf"), n_prompt=1, **known)


def ask(**settings) -> Asked:
    facts = {
        name: settings.pop(name) for name in ("n_ctx", "n_layers", "has_devices", "n_layers_alone") if name in settings
    }
    return Asked(spec_of(**settings), **facts)


def lines_of(program: str, asked: Asked) -> list[str]:
    return [line for pasted in write_lines(asked) if pasted.program == program for line in pasted.lines]


def untold_of(program: str, asked: Asked) -> str:
    return " ".join(text for pasted in write_lines(asked) if pasted.program == program for text in pasted.untold)


def everything(asked: Asked) -> list[str]:
    return [text for pasted in write_lines(asked) for text in (*pasted.lines, *pasted.untold)]


# ---- the table -------------------------------------------------------------------------------------------------------


def test_every_parameter_has_a_row_for_every_program():
    missing = [name for name in NAMES if name not in SPELLINGS]
    assert not missing, f"say in views/spellings.py how other programs spell {missing}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("program", ["llama-server", "llama-cpp-python", "Ollama", "LM Studio"])
def test_a_value_that_is_not_usual_is_told_or_said_to_be_untold(name, program):
    """Nothing that was found is lost without a word."""
    usual, unusual = ask(n_threads=4), ask(**{"n_threads": 4, name: UNUSUAL[name]})
    if program in ("Ollama", "LM Studio") and name == "embeddings":
        return  # how they are asked decides, and no setting
    if program in ("Ollama", "LM Studio") and name == "n_batch":
        unusual = ask(n_threads=4, n_batch=4096)
    before = [*lines_of(program, usual), untold_of(program, usual)]
    assert [*lines_of(program, unusual), untold_of(program, unusual)] != before


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_itself_can_be_told_everything(name):
    asked = ask(**{name: UNUSUAL[name]})
    assert len(llama_arguments("llama-server", asked)) > len(llama_arguments("llama-server", ask())) or name in (
        "n_gpu_layers",
        "n_parallel",
    )


def test_what_a_program_does_by_itself_is_not_written():
    asked = ask(has_devices=False)
    assert lines_of("llama-cli", asked) == ["llama-cli -m m.gguf -c 4096"]
    assert lines_of("Ollama", asked)[:2] == ["FROM m.gguf", "PARAMETER num_ctx 4096"]
    assert not untold_of("Ollama", asked)
    assert not untold_of("LM Studio", asked)
    assert not untold_of("llama-cpp-python", asked)


# ---- llama.cpp's programs --------------------------------------------------------------------------------------------


def test_a_shell_gives_the_words_back():
    path = "/a b/it's (1) & more;*.gguf"
    asked = ask(model=path, tensor_split=(3.0, 1.0), override_tensors=(r"blk\.(1|2)\..*=CPU",))
    (line,) = lines_of("llama-server", asked)
    assert shlex.split(line) == ["llama-server", *llama_arguments("llama-server", asked)]
    assert shlex.split(line)[1:3] == ["-m", path]
    assert shlex.split(line)[shlex.split(line).index("-ts") + 1] == "3,1"


@pytest.mark.parametrize(
    "name", ["it's $HOME.gguf & more", "a\nrm -rf b", "a\u2019; calc; \u2018$b", 'a"; calc', "%PATH%'$x", "a\x1b[2J"]
)
def test_a_name_that_no_quotes_make_a_word_of_is_not_written(name):
    """What a shell would do with it is nobody's to find out by pasting."""
    asked = ask(model=name)
    for pasted in write_lines(asked):
        if pasted.program in ("llama-server", "llama-cli"):
            assert shlex.split(pasted.lines[0])[1:3] == ["-m", "NAME"]
            assert "in place of NAME" in " ".join(pasted.untold)
        elif pasted.lines[0].startswith("FROM"):
            assert all("\n" not in line for line in pasted.lines)
    assert (
        ast.literal_eval(lines_of("llama-cpp-python", asked)[-1].partition("model_path=")[2].partition(", n_ctx")[0])
        == name
    )


def read_words(program: str, words: list[str]) -> dict[str, str | None]:
    """Options with their values, as the program takes words apart: by which options it has, and which take a value.

    The list is of the real programs' --help, by ``scripts/paste_check.py --record``.
    """
    has_value = OPTIONS[program]
    rest, found = list(words), {}
    while rest:
        option = rest.pop(0)
        assert option in has_value, f"{program} has no {option}"
        found[option] = rest.pop(0) if has_value[option] else None
    return found


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("program", ["llama-server", "llama-cli"])
def test_every_option_is_one_of_the_real_programs(program, name):
    asked = ask(**{"n_threads": 4, "n_threads_batch": 8, name: UNUSUAL[name]})
    found = read_words(program, llama_arguments(program, asked))
    assert found["-m"] == "m.gguf"
    assert found["-c"] == "4096"


def test_what_threads_of_prompts_do_not_take_over_is_said_twice():
    """common.cpp copies mask, strictness and polling from --threads only where --threads-batch is not given."""
    apart = {"n_threads": 2, "n_threads_batch": 4, "cpu_mask": "0xf", "cpu_strict": True, "poll": 0, "priority": 1}
    found = read_words("llama-server", llama_arguments("llama-server", ask(**apart)))
    assert {found[flag] for flag in ("-C", "-Cb")} == {"0xf"}
    assert {found[flag] for flag in ("--cpu-strict", "--cpu-strict-batch", "--prio", "--prio-batch")} == {"1"}
    assert {found[flag] for flag in ("--poll", "--poll-batch")} == {"0"}
    together = read_words("llama-server", llama_arguments("llama-server", ask(**{**apart, "n_threads_batch": None})))
    assert not [flag for flag in together if flag.endswith(("-batch", "b")) and flag != "-b"]


def test_layers_are_said_where_there_is_a_device_and_only_there():
    """Left alone, llama.cpp fits the model to the memory that is free at that moment, which is not what was measured."""
    assert "-ngl all" in lines_of("llama-server", ask())[0]
    assert "-ngl all" in lines_of("llama-server", ask(n_gpu_layers=99, n_layers=32))[0]
    assert "-ngl 20" in lines_of("llama-server", ask(n_gpu_layers=20, n_layers=32))[0]
    assert "-ngl" not in lines_of("llama-server", ask(has_devices=False))[0]


def test_embeddings_are_another_program_than_llama_cli():
    asked = ask(embeddings=True)
    assert "--embeddings" in lines_of("llama-server", asked)[0]
    assert "--embeddings" not in lines_of("llama-cli", asked)[0]
    assert "llama-embedding" in untold_of("llama-cli", asked)


# ---- llama-cpp-python ------------------------------------------------------------------------------------------------


def binding_file(name: str) -> ast.Module:
    """A module of llama_cpp as text: importing it would load the native library."""
    found = importlib.util.find_spec("llama_cpp")
    assert found is not None
    assert found.origin is not None
    return ast.parse((pathlib.Path(found.origin).parent / name).read_text(encoding="utf-8"))


def llama_signature() -> dict[str, ast.expr | None]:
    """The keyword arguments of ``Llama`` with their defaults."""
    (llama,) = [
        node for node in binding_file("llama.py").body if isinstance(node, ast.ClassDef) and node.name == "Llama"
    ]
    init = next(node for node in llama.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    return {
        "model_path": None,
        **{arg.arg: value for arg, value in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True)},
    }


def constants() -> set[str]:
    return {
        target.id
        for node in binding_file("llama_cpp.py").body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def call_of(asked: Asked) -> ast.Call:
    program = ast.parse("\n".join(lines_of("llama-cpp-python", asked)))
    value = program.body[-1].value
    assert isinstance(value, ast.Call)
    return value


def test_llama_has_every_argument_by_that_name():
    """It takes names that it does not know, and does nothing with them."""
    known = llama_signature()
    for name in NAMES:
        for keyword in call_of(ask(**{"n_threads": 4, name: UNUSUAL[name]})).keywords:
            assert keyword.arg in known, f"{name}: {keyword.arg}"


def test_llama_cpp_has_every_constant_by_that_name():
    known, asked_for = constants(), set()
    for kind in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"):
        call = call_of(ask(type_k=kind, type_v=kind))
        asked_for |= {node.attr for node in ast.walk(call) if isinstance(node, ast.Attribute)}
    for mode in ("none", "row", "tensor"):
        asked_for |= {node.attr for node in ast.walk(call_of(ask(split_mode=mode))) if isinstance(node, ast.Attribute)}
    for mode in ("distribute", "isolate", "numactl"):
        asked_for |= {node.attr for node in ast.walk(call_of(ask(numa=mode))) if isinstance(node, ast.Attribute)}
    assert asked_for - {"Llama"} <= known


def test_a_path_is_written_as_python_reads_it():
    path = 'C:\\models\\it\'s "one".gguf'
    call = call_of(ask(model=path))
    assert ast.literal_eval(call.keywords[0].value) == path


def test_the_defaults_that_are_left_out_are_llamas_own():
    """Where Llama and llama.cpp's programs differ, the value is written."""
    signature = llama_signature()
    spelled = {word.split("=")[0] for word in python_arguments(ask(n_threads=4))}
    for name, usual in defaults().items():
        own = signature.get(name)
        if name in ("n_batch", "n_gpu_layers", "swa_full", "flash_attn", "n_threads"):
            assert name in spelled
        elif isinstance(own, ast.Constant) and name in SPELLINGS and own.value is not None and usual is not None:
            assert own.value == {"disabled": False}.get(usual, usual), name


# ---- Ollama and LM Studio --------------------------------------------------------------------------------------------


#: Source: Runner in ollama's api/types.go.
OLLAMA_PARAMETERS = {"num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap", "num_thread"}
OLLAMA_VARIABLES = {"OLLAMA_FLASH_ATTENTION", "OLLAMA_KV_CACHE_TYPE", "OLLAMA_NUM_PARALLEL"}


def test_ollama_has_every_parameter_and_variable_by_that_name():
    for name in NAMES:
        pasted = [
            item for item in write_lines(ask(**{"n_threads": 4, name: UNUSUAL[name]})) if item.program == "Ollama"
        ]
        first, *rest = pasted[0].lines
        assert first == "FROM m.gguf"
        assert {line.split()[1] for line in rest} <= OLLAMA_PARAMETERS
        for line in (line for item in pasted[1:] for line in item.lines):
            words = shlex.split(line)
            assert words[-2:] == ["ollama", "serve"]
            assert {word.split("=")[0] for word in words[:-2]} <= OLLAMA_VARIABLES


def test_ollama_has_one_type_for_both_caches_and_one_batch():
    quantized = ask(type_k="q8_0", type_v="q8_0")
    assert "OLLAMA_KV_CACHE_TYPE=q8_0 OLLAMA_FLASH_ATTENTION=1" in " ".join(lines_of("Ollama", quantized))
    mixed = ask(type_k="q8_0", type_v="f16")
    assert "OLLAMA_KV_CACHE_TYPE" not in " ".join(lines_of("Ollama", mixed))
    assert "one type for K and V" in untold_of("Ollama", mixed)
    assert "type_k" in untold_of("Ollama", ask(type_k="q5_1", type_v="q5_1"))
    assert "PARAMETER num_batch 256" in lines_of("Ollama", ask(n_batch=1024, n_ubatch=256))


def test_every_layer_is_a_number_for_ollama_and_a_word_for_lm_studio():
    assert "PARAMETER num_gpu 33" in lines_of("Ollama", ask(n_layers=32))
    assert "PARAMETER num_gpu 999" in lines_of("Ollama", ask())
    assert "GPU Offload: max" in lines_of("LM Studio", ask(n_layers=32))
    assert "GPU Offload: 20 / 32" in lines_of("LM Studio", ask(n_layers=32, n_gpu_layers=20))


def test_who_cannot_keep_experts_back_is_told_no_more_layers_than_fit():
    """All layers with all their experts do not fit on the card for which some are kept back."""
    alone = ask(n_cpu_moe=32, n_layers=48, n_layers_alone=19)
    assert "n_gpu_layers=19" in " ".join(lines_of("llama-cpp-python", alone))
    assert "PARAMETER num_gpu 19" in lines_of("Ollama", alone)
    assert "-ngl all -ncmoe 32" in lines_of("llama-server", alone)[0]
    assert "GPU Offload: max" in lines_of("LM Studio", alone)
    unknown = ask(override_tensors=("exps=CPU",), n_layers=48)
    assert "n_gpu_layers" not in " ".join(lines_of("llama-cpp-python", unknown))
    assert "num_gpu" not in " ".join(lines_of("Ollama", unknown))
    assert "so fewer layers fit" in untold_of("Ollama", alone)


def test_a_quantized_cache_is_told_with_the_flash_attention_that_it_needs():
    assert "Flash Attention: on" in lines_of("LM Studio", ask(type_v="q8_0"))
    assert "Flash Attention" not in " ".join(lines_of("LM Studio", ask()))


def test_the_section_has_the_lines_as_they_are():
    asked = ask(n_cpu_moe=12)
    section = paste_section(asked)
    code = [block for block in section.blocks if hasattr(block, "lines")]
    assert [line for block in code for line in block.lines] == [
        line for pasted in write_lines(asked) for line in pasted.lines
    ]
    assert any("cannot be told ncmoe 12" in text for text in everything(asked))
    assert dataclasses.is_dataclass(section)
