"""What a file is, and what may be asked of it: by the header alone."""

from __future__ import annotations

import pathlib

import pytest

from harness.errors import UsageError
from harness.gguf.header import BytesSource, read_header
from harness.gguf.model_kinds import KNOWN_ARCHITECTURES, Kind, Question, find_kind, refuse, refuse_context, suit_cells
from harness.grid import Grid
from harness.spec import RunSpec

from .gguf_bytes import HeaderBytes
from .kind_files import FILES, bert, learned, llama, pooled, settings, tensors


def header_of(made):
    return read_header(BytesSource(made.build(data=True)))


DOCUMENT = pathlib.Path(__file__).parent.parent / "docs/models.md"
HEADERS = {name: header_of(make()) for name, (make, _) in FILES.items()}


@pytest.mark.parametrize("name", FILES)
def test_it_is_said_what_a_file_is(name):
    assert find_kind(HEADERS[name]).kind is Kind[FILES[name][1]]


@pytest.mark.parametrize("name", [name for name, (_, kind) in FILES.items() if kind not in ("TEXT", "UNKNOWN")])
def test_what_writes_no_text_is_not_asked_for_it_and_the_sentence_says_what_it_is(name):
    for question in (Question.SPEED, Question.TIME, Question.TEXT):
        with pytest.raises(UsageError) as caught:
            refuse(HEADERS[name], question, "x.gguf")
        said = str(caught.value)
        assert said.startswith("x.gguf ")
        assert said.endswith(".")
        assert "\n" not in said
        assert "download it again" not in said


ASKED = {
    "plain": {"MEMORY", "SPEED", "MEASURE", "TIME", "TEXT"},
    "gpt2": {"MEMORY", "SPEED", "MEASURE", "TIME", "TEXT"},
    "bert": {"MEMORY", "MEASURE"},
    "pooled": {"MEMORY", "MEASURE"},
    "t5": {"MEMORY", "MEASURE"},
    "t5encoder": {"MEMORY", "MEASURE"},
    "llada": {"MEMORY", "MEASURE"},
    "vocabulary": {"MEMORY"},
    "newer": {"MEMORY", "SPEED"},
}


@pytest.mark.parametrize("question", Question)
@pytest.mark.parametrize("name", FILES)
def test_what_may_be_asked_of_it(name, question):
    if question.name in ASKED.get(name, set()):
        refuse(HEADERS[name], question, "x.gguf")
    else:
        with pytest.raises(UsageError):
            refuse(HEADERS[name], question, "x.gguf")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ollama", ("written by Ollama for its own engine", "pull")),
        ("bitnet", ("a type of another program's fork, BitNet", "I2_S (36)")),
        ("ik_llama", ("a type of another program's fork, ik_llama.cpp", "IQ4_K (139)")),
        ("removed", ("Q4_0_4_4 (31)", "removed from llama.cpp")),
        ("newer type", ("type 43", "does not know")),
        ("mmproj", ("vision or sound projector", "goes with a language model")),
        ("lora", ("an adapter (LoRA)", "the model that it was made for")),
        ("vocabulary", ("a vocabulary or header without weights",)),
        ("flux", ("an image or video model", "ComfyUI")),
        ("imatrix", ("importance matrix",)),
    ],
)
def test_the_sentence_says_what_to_do(name, words):
    with pytest.raises(UsageError) as caught:
        refuse(HEADERS[name], Question.MEASURE, "x.gguf")
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(("architecture", "layers", "repository"), [("gptoss", 24, "20b"), ("gpt-oss", 36, "120b")])
def test_gpt_oss_of_ollama_is_pulled_from_where_it_is_readable(architecture, layers, repository):
    made = llama(4, architecture=architecture)
    made.keys = [key for key in made.keys if b"block_count" not in key]
    header = header_of(made.add(f"{architecture}.block_count", "u32", layers))
    assert f"`harness pull hf:ggml-org/gpt-oss-{repository}-GGUF` instead" in find_kind(header).describe("x")


def test_a_header_with_neither_weights_nor_blocks_is_asked_nothing():
    header = header_of(HeaderBytes().add("general.architecture", "str", "strange"))
    with pytest.raises(UsageError) as caught:
        refuse(header, Question.MEMORY, "x.gguf")
    assert (
        "x.gguf is a vocabulary or header without weights of an architecture that this llama.cpp does not know (strange):"
        in str(caught.value)
    )


