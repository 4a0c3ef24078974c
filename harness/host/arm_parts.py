"""What an ARM processor is called: Linux gives numbers of its maker and core, where other processors give a name."""

from __future__ import annotations

import re
from collections.abc import Callable

#: Makers by their number (MIDR_EL1, bits 31-24). Source: Arm ARM DDI 0487, MIDR_EL1; util-linux sys-utils/lscpu-arm.c.
_MAKERS = {
    0x41: "Arm", 0x42: "Broadcom", 0x43: "Cavium", 0x46: "Fujitsu", 0x48: "HiSilicon", 0x4E: "NVIDIA", 0x50: "APM", 0x51: "Qualcomm",
    0x53: "Samsung", 0x56: "Marvell", 0x61: "Apple", 0x6D: "Microsoft", 0x70: "Phytium", 0xC0: "Ampere",
}  # fmt: skip

#: Cores by maker and number (MIDR_EL1, bits 15-4): those that run language models. Sources: as above; each core's technical reference
#: manual; Asahi Linux's list for Apple.
_CORES = {
    (0x41, 0xD03): "Cortex-A53", (0x41, 0xD05): "Cortex-A55", (0x41, 0xD07): "Cortex-A57", (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73", (0x41, 0xD0A): "Cortex-A75", (0x41, 0xD0B): "Cortex-A76", (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD0D): "Cortex-A77", (0x41, 0xD0E): "Cortex-A76AE", (0x41, 0xD40): "Neoverse-V1", (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE", (0x41, 0xD44): "Cortex-X1", (0x41, 0xD46): "Cortex-A510", (0x41, 0xD47): "Cortex-A710",
    (0x41, 0xD48): "Cortex-X2", (0x41, 0xD49): "Neoverse-N2", (0x41, 0xD4B): "Cortex-A78C", (0x41, 0xD4C): "Cortex-X1C",
    (0x41, 0xD4D): "Cortex-A715", (0x41, 0xD4E): "Cortex-X3", (0x41, 0xD4F): "Neoverse-V2", (0x41, 0xD80): "Cortex-A520",
    (0x41, 0xD81): "Cortex-A720", (0x41, 0xD82): "Cortex-X4", (0x41, 0xD83): "Neoverse-V3AE", (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD85): "Cortex-X925", (0x41, 0xD87): "Cortex-A725", (0x41, 0xD8A): "C1-Nano", (0x41, 0xD8B): "C1-Pro",
    (0x41, 0xD8C): "C1-Ultra", (0x41, 0xD8E): "Neoverse-N3", (0x41, 0xD90): "C1-Premium",
    (0x43, 0x0AF): "ThunderX2", (0x46, 0x001): "A64FX", (0x48, 0xD01): "TaiShan-v110", (0x48, 0xD02): "TaiShan-v120",
    (0x4E, 0x003): "Denver-2", (0x4E, 0x004): "Carmel", (0x4E, 0x010): "Olympus", (0x51, 0x001): "Oryon",
    (0x61, 0x022): "M1", (0x61, 0x023): "M1", (0x61, 0x024): "M1 Pro", (0x61, 0x025): "M1 Pro", (0x61, 0x028): "M1 Max",
    (0x61, 0x029): "M1 Max", (0x61, 0x032): "M2", (0x61, 0x033): "M2", (0x61, 0x034): "M2 Pro", (0x61, 0x035): "M2 Pro",
    (0x61, 0x038): "M2 Max", (0x61, 0x039): "M2 Max", (0xC0, 0xAC3): "Ampere-1", (0xC0, 0xAC4): "Ampere-1a",
}  # fmt: skip

#: Amazon's processors by the core of Arm's that they are made of. Source: AWS, "AWS Graviton Technical Guide", processor table.
_GRAVITONS = {
    "Cortex-A72": "Graviton", "Neoverse-N1": "Graviton2", "Neoverse-V1": "Graviton3", "Neoverse-V2": "Graviton4",
    "Neoverse-V3": "Graviton5",
}  # fmt: skip

Read = Callable[[str], str | None]


def name_arm_core(cpuinfo: str, read: Read) -> str:
    """The name of a board (Raspberry Pi), of a cloud's own processor, or of maker and cores, by the text of /proc/cpuinfo.

    read gives the text of another file of the kernel's. Empty where the text has none of it.
    """
    if board := re.search(r"^Model\s*:\s*(.+)$", cpuinfo, re.MULTILINE):
        return board[1].strip()
    makers, parts = (
        [int(number, 16) for number in re.findall(rf"^CPU {key}\s*:\s*(0x[0-9a-fA-F]+)$", cpuinfo, re.MULTILINE)]
        for key in ("implementer", "part")
    )
    kinds = list(dict.fromkeys(zip(makers, parts, strict=False)))
    if not kinds:
        return ""
    maker = _MAKERS.get(kinds[0][0], f"ARM maker 0x{kinds[0][0]:02x}")
    cores = [_CORES.get(kind, f"part 0x{kind[1]:03x}") for kind in kinds]
    vendor = (read("/sys/devices/virtual/dmi/id/sys_vendor") or "").strip()
    if vendor.startswith("Amazon") and cores[0] in _GRAVITONS:
        return f"AWS {_GRAVITONS[cores[0]]} ({cores[0]})"
    board_name = (read("/sys/firmware/devicetree/base/model") or "").strip(" \n\0")
    name = f"{maker} {' + '.join(dict.fromkeys(cores))}"
    return f"{name} ({board_name})" if board_name else name
