# Sourced by scripts/harness and scripts/test: makes .venv from the lock, once. Everything that takes long says so first.
#
#   PYTHON      the interpreter to use, if not the first of python3.13 … python3.10, python3
#   CMAKE_ARGS  added to llama.cpp's build, e.g. -DGGML_CUDA=ON; a change rebuilds, leaving it out keeps what there is

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV="$ROOT/.venv"
CACHE="$ROOT/.cache"
LOG="$CACHE/setup.log"

fail() {
    printf 'harness: %s\n' "$*" >&2
    exit 1
}

checksum() { cksum | cut -d' ' -f1; }

# What the environment was made from: the locks given as arguments, and this project's own metadata.
fingerprint() { (cd "$ROOT" && cat pyproject.toml scripts/setup.sh scripts/no-common.cmake "$@") | checksum; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3.10 python3}; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "no Python >= 3.10 was found; install one, or name it: PYTHON=/path/to/python3 scripts/harness"
}

require_compiler() {
    local hint="sudo apt-get install build-essential cmake   (Fedora: sudo dnf install gcc-c++ cmake; Arch: sudo pacman -S base-devel cmake)"
    [ "$(uname -s)" = Darwin ] && hint="xcode-select --install && brew install cmake"
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null ||
        fail "no C++ compiler was found, and llama.cpp is compiled here; install one: $hint"
    command -v cmake >/dev/null || fail "CMake was not found, and llama.cpp is compiled here; install it: $hint"
}

# Runs a step with its output in the log; a failure names the log and the likely cause.
step() {
    printf '\n== %s\n' "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 && return
    local cause="its last lines are: $(tail -n 3 "$LOG" | tr '\n' ' ')"
    case $(tail -n 200 "$LOG") in
    *"No space left on device"*) cause="the disk is full" ;;
    *"CUDA Toolkit not found"* | *"Failed to find nvcc"* | *CMAKE_CUDA_COMPILER*) cause="the CUDA toolkit (nvcc) was not found; install it or leave out -DGGML_CUDA=ON" ;;
    *"Could NOT find Vulkan"*) cause="the Vulkan SDK was not found: sudo apt-get install libvulkan-dev glslc" ;;
    *"No CMAKE_CXX_COMPILER"* | *"CMAKE_CXX_COMPILER not set"*) cause="no C++ compiler was found: sudo apt-get install build-essential" ;;
    *"ensurepip is not"*) cause="Python's venv module is missing: sudo apt-get install python3-venv" ;;
    *"Could not fetch"* | *"name resolution"* | *NewConnectionError* | *"Failed to fetch"*) cause="the package index cannot be reached" ;;
    *"DO NOT MATCH THE HASHES"*) cause="a download does not have the hash of the lock" ;;
    *"Killed"* | *"cc1plus: out of memory"*) cause="memory ran out; try again with CMAKE_BUILD_PARALLEL_LEVEL=1" ;;
    esac
    fail "set-up failed: $cause. The whole log: $LOG"
}

# Installs what a lock names, except llama-cpp-python, which is compiled on its own.
install_lock() {
    local wheels="$CACHE/$(basename "$1").wheels"
    awk '/^llama-cpp-python==/ { skip = 1 } /^[^ #]/ && !/^llama-cpp-python==/ { skip = 0 } !skip' "$1" >"$wheels"
    if command -v uv >/dev/null; then
        step uv pip install --python "$VENV/bin/python" --require-hashes --no-deps -r "$wheels"
    else
        step "$VENV/bin/python" -m pip install --disable-pip-version-check --require-hashes --no-deps -r "$wheels"
    fi
}

# What -march=native sees: a wheel built for another CPU must not be reused.
cpu_identity() { { grep -m1 -E '^(flags|Features)' /proc/cpuinfo || sysctl -n machdep.cpu.brand_string; uname -sm; } 2>/dev/null; }

# Compiles llama-cpp-python, or takes the wheel that the same lock, flags and CPU gave before. pip's own cache of built wheels knows
# nothing of CMAKE_ARGS, so it is never asked.
install_engine() {
    local flags=$1 block="$CACHE/engine.lock" wheels pip=("$VENV/bin/python" -m pip)
    awk '/^llama-cpp-python==/ { take = 1; print; next } /^[^ #]/ { take = 0 } take' "$ROOT/requirements.lock" >"$block"
    wheels="$CACHE/wheels/$({ cat "$block" "$ROOT/scripts/no-common.cmake"; printf '%s' "$flags"; cpu_identity; } | checksum)"
    if ! ls "$wheels"/*.whl >/dev/null 2>&1; then
        require_compiler
        step "${pip[@]}" download --no-cache-dir --no-deps --no-build-isolation --no-binary :all: --require-hashes -r "$block" -d "$CACHE/sdist"
        export CMAKE_ARGS="-DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_OPENSSL=OFF -DGGML_RPC=ON '-DCMAKE_PROJECT_llama_cpp_INCLUDE=$ROOT/scripts/no-common.cmake' $flags"
        step "${pip[@]}" wheel --no-cache-dir --no-deps --no-build-isolation --verbose -w "$wheels" "$CACHE"/sdist/llama_cpp_python-*.tar.gz
    fi
    step "${pip[@]}" install --disable-pip-version-check --no-deps --force-reinstall "$wheels"/llama_cpp_python-*.whl
}

# Brings .venv up to the lock; quick when its stamp agrees.
ensure_harness() {
    local now built_flags flags
    now=$(fingerprint requirements.lock)
    built_flags=$(cat "$VENV/.engine-flags" 2>/dev/null || true)
    flags=${CMAKE_ARGS-$built_flags}
    [ "$(cat "$VENV/.stamp" 2>/dev/null)" = "$now" ] && [ "$flags" = "$built_flags" ] && return
    mkdir -p "$CACHE"
    : >"$LOG"
    printf 'harness: setting up .venv and compiling llama.cpp, once; takes 2 to 10 minutes, log in %s\n' "$LOG" >&2
    rm -f "$VENV/.stamp"
    if [ ! -x "$VENV/bin/python" ]; then
        local python
        python=$(find_python) || exit 1
        rm -rf "$VENV"
        if command -v uv >/dev/null; then step uv venv --seed --python "$python" "$VENV"; else step "$python" -m venv "$VENV"; fi
    fi
    install_lock "$ROOT/requirements.lock"
    install_engine "$flags"
    step "$VENV/bin/python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e "$ROOT"
    printf '%s' "$flags" >"$VENV/.engine-flags"
    printf '%s' "$now" >"$VENV/.stamp"
}

# Adds what the tests need.
ensure_test_tools() {
    local now
    now=$(fingerprint requirements-test.lock)
    [ "$(cat "$VENV/.stamp-test" 2>/dev/null)" = "$now" ] && return
    printf 'harness: installing the test tools\n' >&2
    install_lock "$ROOT/requirements-test.lock"
    printf '%s' "$now" >"$VENV/.stamp-test"
}
