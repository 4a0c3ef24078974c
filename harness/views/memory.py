"""A memory ledger as a Document: what was predicted and measured, what fits, and what qualifies it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness.gguf.blocks import describe_skipped
from harness.gguf.settings import describe_untrained
from harness.memory.causes import HOST, Cause, Note, Part, Remark
from harness.memory.fit import CardFit, Fit
from harness.memory.forecast import Forecast
from harness.memory.ledger import Measurement
from harness.records.failures import describe_end
from harness.records.memory import MemoryRecord
from harness.records.verdict import judge
from harness.spec import cell_key, defaults
from harness.units import MIB
from harness.views.document import (
    Block,
    Cell,
    Column,
    Document,
    Figure,
    KeyFigures,
    Picture,
    Prose,
    Row,
    Section,
    Table,
    for_programs,
)  # fmt: skip
from harness.views.values import BYTES, FINE_SHARE, MIB_ALONE, MIB_CHANGE, MODULE, SETTING, format_layers, format_value
from harness.views.verdict import with_verdict

#: Of what was asked: these are shown whatever they are, or by other figures; the rest only where it is not the usual.
_SHOWN_ALWAYS = {"type_k", "type_v", "n_ubatch", "flash_attn", "n_depth", "n_threads", "n_parallel"}


def describe_memory(record: MemoryRecord, *, others: Mapping[str, Mapping[str, int]] | None = None) -> Document:
    """The ledger of one context, or the table of several, with what fits beside it; others are further bars of its picture."""
    is_single, measured = len(record.forecasts) == 1, record.measurement

    def draw(theme: str) -> Any:
        from harness.views.figures.memory import draw_ledger

        return draw_ledger(record, theme=theme, others=others)

    picture = Picture(draw, f"Memory of {record.model.label}; the tables have its figures", name="ledger")
    said = [f"not measured: {describe_end(record.failure)}"] if record.failure else []
    sections = [
        Section("", [_facts(record)]),
        Section("", [_ledger(record), Prose([*_one_more(record), *said])] if is_single else [_contexts(record)]),
        Section("", [Prose(list(_account(measured))), *_steps(measured)] if measured else []),
        Section("" if is_single else "with the smallest of these contexts", list(_fits(record))),
        Section("", [picture]),
    ]
    notes = [describe_note(note) for note in record.all_notes]
    title = f"{record.model.label}{' (synthetic)' if record.model.is_synthetic else ''}"
    main = "ledger" if is_single else "contexts"
    return with_verdict(Document("overhead", record.schema, title, sections, notes, _data(record), main), judge(record))


def _facts(record: MemoryRecord) -> KeyFigures:
    model, asked = record.model, record.asked
    flash = asked.flash_attn if record.flash_attn is None else record.flash_attn
    trained = f" of {model.n_ctx_train}" if model.n_ctx_train else ""
    each = " each" if asked.n_parallel > 1 else ""
    found = (record.measurement and record.measurement.layers_by_device) or {}
    places = None if set(found) <= {HOST} else format_layers(found, " on ")
    figures = [
        Figure("architecture", "", model.architecture),
        Figure("n_layers", "layers", model.n_layers, phrase="{} layers"),
        Figure("file_type", "", model.file_type),
        Figure("file_bytes", "file", model.file_bytes, BYTES),
        Figure("n_ctx_train", "", model.n_ctx_train, is_shown=False),
        Figure("n_parallel", "", asked.n_parallel, phrase="{} sequences", is_shown=asked.n_parallel > 1),
        Figure("n_ctx", "context", record.n_ctx_seq(record.forecast), phrase=f"context {{}}{trained}{each}",
               is_shown=len(record.forecasts) == 1),
        Figure("type_k", "K", asked.type_k),
        Figure("type_v", "V", asked.type_v),
        Figure("n_ubatch", "n_ubatch", asked.n_ubatch),
        Figure("flash_attn", "flash attention", flash, SETTING),
        *(Figure(name, name, getattr(asked, name), SETTING, is_shown=getattr(asked, name) != usual)
          for name, usual in defaults().items() if name not in _SHOWN_ALWAYS),
        Figure("layers", "", places, phrase="layers {}"),
    ]  # fmt: skip
    return KeyFigures(figures, in_line=True)


# --- one context ------------------------------------------------------------------------------------------------------


def _ledger(record: MemoryRecord) -> Table:
    notes, totals, sums, rows = [], [], record.totals, record.ledger
    if measured := record.measurement:
        growth = measured.account.growth_bytes
        totals.append(Row(["growth", HOST, None, growth, None, growth], is_total=True))
    interpreter = measured.interpreter_bytes if measured else record.forecast.interpreter_bytes
    if interpreter:
        notes.append(f"The process has the interpreter's {_mib(interpreter)} besides.")
    whole = [sums.predicted_bytes, sums.measured_bytes, sums.error, sums.resident_bytes]
    totals.append(Row(["process, all touched", HOST, *whole], is_total=True))
    columns = [
        Column("cause", "MiB"), Column("device", is_shown=len({row.device for row in rows}) > 1),
        Column("predicted", unit=MIB_ALONE), Column("measured", unit=MIB_ALONE), Column("error", unit=FINE_SHARE),
        Column("resident", "in memory", MIB_ALONE),
    ]  # fmt: skip
    return Table.of("ledger", rows, columns, notes, "", totals)


def _one_more(record: MemoryRecord) -> Iterator[str]:
    """What one more user costs: all that is planned for it, cause by cause."""
    more, now = record.one_more, record.forecast
    if more is None or not (now.is_whole and more.is_whole):
        return
    found = {cause: more.of(cause) - now.of(cause) for cause in Cause if cause.is_buffer}
    parts = [f"{cause.value} {_mib(size)}" for cause, size in found.items() if size > 0]
    if record.forecast.n_ctx:
        context = f"of {record.n_ctx_seq(now)} tokens" if not record.asked.kv_unified else "that shares the cache"
        yield f"One more sequence {context} takes {_mib(sum(found.values()))}: {', '.join(parts) or 'nothing'}."


def _account(measured: Measurement) -> Iterator[str]:
    account, last = measured.account, measured.grown[-1]
    if account.explained_share is None:
        yield "This OS does not tell mappings apart: the growth is known, its causes are llama.cpp's word alone."
    else:
        share, rest = format_value(account.explained_share, FINE_SHARE), abs(account.unexplained_bytes or 0)
        yield f"{share} of the growth of resident memory is explained; {_mib(rest)} are not."
    taken_back = {share.cause: -share.size_bytes for share in account.corrections}
    if (untouched := taken_back.get(Cause.UNTOUCHED, 0)) > 0:
        yield f"{_mib(untouched)} are allocated and not in memory yet: nothing was written there so far."
    if (unread := taken_back.get(Cause.UNREAD, 0)) > MIB // 2:
        yield f"{_mib(unread)} of the mapped file are not in memory, or not in this process's."
    if last.uss_bytes is not None:
        yield f"{_mib(last.rss_bytes - last.uss_bytes)} are shared with other processes (RSS less USS)."
    if last.swap_bytes:
        yield f"{_mib(last.swap_bytes)} are in swap."


def _mib(size_bytes: int) -> str:
    return format_value(size_bytes, MIB_ALONE)


def _steps(measured: Measurement) -> Iterator[Table]:
    """Resident memory after each step, and what each device has free and, by NVML, this process has of it."""
    readings = measured.readings
    before = {id(one): last.rss_bytes for last, one in zip((readings[0], *readings), readings, strict=False)}
    columns = [
        Column("step", "after (MiB)"), Column("rss", "resident", MIB_ALONE),
        Column("change", "change", MIB_CHANGE, of=lambda one: one.rss_bytes - before[id(one)] or None),
        Column("file", "of files", MIB_ALONE), Column("anonymous", unit=MIB_ALONE), Column("pss", "PSS", MIB_ALONE),
        Column("uss", "USS", MIB_ALONE), *for_programs("swap", unit=MIB_ALONE),
    ]  # fmt: skip
    notes = ["after: context and model were freed."] if any(item.step == "after" for item in readings) else []
    if all(reading.pss_bytes is None for reading in readings):
        notes.append("This OS does not tell PSS, the share of shared pages.")
    yield Table.of("steps", readings, columns, notes, missing="")
    devices = [(item.step, device) for item in readings for device in item.devices]
    if devices:
        columns = [
            Column("step", "after (MiB)"), Column("device"), Column("free", "free", MIB_ALONE),
            Column("process", "ours", MIB_ALONE), Column("total", "in all", MIB_ALONE),
        ]  # fmt: skip
        found = [[step, item.name, item.free_bytes, item.process_bytes, item.total_bytes] for step, item in devices]
        yield Table("step_devices", columns, found, missing="")


# --- several contexts -------------------------------------------------------------------------------------------------

_PARTS = (Part.WEIGHTS, Part.REPACKED, Part.CACHE, Part.COMPUTE, Part.PROCESS)


def _contexts(record: MemoryRecord) -> Table:
    columns = [
        Column("n_ctx", "context", align="r"),
        *(Column("_".join(part.lower().split()), part, MIB_ALONE) for part in _PARTS),
        Column("total", "total MiB", MIB_ALONE),
        Column("fits"),
    ]
    sizes = {fit.device: fit.total_bytes for fit in record.fits}

    def fits(item: Forecast) -> bool | None:
        """Whether a context fits this machine's memory and every device in it."""
        if None in sizes.values():
            return None
        return all(item.on(device) <= (size or 0) for device, size in sizes.items())

    parts = [[item.of(part) or None for part in _PARTS] for item in record.forecasts]
    rows = [
        [record.n_ctx_seq(item), *row, item.total_bytes, fits(item)]
        for item, row in zip(record.forecasts, parts, strict=True)
    ]
    notes = ["All of this is predicted; a single --ctx is measured as well."]
    if record.context_slope is not None:
        notes.insert(0, f"Each further token of context takes {record.context_slope:.0f} bytes.")
    return Table("contexts", columns, rows, notes, missing="")


