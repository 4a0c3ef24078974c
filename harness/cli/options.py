"""Options that several commands share, made from the tables that define them, so that the same option is named the same everywhere."""

from __future__ import annotations

import functools
import importlib
import pathlib
import random
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import click

from harness.errors import UsageError
from harness.parsers import Parser, whole_numbers
from harness.spec import (
    DEFAULT_N_CTX,
    MAX_REPEATS,
    MAX_SEED,
    MAX_TOKENS,
    Scope,
    defaults,
    parameters,
)
from harness.units import parse_size


class Read(click.ParamType):
    """What a parser reads of a text; its ValueError says what is wrong."""

    def __init__(self, parse: Callable[[str], Any], metavar: str) -> None:
        self.name, self.parse = metavar, parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Values(Read):
    """A comma list or range, read by a parser of `harness.spec`; one option may be given several times."""


class Amount(Read):
    """A number with a unit, as bytes, bytes a second or operations a second; name is an example, ending what may stand behind."""

    def __init__(self, name: str, ending: str = "", *, memory: bool = False) -> None:
        super().__init__(lambda text: parse_size(text, example=name, ending=ending, memory=memory), name)


class Memory(Amount):
    """The size of a card's or a machine's memory. Both are sold in powers of two, so that 8GB is 8 GiB, as 8GiB is."""

    def __init__(self, name: str) -> None:
        super().__init__(name, memory=True)


class One(Read):
    """One value of what other commands take lists of."""

    def __init__(self, parse: Parser) -> None:
        super().__init__(lambda text: _only(parse(text), text), "N")


def _only(values: tuple[Any, ...], text: str) -> Any:
    if len(values) != 1:
        raise ValueError(f"{text!r} is several values, and this command takes one")
    return values[0]


class WholeNumber(One):
    """A whole number from min to max."""

    def __init__(self, min: int, max: int) -> None:
        super().__init__(whole_numbers(min, max))
        self.max = max


class Pair(Read):
    """llama-bench's -pg: a prompt and a generation that are timed together."""

    def __init__(self) -> None:
        super().__init__(self._read, "P,N")

    def _read(self, text: str) -> tuple[int, int]:
        try:
            n_prompt, n_gen = (whole_numbers(0, MAX_TOKENS)(part)[0] for part in text.split(","))
        except ValueError:
            raise ValueError(f"{text!r} is not a pair of token counts such as 512,128") from None
        return n_prompt, n_gen


class Percent(Read):
    """A share between 0 and 100 %, written with its sign or without: ``1%`` is ``0.01``."""

    def __init__(self) -> None:
        super().__init__(self._read, "SHARE")

    def _read(self, text: str) -> float:
        number, sign = text.strip().removesuffix("%"), text.strip().endswith("%")
        try:
            share = float(number) / 100 if sign else float(number)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            raise ValueError(f"{text!r} is not a share between 0 and 100 %, such as 1% or 0.01")
        return share


class Number(click.types.FloatParamType):
    """A finite number from min to max, or above min; click's own range takes not-a-number, and shows its bounds in every help."""

    def __init__(self, min: float, max: float, *, min_open: bool = False) -> None:
        self.min, self.max, self._min_open = min, max, min_open

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not self.min <= number <= self.max or (self._min_open and number == self.min):
            bounds = f"above {self.min:g} and up" if self._min_open else f"from {self.min:g}"
            self.fail(f"{value!r} is not a number {bounds} to {self.max:g}", param, ctx)
        return number


