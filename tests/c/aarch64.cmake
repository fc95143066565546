# Toolchain file: the core and its C tests for AArch64, the tests run by QEMU's user mode.
# Debian: gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, qemu-user-static.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64-static -L /usr/aarch64-linux-gnu)
