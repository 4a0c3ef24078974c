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
    fail "no Python >= 3.10 was found; install one: $(install_command) — or name it: PYTHON=/path/to/python3 scripts/harness"
}

# The one command that installs all that a user needs and may lack: a C++ compiler, and Python with its venv.
install_command() {
    local system=other sudo=sudo
    [ "$(id -u 2>/dev/null)" = 0 ] && sudo=
    if [ "$(uname -s)" = Darwin ]; then
        system=darwin
    elif [ -r "${OS_RELEASE:=/etc/os-release}" ]; then
        system=" $(sed -n 's/^ID=//p; s/^ID_LIKE=//p' "$OS_RELEASE" | tr -d '"' | tr '\n' ' ')"
    fi
    case $system in
    darwin) printf 'xcode-select --install' ;;
    *" debian "* | *" ubuntu "*) printf '%s' "${sudo:+$sudo }apt-get install g++ python3-venv" ;;
    *" fedora "* | *" rhel "* | *" centos "*) printf '%s' "${sudo:+$sudo }dnf install gcc-c++ python3" ;;
    *" arch "*) printf '%s' "${sudo:+$sudo }pacman -S --needed gcc python" ;;
    *" alpine "*) printf '%s' "${sudo:+$sudo }apk add build-base python3" ;;
    *" suse "* | *" opensuse "*) printf '%s' "${sudo:+$sudo }zypper install gcc-c++ python3" ;;
    *) printf 'apt-get install g++ python3-venv (Debian, Ubuntu), dnf install gcc-c++ python3 (Fedora), pacman -S gcc python (Arch), apk add build-base python3 (Alpine)' ;;
    esac
}

require_compiler() {
    command -v "${CXX:-c++}" >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null ||
        fail "no C++ compiler was found, and llama.cpp is compiled here; install one: $(install_command)"
}

# Whether the machine has a CMake that llama.cpp takes (3.21) and a Ninja; what it lacks comes from the lock.
has_cmake() {
    command -v cmake >/dev/null &&
        cmake --version | awk 'NR == 1 { split($3, v, "."); exit !(v[1] > 3 || (v[1] == 3 && v[2] >= 21)) }'
}
has_ninja() { command -v ninja >/dev/null; }

# Runs a step with its output in the log; a failure names the log and the likely cause.
step() {
    printf '\n== %s\n' "$*" >>"$LOG"
    "$@" >>"$LOG" 2>&1 && return
    local cause="its last lines are: $(tail -n 3 "$LOG" | tr '\n' ' ')"
    case $(tail -n 200 "$LOG") in
    *"No space left on device"*) cause="the disk is full" ;;
    *"CUDA Toolkit not found"* | *"Failed to find nvcc"* | *CMAKE_CUDA_COMPILER*) cause="the CUDA toolkit (nvcc) was not found; install it or leave out -DGGML_CUDA=ON" ;;
    *"Could NOT find Vulkan"*) cause="the Vulkan SDK was not found: sudo apt-get install libvulkan-dev glslc" ;;
    *"No CMAKE_CXX_COMPILER"* | *"CMAKE_CXX_COMPILER not set"*) cause="no C++ compiler was found: $(install_command)" ;;
    *"ensurepip is not"*) cause="Python's venv module is missing: $(install_command)" ;;
    *"Could not fetch"* | *"name resolution"* | *NewConnectionError* | *"Failed to fetch"*) cause="the package index cannot be reached" ;;
    *"DO NOT MATCH THE HASHES"*) cause="a download does not have the hash of the lock" ;;
    *"Killed"* | *"cc1plus: out of memory"*) cause="memory ran out; try again with CMAKE_BUILD_PARALLEL_LEVEL=1" ;;
    esac
    fail "set-up failed: $cause. The whole log: $LOG"
}

# Installs what a lock names, except llama-cpp-python, which is compiled on its own, and the tools for that which are there.
install_lock() {
    local wheels="$CACHE/$(basename "$1").wheels" left_out=llama-cpp-python
    has_cmake && left_out="$left_out|cmake"
    has_ninja && left_out="$left_out|ninja"
    awk -v left_out="^($left_out)==" '/^[^ #]/ { skip = $0 ~ left_out } !skip' "$1" >"$wheels"
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