def stack(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, in their order."""
    return lambda function: functools.reduce(lambda done, option: option(done), reversed(options), function)


#: The longest time that anything is told to wait or to take, in s: some four months.
MAX_S = 10.0**7

cell_timeout_option = click.option(
    "--cell-timeout", "cell_timeout_s", type=Number(0, MAX_S, min_open=True), metavar="S",
    help="End a cell that takes longer, with its load.",
)  # fmt: skip


def measured_options(*scopes: Scope, also: Collection[str] = ()) -> Callable[[Any], Any]:
    """One option for each measured parameter of the given scopes, taking lists; also names some of others."""
    chosen = {**{name: item for name, item in parameters().items() if name in also}, **parameters(*scopes)}
    return stack(*(
        _measured(name, Values(item.parse, item.metavar), defaults()[name], multiple=True,
                  **({"is_flag": False, "flag_value": item.bare} if item.bare else {}))
        for name, item in chosen.items()
    ))  # fmt: skip


def single_options(*scopes: Scope) -> Callable[[Any], Any]:
    """The same options taking one value each; None where one is not given."""
    return stack(*(
        _measured(name, One(item.parse), defaults()[name], default=None,
                  **({"is_flag": False, "flag_value": item.bare} if item.bare else {}))
        for name, item in parameters(*scopes).items()
    ))  # fmt: skip


def one_value(name: str, **default: Any) -> Any:
    """The option of a measured parameter that takes one value here instead of a list; default= where it has another one."""
    value = default.get("default", defaults()[name])
    return _measured(name, One(parameters()[name].parse), value, default=value)


def _measured(name: str, kind: Read, usual: Any, **more: Any) -> Any:
    parameter = parameters()[name]
    shown = ("on" if usual else "off") if isinstance(usual, bool) else usual
    told = "" if shown in (None, ()) or "default" in parameter.help else f" [{shown}]"
    return click.option(
        *parameter.flags, name, type=kind, metavar=parameter.metavar, help=parameter.help + told, **more
    )


def context_option(name: str = "n_ctx", *, least: int = 1, many: bool = False) -> Any:
    """Add ``-c``: the context in tokens, None where nobody asks; many takes lists and ranges."""
    kind = Values(whole_numbers(least, MAX_TOKENS), "N") if many else WholeNumber(least, MAX_TOKENS)
    return click.option(
        "-c", "--ctx", "--ctx-size", name, type=kind, multiple=many, metavar="N",
        help=f"Context in tokens. [{DEFAULT_N_CTX}, or the model's if that is less]",
    )  # fmt: skip


def repetitions_option(name: str = "repetitions") -> Any:
    """Add ``-r``: how often each thing is measured."""
    return click.option(
        "-r", "--repetitions", "--rounds", name, type=WholeNumber(1, MAX_REPEATS), default=10, metavar="N",
        help="Timed repetitions of each; an interval needs 6. [10]",
    )  # fmt: skip


class Repetitions(WholeNumber):
    """How often a cell is timed; None for ``auto``."""

    def __init__(self) -> None:
        super().__init__(1, MAX_REPEATS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "auto" else super().convert(value, param, ctx)


max_time_option = click.option(
    "--max-time", "max_time_s", type=Number(0, MAX_S, min_open=True), default=60.0, metavar="S",
    help="Give a test no more time than this, decided or not. [60]",
)  # fmt: skip

#: Add how often cells are timed and in which order: -r auto or a number, how precisely, how long, and by turns or not.
manner_options = stack(
    click.option(
        "-r", "--repetitions", type=Repetitions(), metavar="N|auto",
        help="Timed repetitions of each; auto: until the median's interval is as narrow as --precision. [auto]",
    ),
    click.option(
        "--precision", type=Percent(), default="2%", metavar="SHARE",
        help="How far the 95 % interval may reach from the median, for -r auto. [2%]",
    ),
    max_time_option,
    click.option(
        "--interleave/--no-interleave", default=True, help="Have cells take turns, in an order drawn by --seed. [on]"
    ),
)  # fmt: skip

#: The fields of `RunSpec` that `manner_options` and `seed_option` set.
MANNER_NAMES = ("repetitions", "precision", "max_time_s", "seed")

seed_option = click.option(
    "--seed", type=WholeNumber(-1, MAX_SEED), default=0, metavar="N",
    callback=lambda _ctx, _param, seed: random.randrange(MAX_SEED) if seed < 0 else seed,
    help="Seed of what is drawn at random; -1: another one each time. [0]",
)  # fmt: skip

tuned_option = click.option(
    "--tuned",
    "takes_tuned",
    is_flag=True,
    help="Take what `harness tune` found for the model, where nothing else is given.",
)

published_option = click.option(
    "--published/--no-published", default=True, help="Show the published machines too. [on]"
)

vram_option = click.option(
    "--vram", "vram_bytes", type=Memory("8GB"), metavar="SIZE", help="Memory of a graphics card; 8GB is 8 GiB."
)

_lengths = Values(whole_numbers(0, MAX_TOKENS), "N")

#: Add -p and -n, the lengths of llama-bench's two tests, as lists or ranges.
length_options = stack(
    click.option("-p", "--n-prompt", multiple=True, type=_lengths, metavar="N", help="Prompt tokens; 0 for none. [512]"),
    click.option("-n", "--n-gen", multiple=True, type=_lengths, metavar="N", help="Generated tokens; 0 for none. [128]"),
)  # fmt: skip


def axes(options: dict[str, Any]) -> dict[str, Sequence[Any]]:
    """The grid's axes from the options that `measured_options` added: the given ones, lists joined."""
    given = {name: options[name] for name in parameters() if options.get(name)}
    return {name: flatten(values) for name, values in given.items()}


def single_axes(options: dict[str, Any]) -> dict[str, Any]:
    """The same for a command that is about one configuration.

    Raises
    ------
    UsageError : a parameter has several values.
    """
    for name, values in axes(options).items():
        if len(set(values)) > 1:
            raise UsageError(f"A ledger takes one value of {parameters()[name].flags[-1]}; give one.")
    return {name: values[0] for name, values in axes(options).items()}


def given_settings(options: dict[str, Any]) -> dict[str, Any]:
    """The parameters of loads and contexts that were given, where each takes one value (`single_options`)."""
    return {name: options[name] for name in parameters("load", "context") if options[name] is not None}


def flatten(values: Sequence[Sequence[Any]]) -> tuple[Any, ...]:
    """The values of an option that may be given several times, each a list."""
    return tuple(item for group in values for item in group)


def _complete(name: str) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    """A function of `harness.cli.completion`, which is imported when somebody presses Tab."""
    return lambda *asked: list(getattr(importlib.import_module("harness.cli.completion"), name)(*asked))


complete_models, complete_machines = _complete("complete_models"), _complete("complete_machines")

#: What -m takes.
MODEL_HELP = (
    "GGUF file, catalog name (llama3.2:1b:q4_0), hf:OWNER/REPO:Q4_0, https://…/x.gguf, ollama:NAME or "
    "synth:NAME. [smollm2:135m]"
)


def reference_flags(help_text: str = MODEL_HELP) -> Callable[[Any], Any]:
    """The options that name models, each by itself: ``models``, ``hub`` and ``quantization``, for `join_references`."""
    return stack(
        click.option("-m", "--model", "--gguf", "models", multiple=True, metavar="REF", help=help_text, shell_complete=complete_models),
        click.option("-hf", "-hfr", "--hf-repo", "hub", multiple=True, metavar="OWNER/REPO[:QUANT]",
                     help="The same as -m hf:OWNER/REPO[:QUANT]."),
        click.option("--quant", "quantization", metavar="QUANT", help="Quantization of names that state none."),
    )  # fmt: skip


def reference_options(help_text: str = MODEL_HELP, *, argument: str | None = None) -> Callable[[Any], Any]:
    """Add what names models: -m, llama.cpp's -hf and --quant. The command gets ``models``, references for `harness.sources.references`.

    argument names a click argument that is a reference too, or several; it goes into ``models`` first.
    """

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def merged(*args: Any, models: Sequence[str], hub: Sequence[str], quantization: str | None, **rest: Any) -> Any:
            named = rest.pop(argument) or () if argument else ()
            first = (named,) if isinstance(named, str) else named
            return function(*args, models=join_references((*first, *models), hub, quantization), **rest)

        return reference_flags(help_text)(merged)

    return decorate


def one_reference(name: str = "reference") -> Callable[[Any], Any]:
    """As `reference_options`, for a command that is about one model: it gets ``name``, a reference or None."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def single(*args: Any, models: Sequence[str], **rest: Any) -> Any:
            if len(models) > 1:
                raise UsageError("This command takes one model at a time; give -m once.")
            return function(*args, **{name: models[0] if models else None}, **rest)

        return reference_options()(single)

    return decorate


def join_references(models: Sequence[str], hub: Sequence[str], quantization: str | None) -> tuple[str, ...]:
    """Write -hf and --quant into references."""
    texts = (*models, *(f"hf:{text}" for text in hub))
    if quantization is None:
        return texts
    from harness.sources.references import parse_reference

    return tuple(parse_reference(text).with_quantization(quantization) for text in texts)


results_option = click.option(
    "--results", type=click.Path(path_type=pathlib.Path, file_okay=False), default=pathlib.Path("bench_results"),
    metavar="DIR", envvar="HARNESS_RESULTS", help="Folder that records are kept in. [bench_results]",
)  # fmt: skip

_LABEL = "harness.label"


#: Add --save and, for `given_label`, --label.
save_option = stack(
    click.option("--save/--no-save", default=True, help="Keep a record of what was measured. [on]"),
    click.option(
        "--label", metavar="TEXT", expose_value=False, help="Note it in the record, for harness list --label.",
        callback=lambda ctx, _param, value: ctx.meta.update({_LABEL: value}),
    ),
)  # fmt: skip


def given_label() -> str | None:
    """The label that the command at hand was given."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_LABEL) if context else None


class SectionedCommand(click.Command):
    """A command whose help shows some options under headings of their own; `sections` maps a heading to a decorator that adds them."""

    def __init__(self, *args: Any, sections: dict[str, Callable[[Any], Any]] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = {heading: option_names(add) for heading, add in (sections or {}).items()}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each section's options together, the others first."""
        elsewhere = set().union(*self._sections.values())
        groups = {"Options": {param.name for param in self.get_params(ctx)} - elsewhere, **self._sections}
        for heading, names in groups.items():
            found = [param.get_help_record(ctx) for param in self.get_params(ctx) if param.name in names]
            with formatter.section(heading):
                formatter.write_dl([record for record in found if record and record[1]])


def option_names(add: Callable[[Any], Any]) -> set[str]:
    """The parameters that a decorator of options adds to a function."""

    def nothing() -> None:
        pass

    return {option.name for option in add(nothing).__click_params__}


def refuse_contradictions(*cases: tuple[object, str]) -> None:
    """Refuse options that cannot be meant together, with the sentence of the first case that is true."""
    for is_so, sentence in cases:
        if is_so:
            raise UsageError(sentence)


#: llama-bench's options that are not taken, and what to do instead.
_LLAMA_BENCH_ALONE = {
    ("-hff", "--hf-file"): "name the file with -m hf:OWNER/REPO/FILE",
    ("-hft", "--hf-token"): "set HF_TOKEN",
    ("--offline",): "set HF_HUB_OFFLINE=1",
    ("--list-devices",): "`harness devices` lists them",
    ("-lzm", "--lazy-mode"): "llama.cpp's usual way is what is measured",
    ("-fitt", "--fit-target", "-fitc", "--fit-ctx"): "`harness fit` says what fits, `harness sweep --best` what is fastest",
    ("-v", "--verbose"): "-o json has what really ran",
    ("--version",): "`harness --version` says it",
    ("--progress",): "progress is shown by itself",
}  # fmt: skip


def refuse_unknown(command: click.Command, words: Sequence[str]) -> None:
    """Refuse options of llama-bench that are not ours, and mistyped ones with a single dash, of which click makes other options.

    ``-mpp 0`` would be ``-m pp``, and a word 0.

    Raises
    ------
    UsageError, click.NoSuchOption : there is one.
    """
    known = {
        flag: param for param in command.params if isinstance(param, click.Option)
        for flag in (*param.opts, *param.secondary_opts)
    }  # fmt: skip
    for before, word in zip(("", *words), words, strict=False):
        if word == "--":
            return
        if word in known or (before in known and not known[before].is_flag):
            continue
        for flags, instead in _LLAMA_BENCH_ALONE.items() if "-ngl" in known else ():
            if word in flags:
                raise UsageError(f"llama-bench's {word} is not taken here: {instead}.")
        if re.fullmatch("-[A-Za-z]{2,}", word):
            from difflib import get_close_matches

            close = get_close_matches(word, [*known, "-h"])
            raise click.NoSuchOption(word, possibilities=close, ctx=click.get_current_context())
