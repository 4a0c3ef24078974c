"""What fits as a Document: the largest context for each type of cache, where layers and experts go, quantizations side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from harness.memory.causes import HOST
from harness.memory.fit import CUDA_CONTEXT_BYTES
from harness.memory.packing import USUAL_SPARE_BYTES, Packing, Taken
from harness.runs.fit import Bound, CacheFit, Fitting, VariantFit
from harness.units import GIB, MIB
from harness.untrusted import harmless
from harness.views.document import (
    Block,
    Cell,
    Code,
    Column,
    Document,
    Figure,
    KeyFigures,
    Picture,
    Prose,
    Section,
    Table,
    for_programs,
)  # fmt: skip
from harness.views.memory import describe_note
from harness.views.paste import explain_withheld, llama_arguments, paste_section
from harness.views.settings import format_cache, format_setting
from harness.views.spellings import Asked
from harness.views.values import BYTES, FILE, MODULE, Unit, format_list, format_value

#: Sizes of several devices, in their order.
_SIZES = Unit("bytes", lambda sizes: " + ".join(f"{size / GIB:.2f}" for size in sizes), "GiB")

_BOUNDS = {
    Bound.ASKED: "what was asked for",
    Bound.TRAINED: "all that the model was trained for",
    Bound.POSITIONS: "all positions that the model has",
    Bound.NONE: "the header states no context that the model was trained for",
}


def describe_fit(fitting: Fitting) -> Document:
    """What fits where, and the options that say so to llama.cpp."""
    best = next((item for item in fitting.fits if item.fits), None)
    whole = [item for item in fitting.fits if item.whole is not None]

    def draw(theme: str) -> Any:
        from harness.views.figures.fit import draw_fit

        return draw_fit(fitting, theme=theme)

    sections = [Section("", [_facts(fitting)]), Section("", [_contexts(fitting), *_verdict(fitting, best)])]
    if whole:
        heading = f"with {fitting.most} tokens, {_BOUNDS[fitting.bound]}"
        sections.append(Section(heading, [_whole(fitting, whole)]))
    if best is not None and best.packing is not None:
        sections.append(Section(f"where the first of these goes ({_name(best)})", [_memories(best.packing, fitting)]))
    if fitting.variants:
        sections.append(Section(f"each quantization, with a cache of {_name(fitting.fits[0])}", [_variants(fitting)]))
    if best is not None and best.packing is not None:
        sections.append(_paste(best, best.packing, fitting))
    sections.append(Section("", [Picture(draw, f"Memory over the context of {fitting.subject.label}", name="fit")]))
    title = f"{fitting.subject.label}{' (synthetic)' if fitting.subject.is_synthetic else ''}"
    return Document("fit", 1, title, sections, list(_warn(fitting, best)), _data(fitting), "fits")


def list_arguments(packing: Packing, fitting: Fitting) -> list[str]:
    """The arguments of llama-server for a placement; a file stands for what is no file yet."""
    words = llama_arguments("llama-server", _ask(packing, fitting))
    words += ["--mmproj", fitting.projector.label] if fitting.projector else []
    return [*words, *(["-md", fitting.draft.file_name or "draft.gguf"] if fitting.draft else [])]


def _ask(packing: Packing, fitting: Fitting, n_layers_alone: int | None = None) -> Asked:
    """What programs are to be told."""
    spec = dataclasses.replace(packing.spec, model=fitting.subject.file_name or "model.gguf", n_threads=None)
    return Asked(spec, spec.n_ctx, fitting.subject.n_layers, bool(packing.cards), n_layers_alone)


def _paste(best: CacheFit, packing: Packing, fitting: Fitting) -> Section:
    """Lines for the first that fits; of what goes along llama-server alone is told."""
    words = ["llama-server", *list_arguments(packing, fitting)]
    blocks: list[Block] = [Code([harmless.shell_line(words)]), Prose([f"{text}." for text in explain_withheld(words)])]
    if not (fitting.projector or fitting.draft):
        blocks += paste_section(_ask(packing, fitting, best.n_layers_alone), programs=("Ollama", "LM Studio")).blocks
    return Section("to paste", blocks)


def _facts(fitting: Fitting) -> KeyFigures:
    subject, space = fitting.subject, fitting.space
    cards = [
        device.name if fitting.are_cards_here else f"a card of {format_value(device.memory_bytes, MODULE)}"
        for device in space.devices
    ]
    if fitting.are_cards_here:
        sizes = [device.memory_bytes for device in space.devices]
        cards = [
            f"{name}, {format_value(size, MODULE)} free" if size else name
            for name, size in zip(cards, sizes, strict=True)
        ]
    free = "{} of memory free" if fitting.is_host_here else "{} of memory"
    projector = fitting.projector
    figures = [
        Figure("architecture", "", subject.architecture),
        Figure("n_layers", "layers", subject.n_layers, phrase="{} layers"),
        Figure("file_type", "", subject.file_type),
        Figure("file_bytes", "file", subject.file_bytes, BYTES),
        Figure("n_ctx_train", "", subject.n_ctx_train, phrase="trained for {} tokens"),
        *(Figure(name, name, value, phrase=f"{name} {format_setting(value)}") for name, value in fitting.asked.items()
          if name not in ("type_k", "type_v")),
        Figure("projector", "", projector.label if projector else None, phrase="projector {}"),
        Figure("draft", "", fitting.draft.label if fitting.draft else None, phrase="draft {}"),
        *(Figure(f"card_{number}", "", card) for number, card in enumerate(cards)),
        Figure("spare", "", _describe_spare(space.spare_bytes), phrase="{} kept free"),
        Figure("host_bytes", "", space.host_bytes, MODULE, phrase=free),
    ]  # fmt: skip
    return KeyFigures(figures, in_line=True)


def _describe_spare(spare_bytes: Sequence[int]) -> str | None:
    """What was asked to be left free on each card; None where nothing was."""
    if not any(spare_bytes):
        return None
    is_same = len(set(spare_bytes)) == 1
    words = [format_value(size, MODULE) for size in spare_bytes[: 1 if is_same else None]]
    return f"{format_list(words)}{' of each' if is_same and len(spare_bytes) > 1 else ''}"


# --- tables of placements ---------------------------------------------------------------------------------------------


def _name(item: CacheFit) -> str:
    return format_cache(item.type_k, item.type_v)


def _packing_of(item: CacheFit | VariantFit) -> Packing | None:
    return item.packing


def _layers(packing: Packing, fitting: Fitting) -> Cell:
    n_layers = (fitting.subject.n_layers or 0) + 1
    count = packing.n_layers_on_cards
    if not fitting.space.devices:
        return Cell()
    return Cell(f"all {count}" if count == n_layers else f"{count} of {n_layers}")


def _context(packing: Packing, fitting: Fitting) -> Cell:
    is_most = packing.fits and packing.spec.n_ctx_seq == fitting.most and fitting.bound is not Bound.ASKED
    return Cell(packing.spec.n_ctx_seq, notes=(_BOUNDS[fitting.bound],) if is_most else ())


def _judge(packing: Packing) -> str:
    if packing.fits:
        return "yes"
    where = ["memory" if one.device == HOST else one.device for one in packing.taken if not one.fits]
    return f"no, lacks {format_value(packing.lacking_bytes, MODULE)} ({format_list(where)})"


def _placement_columns(
    fitting: Fitting, items: Sequence[Any], of: Callable[[Any], Packing | None], *, with_host: bool = True
) -> list[Column]:
    """Columns about a placement, which `of` takes out of an item; it may be None there."""
    cards = fitting.space.devices
    card = "card" if len(cards) == 1 else "cards"
    context = "context\nof each" if fitting.asked.get("n_parallel", 1) > 1 else "context"
    found = [packing.spec for packing in map(of, items) if packing is not None]

    def about(find: Callable[[Packing], Any]) -> Callable[[Any], Any]:
        def show(item: Any) -> Any:
            packing = of(item)
            return None if packing is None else find(packing)

        return show

    def left(packing: Packing) -> tuple[int, ...] | None:
        sizes = [one.left_bytes for one in packing.cards]
        return tuple(size or 0 for size in sizes) if packing.fits and sizes and None not in sizes else None

    def left_to_host(packing: Packing) -> int | None:
        return packing.host.left_bytes if packing.fits else None

    def split(packing: Packing) -> str | None:
        return format_setting(packing.spec.tensor_split) if packing.spec.tensor_split else None

    return [
        Column("n_ctx", context, align="r", of=about(lambda packing: _context(packing, fitting))),
        Column("layers", f"layers on\nthe {card}", of=about(lambda packing: _layers(packing, fitting))),
        Column("n_gpu_layers", is_shown=False, of=about(lambda packing: packing.n_layers_on_cards)),
        Column("n_cpu_moe", "-ncmoe", is_shown=any(spec.n_cpu_moe for spec in found), of=about(lambda packing: packing.spec.n_cpu_moe)),
        Column("tensor_split", "-ts", of=about(split)),
        Column("cards_left", f"left on the\n{card}, GiB", _SIZES, of=about(left)),
        Column("host_left", "left in\nmemory", MODULE, is_shown=with_host, of=about(left_to_host)),
    ]  # fmt: skip


def _judge_item(item: CacheFit | VariantFit) -> str:
    return _judge(item.packing) if item.packing is not None else item.trouble or "no, larger than all memory"


_VERDICT = Column("verdict", "fits", wraps=True, of=_judge_item)


def _contexts(fitting: Fitting) -> Table:
    columns = [
        Column("cache", of=_name), *for_programs("type_k", "type_v"), *_placement_columns(fitting, fitting.fits, _packing_of),
        _VERDICT, *for_programs("fits", "is_estimated"),
        Column("lacking", unit=BYTES, is_shown=False, of=lambda item: item.packing.lacking_bytes if item.packing else None),
    ]  # fmt: skip
    return Table.of("fits", fitting.fits, columns, missing="")


def _whole(fitting: Fitting, items: Sequence[CacheFit]) -> Table:
    def of(item: Any) -> Packing | None:
        return getattr(item, "whole", None)

    columns = [Column("cache", of=_name), *_placement_columns(fitting, items, of)[1:]]
    return Table.of("whole", items, columns, missing="")


def _name_memory(one: Taken, packing: Packing, fitting: Fitting) -> str:
    if one.device == HOST:
        return "memory"
    return one.device if fitting.are_cards_here or len(packing.cards) > 1 else "the card"


def _memories(packing: Packing, fitting: Fitting) -> Table:
    columns = [
        *for_programs("device"), Column("where", of=lambda one: _name_memory(one, packing, fitting)),
        Column("n_layers", "layers", of=lambda one: one.n_layers or None),
        Column("weights", unit=MODULE, of=lambda one: one.weights_bytes or None),
        Column("cache", unit=MODULE, of=lambda one: one.cache_bytes or None),
        Column("working", "working\nat most", MODULE, of=lambda one: one.working_bytes or None),
        Column("fixed", "with it", MODULE, of=lambda one: one.fixed_bytes or None),
        Column("total", "together", MODULE), Column("room", "there is", MODULE), Column("left", unit=MODULE),
    ]  # fmt: skip
    notes = []
    if packing.cards and not fitting.are_cards_here:
        cuda = format_value(CUDA_CONTEXT_BYTES, MODULE)
        notes.append(
            f"working: what computing takes, all of which one card may need, and {cuda} that CUDA takes by itself."
        )
    if any(one.fixed_bytes for one in packing.taken):
        notes.append("with it: the projector, the draft.")
    return Table.of("memories", packing.taken, columns, notes, missing="")


def _variants(fitting: Fitting) -> Table:
    ranked = sorted(fitting.variants, key=lambda item: -(item.file_bytes or 0))

    columns = [
        Column("quantization", of=lambda item: Cell(item.variant.quantization, mark="*" if item.is_asked else "")),
        Column("name", is_shown=False, of=lambda item: item.variant.text),
        Column("file", "size", FILE), *_placement_columns(fitting, ranked, _packing_of, with_host=not fitting.space.devices),
        _VERDICT, *for_programs("fits", "is_asked"),
    ]  # fmt: skip
    notes = ["* the one above"] if any(item.is_asked for item in ranked) else []
    return Table.of("quantizations", ranked, columns, notes, missing="")


# --- sentences --------------------------------------------------------------------------------------------------------


def _verdict(fitting: Fitting, best: CacheFit | None) -> Iterator[Prose]:
    """What would help where nothing fits."""
    if best is not None:
        return
    near = [item.packing for item in fitting.fits if item.packing is not None]
    if not near:
        return
    least = min(near, key=lambda packing: packing.lacking_bytes)
    smaller = next(
        (item for item in sorted(fitting.variants, key=lambda item: -(item.file_bytes or 0)) if item.fits), None
    )
    advice = [f"{format_value(least.lacking_bytes, MODULE)} more memory"]
    if smaller is not None:
        advice.append(f"{smaller.variant.quantization}, which fits (-m {smaller.variant.text})")
    elif not fitting.variants:
        advice.append("a smaller quantization (--all-quants sets a model's side by side)")
    if (one := fitting.one_copy) is not None:
        advice.append(f"--load-mode none, which keeps one copy of the weights: {one.spec.n_ctx_seq} tokens fit then")
    if least.spec.n_ctx_seq > 512 and fitting.bound is Bound.ASKED:
        advice.append("a smaller --ctx")
    yield Prose([f"It does not fit. What would help: {format_list(advice, 'or')}."])


def _warn_of_full_card(packing: Packing, fitting: Fitting) -> Iterator[str]:
    """Whoever pastes a line that fills a card runs out of it as soon as another program takes some, unless he wanted it so."""
    used = [(card.left_bytes, card) for card in packing.cards if card.left_bytes is not None and card.total_bytes]
    if not used or any(fitting.space.spare_bytes):
        return
    left, card = min(used, key=lambda one: one[0])
    if left < USUAL_SPARE_BYTES:
        name = _name_memory(card, packing, fitting)
        others = "which other programs may want" if fitting.are_cards_here else "and a desktop takes 0.3 to 1 GB"
        yield (
            f"what is to be pasted leaves {format_value(left, MODULE)} of {name} free, {others}: -fitt {USUAL_SPARE_BYTES // MIB} "
            f"plans with {format_value(USUAL_SPARE_BYTES, MODULE)} less, as llama.cpp's own fitting does."
        )


def _warn(fitting: Fitting, best: CacheFit | None) -> Iterator[str]:
    if best is not None and best.packing is not None:
        yield from _warn_of_full_card(best.packing, fitting)
    if fitting.difference is not None and fitting.draft is not None:
        yield f"{fitting.draft.label} cannot guess for {fitting.subject.label}: {fitting.difference}; llama.cpp refuses it."
    if any(item.is_estimated for item in fitting.fits):
        yield "what computing takes is estimated: llama.cpp did not plan it."
    if (projector := fitting.projector) is not None:
        if projector.working_bytes is None:
            yield f"what computing takes for {projector.label} is not known by its header, and not counted."
        else:
            size = format_value(projector.working_bytes, BYTES)
            yield f"for computing one image of {projector.n_patches} patches {size} are counted, the least that it takes."
    seen: set[str] = set()
    for note in fitting.notes:
        if (text := describe_note(note)) not in seen:
            seen.add(text)
            yield text


def _data(fitting: Fitting) -> dict[str, Any]:
    return {
        "model": fitting.subject.label,
        "is_synthetic": fitting.subject.is_synthetic,
        "n_ctx_most": fitting.most,
        "bound": fitting.bound.value,
        "are_cards_here": fitting.are_cards_here,
        "is_host_here": fitting.is_host_here,
        "cards": [{"name": device.name, "memory_bytes": device.memory_bytes} for device in fitting.space.devices],
        "spare_bytes": list(fitting.space.spare_bytes),
        "vocabulary_difference": fitting.difference,
        "projector_bytes": fitting.projector.total_bytes if fitting.projector else None,
        "arguments": [
            list_arguments(item.packing, fitting) if item.fits and item.packing else None for item in fitting.fits
        ],
        "curves": [
            {"type_k": item.type_k, "type_v": item.type_v, "needed_bytes": list(item.curve)} for item in fitting.fits
        ],
    }