def test_a_model_without_a_tokenizer_is_measured_and_not_asked_to_write():
    made = tensors(settings(HeaderBytes(), "llama")).add("tokenizer.ggml.model", "str", "no_vocab")
    header = header_of(made.add("llama.vocab_size", "u32", 32))
    refuse(header, Question.MEASURE, "x.gguf")
    with pytest.raises(
        UsageError, match=r"x\.gguf has no tokenizer and cannot read a prompt; `harness pp-tg` measures"
    ):
        refuse(header, Question.TEXT, "x.gguf")


def test_ollamas_own_name_of_an_architecture_is_known_as_that():
    header = header_of(llama(architecture="gptoss"))
    with pytest.raises(
        UsageError, match="Ollama writes it for its own engine; `harness pull hf:ggml-org/gpt-oss-20b-GGUF` instead"
    ):
        refuse(header, Question.MEASURE, "x.gguf")
    refuse(header, Question.SPEED, "x.gguf")


def test_a_header_without_a_shape_is_refused_without_sending_anybody_around_in_circles():
    bare = HeaderBytes().add("general.architecture", "str", "llama").add("llama.block_count", "u32", 2)
    for question in Question:
        with pytest.raises(UsageError, match=r"nothing in it to compute with; name the model's own file\.?$"):
            refuse(header_of(bare), question, "x.gguf")
    with pytest.raises(UsageError, match="or ask `harness overhead --predict-only`"):
        refuse(header_of(bare.add("llama.embedding_length", "u32", 64)), Question.SPEED, "x.gguf")


@pytest.mark.parametrize(
    ("name", "said"), [("mllama", "no conversion of it"), ("qwen25vl", "from Hugging Face instead")]
)
def test_another_model_of_ollamas_is_not_sent_to_gpt_oss(name, said):
    with pytest.raises(UsageError, match=said) as caught:
        refuse(header_of(llama(architecture=name)), Question.MEASURE, "x.gguf")
    assert "gpt-oss" not in str(caught.value)


def test_every_known_architecture_is_a_name_in_the_installed_llama_cpp():
    llama_cpp = pytest.importorskip("llama_cpp")
    places = sorted((pathlib.Path(llama_cpp.__file__).parent / "lib").glob("*llama.*"))
    if not places:
        pytest.skip("llama.cpp's libraries lie elsewhere")
    data = places[0].read_bytes()
    assert [name for name in sorted(KNOWN_ARCHITECTURES) if name.encode() + b"\0" not in data] == []


@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name)
def test_the_documents_say_what_may_be_asked_of_each_kind(kind):
    table = DOCUMENT.read_text(encoding="utf-8").partition("## What a GGUF file may be")[2].partition("\n## ")[0]
    assert kind.title in table


# --- cells ------------------------------------------------------------------------------------------------------------


def cells(asked=(), n_prompt=(512,), n_gen=(128,), n_pg=(), **axes):
    grid = Grid(
        models=["m.gguf"],
        axes={name: [value] for name, value in axes.items()},
        n_prompt=n_prompt,
        n_gen=n_gen,
        n_pg=n_pg,
    )
    return grid.cells()


def test_a_language_model_is_asked_as_it_was_meant():
    plan = cells(n_depth=1000)
    assert suit_cells(HEADERS["plain"], plan, {"n_depth"}, "m.gguf").cells == tuple(plan)
    assert suit_cells(HEADERS["plain"], plan, {"n_depth"}, "m.gguf").notes == ()


def test_an_encoder_reads_with_embeddings_and_generates_nothing():
    suited = suit_cells(HEADERS["bert"], cells(), (), "m.gguf")
    (cell,) = suited.cells
    assert (cell.test, cell.embeddings) == ("pp512", True)
    assert suited.notes == ("m.gguf is an embedding model, which generates no text: tg128 is left out",)


def test_embeddings_are_off_where_that_is_asked():
    (cell,) = suit_cells(HEADERS["bert"], cells(n_gen=(), embeddings=False), {"embeddings"}, "m.gguf").cells
    assert not cell.embeddings


@pytest.mark.parametrize("name", ["bert", "t5", "llada"])
@pytest.mark.parametrize(
    ("asked", "plan", "words"),
    [
        ({"n_gen"}, {"n_gen": (16,)}, "(tg16); leave out -n"),
        ({"n_pg"}, {"n_pg": ((16, 16),)}, "(pp16+tg16); leave out -n and -pg"),
        ({"n_depth"}, {"n_depth": 16}, "it takes no depth; leave out -d"),
        ({"n_prompt"}, {"n_prompt": ()}, "Nothing is left to measure"),
    ],
)
def test_what_cannot_be_done_is_refused_where_it_is_asked_expressly(name, asked, plan, words):
    with pytest.raises(UsageError) as caught:
        suit_cells(HEADERS[name], cells(**plan), asked, "m.gguf")
    assert words in str(caught.value)


