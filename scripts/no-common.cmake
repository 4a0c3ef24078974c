# llama.cpp's `common` library is half of the build and nothing here links to it, but llama-cpp-python's CMakeLists.txt forces
# LLAMA_BUILD_COMMON on in the cache. A normal variable of the same name wins over a cached one (CMake policy CMP0126), and
# CMAKE_PROJECT_llama_cpp_INCLUDE has this file read early enough to set it.
set(LLAMA_BUILD_COMMON OFF)
