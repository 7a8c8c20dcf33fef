"""Exported C headers on emulated microcontrollers: compiled, run on images, instructions counted.

QEMU is told to take one nanosecond for each instruction (``-icount shift=0``), so a board's own
timer counts them: SysTick at 25 MHz every fortieth, `minstret` of RISC-V each. An instruction is
no cycle; a Cortex-M needs 1 to 2 cycles for one, more where flash is slow.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Board:
    """A processor, how to compile for it, and how to emulate it.

    Attributes
    ----------
    title : str
    compiler, size : str
        Programs of the tool chain.
    flags : tuple of str
    emulator : tuple of str
        QEMU's program and machine.
    start : str
        C: sets up the stack and calls `main`, writes and stops, counts instructions.
    memory : str
        Of the linker's script: where code and data lie.
    """

    title: str
    compiler: str
    size: str
    flags: tuple[str, ...]
    emulator: tuple[str, ...]
    start: str
    memory: str


_ARM = """
extern uint32_t stack_top, data_start, data_end, data_from, bss_start, bss_end;
int main(void);
static uint32_t call(uint32_t what, const void *with) {
    register uint32_t r0 __asm__("r0") = what;
    register const void *r1 __asm__("r1") = with;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}
static void stop(void) { call(0x18, (const void *)0x20026); }
static void put(char c) { call(0x03, &c); }
static void fault(void) { put('!'); stop(); }
void reset(void) {
    uint32_t *from = &data_from, *to = &data_start;
    while (to < &data_end) *to++ = *from++;
    for (to = &bss_start; to < &bss_end; ++to) *to = 0;
    *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* the floating-point unit, if there is one */
    *(volatile uint32_t *)0xE000E014 = 0xFFFFFF;
    *(volatile uint32_t *)0xE000E018 = 0;
    *(volatile uint32_t *)0xE000E010 = 5;
    main();
    stop();
}
__attribute__((section(".vectors"), used)) static const void *const vectors[16] = {
    &stack_top, (const void *)reset, (const void *)fault, (const void *)fault,
    (const void *)fault, (const void *)fault, (const void *)fault };
static uint64_t counted(uint32_t before, uint32_t after) {
    return (uint64_t)((before - after) & 0xFFFFFF) * 40;
}
static uint32_t now(void) { return *(volatile uint32_t *)0xE000E018; }
"""
_RISCV = """
int main(void);
static void put(char c) { *(volatile uint8_t *)0x10000000 = (uint8_t)c; }
void run(void) { main(); *(volatile uint32_t *)0x100000 = 0x5555; for (;;) ; }
__attribute__((section(".vectors"), naked, used)) void begin(void) {
    __asm__ volatile(".option arch, +zicsr\\n la sp, stack_top\\n li t0, 0x6000\\n"
                     "csrs mstatus, t0\\n j run");
}
static uint32_t now(void) {
    uint32_t n;
    __asm__ volatile(".option arch, +zicsr\\n csrr %0, minstret" : "=r"(n));
    return n;
}
static uint64_t counted(uint32_t before, uint32_t after) { return after - before; }
"""
_MPS2 = "FLASH : ORIGIN = 0, LENGTH = 4M\n RAM : ORIGIN = 0x20000000, LENGTH = 4M"
_VIRT = "FLASH : ORIGIN = 0x80000000, LENGTH = 8M\n RAM : ORIGIN = 0x80800000, LENGTH = 8M"
_CORTEX = ("-mthumb", "--specs=nano.specs")


def _cortex(title: str, machine: str, *flags: str) -> Board:
    return Board(
        title,
        "arm-none-eabi-gcc",
        "arm-none-eabi-size",
        (*_CORTEX, *flags),
        ("qemu-system-arm", "-machine", machine, "-semihosting-config", "enable=on,target=native"),
        _ARM,
        _MPS2,
    )


BOARDS = {
    "cortex-m3": _cortex("Cortex-M3, no floating point", "mps2-an385", "-mcpu=cortex-m3"),
    "cortex-m4": _cortex(
        "Cortex-M4F",
        "mps2-an386",
        "-mcpu=cortex-m4",
        "-mfloat-abi=hard",
        "-mfpu=fpv4-sp-d16",
    ),
    "rv32imac": Board(
        "RISC-V, rv32imac, no floating point",
        "riscv64-unknown-elf-gcc",
        "riscv64-unknown-elf-size",
        ("-march=rv32imac", "-mabi=ilp32", "-mcmodel=medany", "--specs=picolibc.specs"),
        ("qemu-system-riscv32", "-machine", "virt", "-bios", "none"),
        _RISCV,
        _VIRT,
    ),
}

_LINKER = """MEMORY { %s }
ENTRY(%s)
SECTIONS {
 .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) *(.srodata*) . = ALIGN(8); } > FLASH
 .data : { . = ALIGN(8); data_start = .; *(.data*) *(.sdata*) . = ALIGN(8); data_end = .; }
   > RAM AT > FLASH
 data_from = LOADADDR(.data);
 .bss : { bss_start = .; *(.bss*) *(.sbss*) *(COMMON) . = ALIGN(8); bss_end = .; } > RAM
 stack_top = ORIGIN(RAM) + LENGTH(RAM);
 /DISCARD/ : { *(.ARM.exidx*) *(.eh_frame*) *(.comment) }
}
"""
_MAIN = """
static void number(uint64_t n) { if (n > 9) number(n / 10); put((char)('0' + n % 10)); }
int main(void) {
    for (int i = 0; i < N_IMAGES; ++i) {
        float p[@_CLASSES];
        const uint32_t before = now();
        const int best = @_predict(images + (long)i * @_PIXELS, p);
        const uint64_t n = counted(before, now());
        number((uint64_t)best);
        put(' ');
        number(n);
        for (int k = 0; k < @_CLASSES; ++k) { put(' '); number((uint64_t)(p[k] * 1e6f + 0.5f)); }
        put('\\n');
    }
    return 0;
}
"""


@dataclass(frozen=True)
class Measured:
    """What a board made of some images.

    Attributes
    ----------
    labels : int array of shape (n,)
    probabilities : array of shape (n, K)
        To a millionth.
    instructions : float
        Of an image, the mean.
    flash_bytes, ram_bytes : int
        Of code and tables, and of scratch; the stack not counted.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    instructions: float
    flash_bytes: int
    ram_bytes: int


