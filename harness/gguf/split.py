"""Models in several files: the names of the parts, and their headers as one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from harness.errors import UsageError
from harness.gguf.header import MAX_TENSORS, Header, Part
from harness.untrusted.json import is_count
from harness.untrusted.names import MAX_PARTS

#: Source: src/llama.cpp llama_split_path: "%s-%05d-of-%05d.gguf", counted from 1.
_PART_NAME = re.compile(r"(?P<stem>.*)-(?P<index>[0-9]{5})-of-(?P<count>[0-9]{5})\.gguf", re.DOTALL)


def split_count(header: Header, name: str = "the file") -> int:
    """Say of how many files the model consists, by the header of its first part: 1 for a whole file.

    Raises
    ------
    UsageError : this is a later part, or split.count is no count.

    Source: src/llama-model-loader.cpp llama_model_loader::llama_model_loader.
    """
    count = header.metadata.get("split.count", 1)
    if not is_count(count, 2**16):
        raise UsageError(f"{name} says {count!r} for split.count, which is not a number of files; download it again")
    if count > 1 and header.metadata.get("split.no") != 0:
        first = _PART_NAME.fullmatch(name)
        other = f"{first['stem']}-00001-of-{count:05d}.gguf" if first else "the file with -00001-of- in its name"
        raise UsageError(f"{name} is a later part of a split model; name its first part, {other}")
    return max(count, 1)


def name_files(header: Header, name: str) -> tuple[str, ...]:
    """Every file of a model by its (first) file's header and name.

    Raises
    ------
    HarnessError : as `split_count` and `part_names`.
    """
    count = split_count(header, name)
    return tuple(part_names(name, count)) if count > 1 else (name,)


def part_names(first_name: str, count: int) -> tuple[str, ...]:
    """Name all files of a split model from the name (or path, or URL) of its first one.

    Raises
    ------
    UsageError : the name is not of the form ``…-00001-of-00003.gguf`` with this count.
    """
    match = _PART_NAME.fullmatch(first_name)
    if match is None or int(match["index"]) != 1 or int(match["count"]) != count:
        raise UsageError(
            f"{first_name} says that it is the first of {count} files but is not named so; "
            f"rename the files to …-00001-of-{count:05d}.gguf and so on"
        )
    return tuple(f"{match['stem']}-{index:05d}-of-{count:05d}.gguf" for index in range(1, count + 1))


def list_parts(name: str) -> tuple[str, ...]:
    """Name all files of a model from its name (or path, or URL's path): of a first part all parts, of any other name itself.

    Raises
    ------
    UsageError : this is a later part, or one of more files than any model has.
    """
    match = _PART_NAME.fullmatch(name)
    if match is None or int(match["count"]) < 2:
        return (name,)
    if int(match["count"]) > MAX_PARTS:
        raise UsageError(
            f"{name} says that it is one of {int(match['count'])} files, which no model has; check the name."
        )
    if int(match["index"]) != 1:
        first = f"{match['stem']}-00001-of-{match['count']}.gguf"
        raise UsageError(f"{name} is a later part of a split model; name its first part, {first}.")
    return part_names(name, int(match["count"]))


def join_parts(headers: Sequence[Header], names: Sequence[str]) -> Header:
    """Put the headers of a split model's files together: the first one's metadata, everybody's tensors.

    Raises
    ------
    UsageError : a part is out of order, a tensor is in two parts, or tensors are missing.

    Source: src/llama-model-loader.cpp, "load other splits" and its sanity check.
    """
    tensors = []
    owners: dict[str, str] = {}
    for index, (header, name) in enumerate(zip(headers, names, strict=True)):
        number = header.metadata.get("split.no")
        if number != index:
            raise UsageError(f"{name} should be part {index} of its model but says {number!r}; download it again")
        for tensor in header.tensors:
            if tensor.name in owners:
                raise UsageError(
                    f"tensor {tensor.name!r} is in {owners[tensor.name]} and in {name}; download both again"
                )
            owners[tensor.name] = name
            tensors.append(dataclasses.replace(tensor, part=index))
        if len(tensors) > MAX_TENSORS:
            raise UsageError(f"{names[0]} and its other parts have more than {MAX_TENSORS} tensors, as no model has.")
    expected = headers[0].metadata.get("split.tensors.count")
    if expected != len(tensors):
        raise UsageError(
            f"{names[0]} promises {expected!r} tensors and its parts hold {len(tensors)}; download it again"
        )
    parts = tuple(
        Part(name, header.data_offset, header.size_bytes, header.table_bytes)
        for header, name in zip(headers, names, strict=True)
    )
    return dataclasses.replace(headers[0], tensors=tuple(tensors), parts=parts)