# --- fits and remarks -------------------------------------------------------------------------------------------------


def _fits(record: MemoryRecord) -> Iterator[Block]:
    is_partial = not record.forecast.is_whole
    columns = [
        *for_programs("device"), Column("where", of=lambda fit: "this machine" if fit.device == HOST else fit.device),
        Column("needed", unit=MODULE), Column("free", unit=MODULE), Column("total", "in all", MODULE),
        Column("verdict", "fits", wraps=True, of=lambda fit: _judge(fit, is_partial)), *for_programs("fits", "fits_now"),
        Column("is_lower_bound", is_shown=False, of=lambda _: is_partial),
    ]  # fmt: skip
    yield Table.of("fits", record.fits, columns, list(_fit_notes(record)))
    if record.cards:
        yield Prose(list(map(_describe_card, record.cards)))
        yield _cards(record.cards)


def _judge(fit: Fit, is_partial: bool) -> str:
    if fit.total_bytes is None:
        return "its memory cannot be read"
    if not fit.fits:
        return f"no, {format_value(fit.needed_bytes - fit.total_bytes, MODULE)} too much"
    if is_partial:
        return "maybe: not all that it needs is known"
    return "yes" if fit.fits_now is not False else "yes, but not beside what else is in it now"


def _fit_notes(record: MemoryRecord) -> Iterator[str]:
    if copied := record.forecast.of(Part.REPACKED):
        size = format_value(copied, MODULE)
        yield f"{size} of it are a second copy of weights; -lm none keeps one copy, --repack off the file's."
    mode = record.asked.load_mode
    is_locked = mode in ("mlock", "mmap+mlock")
    if is_locked and record.measurement is not None and record.measurement.is_unlocked:
        yield "Not all weights could be locked in memory: allow more of it (ulimit -l)."
    if mapped := record.forecast.of(Cause.MAPPED):
        fate = "which are locked: the OS cannot drop them" if is_locked else "which the OS may drop and read again"
        yield f"{format_value(mapped, MODULE)} of it are pages of the file, {fate}."
    if read := record.forecast.of(Cause.COPIED, HOST):
        size = format_value(read, MODULE)
        if is_locked:
            yield f"{size} of it are locked: the OS can neither drop nor swap them."
        elif mode == "none":
            yield (
                f"{size} of it came through the OS's cache of files, which has them once more as long as there is room; "
                "-lm dio goes past it."
            )


