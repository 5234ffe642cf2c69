"""Machine code made with numba: compiled once on a machine, kept on its disk, and loaded without numba afterwards.

`function = load("fp32", make, count)`. Numba's own cache is tied to a file's path and time, and starting numba takes
longer than writing a text. Here machine code is kept under a hash of the source, the versions of the compiler and the
processor, in the user's cache (or in .tinygpt, where that cannot be written): temporary copies, queued runs and fresh
clones share it.
"""

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from tinygpt.files.atomic import writing
from tinygpt.files.paths import hidden

NAME = "entry"  # of the function, in its machine code
LOCK = threading.Lock()  # one thread compiles, the others wait


def processor() -> tuple[str, str]:
    """The processor's name and its features, as LLVM names them."""
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def kept_at(kind: str) -> list[Path]:
    """The files that may hold the machine code of this kind; the first is the better place."""
    sources = [Path(__file__).with_name(f"{name}.py") for name in ("compiled", "layout", "loops", "vectors")]
    versions = [f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite")]
    key = hashlib.sha256(repr([kind, *versions, *processor()]).encode())
    for source in sources:
        key.update(source.read_bytes())
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinygpt"
    return [folder / f"loops-{key.hexdigest()[:24]}.o" for folder in (user, hidden("compiled").absolute())]


def read(kind: str) -> bytes | None:
    """The machine code of this kind, if it is kept and undamaged: LLVM would end the process at damage."""
    for file in kept_at(kind):
        try:
            sum_, code = (content := file.read_bytes())[:32], content[32:]
        except OSError:
            continue
        if hashlib.sha256(code).digest() == sum_:
            return code
    return None


def keep(kind: str, code: bytes) -> None:
    """Keep machine code in the first place that can be written; without one, the next process compiles it again."""
    for file in kept_at(kind):
        try:
            with writing(file) as partial:
                partial.write_bytes(hashlib.sha256(code).digest() + code)
            return
        except OSError:
            continue


@cache
def load(kind: str, make: Callable[[str], Any], count: int) -> Callable[..., None]:
    """A compiled function of `count` whole numbers, some of them addresses. It returns nothing, and frees the GIL.

    make: kind → the function, of numba's; called where no machine code of this kind is kept.
    """
    with LOCK:
        code = read(kind)
        if code is None:
            code = compiled(make(kind), count)
            keep(kind, code)
        return linked(code, count)


def compiled(function: Any, count: int) -> bytes:
    """Compile a function of numba's, with all that it calls, to machine code for this processor, which needs no numba.

    RuntimeError if it does, because the function makes arrays or may raise an exception.
    """
    from numba import int64

    types = (int64,) * count
    function.compile(types)
    result = function.overloads[types]
    module = llvm.parse_assembly(result.library.get_llvm_str())
    # numba counts references to arrays even where they own no memory, and would call this at the last one
    module.link_in(llvm.parse_assembly("define void @NRT_MemInfo_call_dtor(ptr %array) { ret void }"))
    for other in module.functions:
        if other.name == result.fndesc.llvm_func_name:
            other.name = NAME
        elif not other.is_declaration:
            other.linkage = "internal"  # so that those it does not call, such as wrappers for Python, are left out
    machine = target_machine()
    passes = llvm.create_new_module_pass_manager()
    passes.add_global_dead_code_eliminate_pass()
    passes.run(module, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3)))
    needed = [other.name for other in (*module.functions, *module.global_variables) if other.is_declaration]
    needed = [name for name in needed if not name.startswith("llvm.") and name != "sqrt"]  # which C's library has
    if needed:
        raise RuntimeError(f"The compiled loops need {', '.join(needed)}, which only numba has.")
    code: bytes = machine.emit_object(module)
    return code


def target_machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = processor()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=name, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )


def linked(code: bytes, count: int) -> Callable[..., None]:
    """The function in the machine code that `compiled` made."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    # Before the arguments, numba's calling convention has addresses for a result and for an error
    kinds = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * count]
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(engine.get_function_address(NAME))
    nothing = ctypes.byref(ctypes.c_void_p())

    def call(*numbers: int) -> None:
        function(nothing, nothing, *numbers)

    call.engine = engine  # type: ignore[attr-defined]  # it holds the machine code
    return call
