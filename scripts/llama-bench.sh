# Sourced by what compares harness with llama.cpp's own programs, behind setup.sh: builds llama-bench, or the program that is named,
# from the source distribution of the installed llama-cpp-python, once (about 6 CPU-minutes), and names it in LLAMA_BENCH.

ensure_llama_bench() {
    local version source_dir build_dir program="${1:-llama-bench}"
    local -x PATH="$VENV/bin:$PATH" # CMake and Ninja come from the lock where the machine has none
    version=$("$VENV/bin/python" -c 'from importlib.metadata import version; print(version("llama-cpp-python"))')
    source_dir="$CACHE/llama_cpp_python-$version"
    build_dir="$CACHE/llama-bench-$version"
    if [ ! -x "$build_dir/bin/$program" ]; then
        : >"$LOG"
        printf 'harness: building %s %s, once; about 4 minutes on 2 cores, log in %s\n' "$program" "$version" "$LOG" >&2
        require_compiler
        if [ ! -d "$source_dir" ]; then
            [ -f "$CACHE/sdist/llama_cpp_python-$version.tar.gz" ] ||
                step "$VENV/bin/python" -m pip download --no-cache-dir --no-deps --no-build-isolation --no-binary :all: "llama-cpp-python==$version" -d "$CACHE/sdist"
            step tar -xzf "$CACHE/sdist/llama_cpp_python-$version.tar.gz" -C "$CACHE"
        fi
        # The engine's own flags decide its speed: they are left at llama.cpp's defaults here as in scripts/setup.sh, user's flags added.
        step cmake -S "$source_dir/vendor/llama.cpp" -B "$build_dir" -G Ninja -DCMAKE_BUILD_TYPE=Release -DLLAMA_BUILD_TOOLS=ON \
            -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF \
            -DGGML_RPC=ON $(cat "$VENV/.engine-flags")
        step cmake --build "$build_dir" --target "$program" --parallel "${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}"
    fi
    LLAMA_BENCH="$build_dir/bin/$program"
}