def _describe_card(card: CardFit) -> str:
    name = card.device or f"a card of {format_value(card.memory_bytes, MODULE)}"
    how_many = f"all {card.n_layers}" if card.n_fitting == card.n_layers else f"{card.n_fitting} of {card.n_layers}"
    at_most, at_least = ("", "")
    if card.compute_bytes is None:
        at_most, at_least = "at most ", "more than "
    elif card.is_estimated:
        at_most = at_least = "about "
    needed = format_value(card.needed_bytes, MODULE)
    return f"{name}: {at_most}{how_many} layers fit (-ngl {card.n_fitting}); all need {at_least}{needed}."


def _cards(cards: Sequence[CardFit]) -> Table:
    """What the layers that fit take, the output layer counted as one."""
    columns = [
        Column("device", "on it", of=lambda card: card.device or "a card"),
        Column("weights", unit=MODULE, of=lambda card: card.price.device_weights_bytes),
        Column("kv_cache", "cache", MODULE, of=lambda card: card.price.device_cache_bytes),
        Column("compute_at_most", "compute\nat most", MODULE,
               of=lambda card: Cell(card.compute_bytes, instead="not known", is_approximate=card.is_estimated)),
        Column("driver_context", "CUDA's\ncontext", MODULE, of=lambda card: card.context_bytes or None),
        Column("used", "together", MODULE), *for_programs("n_layers"),
        Column("n_layers_fitting", is_shown=False, of=lambda card: card.n_fitting),
        *for_programs("memory", "needed", "host", unit=MODULE),
    ]  # fmt: skip
    return Table.of("cards", cards, columns, missing="")


