"""Machine code made with numba: compiled once on a machine, kept on its disk, and loaded without numba afterwards.

`function = load("fp32", make, count)`. Numba's own cache is tied to a file's path and time, and starting numba takes
half a second. Here machine code is kept under a hash of this folder's source, the versions of the compiler and the
processor, in the user's cache: temporary copies, queued runs and fresh clones share it.
"""

import contextlib
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

NAME = "entry"  # of the function, in its machine code
LOCK = threading.Lock()  # one thread compiles, the others wait


def processor() -> tuple[str, str]:
    """The processor's name and its features, as LLVM names them."""
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def cache_file(kind: str) -> Path:
    """Where the machine code of this kind is kept: in the user's cache, since nobody else's code may be run."""
    versions = [f"{name} {metadata.version(name)}" for name in ("numba", "llvmlite")]
    key = hashlib.sha256(repr([kind, *versions, llvm.get_process_triple(), *processor()]).encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        key.update(source.read_bytes())
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return user / "tinygpt" / f"loops-{key.hexdigest()[:24]}.o"


def read(kind: str) -> bytes | None:
    """The machine code of this kind, if it is kept and undamaged: LLVM aborts on a corrupt file."""
    try:
        content = cache_file(kind).read_bytes()
    except OSError:
        return None
    digest, code = content[:32], content[32:]
    return code if hashlib.sha256(code).digest() == digest else None


def keep(kind: str, code: bytes) -> None:
    """Keep machine code; where nothing can be written, the next process compiles it again."""
    with contextlib.suppress(OSError), writing(cache_file(kind)) as partial:
        partial.write_bytes(hashlib.sha256(code).digest() + code)


@cache
def load(kind: str, make: Callable[[str], Any], count: int) -> Callable[..., None]:
    """A compiled function of `count` whole numbers, some of them addresses. It returns nothing, and frees the GIL.

    make: kind → the function, of numba's; called where no machine code of this kind is kept.
    """
    with LOCK:
        code = read(kind)
        if code is None:
            code = compile_object(make(kind), count)
            keep(kind, code)
        return link(code, count)


def compile_object(function: Any, count: int) -> bytes:
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
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=name, features=features, opt=3, reloc="default", codemodel="jitdefault", jit=True
    )


def link(code: bytes, count: int) -> Callable[..., None]:
    """The function in the machine code that `compile_object` made."""
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    # Before the arguments, numba's calling convention has addresses for a result and for an error
    kinds = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * count]
    function = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(engine.get_function_address(NAME))
    nothing = ctypes.byref(ctypes.c_void_p())

    def call(*numbers: int) -> None:
        if function(nothing, nothing, *numbers):
            raise RuntimeError("The compiled loops failed.")

    call.engine = engine  # type: ignore[attr-defined]  # it holds the machine code
    return call