def test_an_embedding_model_that_can_generate_does_so_when_asked():
    header = header_of(pooled())
    assert [cell.test for cell in suit_cells(header, cells(), (), "m").cells] == ["pp512"]
    assert [cell.test for cell in suit_cells(header, cells(), {"n_gen"}, "m").cells] == ["pp512", "tg128"]


@pytest.mark.parametrize("name", ["t5", "llada"])
def test_a_prompt_that_is_read_at_once_gets_a_batch_that_holds_it(name):
    suited = suit_cells(HEADERS[name], cells(n_prompt=(128, 3000), n_gen=()), {"n_prompt"}, "m")
    assert [(cell.n_batch, cell.n_ubatch) for cell in suited.cells] == [(2048, 512), (3000, 3000)]
    assert suited.notes == ("m reads a prompt at once: n_ubatch is 3000 for pp3000",)


@pytest.mark.parametrize(("field", "flag"), [("n_ubatch", "-ub"), ("n_batch", "-b")])
def test_a_batch_that_is_too_small_is_refused_where_it_is_asked_expressly(field, flag):
    with pytest.raises(
        UsageError, match=f"reads a prompt at once .pp512., and {flag} is smaller; give at least {flag} 512"
    ):
        suit_cells(HEADERS["bert"], cells(**{field: 100}), {field}, "m")


def test_positions_that_were_learned_bound_the_default_lengths():
    header = header_of(bert(100))
    suited = suit_cells(header, cells(), (), "m")
    assert [cell.test for cell in suited.cells] == ["pp100"]
    assert "m has 100 learned positions: pp100 instead of pp512" in suited.notes
    tests = suit_cells(header_of(learned()), cells(n_depth=200), {"n_depth"}, "m").cells
    assert [cell.test for cell in tests] == ["pp56 @ d200", "tg56 @ d200"]


@pytest.mark.parametrize(
    ("asked", "plan", "words"),
    [
        ({"n_prompt"}, {"n_prompt": (300,)}, "256 learned positions and pp300 needs 300; ask for no more than 256"),
        ({"n_gen"}, {"n_prompt": (), "n_gen": (300,)}, "tg300 needs 300"),
        ({"n_pg"}, {"n_prompt": (), "n_gen": (), "n_pg": ((200, 100),)}, r"pp200+tg100 needs 300"),
        ({"n_depth"}, {"n_depth": 256}, "pp512 @ d256 needs 768"),
    ],
)
def test_more_than_the_learned_positions_is_refused_where_it_is_asked_expressly(asked, plan, words):
    with pytest.raises(UsageError) as caught:
        suit_cells(header_of(learned()), cells(**plan), asked, "m")
    assert words in str(caught.value)


def test_a_context_beyond_learned_positions_is_refused():
    refuse_context(header_of(learned()), 256, "m", "--ctx")
    refuse_context(HEADERS["plain"], 10**6, "m", "--ctx")
    with pytest.raises(
        UsageError, match="m has 256 learned positions and --ctx asks for 257; ask for no more than 256"
    ):
        refuse_context(header_of(learned()), 257, "m", "--ctx")


def test_a_record_without_embeddings_is_one_that_had_none():
    values = RunSpec("m", n_prompt=1).to_dict()
    del values["embeddings"]
    assert RunSpec.from_dict(values).embeddings is False


@pytest.mark.parametrize("name", ["v.blk.0.attn_q.weight", "mm.input_projection.weight", "a.blk.0.attn_q.weight"])
def test_a_language_model_with_eyes_in_the_same_file_is_ollamas(name):
    header = header_of(llama(architecture="gemma3").add_tensor(name, "F32", 64, 64))
    assert find_kind(header).kind is Kind.FOREIGN
    with pytest.raises(
        UsageError, match=r"x\.gguf has its vision or sound part inside, as Ollama's own conversions do"
    ):
        refuse(header, Question.MEASURE, "x.gguf")


def test_a_tensor_of_one_letter_is_no_ear():
    header = header_of(llama(architecture="gemma3").add_tensor("a.weight", "F32", 64))
    assert find_kind(header).kind is Kind.TEXT