def describe_note(note: Note) -> str:
    """A remark in a sentence; what its fields are stands at `Remark`."""
    size, planned = (format_value(value, BYTES) for value in (note.size_bytes, note.planned_bytes))
    if note.remark is Remark.UNTRAINED:
        return describe_untrained(note.n_ctx_train, [note.n_ctx or 0]) or ""
    if note.remark is Remark.BLOCKS_SKIPPED:
        return describe_skipped(range(note.count or 0))
    sentences = {
        Remark.HEADER_REFUSED: "weights and KV cache: {detail}",
        Remark.SPLIT_WITHIN_LAYERS: "weights by device: {detail} splits are not worked out, layers are shown as whole",
        Remark.REPACKING_UNKNOWN: "repacked weights: what this CPU repacks is not known here",
        Remark.LAYOUTS_UNKNOWN: "repacked weights: this llama.cpp was built with {detail}, whose layouts are not known here",
        Remark.CACHE_UNKNOWN: "KV cache: {detail}",
        Remark.NOT_PLANNED: "compute and output buffers: {detail}",
        Remark.PLAN_DIFFERS: "{cause}: llama.cpp plans {planned}, not {size} as by the header",
        Remark.SEVERAL_DEVICES:
            "compute buffers: of several devices llama.cpp plans up to a twentieth more than it then allocates",
        Remark.SCORES_GROW: "without flash attention the work buffers grow to {size} when {n_ctx} tokens are in the context",
        Remark.STAND_IN_VOCABULARY:
            "the vocabulary is a stand-in for the real one, and so is what libraries and tables take for it",
        Remark.SOURCE: "{detail}",
        Remark.ENCODER: "the encoder of images is not counted: {size} more in F16, which predict has in its figures",
        Remark.HEADER_FETCHED: "only the header was fetched, {size} of it and what llama.cpp reads besides",
        Remark.NOT_PRICED: "layers on a card: {detail}",
        Remark.TEXT: "{detail}",
    }  # fmt: skip
    detail = note.detail or ""
    return sentences[note.remark].format(detail=detail, cause=note.cause, size=size, planned=planned, n_ctx=note.n_ctx)


# --- for programs -----------------------------------------------------------------------------------------------------


def _data(record: MemoryRecord) -> dict[str, Any]:
    """What programs get besides: measured lines of device ``CPU`` add up to ``resident_growth_bytes``, as long as the OS tells mappings
    apart; what is allocated but not in memory is taken back by negative lines."""
    measured = record.measurement
    account = measured.account if measured else None
    names = ("growth_bytes", "explained_bytes", "explained_share", "unexplained_bytes")
    found = {name: getattr(account, name) if account else None for name in names}
    return {
        "model": record.model.label,
        "origin": record.model.origin,
        "is_synthetic": record.model.is_synthetic,
        "asked": dict(cell_key(record.asked, but=("model", "n_gen", "n_depth"))),
        "load_mode": measured.load_mode if measured else None,
        "layers_by_device": measured.layers_by_device if measured else None,
        "resident_growth_bytes": found.pop("growth_bytes"),
        **found,
        "totals": record.totals,
        "forecasts": record.forecasts,
        "context_slope_bytes_per_token": record.context_slope,
        "failure": record.failure,
        "notes": record.all_notes,
    }