def missing(board: Board) -> str:
    """The first program that a board needs and that isn't installed; empty if all are."""
    wanted = (board.compiler, board.size, board.emulator[0])
    return next((program for program in wanted if shutil.which(program) is None), "")


def measure(board: Board, header: Path, images: np.ndarray, level: str = "-O2") -> Measured:
    """Compile a header for a board, and run it on uint8 images.

    Parameters
    ----------
    board : Board
    header : Path
        Named like the prefix of what is in it.
    images : uint8 array of shape (n, ...)
    level : str
        Of optimisation.
    """
    name = header.stem
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        values = ", ".join(map(str, images.reshape(-1).tolist()))
        (place / "main.c").write_text(
            f'#include "{header.resolve()}"\n{board.start}\n#define N_IMAGES {len(images)}\n'
            f"static const uint8_t images[] = {{{values}}};\n{_MAIN.replace('@', name)}"
        )
        entry = "reset" if "arm" in board.compiler else "begin"
        (place / "board.ld").write_text(_LINKER % (board.memory, entry))
        common = [board.compiler, *board.flags, "-std=gnu99", level, "-ffunction-sections"]
        command = [*common, "-nostartfiles", f"-T{place / 'board.ld'}", "-Wl,--gc-sections"]
        command += [str(place / "main.c"), "-lm", "-lgcc", "-o", str(place / "main.elf")]
        subprocess.run(command, check=True, capture_output=True, text=True)
        (place / "model.c").write_text(
            f'#include "{header.resolve()}"\n'
            f"int run(const uint8_t *i, float *p) {{ return {name}_predict(i, p); }}\n"
        )
        subprocess.run(
            [*common, "-c", str(place / "model.c"), "-o", str(place / "model.o")], check=True
        )
        sizes = subprocess.run(
            [board.size, str(place / "model.o")], check=True, capture_output=True, text=True
        )
        text, data, bss = map(int, re.findall(r"^\s*(\d+)\s+(\d+)\s+(\d+)", sizes.stdout, re.M)[0])
        run = [*board.emulator, "-nographic", "-monitor", "none", "-serial", "stdio"]
        run += ["-icount", "shift=0", "-kernel", str(place / "main.elf")]
        done = subprocess.run(
            run, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
        )
    output = done.stdout + done.stderr
    rows = [list(map(int, line.split())) for line in output.splitlines() if line[:1].isdigit()]
    if len(rows) != len(images):
        raise RuntimeError(f"{board.title}: {output.strip()[:300]!r} for {len(images)} images")
    table = np.array(rows)
    return Measured(
        table[:, 0], table[:, 2:] / 1e6, float(table[:, 1].mean()), text + data, bss + data
    )
